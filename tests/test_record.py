"""Recording: parsers, attribution and assembly from small canned inputs, and the real thing."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kmbench.cli.trace_record import command, read_commands
from kmbench.errors import UsageProblem
from kmbench.trace.record import bpf, cgroups, guard, session, snapshots, tasks
from kmbench.trace.record.btf import Types
from kmbench.trace.record.lifetimes import kmalloc_names, object_flags, track, vote_direct_map
from kmbench.trace.record.owners import attribute, groups_of
from kmbench.trace.record.ring import parse_pages
from kmbench.trace.record.stream import build_table
from kmbench.trace.record.tracefs import EVENTS, Format, losses
from kmbench.trace.record.uniform import from_totals, spread
from kmbench.trace.record.verdicts import judge_cache, truth

BASE = 0xFFFF_8880_0000_0000
HEAD = """name: {name}
ID: {number}
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""
# name, offset and size of the fields of the events used here, as Linux 6.18 has them
LAYOUT = {
    "kmalloc": (1, [("call_site", 8, 8), ("ptr", 16, 8), ("bytes_req", 24, 8),
                    ("bytes_alloc", 32, 8), ("gfp_flags", 40, 8)], 56),
    "kfree": (2, [("call_site", 8, 8), ("ptr", 16, 8)], 24),
    "kmem_cache_alloc": (3, [("call_site", 8, 8), ("ptr", 16, 8), ("name", 24, 4),
                             ("bytes_req", 32, 8), ("bytes_alloc", 40, 8), ("gfp_flags", 48, 8),
                             ("accounted", 60, 1)], 64),
    "kmem_cache_free": (4, [("call_site", 8, 8), ("ptr", 16, 8), ("name", 24, 4)], 32),
    "mm_page_alloc": (5, [("pfn", 8, 8), ("order", 16, 4), ("gfp_flags", 24, 8)], 40),
    "mm_page_free": (6, [("pfn", 8, 8), ("order", 16, 4)], 24),
    "sched_process_fork": (7, [("parent_comm", 8, 4), ("parent_pid", 12, 4), ("child_comm", 16, 4),
                               ("child_pid", 20, 4)], 24),
    "sched_process_exit": (8, [("pid", 24, 4), ("group_dead", 32, 1)], 36),
    "cgroup_mkdir": (9, [("root", 8, 4), ("level", 12, 4), ("id", 16, 8), ("path", 24, 4)], 28),
    "cgroup_attach_task": (10, [("dst_root", 8, 4), ("dst_id", 16, 8), ("pid", 24, 4),
                                ("dst_path", 28, 4)], 36),
    "print": (11, [("buf", 16, 0)], 16),
}  # fmt: skip
TEXT_FIELDS = {"name", "child_comm", "parent_comm", "path", "dst_path"}


def formats() -> dict[str, Format]:
    found = {}
    for name, (number, fields, _) in LAYOUT.items():
        text = HEAD.format(name=name, number=number)
        for field, at, size in fields:
            kind = "__data_loc char[]" if field in TEXT_FIELDS else "unsigned long"
            array = "[]" if field == "buf" else ""
            text += f"\tfield:{kind} {field}{array};\toffset:{at};\tsize:{size};\tsigned:0;\n"
        found[name] = Format(text)
    return found


def event(name: str, pid: int, flags: int = 0, /, **values) -> bytes:
    """Data of one event."""
    number, fields, size = LAYOUT[name]
    data = bytearray(size)
    struct.pack_into("<HBBi", data, 0, number, flags, 0, pid)
    for field, at, width in fields:
        value = values.get(field, 0)
        if field == "buf":
            data += value.encode() + b"\0"
        elif field in TEXT_FIELDS:
            text = (value or "x").encode() + b"\0"
            struct.pack_into("<HH", data, at, len(data), len(text))
            data += text
        else:
            data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(data) + bytes(-len(data) % 4)


def page(t: int, events: list[tuple[int, bytes]], *, size: int = 4096, missed: bool = False):
    """One ring-buffer page: `events` are (ns since the one before, data)."""
    body = b""
    for delta, data in events:
        if delta >> 27:
            body += struct.pack("<II", 30 | (delta & 0x7FFFFFF) << 5, delta >> 27)
            delta = 0
        if len(data) <= 112:
            body += struct.pack("<I", len(data) // 4 | delta << 5) + data
        else:
            body += struct.pack("<II", delta << 5, len(data) + 4) + data
    body_size = len(body) | (1 << 31 if missed else 0)
    return (struct.pack("<QQ", t, body_size) + body).ljust(size, b"\xa5")


def test_pages_give_times_offsets_and_losses():
    data = page(1000, [(5, b"a" * 8), (1 << 28, b"b" * 200), (7, b"c" * 4)])
    data += page(9_000_000_000, [(0, b"d" * 8)], missed=True)
    entries = parse_pages(np.frombuffer(data, np.uint8), 4096)
    assert entries.t.tolist() == [1005, 1005 + (1 << 28), 1012 + (1 << 28), 9_000_000_000]
    assert bytes(data[at] for at in entries.at) == b"abcd"
    assert entries.missed == 1


def test_padding_ends_a_page_and_discarded_events_are_skipped():
    discarded = struct.pack("<II", 29 | 3 << 5, 8) + b"zzzz"
    body = discarded + struct.pack("<I", 1 | 4 << 5) + b"good" + struct.pack("<I", 29) + b"junk"
    data = (struct.pack("<QQ", 100, len(body)) + body).ljust(4096, b"\0")
    entries = parse_pages(np.frombuffer(data, np.uint8), 4096)
    assert entries.t.tolist() == [107]
    assert data[entries.at[0] : entries.at[0] + 4] == b"good"


def test_an_absolute_stamp_sets_the_time():
    stamp = 123 << 27 | 45
    body = struct.pack("<II", 31 | 45 << 5, 123) + struct.pack("<I", 1 | 2 << 5) + b"good"
    data = (struct.pack("<QQ", 100, len(body)) + body).ljust(4096, b"\0")
    assert parse_pages(np.frombuffer(data, np.uint8), 4096).t.tolist() == [stamp + 2]


def alloc(pid: int, name: str, ptr: int, size: int, **values) -> bytes:
    values = {"call_site": 0x1010, "bytes_req": size, "bytes_alloc": size} | values
    return event("kmem_cache_alloc", pid, name=name, ptr=BASE + ptr, **values)


def canned_pages(root: int = 4) -> dict[int, bytes]:
    """Two CPUs: task 10 of the recorder makes a group, forks 11 into it, which allocates."""
    kernel, frame = 0xCC0 | 0x40_0000, 0x100
    first = [
        (0, event("print", 10, buf="before")),
        (10, event("cgroup_mkdir", 10, root=root, id=77, path="/kmb_a")),
        (10, event("cgroup_mkdir", 10, root=9, id=78, path="/other")),
        (10, event("print", 10, buf="START\n")),
        (10, event("sched_process_fork", 10, parent_pid=10, child_pid=11, child_comm="sh")),
        (1000, event("kfree", 0, 0x08, call_site=0x1010, ptr=BASE + 0x5000)),
        (10, event("kfree", 10, ptr=0)),
    ]
    second = [
        (100, event("cgroup_attach_task", 11, dst_root=root, dst_id=77, pid=11, dst_path="/kmb_a")),
        (10, event("mm_page_alloc", 11, pfn=frame, order=0, gfp_flags=0xCC0)),
        (10, alloc(11, "filp", frame << 12, 256, accounted=1)),
        (10, alloc(11, "filp", (frame << 12) + 512, 256, accounted=1)),
        (10, event("kmem_cache_free", 11, name="filp", ptr=BASE + (frame << 12))),
        (10, event("kmem_cache_free", 11, name="filp", ptr=BASE + 0x5000 + 256)),
        (10, alloc(11, "filp", (frame << 12) + 512, 256, accounted=1)),
        (10, event("mm_page_alloc", 11, pfn=0x200, order=1, gfp_flags=kernel)),
        (10, event("kmalloc", 11, 0x10, call_site=0x1010, ptr=BASE + 0x200000, bytes_req=20000,
                   bytes_alloc=32768, gfp_flags=kernel)),
        (10, event("mm_page_free", 11, pfn=0x200, order=1)),
        (10, event("sched_process_exit", 11, pid=11, group_dead=1)),
        (10, alloc(11, "filp", (frame << 12) + 768, 256, accounted=1, call_site=0x2004)),
        (10, event("mm_page_free", 0, pfn=frame, order=0)),
    ]  # fmt: skip
    return {0: page(1000, first), 1: page(1000, second)}


def canned_table():
    return build_table(canned_pages(), formats(), 4096)


TASKS = [tasks.Task(10, "/kmb_ctl", False), tasks.Task(1, "/init", False),
         tasks.Task(2, "/", True)]  # fmt: skip


def test_events_of_all_cpus_are_merged_by_time():
    table = canned_table()
    assert np.all(np.diff(table.t) >= 0)
    assert table.names == ["filp"]
    assert "START\n" in table.texts.values()
    assert table.ctx[table.pid == 0].tolist() == [0, 1]  # the last in a hardirq
    assert len(table.t) == 20


def test_tasks_are_followed_through_fork_attach_and_exit():
    table = canned_table()
    groups = groups_of(table, TASKS, {1: "/", 5: "/kmb_ctl"}, 4)
    assert groups.names == ["/", "/host0", "/kmb_ctl", "/kmb_a"]
    owner = attribute(table, TASKS, groups)
    of_child = owner.memcg[(table.pid == 11)]
    assert set(of_child.tolist()) == {3}
    assert set(owner.memcg[table.pid == 10].tolist()) == {2}
    assert set(owner.memcg[table.pid == 0].tolist()) == {0}
    assert np.all(owner.ctx[table.pid == 0] & 8)
    assert owner.exiting[(table.pid == 11)].tolist()[-1]
    assert owner.orphan_forks == 0 and np.all(owner.known)


def test_kmalloc_caches_follow_size_and_class():
    names = kmalloc_names(np.array([8, 96, 1024, 8192]), np.array([0xCC0, 0x40_0CC0, 0xCD0, 0xCC1]))
    assert names.tolist() == ["kmalloc-8", "kmalloc-cg-96", "kmalloc-rcl-1k", "dma-kmalloc-8k"]


def test_flags_tell_untraced_operations():
    obj = np.array([0, 0, 0, 1, 1, 0])
    free = np.array([True, False, False, False, True, True])
    assert object_flags(obj, free, 2).tolist() == [4, 0, 8, 0, 0, 0]
    assert object_flags(np.array([0, 0]), np.array([True, True]), 1).tolist() == [4, 16]


def columns(rows: list[tuple]) -> dict[str, np.ndarray]:
    """(kind, phys, cache, order) per event."""
    kind, phys, cache, order = (np.array(part) for part in zip(*rows, strict=True))
    count = len(rows)
    return {"t": np.arange(count, dtype=np.int64), "kind": kind.astype(np.uint8),
            "cpu": np.zeros(count, np.uint8), "memcg": np.full(count, 3, np.int32),
            "phys": phys.astype(np.int64), "order": order.astype(np.int64),
            "accounted": np.zeros(count, bool), "cache": cache.astype(np.int32)}  # fmt: skip


NOBODY = np.zeros(0, np.int64), np.zeros(0, np.int32)


def test_a_page_that_comes_back_is_another_slab():
    rows = [(4, 8, -1, 1), (0, 0x9100, 0, 0), (3, 0x9100, -1, 0), (5, 8, -1, 1),
            (4, 9, -1, 0), (2, 0x9000, 1, 0)]  # fmt: skip
    lives = track(columns(rows), np.array([256, 64]), np.array([1, 0]), NOBODY)
    assert lives.slabs.pfn.tolist() == [8, 9]
    assert lives.slabs.t_alloc.tolist() == [0, 4]
    assert lives.slabs.t_free.tolist() == [3, -1]
    assert lives.row.tolist() == [-1, 0, 0, -1, -1, 1]
    assert lives.slot.tolist()[1:3] == [17, 17]  # counted from the first page


def test_slabs_from_before_are_known_from_the_list_of_pages():
    census = np.array([8, 20]), np.array([0, -1], np.int32)
    rows = [(3, 0x9000, -1, 0), (3, 0x14000, -1, 0), (2, 0x8000, 1, 0)]
    lives = track(columns(rows), np.array([256, 256]), np.array([1, 0]), census)
    assert lives.row.tolist() == [0, -2, 0]  # the kmalloc is one of a cache of its own
    assert lives.slabs.t_alloc.tolist() == [-1]
    assert lives.counts["kfree_unresolved"] == 1


def test_two_caches_in_one_page_are_two_slabs():
    rows = [(0, 0x8000, 0, 0), (0, 0x8000, 1, 0)]
    lives = track(columns(rows), np.array([256, 64]), np.array([0, 0]), NOBODY)
    assert lives.row.tolist() == [0, 1]
    assert lives.counts["cache_conflicts_in_slab"] == 1


SYMBOLS = "0000000000001000 T alloc_empty_file\n0000000000002000 t __send_signal_locked\n"


def canned_recording():
    from kmbench.trace.record.assemble import Recording

    cache = {"id": 0, "name": "filp", "size": 256, "object_size": 232, "align": 64, "order": 0,
             "objs_per_slab": 16, "cpu_partial": 52, "min_partial": 5, "sheaf_capacity": 0,
             "reclaim_account": 0, "typesafe_rcu": 0, "hwcache_align": 1,
             "aliases": []}  # fmt: skip
    info = {"filp": (20, 32, 2)}
    dumps = [from_totals([cache], info, {"filp": 1}, t) for t in (1005, 9000, 9500)]

    def reading(t: int, text: str) -> snapshots.Reading:
        return snapshots.Reading(t, t + 10, text.encode())

    line = "filp 20 32 256 16 1 : tunables 0 0 0 : slabdata 2 2 0\n"
    groups = [("/kmb_a", reading(1500, "4096\n"), b"8192\n", b"0\n", b"")]
    shots = [snapshots.Snapshot(reading(t, line), None, groups, reading(t, "memory\t4\t7\t1\n"), 2)
             for t in (1400, 1600)]  # fmt: skip
    manifest = {"name": "canned", "nproc": 2, "memtotal_kb": 1 << 20, "t_final_shrink": 9100,
                "group_end_s": {"a": (1300, 0)}}  # fmt: skip
    return Recording(
        cgroups.Hierarchy(Path("/cg"), 1, 4), canned_pages(), 4096, formats(), TASKS,
        {1: "/", 5: "/kmb_ctl"}, shots, [cache], tuple(dumps),
        ((np.array([5]), np.array([0], np.int32)), NOBODY), BASE, SYMBOLS, manifest,
    )  # fmt: skip


def test_a_capture_is_assembled_and_can_be_read(tmp_path):
    from kmbench.trace.capture import read_capture
    from kmbench.trace.record.assemble import assemble, write_tables

    made = assemble(canned_recording())
    document = truth(made)
    write_tables(made, tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(made.manifest))
    (tmp_path / "truth.json").write_text(json.dumps(document))
    events = made.tables["events"].to_pydict()
    sites = made.manifest["sites"]
    assert [sites[site] for site in events["site"]].count("alloc_empty_file+0x10") == 5
    assert sites[events["site"][-2]] == "__send_signal_locked+0x4"
    # charged: in task context, not in the softirq, not what a task does after its exit
    assert [flags & 3 for flags in events["flags"] if flags & 1] == [3, 3, 3, 1, 1]
    assert 8 in [flags & 8 for flags in events["flags"]]
    assert events["cache"].count(1) == 1  # kmalloc-large
    assert made.manifest["dropped_null_ptr"] == 1
    slabs = made.tables["slabs"].to_pydict()
    assert sorted(slabs["pfn"]) == [5, 0x100]
    assert slabs["t_alloc"][slabs["pfn"].index(5)] == -1
    assert slabs["t_free"][slabs["pfn"].index(0x100)] > 0
    assert made.tables["pages"].column("op").to_pylist() == [0, 1]
    aux = made.tables["aux"].to_pydict()
    assert [text for name, text in zip(aux["ev"], aux["s"], strict=True) if name == "marker"] == [
        "START"
    ]
    assert aux["s"].count("/kmb_a") == 2 and "/other" not in aux["s"]
    capture = read_capture(tmp_path)
    assert [group.name for group in capture.setup.groups] == ["/", "/host0", "/kmb_ctl", "/kmb_a"]
    group = document["memcgs"]["/kmb_a"]  # of few objects, one was freed untraced
    assert (group["readings"], group["untraced_frees"], group["scoreable"]) == (2, 1, False)
    assert document["caches"]["filp"]["why_not"] == "fewer than 200 events"


def test_the_base_of_memory_is_found_from_the_events():
    assert vote_direct_map(canned_table()) == BASE


@pytest.mark.parametrize(
    ("events", "untraced", "live", "off", "why"),
    [(100, 0, 10, 0, "fewer than 200 events"), (1000, 6, 10, 0, "6 untraced operations"),
     (1000, 0, 100, 3, "live count from events is off by 3"), (1000, 5, 1000, 9, "")],
)  # fmt: skip
def test_caches_that_cannot_judge(events, untraced, live, off, why):
    assert judge_cache(events, untraced, live, off) == why


def test_free_objects_are_spread_over_partial_slabs():
    assert spread(5, 3, 16) == [15, 14, 14]
    assert spread(0, 0, 16) == []
    assert sum(spread(1000, 2, 16)) == 0


def test_memory_hierarchies_of_both_versions():
    one = "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n"
    two = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
    found = cgroups.parse_mounts(two + one, "4:memory:/a/b\n0::/c\n")
    assert found == (Path("/sys/fs/cgroup/memory"), 1, 4)
    assert cgroups.membership("4:memory:/a/b\n0::/c\n", found) == "/a/b"
    unified = cgroups.parse_mounts(two, "0::/c\n")
    assert unified == (Path("/sys/fs/cgroup"), 2, 0)
    assert cgroups.membership("0::/c\n", unified) == "/c"
    assert cgroups.parse_mounts("proc /proc proc rw 0 0\n", "") is None


def test_a_unified_hierarchy_is_found_filled_and_read(tmp_path, monkeypatch):
    """Version 2 from a tree of files: no kernel at hand mounts it with a memory controller."""
    root = tmp_path / "cgroup"
    (root / "kmb_a").mkdir(parents=True)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"cgroup2 {root} cgroup2 rw 0 0\n")
    monkeypatch.setattr(cgroups, "_MOUNTS", mounts)
    (root / "cgroup.controllers").write_text("cpu io\n")
    with pytest.raises(UsageProblem, match="has no memory controller"):
        cgroups.find_hierarchy()
    (root / "cgroup.controllers").write_text("cpu memory io\n")
    (root / "memory.stat").write_text("anon 4096\nkernel 8192\n")
    (root / "cgroup.subtree_control").touch()
    hierarchy = cgroups.find_hierarchy()
    assert hierarchy == (root, 2, 0)
    assert cgroups.make(hierarchy, "kmb_b").is_dir()
    assert (root / "cgroup.subtree_control").read_text() == "+memory"
    for name, text in (("memory.stat", "anon 4096\nfile 0\nkernel 28672\nfile_mapped 5\n"),
                       ("memory.current", "40960\n"),
                       ("memory.events", "low 0\nmax 2\n")):  # fmt: skip
        (root / "kmb_a" / name).write_text(text)
    sampler = snapshots.Sampler.__new__(snapshots.Sampler)
    sampler._hierarchy, sampler._flush, sampler._fds = hierarchy, False, []
    sampler._groups = {}
    assert sampler._find_groups() == 2  # kmb_b has no files, as a group that is just going
    texts = [os.pread(fd, 4096, 0) for fd in sampler._groups["/kmb_a"]]
    sampler.close()
    assert list(sampler._groups) == []

    # the same recording as that of version 1, but of hierarchy 0
    recording = canned_recording()
    reading = snapshots.Reading(1500, 1510, texts[0])
    shots = [shot._replace(groups=[("/kmb_a", reading, *texts[1:])])
             for shot in recording.snapshots]  # fmt: skip
    recording = recording._replace(hierarchy=hierarchy, snapshots=shots, pages=canned_pages(0))
    from kmbench.trace.record.assemble import assemble

    made = assemble(recording)
    assert made.manifest["memcgs"] == ["/", "/host0", "/kmb_ctl", "/kmb_a"]
    memcgs = made.tables["memcgs"].to_pylist()
    assert {(row["memcg"], row["kmem_usage"], row["mem_usage"], row["failcnt"], row["cache"])
            for row in memcgs} == {(3, 28672, 40960, 2, 0)}  # fmt: skip


def test_foreign_groups_are_never_touched(tmp_path):
    hierarchy = cgroups.Hierarchy(tmp_path, 1, 4)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "kmb_x").mkdir()
    with pytest.raises(UsageProblem, match="begins with kmb_"):
        cgroups.make(hierarchy, "web")
    assert not cgroups.remove(hierarchy, tmp_path / "web")
    assert not cgroups.remove(hierarchy, tmp_path / "web" / "kmb_x")
    assert (tmp_path / "web" / "kmb_x").is_dir()


def test_files_of_both_versions_are_read():
    stat = b"anon 4096\nfile 8192\nkernel 12288\nfile_mapped 1\n"
    assert snapshots.kmem_bytes(stat, 2) == 12288
    assert snapshots.kmem_bytes(b"4096\n", 1) == 4096
    assert snapshots.failures(b"low 0\nhigh 0\nmax 3\n", 2) == 3
    assert snapshots.failures(b"7\n", 1) == 7
    assert snapshots.user_bytes(stat, 2) == (4096, 8192, 1)
    assert snapshots.user_bytes(b"", 1) == (None, None, None)
    assert snapshots.in_brackets(b"126(12) C0=73(7)") == 12
    assert snapshots.first_number(b"0(0)") == 0
    stat = "1 (a) b) S 0 1 1 0 -1 4194560 0" + " 0" * 12 + " 42\n"
    assert tasks.parse_flags(stat) == 4194560


def test_losses_are_counted_and_buffers_are_modest():
    assert losses({0: {"entries": 5, "overrun": 2, "dropped events": 1}, 1: {}}) == 3
    assert session.default_buffer_kb(16 << 20, 2) == session.BUFFER_KB
    assert session.default_buffer_kb(1 << 20, 64) == 4096


def test_members_are_found_in_type_information():
    strings = b"\0slab\0inuse\0inner\0int\0"
    at = {name: strings.index(name.encode() + b"\0") for name in ("slab", "inuse", "inner", "int")}
    types = struct.pack("<IIII", at["int"], 1 << 24, 4, 32)  # 1: int
    types += struct.pack("<IIIIII", 0, 5 << 24 | 1, 4, at["inuse"], 1, 0)  # 2: union { int inuse; }
    types += struct.pack("<IIIIII", at["slab"], 4 << 24 | 1, 16, 0, 2, 64)  # 3: struct slab
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    found = Types(header + types + strings)
    assert found.size("slab") == 16
    assert found.offset("slab", "inuse") == 8
    assert not found.has("slab", "objects") and found.function("slab") == 0
    with pytest.raises(ValueError, match="not BTF"):
        Types(bytes(64))
    assert len(bpf.program(3, 4)) % 8 == 0  # whole instructions


def test_commands_and_groups():
    assert read_commands(("a=ls -l",), ("true", "x")) == {
        "a": ["/bin/sh", "-c", "ls -l"], "main": ["true", "x"],
    }  # fmt: skip
    with pytest.raises(UsageProblem, match="nothing to run"):
        read_commands((), ())
    with pytest.raises(UsageProblem, match="--group main"):
        read_commands(("main=x",), ("y",))


@pytest.mark.parametrize(
    ("pairs", "word"),
    [(("a",), "NAME=CMD"), (("../a=x",), "NAME=CMD"), (("ctl=x",), "NAME=CMD"),
     (("a= ",), "no command"), (("a=x", "a=y"), "twice")],
)  # fmt: skip
def test_groups_that_make_no_sense(pairs, word):
    with pytest.raises(UsageProblem, match=word):
        read_commands(pairs, ())


def test_what_a_dead_recorder_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "state_folder", lambda: tmp_path / "state")
    (tmp_path / "part").mkdir()
    (tmp_path / "state").mkdir()
    document = {"pid": 1, "start": -1, "instance": "", "groups": [], "files": [f"{tmp_path}/part"]}
    (tmp_path / "state" / "1.json").write_text(json.dumps(document))
    (tmp_path / "state" / "2.json").write_text("{")  # the disk was full
    mine = guard.Belongings(os.getpid())
    mine.note(home="/")
    assert guard.sweep() == ([], [os.getpid()])
    assert not (tmp_path / "part").exists()
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [f"{os.getpid()}.json"]


def test_who_may_not_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(command, ["--dry-run", "--", "true"])
    assert isinstance(result.exception, UsageProblem)
    assert "needs root" in str(result.exception)


def _reason() -> str:
    try:
        session.check()
    except (UsageProblem, OSError) as problem:
        return str(problem)
    return ""


REASON = _reason()
live = pytest.mark.skipif(bool(REASON), reason=f"cannot record here: {REASON}")


def _remains() -> list[str]:
    machine = session.check()
    return [*map(str, cgroups.leftovers(machine.hierarchy)),
            *map(str, (machine.tracing / "instances").glob("kmb_*")),
            *map(str, guard.state_folder().glob("*"))]  # fmt: skip


@pytest.fixture
def alone():
    """One recording at a time, whoever else runs these tests."""
    with open(Path(tempfile.gettempdir()) / "kmbench-test-record.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@live
@pytest.mark.usefixtures("alone")
def test_a_command_is_recorded(tmp_path):
    from kmbench.trace.capture import read_capture

    out = tmp_path / "new"
    result = CliRunner().invoke(command, ["-o", str(out), "--", "ls", "/usr"])
    assert result.exit_code == 0, result.output or result.exception
    capture = read_capture(out)
    assert len(capture.events) > 100
    assert "/kmb_main" in [group.name for group in capture.setup.groups]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["events_lost"] == 0 and manifest["missed_event_pages"] == 0
    assert set(manifest["trace_events"]) >= {event.split("/")[1] for event in EVENTS[:6]}
    assert not _remains()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@live
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_it_is_stopped(tmp_path, number):
    code = "from kmbench.cli.trace_record import command; command.main()"
    argv = [sys.executable, "-c", code, "-o", str(tmp_path / "new"), "--", "sleep", "60"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    machine = session.check()
    deadline = time.monotonic() + 30
    while not (machine.hierarchy.root / "kmb_main").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(number)
    assert process.wait(30) == (-9 if number == signal.SIGKILL else 130)
    process.stderr.close()
    while _remains() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _remains()
    assert not list(tmp_path.iterdir())
