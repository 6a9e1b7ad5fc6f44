"""One run in the formats of the kernel's files."""

import gzip
import json

import polars as pl
import pytest

import make_results
from kmbench.analysis import show
from kmbench.analysis.perfetto import trace_events, write_perfetto
from kmbench.errors import UsageProblem
from kmbench.store.dataset import open_results, write_run
from kmbench.trace.importers.snapshots import kernel_bytes, read_memory_stat, read_slabinfo


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


def test_memcg_files_of_cgroup_v2(run):
    groups = show.groups_at(run, 1).with_columns(
        memory_limit=show.pl.when(show.pl.col("memcg") == 4).then(8192).otherwise(-1)
    )
    lines = show.memcg_text(groups, 2).splitlines()
    usage = dict(groups.select(pl.col("group").cast(pl.String), "memory_usage").iter_rows())
    assert f"web/memory.current:{usage['/web']}" in lines
    assert "web/memory.max:max" in lines and "db/memory.max:8192" in lines
    assert any(line.startswith("web/php/memory.events:max ") for line in lines)


def test_memory_stat_is_read_back_by_the_importer(run, tmp_path):
    groups, caches = show.groups_at(run, 1), show.caches_at(run, 1)
    path = tmp_path / "stat"
    path.write_text(show.stat_text(groups, caches, 2) + "\n")
    read = {reading.group: reading for reading in read_memory_stat(path)}
    billed = dict(groups.select(pl.col("group").cast(pl.String), "billed_slab").iter_rows())
    assert read["/web"].rows["slab"] == billed["/web"] + billed["/web/php"]
    assert read["/"].rows["slab"] == sum(billed.values())
    for row in groups.iter_rows(named=True):
        assert kernel_bytes(read[row["group"]].rows) == row["kmem_usage"]
        assert read[row["group"]].t == row["t"]
    limited = groups.with_columns(memory_limit=pl.when(memcg=2).then(8192).otherwise(-1))
    path.write_text(show.stat_text(limited, caches, 1))
    limits = {r.group: r.rows["hierarchical_memory_limit"] for r in read_memory_stat(path)}
    assert limits["/web"] == limits["/web/php"] == 8192 and limits["/db"] == show.UNLIMITED


def test_slabs_of_copies_are_their_groups(run, tmp_path):
    groups = show.groups_at(run, 1)
    caches = show.caches_at(run, 1).with_columns(
        root=pl.Series([0, 1]), memcg=pl.Series([0, 3]), name=pl.Series(["dentry", "dentry(php)"])
    )
    path = tmp_path / "slabinfo"
    path.write_text(show.slabinfo_text(show.copies_of(caches, groups, "/web/php")))
    (snapshot,) = read_slabinfo(path)
    assert {name: row.total for name, row in snapshot.rows.items()} == {"dentry": 64}
    assert show.slabinfo_text(show.copies_of(caches, groups, "/db")) == show.SLABINFO_HEADER
    path.write_text(show.stat_text(groups, caches, 2))
    slabs = {reading.group: reading.rows["slab"] for reading in read_memory_stat(path)}
    assert slabs == {"/": 4096, "/web": 4096, "/web/php": 4096, "/db": 0}
    with pytest.raises(UsageProblem, match="unknown group '/wen'"):
        show.copies_of(caches, groups, "/wen")


# --- perfetto ---


def test_counters_of_a_trace(run):
    events = list(trace_events(run))
    assert {event["ph"] for event in events} == {"M", "C"}
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    web = next(pid for pid, name in names.items() if name == "memcg /web")
    charged = [e for e in events if e["name"] == "kmem charged (B)" and e["pid"] == web]
    rows = run.timeline.filter(pl.col("memcg") == web).sort("t").collect()
    assert [e["args"]["v"] for e in charged] == rows["kmem_usage"].to_list()
    assert [e["ts"] for e in charged] == [t / 1000 for t in rows["t"]]
    dentry = [e["args"]["v"] for e in events if e["name"] == "dentry live objects"]
    assert dentry == [100]  # it does not change: one event


def test_what_is_gone_ends_at_zero_and_failures_are_moments(run, tmp_path):
    lines = make_results.timeline(1.0)
    keep = ~((lines["sample"] == 1) & (lines["memcg"] == 4))
    lines = {
        name: (value[0][keep], value[1]) if isinstance(value, tuple) else value[keep]
        for name, value in lines.items()
    }
    row = {name: value for name, value in run.row.items() if value is not None}
    failures = {
        "t": [5000], "op": ["alloc"], "memcg": [2], "cache": [1], "gfp": [0], "arg": [0],
        "cause": ["limit"],
    }  # fmt: skip
    write_run(tmp_path / "gone", row, {"timeline": lines, "failures": failures})
    events = list(trace_events(open_results(tmp_path / "gone").run("linux")))
    db = [e for e in events if e["name"] == "kmem charged (B)" and e["pid"] == 4]
    assert [(e["ts"], e["args"]["v"]) for e in db] == [(0, 20_000), (1000, 0)]
    assert [e for e in events if e["ph"] == "i"] == [
        {"ph": "i", "name": "alloc failed: limit", "pid": 2, "tid": 2, "ts": 5.0, "s": "p"}
    ]


def test_files_of_traces(run, tmp_path):
    plain, packed = tmp_path / "t.json", tmp_path / "t.json.gz"
    count = write_perfetto(run, plain)
    assert count == write_perfetto(run, packed)
    document = json.loads(plain.read_bytes())
    assert len(document["traceEvents"]) == count
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    first = packed.read_bytes()
    write_perfetto(run, packed)
    assert packed.read_bytes() == first
    with pytest.raises(UsageProblem, match="cannot write"):
        write_perfetto(run, tmp_path / "nowhere" / "t.json")
