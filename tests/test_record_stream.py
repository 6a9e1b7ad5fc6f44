"""Recorded events: ring-buffer pages, tasks, caches, slabs and objects, from canned input."""

import struct
from pathlib import Path

import numpy as np
import pytest

from canned_recording import (
    BASE,
    TASKS,
    canned_table,
    event,
    formats,
    page,
)
from kmbench.trace.record.lifetimes import kmalloc_names, object_flags, track, vote_direct_map
from kmbench.trace.record.owners import attribute, groups_of
from kmbench.trace.record.ring import parse_pages
from kmbench.trace.record.slabs import NO_CENSUS, Census
from kmbench.trace.record.stream import CACHE_ALLOC, build_table
from kmbench.trace.record.tracefs import Format
from kmbench.trace.record.uniform import spread
from kmbench.trace.record.unnamed import name_allocations
from kmbench.trace.record.verdicts import judge_cache

DATA = Path(__file__).parent / "data" / "cgroup_v2"


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


def test_a_page_that_comes_back_is_another_slab():
    rows = [(4, 8, -1, 1), (0, 0x9100, 0, 0), (3, 0x9100, -1, 0), (5, 8, -1, 1),
            (4, 9, -1, 0), (2, 0x9000, 1, 0)]  # fmt: skip
    lives = track(columns(rows), np.array([256, 64]), np.array([1, 0]), NO_CENSUS)
    assert lives.slabs.pfn.tolist() == [8, 9]
    assert lives.slabs.t_alloc.tolist() == [0, 4]
    assert lives.slabs.t_free.tolist() == [3, -1]
    assert lives.row.tolist() == [-1, 0, 0, -1, -1, 1]
    assert lives.slot.tolist()[1:3] == [17, 17]  # counted from the first page


def test_slabs_from_before_are_known_from_the_list_of_pages():
    census = Census(np.array([8, 20]), np.array([0, -1], np.int32), np.zeros(2, np.int8))
    rows = [(3, 0x9000, -1, 0), (3, 0x14000, -1, 0), (2, 0x8000, 1, 0)]
    lives = track(columns(rows), np.array([256, 256]), np.array([1, 0]), census)
    assert lives.row.tolist() == [0, -2, 0]  # the kmalloc is one of a cache of its own
    assert lives.slabs.t_alloc.tolist() == [-1]
    assert lives.counts["kfree_unresolved"] == 1


def test_two_caches_in_one_page_are_two_slabs():
    rows = [(0, 0x8000, 0, 0), (0, 0x8000, 1, 0)]
    lives = track(columns(rows), np.array([256, 64]), np.array([0, 0]), NO_CENSUS)
    assert lives.row.tolist() == [0, 1]
    assert lives.counts["cache_conflicts_in_slab"] == 1


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


def test_allocations_without_a_name_are_of_the_cache_that_they_are_freed_to():
    """Linux 6.12 and before, with the fields of its kmem_cache_alloc."""
    old = Format((DATA / "kmem_cache_alloc.format.6.12").read_text())
    assert "name" not in old.fields
    assert "name" in Format((DATA / "kmem_cache_alloc.format.6.18").read_text()).fields

    def made(site: int, ptr: int, object_size: int, size: int) -> tuple[int, bytes]:
        data = struct.pack("<HBBi5Qi4x", old.id, 0, 0, 11, site, BASE + ptr, object_size, size,
                           0xCC0, 0)  # fmt: skip
        return 10, data

    def freed(ptr: int, name: str) -> tuple[int, bytes]:
        return 10, event("kmem_cache_free", 11, name=name, ptr=BASE + ptr)

    events = [
        made(0x10, 0x1000, 232, 256), freed(0x1000, "filp"),
        made(0x10, 0x1100, 232, 256),  # as the site's others
        made(0x20, 0x1000, 232, 256), freed(0x1000, "skbuff_head_cache"),
        made(0x30, 0x2000, 192, 192),  # by its size
        made(0x40, 0x3000, 64, 64),  # two caches are like that
        made(0x10, 0x1100, 232, 256), freed(0x1100, "filp"),  # the free between was not traced
    ]  # fmt: skip
    forms = formats() | {"kmem_cache_alloc": old}
    table = build_table({0: page(1000, events)}, forms, 4096)
    rows = [{"name": name, "object_size": size, "size": size}
            for name, size in (("dentry", 192), ("anon_vma", 64), ("pid", 64))]  # fmt: skip
    name_allocations(table, rows)
    names = [table.names[at] if at >= 0 else "" for at in table.name[table.kind == CACHE_ALLOC]]
    assert names == ["filp", "filp", "skbuff_head_cache", "dentry", "", "filp"]
