"""Trace text of ftrace, trace-cmd and perf becomes a trace file that replays."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kmbench
from kmbench.cli.trace_import import command
from kmbench.core import events as ev
from kmbench.errors import UsageProblem
from kmbench.trace.format import open_trace
from kmbench.trace.importers import import_trace, lines
from kmbench.trace.importers import objects as ob
from kmbench.trace.importers.gfp import gfp_bits, layout_of_value
from kmbench.trace.importers.names import Names
from kmbench.trace.importers.snapshots import kernel_bytes, read_memory_stat, read_slabinfo
from kmbench.trace.truth import read_truth

DATA = Path(__file__).parent / "data" / "import"
SLABINFO, MEMORY_STAT = DATA / "slabinfo.txt", DATA / "memory.stat.txt"
TRACES = sorted(DATA.glob("*-[0-9]*.txt"))
HEAD = "            bash-{pid:<7} [{cpu:03}] {flags} {t:.6f}: "


def line(body, t=1.0, pid=100, cpu=0, flags="....."):
    return HEAD.format(pid=pid, cpu=cpu, flags=flags, t=t) + body + "\n"


def kmalloc(ptr, t=1.0, size=64, gfp="GFP_KERNEL", **where):
    body = f"kmalloc: call_site=f+0x1/0x2 ptr={ptr:016x} bytes_req={size - 1} bytes_alloc={size} "
    return line(body + f"gfp_flags={gfp} node=-1 accounted=false", t, **where)


def cache_alloc(ptr, t=1.0, size=192, site="g+0x1/0x2", more="accounted=false", **where):
    body = f"kmem_cache_alloc: call_site={site} ptr={ptr:016x} bytes_req={size} bytes_alloc={size}"
    return line(f"{body} gfp_flags=GFP_KERNEL node=-1 {more}", t, **where)


def kfree(ptr, t=1.0, **where):
    return line(f"kfree: call_site=h+0x1/0x2 ptr={ptr:016x}", t, **where)


def cache_free(ptr, name, t=1.0, **where):
    return line(f"kmem_cache_free: call_site=h+0x1/0x2 ptr={ptr:016x} name={name}", t, **where)


@pytest.fixture
def load(tmp_path):
    """Import a file or text; returns what was found, the setup and the events."""

    def run(source, **options):
        path = source
        if not isinstance(source, Path):
            path = tmp_path / "trace.txt"
            path.write_bytes(source if isinstance(source, bytes) else source.encode())
        out = tmp_path / "x.kmtrace.parquet"
        done = import_trace([str(path)], out, **options)
        with open_trace(out) as trace:
            return done, trace.setup, trace.read()

    return run


def problem(call, *args, **options):
    with pytest.raises(UsageProblem) as info:
        call(*args, **options)
    text = str(info.value)
    assert "\n" not in text
    return text


def cache_names(setup, events):
    return [setup.caches[row - 1].name for row in events["cache"][events["op"] == ev.ALLOC]]


def test_old_kernel(load):
    done, setup, events = load(DATA / "ftrace-3.13.txt")
    assert (done.form, done.era, done.cpus, done.events) == ("ftrace", "3.13", 2, 11)
    counts = done.counts
    assert counts["lost_events"] == 12
    assert counts["freed_untraced"] == counts["freed_twice"] == counts["never_allocated"] == 1
    assert counts["without_object"] == 1  # kfree(NULL)
    assert cache_names(setup, events) == [
        "kmalloc-2k", "kmalloc-512", "size-192-unknown", "size-256-unknown",
    ]  # fmt: skip
    assert events["t"][:3].tolist() == [0, 887_000, 897_000]
    # GFP_ATOMIC|GFP_NOWARN in a softirq of the idle task
    assert events["gfp"][1] == ev.GFP_ATOMIC | 0x2000 | ev.CTX_SOFTIRQ | ev.CTX_KTHREAD
    assert events["gfp"][3] == ev.GFP_NOWAIT | ev.CTX_HARDIRQ | ev.CTX_IRQ_OFF
    # alloc of a live address: freed right before, same handle
    assert events["op"][5:7].tolist() == [ev.FREE, ev.PAGE_ALLOC]
    assert events["obj"][5] == events["obj"][6] == 2
    assert (events["arg"][6], events["cache"][6]) == (3, ev.PAGES_KMALLOC)
    stack = events[events["cache"] == ev.PAGES_STACK]
    assert stack["arg"][stack["op"] == ev.PAGE_ALLOC].tolist() == [1]  # 8 KiB then


def test_cgroup_events(load):
    done, setup, events = load(DATA / "ftrace-5.9.txt")
    assert [(group.name, group.parent, group.online) for group in setup.groups] == [
        ("/", 0, True), ("/system.slice", 1, True), ("/system.slice/web", 2, False),
    ]  # fmt: skip
    assert done.counts["other_hierarchy"] == 1
    of = {op: events[events["op"] == op] for op in range(ev.NR_OPS)}
    assert (of[ev.CG_CREATE]["memcg"], of[ev.CG_CREATE]["arg"]) == (3, 2)
    assert (of[ev.ATTACH]["task"], of[ev.ATTACH]["arg"], of[ev.ATTACH]["memcg"]) == (900, 1, 3)
    assert len(of[ev.CG_OFFLINE]) == len(of[ev.CG_RELEASE]) == 1
    # the child of a fork is in its parent's group
    assert set(events["memcg"][events["task"] == 901]) == {3}
    assert done.era == "5.9"
    # accounted pages; pfn in decimal
    assert ev.PAGES_OTHER in of[ev.PAGE_ALLOC]["cache"]


def test_new_kernel_learns_names_from_frees(load):
    done, setup, events = load(DATA / "ftrace-6.12.txt")
    assert cache_names(setup, events) == [
        "filp", "lsm file cache", "kmalloc-cg-4k", "kmalloc-rcl-64",
    ]  # fmt: skip
    flags = {cache.name: cache.flags for cache in setup.caches}
    assert flags["filp"] & ev.SLAB_ACCOUNT and not flags["lsm file cache"] & ev.SLAB_ACCOUNT
    assert flags["kmalloc-cg-4k"] == ev.SLAB_KMALLOC | ev.SLAB_ACCOUNT
    context = events["gfp"] >> 24 << 24
    assert context.tolist()[1:4] == [
        ev.CTX_BH_OFF, ev.CTX_HARDIRQ | ev.CTX_IRQ_OFF,
        ev.CTX_NMI | ev.CTX_HARDIRQ | ev.CTX_IRQ_OFF | ev.CTX_BH_OFF,
    ]  # fmt: skip
    assert done.counts["unknown_lines"] == done.counts["damaged_events"] == 1
    assert done.counts["other_events"] == 1


def test_name_in_the_allocation(load):
    done, setup, events = load(DATA / "ftrace-6.19.txt")
    assert done.era == "6.18"
    assert cache_names(setup, events) == ["radix_tree_node"]


def test_trace_cmd_prints_hex(load):
    done, setup, events = load(DATA / "trace-cmd-6.12.txt")
    assert (done.form, done.cpus, done.counts["lost_events"]) == ("trace-cmd", 8, 204)
    assert events["gfp"][0] == ev.GFP_ACCOUNT | 0x2000 | ev.GFP_NOWAIT | ev.CTX_IRQ_OFF
    assert cache_names(setup, events) == ["size-584-unknown", "kmalloc-96"]
    assert done.counts["pages_left_out"] == 1


def test_perf_with_call_chains(load):
    done, setup, events = load(DATA / "perf-5.15.txt", group_by="comm")
    assert (done.form, done.era, done.counts["unknown_lines"]) == ("perf", "5.16", 2)
    assert events["t"].tolist() == [0, 79_123, 179_123, 279_000]  # 9 digits are ns
    assert events["task"].tolist() == [7666, 1234, 1234, 7666]
    assert [group.name for group in setup.groups] == ["/", "/Web Content"]  # jbd2 is the kernel's
    assert events["memcg"].tolist() == [1, 2, 2, 1]
    assert cache_names(setup, events) == ["kmalloc-96", "vm_area_struct"]


def test_slabinfo_names_the_only_cache_of_a_size(load):
    text = cache_alloc(0x1000, size=256) + cache_alloc(0x2000, size=192)
    _, setup, events = load(text, slabinfo=read_slabinfo(SLABINFO))
    # dentry and cred_jar both have 192 bytes
    assert cache_names(setup, events) == ["filp", "size-192-unknown"]
    filp = next(cache for cache in setup.caches if cache.name == "filp")
    assert (filp.order, filp.objects) == (1, 32)
    _, setup, events = load(text)
    assert cache_names(setup, events) == ["size-256-unknown", "size-192-unknown"]


def test_one_cache_per_size_without_names(load):
    text = cache_alloc(0x1000, site="a+0x1/0x2") + cache_alloc(0x2000, site="b+0x1/0x2")
    _, setup, events = load(text)
    assert cache_names(setup, events) == ["size-192-unknown"] * 2
    _, setup, events = load(text + cache_free(0x1000, "dentry") + cache_free(0x2000, "cred_jar"))
    assert cache_names(setup, events) == ["dentry", "cred_jar"]
    _, setup, events = load(text + cache_free(0x1000, "dentry(12:/web)"))
    assert cache_names(setup, events) == ["dentry", "size-192-unknown"]


@pytest.mark.parametrize(
    ("era", "gfp", "name"),
    [
        ("6.12", "GFP_KERNEL_ACCOUNT", "kmalloc-cg-64"),
        ("6.12", "GFP_KERNEL_ACCOUNT|__GFP_RECLAIMABLE", "kmalloc-rcl-64"),
        ("6.12", "GFP_KERNEL|GFP_DMA", "dma-kmalloc-64"),
        ("5.9", "GFP_KERNEL_ACCOUNT", "kmalloc-64"),
        ("5.9", "GFP_KERNEL|__GFP_RECLAIMABLE", "kmalloc-rcl-64"),
        ("4.19", "GFP_KERNEL|__GFP_RECLAIMABLE", "kmalloc-64"),
    ],
)
def test_kinds_of_kmalloc(load, era, gfp, name):
    _, setup, events = load(kmalloc(0x1000, gfp=gfp), era=era)
    assert cache_names(setup, events) == [name]


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("GFP_KERNEL|__GFP_ZERO", ev.GFP_KERNEL | ev.GFP_ZERO),
        ("GFP_KERNEL|GFP_ZERO", ev.GFP_KERNEL | ev.GFP_ZERO),
        ("GFP_WAIT|GFP_IO", ev.GFP_NOFS & ~ev.GFP_FS),
        ("__GFP_DIRECT_RECLAIM|__GFP_NOFAIL", ev.GFP_DIRECT_RECLAIM | ev.GFP_NOFAIL),
        ("0xd0", ev.GFP_KERNEL), ("0x24000c0", ev.GFP_KERNEL), ("0x14000c0", ev.GFP_KERNEL),
        ("0x6000c0", ev.GFP_KERNEL), ("0xcc0", ev.GFP_KERNEL),
        ("0x1480c0|0x2400000", ev.GFP_KERNEL | ev.GFP_ZERO | ev.GFP_ACCOUNT | 0x200000),
    ],
)  # fmt: skip
def test_flags(text, bits):
    first = text.partition("|")[0]
    layout = layout_of_value(int(first, 16)) if first[0].isdigit() else None
    found, known = gfp_bits(text, layout or "4.4")
    if text.startswith("0x14"):
        bits &= ~0x200000
        found &= ~0x200000
    assert (hex(found), known) == (hex(bits), True)


def test_unknown_flags_are_counted(load):
    done, _, events = load(kmalloc(0x1000, gfp="GFP_KERNEL|__GFP_NEW"))
    assert done.counts["unknown_flags"] == 1 and events["gfp"][0] == ev.GFP_KERNEL


def test_groups_by_pid_and_none(load):
    text = "".join(kmalloc(0x1000 * pid, pid=pid) for pid in (7, 9, 7, 2))
    _, setup, events = load(text, group_by="pid")
    assert [group.name for group in setup.groups] == ["/", "/7", "/9", "/2"]
    assert events["memcg"][events["op"] == ev.ALLOC].tolist() == [2, 3, 2, 4]
    _, setup, _ = load(text, group_by="none")
    assert len(setup.groups) == 1


def test_children_of_kthreadd_are_kernel_threads(load):
    fork = "sched_process_fork: comm=kthreadd pid=2 child_comm=kthreadd child_pid=50"
    _, _, events = load(line(fork, pid=2) + kmalloc(0x1000, pid=50), group_by="pid")
    assert events["memcg"][-1] == 1 and events["gfp"][-1] & ev.CTX_KTHREAD


def test_handles_are_reused_last_in_first_out(load):
    text = kmalloc(16) + kmalloc(32) + kfree(16) + kfree(32) + kmalloc(48) + kmalloc(64)
    done, _, events = load(text)
    assert events["obj"].tolist() == [1, 2, 1, 2, 2, 1] and done.handles == 3


def test_time_never_goes_back_and_starts_at_zero(load):
    done, _, events = load(kmalloc(16, 5.5) + kmalloc(32, 5.4) + kmalloc(48, 5.6))
    assert events["t"].tolist() == [0, 0, 100_000_000] and done.counts["time_backwards"] == 1


def test_files_follow_each_other(tmp_path):
    first, second, out = (tmp_path / name for name in ("a", "b", "x.kmtrace.parquet"))
    first.write_text(kmalloc(16, 1))
    second.write_text(kfree(16, 2))
    done = import_trace([str(first), str(second)], out)
    assert done.events == 2 and done.seconds == 1.0
    second.write_text("nothing\n")
    assert "b: line 1: no kmem event" in problem(import_trace, [str(first), str(second)], out)


def test_small_pieces_and_tables_change_nothing(load, monkeypatch):
    rng = np.random.default_rng(3)
    parts = []
    for at in range(4000):
        ptr, site = int(rng.integers(1, 500)) * 64, int(rng.integers(0, 3000))
        make = kmalloc if rng.random() < 0.5 else cache_alloc
        more = {"site": f"some_function_{site}+0x1/0x2"} if make is cache_alloc else {}
        parts.append(make(ptr, at / 1000, **more) if rng.random() < 0.6 else kfree(ptr, at / 1000))
    whole = load("".join(parts))
    monkeypatch.setattr(lines, "CHUNK", 700)
    monkeypatch.setattr(ob, "_FIRST_KEYS", 64)
    pieces = load("".join(parts))
    assert np.array_equal(whole[2], pieces[2]) and whole[1].caches == pieces[1].caches
    rare = ("never_allocated", "freed_twice")  # told apart while the table remembers
    left, right = (Counter(run[0].counts) for run in (whole, pieces))
    assert sum(left[name] for name in rare) == sum(right[name] for name in rare)
    assert {k: v for k, v in left.items() if k not in rare} == {
        k: v for k, v in right.items() if k not in rare
    }
    live = {}
    for event in whole[2]:
        if event["op"] == ev.ALLOC:
            assert live.setdefault(event["obj"], True)
        else:
            assert live.pop(event["obj"])


def test_names_grow():
    names = Names()
    numbers = [names.add(f"name {at}") for at in range(9000)]
    assert len(set(numbers)) == 9000
    assert [names.add(f"name {at}") for at in range(9000)] == numbers
    assert names.text(numbers[77]) == "name 77"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "line 1: the file is empty"),
        (b"hello\nworld\n", "line 2: no kmem event"),
        (kmalloc(16).encode()[:-30], "line 1: cut off"),
        (kmalloc(16).encode() * 3 + b"x", "line 4: cut off"),
        (kmalloc(16).encode() * 2 + b"a\0b\n", "line 3: binary data"),
        (b"\x17\x08\x44tracing6\0", "line 1: a trace.dat; expected the output of `trace-cmd"),
        (b"PERFILE2h\0", "line 1: a perf.data; expected the output of `perf script`"),
        (kmalloc(16).encode() + b"y" * (2 << 20) + b"\n", "line 2: longer than 1 MiB"),
    ],
)
def test_bad_input_is_told_in_one_line(load, tmp_path, data, expected):
    text = problem(load, data)
    assert f"trace.txt: {expected}" in text
    assert not list(tmp_path.glob("*.parquet"))


def test_missing_files_and_folders(tmp_path):
    out = tmp_path / "x.kmtrace.parquet"
    assert "no such file; expected text" in problem(import_trace, [str(tmp_path / "no")], out)
    assert "is a folder; expected text" in problem(import_trace, [str(tmp_path)], out)
    path = str(TRACES[0])
    assert "cannot be written" in problem(import_trace, [path], tmp_path / "no" / out.name)
    assert "expected NAME.kmtrace.parquet" in problem(import_trace, [path], tmp_path / "x")


def test_snapshots_become_readings(load, tmp_path):
    slabinfo, stats = read_slabinfo(SLABINFO), read_memory_stat(MEMORY_STAT)
    assert [kernel_bytes(shot.rows) for shot in stats] == [65536, 20480]
    _, _, events = load(DATA / "ftrace-6.12.txt", slabinfo=slabinfo, memory_stat=stats)
    assert events["t"][events["op"] == ev.SAMPLE].tolist() == [1000, 3000, 5000]
    readings = read_truth(tmp_path / "x.kmtrace.parquet").readings
    kmem = readings.filter(pl.col("kind") == "kmem")
    assert kmem["item"].to_list() == ["/web", "/db"] and kmem["t"].to_list() == [3000, 5000]
    assert "kmalloc-1k" in readings["item"].to_list()


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (read_slabinfo, "", "line 1: the file is empty"),
        (read_slabinfo, "dentry 1 2 3 4 5\n", "line 1: no 'slabinfo - version'"),
        (read_slabinfo, "slabinfo - version: 2.1\ndentry 1 2 192 42\n", "line 2: no row"),
        (read_slabinfo, "slabinfo - version: 2.1\nx 1 2 192 42 3 : tunables\n", "line 2: no row"),
        (read_slabinfo, "# nothing\n", "line 1: no 'slabinfo - version'"),
        (read_memory_stat, "slab 12\n", "line 1: slab 12; expected"),
        (read_memory_stat, "# 1.5 /a\nslab x\n", "line 2: slab x; expected"),
    ],
)
def test_bad_snapshots(tmp_path, read, text, expected):
    path = tmp_path / "snapshot"
    path.write_text(text)
    assert expected in problem(read, path)


@pytest.mark.parametrize("group_by", ["cgroup", "comm", "pid"])
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_replay(load, path, group_by):
    done, setup, events = load(path, group_by=group_by)
    simulation = kmbench.Simulation(setup, kmbench.load_plugins().strategy("none"))
    simulation.feed(events)
    kernel = simulation.S.k[0]
    assert (kernel["nr_events"], kernel["nr_skipped"], kernel["nr_failed"]) == (done.events, 0, 0)


def test_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(
        command, [str(DATA / "ftrace-6.12.txt"), "--slabinfo", str(SLABINFO), "--json"]
    )
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["events"] == 8 and found["counts"]["unknown_lines"] == 1
    assert Path(found["output"]) == Path("ftrace-6.12.kmtrace.parquet")
    text = CliRunner().invoke(command, ["-", "-o", "y.kmtrace.parquet"], input=kmalloc(16))
    assert "1 events" in text.stdout and Path("y.kmtrace.parquet").exists()
    assert isinstance(CliRunner().invoke(command, ["no"]).exception, UsageProblem)


_SOUP = st.lists(
    st.one_of(
        st.binary(max_size=60).map(lambda data: data.replace(b"\0", b" ")),
        st.sampled_from([row for path in TRACES for row in path.read_bytes().splitlines()]),
        st.sampled_from([b"\n", b" ptr=", b"bytes_alloc=4294967296 ", b" gfp_flags=", b" [000] "]),
    ),
    max_size=12,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_SOUP, st.sampled_from([b"\n", b" ", b""]), st.sampled_from(["cgroup", "comm", "pid"]))
def test_no_bytes_make_a_traceback(tmp_path, parts, glue, group_by):
    path, out = tmp_path / "soup", tmp_path / "soup.kmtrace.parquet"
    path.write_bytes(glue.join(parts) + b"\n")
    try:
        import_trace([str(path)], out, group_by=group_by)
    except UsageProblem as told:
        assert "\n" not in str(told) and "soup" in str(told)  # noqa: PT017 - both ends are fine
    else:
        with open_trace(out) as trace:
            trace.read()


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(TRACES), st.data())
def test_no_damage_makes_a_traceback(tmp_path, source, data):
    text = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(1, 255))
    path, out = tmp_path / "soup", tmp_path / "soup.kmtrace.parquet"
    path.write_bytes(bytes(text) + b"\n")
    try:
        import_trace([str(path)], out)
    except UsageProblem as told:
        assert "\n" not in str(told)  # noqa: PT017


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from([SLABINFO, MEMORY_STAT]), st.data())
def test_no_snapshot_makes_a_traceback(tmp_path, source, data):
    text = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(0, 20))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "soup"
    path.write_bytes(bytes(text))
    for read in (read_slabinfo, read_memory_stat):
        try:
            read(path)
        except UsageProblem as told:
            assert "\n" not in str(told)  # noqa: PT017
