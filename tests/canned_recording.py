"""A small recording written byte by byte, for the tests of the recorder."""

import struct
from pathlib import Path

import numpy as np

from kmbench.trace.record import cgroups, snapshots, tasks
from kmbench.trace.record.slabs import NO_CENSUS, Census
from kmbench.trace.record.stream import build_table
from kmbench.trace.record.tracefs import Format
from kmbench.trace.record.uniform import from_totals

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
    "mod_memcg_state": (12, [("id", 8, 8), ("item", 16, 4), ("val", 20, 4)], 24),
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
                "events_lost": 0, "group_end_s": {"a": (1300, 0)}}  # fmt: skip
    return Recording(
        cgroups.Hierarchy(Path("/cg"), 1, 4), canned_pages(), 4096, formats(), TASKS,
        {1: "/", 5: "/kmb_ctl"}, shots, [cache], tuple(dumps),
        (Census(np.array([5]), np.array([0], np.int32), np.array([1], np.int8)), NO_CENSUS),
        BASE, SYMBOLS, manifest,
    )  # fmt: skip
