"""Importing a capture: one test per rule, on recordings of a few events."""

import numpy as np
import pytest

from kmbench.core import events as ev
from kmbench.trace.buckets import buckets
from kmbench.trace.capture import read_capture
from kmbench.trace.deferred import DRAIN_NS, GRACE_NS
from kmbench.trace.interrupts import GAP_NS, NEW_SLAB_GAP_NS, before_interrupts
from kmbench.trace.passes import OWN_VECTOR, PLAIN
from trace_capture import (
    ACCOUNT,
    CACHES,
    FREE,
    KFREE,
    KMALLOC,
    cache_row,
    of_op,
    ops,
    write_capture,
)


def test_handles_are_dense_and_reused_last_first(tmp_path):
    events = [
        {"t": 1, "obj": 700}, {"t": 2, "obj": 701}, {"t": 3, "obj": 700, "op": FREE},
        {"t": 4, "obj": 900}, {"t": 5, "obj": 901},
    ]  # fmt: skip
    capture = read_capture(write_capture(tmp_path / "c", events=events))
    assert [handle for _, _, handle in ops(capture)] == [1, 2, 1, 1, 3]
    assert capture.setup.nr_objects == 4


def test_fields_of_an_event(tmp_path):
    row = {"t": 9, "op": KMALLOC, "cpu": 1, "pid": 77, "memcg": 2, "ctx": 2 | 16, "cache": 3,
           "obj": 600, "req": 33, "gfp": 0xCC0 | ACCOUNT, "flags": 1}  # fmt: skip
    (event,) = of_op(read_capture(write_capture(tmp_path / "c", events=[row])), ev.ALLOC)
    assert (event["t"], event["cpu"], event["task"], event["memcg"]) == (9, 1, 77, 3)
    assert (event["cache"], event["arg"]) == (4, 33)
    assert event["gfp"] == 0xCC0 | ACCOUNT | ev.CTX_SOFTIRQ | ev.CTX_BH_OFF


def test_slab_account_is_learned_from_charges_nobody_asked_for(tmp_path):
    events = [
        {"t": 1, "cache": 0, "obj": 600, "flags": 3, "memcg": 2},
        {"t": 2, "cache": 3, "obj": 1200, "flags": 3, "gfp": ACCOUNT, "memcg": 2},
    ]
    caches = read_capture(write_capture(tmp_path / "c", events=events)).setup.caches
    assert caches[0].flags & ev.SLAB_ACCOUNT
    assert not caches[3].flags & ev.SLAB_ACCOUNT
    assert caches[3].flags & ev.SLAB_KMALLOC
    assert len(caches) == len(CACHES)  # without kmalloc-large


def test_accounted_but_not_charged_belongs_to_the_root(tmp_path):
    events = [
        {"t": 1, "obj": 600, "flags": 1, "memcg": 2},
        {"t": 2, "obj": 601, "flags": 3, "memcg": 2},
        {"t": 3, "obj": 602, "flags": 1, "memcg": 2, "ctx": 2},
    ]
    capture = read_capture(write_capture(tmp_path / "c", events=events))
    assert of_op(capture, ev.ALLOC)["memcg"].tolist() == [1, 3, 3]


def test_missing_free_and_missing_alloc_are_put_in(tmp_path):
    events = [
        {"t": 1, "obj": 600}, {"t": 5, "obj": 600, "flags": 8},
        {"t": 6, "obj": 601, "op": FREE, "flags": 16, "memcg": 2},
    ]  # fmt: skip
    capture = read_capture(write_capture(tmp_path / "c", events=events))
    assert ops(capture) == [
        ("alloc", 1, 1), ("free", 5, 1), ("alloc", 5, 1), ("alloc", 6, 2), ("free", 6, 2),
    ]  # fmt: skip
    assert (capture.repairs.frees, capture.repairs.allocs) == (1, 1)
    assert of_op(capture, ev.ALLOC)["memcg"][-1] == 1  # nobody's


def test_what_an_rcu_callback_frees_was_there_a_grace_period_before(tmp_path):
    late = 2 * GRACE_NS
    free = {"op": FREE, "site": 5, "cpu": 1, "memcg": 2}
    events = [
        {"t": late - 9, "obj": 601}, {"t": late - 5, "obj": 601, "op": FREE},
        free | {"t": late, "obj": 600, "ctx": 2}, free | {"t": late + 1, "obj": 601, "ctx": 2},
        free | {"t": late + 2, "obj": 602},  # not in softirq: by whatever was there
    ]  # fmt: skip
    capture = read_capture(write_capture(tmp_path / "c", events=events))
    made = [(int(row["t"]), int(row["cpu"]), int(row["memcg"]))
            for row in of_op(capture, ev.ALLOC)]  # fmt: skip
    assert made == [
        (late - GRACE_NS, 1, 1), (late - 9, 0, 1), (late - 4, 1, 1), (late + 2, 1, 1),
    ]  # fmt: skip


def test_frees_of_vectors_never_seen_are_left_out(tmp_path):
    free = {"op": KFREE, "cache": 3}
    events = [{"t": 1, "obj": 900}, free | {"t": 2, "obj": 600, "site": 6},
              free | {"t": 3, "obj": 601, "site": 4}]  # fmt: skip
    capture = read_capture(write_capture(tmp_path / "c", events=events))
    assert [int(row["t"]) for row in of_op(capture, ev.FREE)] == [3]
    assert (capture.repairs.vectors, capture.repairs.allocs) == (1, 1)


def test_vectors_unknown_caches_and_large_objects_are_left_out(tmp_path):
    events = [
        {"t": 1, "op": KMALLOC, "obj": 600, "cache": 3, "site": 1},
        {"t": 2, "op": KFREE, "obj": 600, "cache": 3, "site": 0},
        {"t": 3, "op": KFREE, "obj": 5000, "cache": -1, "site": 0},
        {"t": 4, "op": KMALLOC, "obj": 5001, "cache": len(CACHES), "req": 20000},
    ]
    capture = read_capture(write_capture(tmp_path / "c", events=events))
    assert ops(capture) == []
    assert capture.repairs.vectors == 2


def test_stacks_follow_fork_and_exit(tmp_path):
    events = [
        {"t": 10, "cache": 1, "obj": 600, "pid": 5, "memcg": 2},
        {"t": 40, "obj": 1200, "pid": 6, "memcg": 2},
        {"t": 50, "obj": 1201, "pid": 6, "memcg": 2, "ctx": 2},
    ]
    aux = [
        {"t": 20, "ev": "sched_process_fork", "pid": 5, "memcg": 2, "a0": 5, "a1": 6},
        {"t": 30, "ev": "sched_process_exit", "pid": 6, "memcg": 2, "a0": 6, "a1": 1, "cpu": 1},
    ]
    capture = read_capture(write_capture(tmp_path / "c", events=events, aux=aux))
    (begin,), (end,) = of_op(capture, ev.PAGE_ALLOC), of_op(capture, ev.PAGE_FREE)
    assert (begin["t"], begin["memcg"], begin["cache"], begin["arg"]) == (10, 3, 1, 2)
    assert (end["t"], end["obj"], end["cpu"]) == (41, begin["obj"], 1)


def test_pages_percpu_and_groups(tmp_path):
    pages = [
        {"t": 1, "page": 0, "order": 1, "memcg": 2}, {"t": 2, "page": 0, "op": 1, "ctx": 10},
        {"t": 3, "page": 1}, {"t": 9, "page": 1, "op": 2}, {"t": 9, "page": 2},
    ]  # fmt: skip
    aux = [
        {"t": 4, "ev": "percpu_alloc_percpu", "a0": 0, "a1": 64, "a2": ACCOUNT, "memcg": 2,
         "s": "mm_init"},
        {"t": 5, "ev": "percpu_alloc_percpu", "a0": 1, "a1": 96, "a2": ACCOUNT, "memcg": 2,
         "s": "mem_cgroup_css_alloc"},
        {"t": 6, "ev": "percpu_free_percpu", "a0": 0},
        {"t": 6, "ev": "percpu_free_percpu", "a0": 7},
        {"t": 7, "ev": "cgroup_mkdir", "s": "/job"},
        {"t": 8, "ev": "cgroup_attach_task", "s": "/job", "a0": 123, "memcg": 1},
        {"t": 9, "ev": "cgroup_release", "s": "/job", "a0": 3},  # of an older group of that name
        {"t": 10, "ev": "cgroup_rmdir", "s": "/job", "a0": 4},
        {"t": 11, "ev": "cgroup_release", "s": "/job", "a0": 4},
        {"t": 12, "ev": "cgroup_release", "s": "/of-before"},
        {"t": 13, "ev": "marker", "s": "START"},
    ]  # fmt: skip
    capture = read_capture(write_capture(tmp_path / "c", pages=pages, aux=aux))
    assert of_op(capture, ev.PAGE_ALLOC)["arg"].tolist() == [1, 0, 0]
    assert of_op(capture, ev.PAGE_FREE)["t"].tolist() == [2, 9]
    assert of_op(capture, ev.PERCPU_ALLOC)["memcg"].tolist() == [3, 1]
    assert of_op(capture, ev.PERCPU_ALLOC)["arg"].tolist() == [64, 96]
    assert len(of_op(capture, ev.PERCPU_FREE)) == 1 and capture.repairs.unknown == 1
    (create,), (attach,) = of_op(capture, ev.CG_CREATE), of_op(capture, ev.ATTACH)
    assert (create["memcg"], create["arg"]) == (3, 1)
    assert (attach["memcg"], attach["task"], attach["arg"]) == (3, 123, 2)
    assert len(of_op(capture, ev.CG_OFFLINE)) == len(of_op(capture, ev.CG_RELEASE)) == 1
    assert of_op(capture, ev.MARK)["arg"].tolist() == [1]
    assert [group.online for group in capture.setup.groups] == [True, True, False]


@pytest.mark.parametrize("op", [2, 1])  # given away untraced; also, and freed by its new owner
def test_an_address_space_that_vanished_untraced(tmp_path, op):
    events = [
        {"t": 10, "cache": 1, "obj": 600, "pid": 5, "memcg": 2, "site": 4},
        {"t": 100, "cache": 2, "obj": 1200, "pid": 5, "memcg": 2, "site": 4},
        {"t": 9000, "cache": 2, "obj": 1201, "pid": 6, "memcg": 2, "site": 3},
        {"t": 60_000, "obj": 2000, "pid": 6, "memcg": 2},
    ]
    pages = [{"t": 110, "page": 0, "pid": 5, "memcg": 2},
             {"t": 80_000, "page": 0, "op": op}]  # fmt: skip
    aux = [
        {"t": 120, "ev": "percpu_alloc_percpu", "a0": 0, "a1": 64, "pid": 5, "memcg": 2},
        {"t": 200, "ev": "sched_process_fork", "pid": 5, "memcg": 2, "a0": 5, "a1": 6},
        {"t": 50_000, "ev": "sched_process_exit", "pid": 6, "memcg": 2, "a0": 6, "cpu": 1},
    ]
    capture = read_capture(write_capture(tmp_path / "c", events=events, pages=pages, aux=aux))
    late = capture.events[capture.events["t"] == 60_002]
    assert sorted(late["op"].tolist()) == sorted(
        [ev.FREE, ev.FREE, ev.PAGE_FREE, ev.PERCPU_FREE]
    )  # both address spaces, by fork and by exec
    assert set(late["cpu"]) == {1}
    assert len(of_op(capture, ev.PAGE_FREE)) == 2  # the page directory and the stack, once each


def test_epoll_items_wait_for_their_batch(tmp_path):
    item, head = {"cache": 5, "pid": 7, "site": 0}, {"cache": 6, "pid": 7, "site": 3}
    events = [
        item | {"t": 10, "obj": 600}, head | {"t": 20, "obj": 1200},
        head | {"t": 90, "obj": 1200, "op": FREE},
        item | {"t": 9_000_000_000, "obj": 600, "site": 4},
    ]  # fmt: skip
    capture = read_capture(write_capture(tmp_path / "c", events=events))
    assert of_op(capture, ev.FREE)["t"].tolist() == [90, 90 + DRAIN_NS]
    assert capture.repairs.frees == 0


def test_shrinks_are_dated_by_the_writes_to_sysfs(tmp_path):
    aux = [{"t": 100, "ev": "marker", "s": "SHRINK", "pid": 3}]
    writes = [
        {"t": 200 + 10 * at, "op": KMALLOC, "cache": 4, "obj": 600, "pid": 3, "site": 2}
        for at in range(len(CACHES))
    ]
    events = read_capture(write_capture(tmp_path / "c", aux=aux, events=writes)).events
    shrinks = events[events["op"] == ev.SHRINK]
    assert shrinks["cache"].tolist() == list(range(1, len(CACHES) + 1))
    assert shrinks["t"].tolist() == [201 + 10 * at for at in range(len(CACHES))]
    events = read_capture(write_capture(tmp_path / "d", aux=aux, events=writes[:2])).events
    shrinks = events[events["op"] == ev.SHRINK]
    assert (shrinks["t"].tolist(), shrinks["cache"].tolist()) == ([100], [0])


def test_samples_at_every_reading(tmp_path):
    folder = write_capture(
        tmp_path / "c",
        snapshots=[{"t": 100, "t_sysfs": 150, "cache": 0}, {"t": 100, "t_sysfs": 150, "cache": 1}],
        memcgs=[{"t0": 120, "t1": 130, "memcg": 2}],
    )
    samples = of_op(read_capture(folder), ev.SAMPLE)
    assert samples["t"].tolist() == [100, 125, 150, 900_000, 990_000]


FREED, ALLOCATED, VECTOR = (ev.FREE, PLAIN), (ev.ALLOC, PLAIN), (ev.ALLOC, OWN_VECTOR)


def caught(t, kind, ctx, cpu=0, obj=None):
    """Times with overtaken allocations put right, which are late; ctx: bits of the recorder."""
    events = np.zeros(len(t), ev.EVENT)
    events["t"], events["cpu"], events["task"] = t, cpu, 7
    events["op"], role = np.array(kind, np.uint8).T
    events["gfp"] = np.array(ctx, np.uint32) << 24
    events["obj"] = obj or range(len(t))
    late = before_interrupts(events, role.copy(), len(t))
    return events["t"].tolist(), np.flatnonzero(late).tolist()


def test_an_allocation_goes_before_the_interrupt_that_it_was_caught_by():
    t = [100, 5_000, 5_100, 5_000 + GAP_NS, 50_000]
    kind = [ALLOCATED, FREED, FREED, ALLOCATED, ALLOCATED]
    assert caught(t, kind, [0, 2, 2, 0, 0]) == ([100, 5_000, 5_100, 4_999, 50_000], [3])
    assert caught(t, kind, [0, 2, 2, 0, 0], cpu=[0, 1, 1, 0, 0]) == (t, [])


def test_what_the_interrupt_freed_is_allocated_after_it():
    t, kind = [5_000, 5_100, 6_000, 6_100], [FREED, FREED, ALLOCATED, ALLOCATED]
    assert caught(t, kind, [2, 2, 0, 0], obj=[1, 2, 2, 1]) == (t, [])
    assert caught(t, kind, [2, 2, 0, 0], obj=[1, 2, 3, 1])[1] == [2]


@pytest.mark.parametrize(
    "t, kind, ctx, right",
    [
        # the interrupt came while pages were allocated: the vector after it, then the object
        ([5_000, 12_000, 16_000], [FREED, VECTOR, ALLOCATED], [2, 0, 0], [5_000, 12_000, 4_999]),
        # while the slab was filled in: between the vector and the object
        ([1_000, 5_000, 12_000], [VECTOR, FREED, ALLOCATED], [0, 2, 0], [1_000, 5_000, 4_999]),
        # long before the vector
        ([5_000, 5_001 + NEW_SLAB_GAP_NS, 17_000], [FREED, VECTOR, ALLOCATED], [2, 0, 0], None),
    ],
)
def test_an_allocation_of_a_new_slab_began_before_its_vector(t, kind, ctx, right):
    assert caught(t, kind, ctx)[0] == (right or t)


BUCKETS = ("kmalloc-64", "kmalloc-1k", "msg_msg-64", "memdup_user-64", "memdup_user-1k")


@pytest.mark.parametrize(
    ("caller", "gfp", "req", "cache", "right", "message"),
    [
        ("load_msg+0x41", 0xCC0, 56, 0, 2, True),
        ("load_msg+0x41", 0xCC0, 1000, 1, 1, False),  # no such bucket on this machine
        ("vmemdup_user+0x2e", 0x100CC0, 1000, 1, 4, False),
        ("strndup_user+0x51", 0x102CC0, 20, 0, 3, False),
        ("kvmalloc_node+0x1", 0x102CC0, 5000, 1, 1, False),
        ("load_elf_binary+0x1", 0xCC0, 20, 0, 0, False),
        ("", 0xCC0, 20, -1, -1, False),
        ("load_msg+0x41", 0xCC0, 20000, len(BUCKETS), len(BUCKETS), False),  # kmalloc-large
    ],
)
def test_kmallocs_of_buckets_are_known_by_their_caller(caller, gfp, req, cache, right, message):
    arrays = [np.array([value]) for value in (cache, 0 if caller else -1, gfp, req)]
    found, messages = buckets(*arrays, [caller], list(BUCKETS))
    assert (found.tolist(), messages.tolist()) == ([right], [message])


def test_messages_are_charged_though_the_trace_does_not_say_so(tmp_path):
    row = {"op": KMALLOC, "cache": 3, "memcg": 2, "req": 40}
    caches = [cache_row(at, name) for at, name in enumerate((*CACHES, "msg_msg-64"))]
    manifest = {
        "caches": caches, "sites": ["load_msg+0x41", "other"],
        "dumps": {cache["name"]: [{"slabs": 0}] for cache in caches},
    }  # fmt: skip
    events = [row | {"t": 1, "obj": 600}, row | {"t": 2, "obj": 601, "site": 1}]
    capture = read_capture(write_capture(tmp_path / "c", events=events, manifest=manifest))
    made = of_op(capture, ev.ALLOC)
    assert [capture.setup.caches[row - 1].name for row in made["cache"]] == [
        "msg_msg-64", "kmalloc-64",
    ]  # fmt: skip
    assert capture.setup.caches[-1].flags & ev.SLAB_ACCOUNT
    assert not capture.setup.caches[3].flags & ev.SLAB_ACCOUNT
    assert made["memcg"].tolist() == [3, 3]
