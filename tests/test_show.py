"""One run in the formats of the kernel's files."""

import pytest

import make_results
from kmbench.analysis import show
from kmbench.errors import UsageProblem
from kmbench.store.dataset import open_results, write_run


@pytest.fixture
def run(tmp_path):
    run_id = make_results.write(tmp_path, "linux-6.18")
    return open_results(tmp_path).run(run_id)


@pytest.mark.parametrize(
    ("text", "ns"),
    [("0", 0), ("12", 12), ("7ns", 7), ("2us", 2000), ("1.5s", 1_500_000_000), (".5 ms", 500_000),
     ("2m", 120 * 10**9)],
)  # fmt: skip
def test_parse_time(text, ns):
    assert show.parse_time(text) == ns


@pytest.mark.parametrize("text", ["", "x", "-1", "1h", "1..2", "nan", "1e3"])
def test_bad_time(text):
    with pytest.raises(UsageProblem, match="time"):
        show.parse_time(text)


def test_sample_at_or_before(run):
    ms = make_results.MS
    assert show.sample_at(run) == (1, ms)
    assert show.sample_at(run, ms - 1) == (0, 0)
    assert show.sample_at(run, 10 * ms) == (1, ms)
    with pytest.raises(UsageProblem, match="no sample at -1 ns; the first is at 0 ns"):
        show.sample_at(run, -1)


def test_run_without_samples(tmp_path, run):
    row = {k: v for k, v in run.row.items() if v is not None}
    write_run(tmp_path / "empty", row, {})
    with pytest.raises(UsageProblem, match="no samples"):
        show.sample_at(open_results(tmp_path / "empty").run("linux"))


def test_slabinfo_is_what_the_kernel_prints(run):
    """The two lines as 6.18's cache_show would print these numbers."""
    text = show.slabinfo_text(show.caches_at(run, 1))
    assert text.splitlines() == [
        "slabinfo - version: 2.1",
        "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
        " : tunables <limit> <batchcount> <sharedfactor>"
        " : slabdata <active_slabs> <num_slabs> <sharedavail>",
        "dentry               210    210    192   21    1 : tunables    0    0    0"
        " : slabdata     10     10      0",
        "kmalloc-64            32     64     64   64    1 : tunables    0    0    0"
        " : slabdata      1      1      0",
    ]


def test_long_names_push_the_columns_as_in_the_kernel(run):
    caches = (
        show.caches_at(run, 1).head(1).with_columns(name=show.pl.lit("dentry(web)dead-and-gone"))
    )
    line = show.slabinfo_text(caches).splitlines()[-1]
    assert line.startswith("dentry(web)dead-and-gone    210 ")


def test_memcg_files(run):
    groups = show.groups_at(run, 1).with_columns(
        kmem_limit=show.pl.lit(-1), memory_limit=show.pl.lit(8192)
    )
    lines = show.memcg_text(groups).splitlines()
    assert "web/php/memory.kmem.usage_in_bytes:16000" in lines
    assert "web/memory.kmem.usage_in_bytes:24000" in lines
    assert "memory.kmem.usage_in_bytes:0" in lines  # the root
    assert "db/memory.kmem.limit_in_bytes:9223372036854771712" in lines
    assert "db/memory.limit_in_bytes:8192" in lines
    assert "limit" not in show.memcg_text(show.groups_at(run, 1))
