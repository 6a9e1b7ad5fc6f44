"""Importing a capture: one test per rule, on recordings of a few events."""

import numpy as np
import pytest

from kmbench.core import events as ev
from kmbench.core.geometry import make_cache
from kmbench.core.setup import INITIAL_SLAB
from kmbench.errors import UsageProblem
from kmbench.trace.buckets import buckets
from kmbench.trace.capture import lost_events, read_capture
from kmbench.trace.convert import convert_capture
from kmbench.trace.deferred import DRAIN_NS, GRACE_NS
from kmbench.trace.format import open_trace
from kmbench.trace.gap import Lists, SmallSlub, needed
from kmbench.trace.interrupts import GAP_NS, NEW_SLAB_GAP_NS, before_interrupts
from kmbench.trace.passes import OWN_VECTOR, PLAIN
from kmbench.trace.recording import open_recording
from kmbench.trace.truth import read_truth
from trace_capture import CACHES, cache_row, write_capture

ALLOC, FREE, KMALLOC, KFREE = 0, 1, 2, 3  # ops of events.parquet
ACCOUNT = ev.GFP_ACCOUNT


def ops(capture, *names):
    """(op, t, handle) of the events that name an object."""
    rows = capture.events[capture.events["op"] <= ev.PERCPU_FREE]
    return [(ev.OP_NAMES[row["op"]], int(row["t"]), int(row["obj"])) for row in rows]


def of_op(capture, op):
    return capture.events[capture.events["op"] == op]


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


def test_initial_slabs_lists_and_objects(tmp_path):
    dump = [
        {"pfn": 10, "inuse": 20, "objects": 21, "where": 0},
        {"pfn": 11, "inuse": 3, "objects": 21, "where": 0},
        {"pfn": 12, "inuse": 19, "objects": 21, "where": 1, "cpu": 1},
        {"pfn": 12, "inuse": 4, "where": 3, "cpu": 1},
        {"pfn": 13, "inuse": 7, "objects": 21, "where": 2},
        {"pfn": 14, "inuse": 6, "objects": 21, "where": 2},
        {"pfn": 99, "inuse": 6, "objects": 21, "where": 0, "dump": 1},
    ]
    slabs = [
        {"slab": 0, "pfn": 11, "t_alloc": -1}, {"slab": 1, "pfn": 50, "t_alloc": -1},
        {"slab": 2, "pfn": 60, "t_alloc": 5},
    ]  # fmt: skip
    # slab 0 had three objects in use, so the fourth free is of an untraced allocation; slab 1 was
    # full; slab 2 is newer
    frees = [0, 1, 2, 3, 512, 1024]
    events = [{"t": 1, "obj": 1500}] + [
        {"t": 10 + at, "op": FREE, "obj": obj, "flags": 4} for at, obj in enumerate(frees)
    ]
    folder = write_capture(
        tmp_path / "c", events=events, slabs=slabs, slabdump=dump, dumps={"dentry": {"slabs": 7}}
    )
    setup = read_capture(folder).setup
    rows = setup.initial_slabs
    assert rows["where"].tolist() == [1, 2, 2, 3, 3, 4, 4]
    assert rows["inuse"].tolist() == [15, 7, 6, 20, 3, 21, 21]
    assert rows["cpu_free"].tolist() == [4, 0, 0, 0, 0, 0, 0]
    assert rows["cpu"].tolist()[:2] == [1, 0]
    assert setup.initial_objects["slab"].tolist() == [5, 5, 5, 6]
    assert setup.initial_objects["obj"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("recorder", [True, False])
def test_what_the_recorder_frees_first_is_younger_than_the_dump(tmp_path, recorder):
    dump = [{"pfn": 10, "inuse": 20, "objects": 21, "where": 0}]
    slabs = [{"slab": 0, "pfn": 10, "t_alloc": -1}]
    events = [{"t": 1, "op": FREE, "obj": 3, "pid": 8, "flags": 4}, {"t": 2, "obj": 600}]
    folder = write_capture(
        tmp_path / "c", events=events, slabs=slabs, slabdump=dump, dumps={"dentry": {"slabs": 1}},
        aux=[{"t": 9, "ev": "marker", "s": "START", "pid": 8 if recorder else 7}],
    )  # fmt: skip
    capture = read_capture(folder)
    assert len(capture.setup.initial_objects) == (0 if recorder else 1)
    assert [op for op, _, _ in ops(capture)] == ["alloc"] * recorder + ["free", "alloc"]


def test_sheaves_are_filled_from_full_slabs_and_the_active_one(tmp_path):
    dump = [{"pfn": 10, "inuse": 21, "objects": 21, "where": 1, "cpu": 1},
            {"pfn": 10, "where": 3, "cpu": 1}]  # fmt: skip
    dumps = {"dentry": {"slabs": 31, "sheaf_objs": 31}}
    setup = read_capture(write_capture(tmp_path / "c", slabdump=dump, dumps=dumps, sheaf=32)).setup
    sheaves = setup.initial_sheaves
    assert len(sheaves) == 31
    assert set(sheaves["cpu"]) == {1}
    taken = np.bincount(sheaves["slab"], minlength=32)
    assert taken[1] == 3 and taken.max() == 3 and sheaves["slab"][-1] == 1  # popped first
    assert np.all(taken[1:] <= setup.initial_slabs["inuse"])


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


def test_conversion_whole_and_cut(tmp_path):
    truth = {
        "caches": {"dentry": {"scoreable": True, "live_end": 1, "live_end_from_events": 1,
                              "slabs_made": 2, "slabs_gone": 1}},
        "memcgs": {"/job": {"scoreable": True}},
    }  # fmt: skip
    folder = write_capture(
        tmp_path / "c", truth=truth, events=[{"t": 1, "obj": 600}, {"t": 600, "obj": 601}],
        snapshots=[{"t": 100, "cache": 0, "num_slabs": 4}, {"t": 500, "cache": 0, "num_slabs": 5}],
        memcgs=[{"t0": 120, "t1": 130, "memcg": 2, "kmem_usage": 4096}],
    )  # fmt: skip
    whole, cut = tmp_path / "w.kmtrace.parquet", tmp_path / "k.kmtrace.parquet"
    convert_capture(folder, whole)
    convert_capture(folder, cut, seconds=300e-9)
    with open_trace(whole) as file:
        assert np.array_equal(file.read(), read_capture(folder).events)
    with open_trace(cut) as file:
        assert file.read()["t"].max() < 300
    assert read_truth(whole).readings.equals(read_truth(folder).readings)
    assert read_truth(cut).readings["t"].max() < 300
    assert read_truth(whole).caches["dentry"]["live_end"] == 1
    assert read_truth(cut).caches["dentry"]["live_end"] is None
    with pytest.raises(UsageProblem, match="above 0"):
        convert_capture(folder, cut, seconds=0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"events": [{"cache": 99}]}, "column cache holds 99"),
        ({"events": [{"memcg": 3}]}, "column memcg holds 3"),
        ({"events": [{"obj": -7}]}, "column obj holds -7"),
        ({"events": [{"t": 5, "obj": 9}, {"t": 4, "obj": 8}]}, "goes backwards"),
        (
            {"events": [{"obj": 9}, {"obj": 700, "op": 1, "flags": 4}]},
            "expected a row of slabs.parquet",
        ),
        ({"slabs": [{"slab": 4}]}, "column slab"),
        ({"manifest": {"memcgs": ["/x"]}}, "expected the root"),
        ({"manifest": {"nproc": "two"}}, "field nproc"),
        ({"manifest": {"dumps": {}}}, "no entry for cache dentry"),
        ({"manifest": {"sites": 3}}, "field sites"),
        ({"manifest": {"sites": ["a", 3]}}, "field sites holds 3; expected 0 or more str"),
        ({"manifest": {"dump_t": [-1]}}, "field dump_t has 1 values; expected 2 or more int"),
        ({"manifest": {"caches": [3]}}, "field caches holds 3; expected 0 or more dict"),
        ({"slabdump": [{"pfn": 1, "objects": 21}]}, "0 slabs"),
    ],
)
def test_bad_captures_are_told_in_one_line(tmp_path, change, expected):
    folder = write_capture(tmp_path / "c", **change)
    with pytest.raises(UsageProblem, match=expected) as info:
        read_capture(folder)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["manifest.json", "events.parquet", "slabdump.parquet"])
def test_missing_and_broken_files(tmp_path, name):
    folder = write_capture(tmp_path / "c")
    (folder / name).write_bytes(b"PAR1 {")
    with pytest.raises(UsageProblem, match=name):
        read_capture(folder)
    (folder / name).unlink()
    with pytest.raises(UsageProblem, match="no such file"):
        read_capture(folder)


def test_a_page_given_away_untraced_is_a_newer_slab(tmp_path):
    # the full slab 0 goes back; a task that is not traced makes a dentry slab of its page
    slabs = [
        {"slab": 0, "pfn": 10, "t_alloc": -1, "cache": 3},
        {"slab": 1, "pfn": 10, "t_alloc": -1, "cache": 0},
        {"slab": 2, "pfn": 11, "t_alloc": -1, "cache": 0},
    ]
    events = [{"t": 1, "obj": 4000}] + [
        {"t": 2 + at, "op": FREE, "obj": obj, "cache": cache, "flags": 4}
        for at, (obj, cache) in enumerate([(0, 3), (512, 0), (1024, 0)])
    ]
    dump = [{"pfn": 10, "inuse": 5, "objects": 21, "where": 0, "cache": 3}]
    dumps = {"kmalloc-64": {"slabs": 1}, "dentry": {"slabs": 1}}
    folder = write_capture(tmp_path / "c", events=events, slabs=slabs, slabdump=dump, dumps=dumps)
    capture = read_capture(folder)
    slabs = capture.setup.initial_slabs
    assert slabs["cache"].tolist() == [1, 4]
    assert capture.setup.initial_objects["slab"].tolist() == [2, 1]
    assert capture.repairs.allocs == 1  # the object of the newer slab


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


def slub(free, partial_slabs, *, cpus=2, active=()):
    """Slabs with so many free objects: the first are active on the CPUs `active`."""
    spec = make_cache("x", 192)._replace(
        cpu_partial=10 * partial_slabs, cpu_partial_slabs=partial_slabs
    )
    slabs = np.zeros(len(free), INITIAL_SLAB)
    slabs["objects"], slabs["where"] = spec.objects, np.where(np.array(free) > 0, 3, 4)
    slabs["inuse"] = spec.objects - np.array(free)
    slabs["where"][: len(active)], slabs["cpu"][: len(active)] = 1, active
    return SmallSlub(slabs, spec, cpus)


@pytest.mark.parametrize(
    ("free", "partial_slabs", "seen", "count"),
    [
        ([1, 2, 3], 0, (2, 0, 1), 1),  # without cpu partial lists: one slab at a time
        ([1, 2, 3], 0, (1, 0, 1), 2),
        ([4, 1, 1, 2, 9], 6, (0, 4, 5), 1),  # one becomes active, four go along
        ([4, 1, 1, 2, 9], 6, (0, 3, 4), 5),  # the first is full, the last taken serves
        ([4, 1, 1, 2, 9], 6, (0, 2, 3), 14),
        ([4, 1, 1, 2, 9], 6, (0, 5, 6), 0),  # never holds six
        ([4, 1, 1, 2, 9], 6, (1, 3, 4), 0),  # never takes four
        ([4, 1], 6, (2, 0, 0), 0),
        ([], 6, (0, 0, 1), 1),  # a new one
    ],
)
def test_slabs_that_left_a_node_list_tell_how_much_was_allocated(free, partial_slabs, seen, count):
    assert needed(slub(free, partial_slabs), 1, [], Lists(*seen)) == count


def test_what_was_traced_counts_before_the_rest_is_explained():
    # CPU 0 fills its slab, the node's and a new one: alone it leaves one active CPU
    traced = [(ev.ALLOC, 0, key, None) for key in range(1 + 2 + 21)]
    state = slub([1, 2], 6, active=[0])
    assert needed(state, 1, traced, Lists(0, 0, 1)) == 0
    assert needed(slub([1, 2], 6, active=[0]), 1, traced, Lists(0, 0, 2)) == 1
    # a free of an object from before, of one just made, and of one never heard of
    frees = [(ev.FREE, 0, 900, 1), (ev.FREE, 0, 0, None), (ev.FREE, 0, 901, None)]
    state = slub([1, 0], 6, active=[0])
    assert needed(state, 1, [traced[0], *frees], Lists(0, 1, 2)) == 0
    assert needed(slub([1, 0], 6, active=[0]), 1, [traced[0], *frees], Lists(0, 1, 3)) == 1


def test_the_small_slub_keeps_no_more_than_the_lists_may_hold():
    state = slub([0] * 9 + [4], 2)
    for slab in range(4):
        state.give_back(slab, 0)  # the third drains the list
    assert state.lists() == Lists(3, 2, 0) and state.node == [9, 1, 0]
    for slab, most in ((1, state.spec.min_partial), (0, 1)):
        state.spec = state.spec._replace(min_partial=most)
        for _ in range(state.spec.objects - 1):
            state.give_back(slab, 0)
        # empty: kept only while fewer than min_partial slabs are there
        assert (slab in state.node) == (most > 3)


@pytest.mark.parametrize(("traced", "cpu"), [((0, 1, 3), 1), ((0, 1, 2), 0)])
def test_what_was_taken_from_the_lists_before_the_first_reading_is_allocated(tmp_path, traced, cpu):
    dump = [{"pfn": 10 + at, "inuse": 20 - at, "objects": 21, "cache": cache}
            for at, cache in enumerate([0, 0, 3, 3])]  # fmt: skip
    dumps = {"dentry": {"slabs": 2}, "kmalloc-64": {"slabs": 2}}
    names = ("partial_slabs", "cpu_partial_slabs", "cpu_slabs")
    # kmalloc-64 was traced on CPU 0, which takes both its slabs: the other CPU has one, or has not
    snaps = [
        {"t": 5, "t_sysfs": 50, "cache": cache, **dict(zip(names, seen, strict=True))}
        for cache, seen in ((0, (0, 1, 2)), (3, traced))
    ]
    events = [{"t": 10, "op": KMALLOC, "cache": 3, "obj": 6000}]
    manifest = {"dump_t": [-9, 900_000, 990_000]}
    folder = write_capture(tmp_path / "c", events=events, slabdump=dump, dumps=dumps,
                           snapshots=snaps, manifest=manifest)  # fmt: skip
    made = read_capture(folder).events
    made = made[made["op"] <= ev.FREE][["op", "t", "cpu", "cache", "memcg"]].tolist()
    if cpu:
        # the other CPU took first: CPU 0 had to make one
        assert (ev.ALLOC, 0, 1, 1, 1) in made and (ev.FREE, 50, 1, 1, 1) in made
    else:
        assert made[:2] == [(ev.ALLOC, 0, 0, 1, 1), (ev.ALLOC, 10, 0, 4, 1)]
    assert sum(row[0] == ev.ALLOC for row in made) == sum(row[0] == ev.FREE for row in made) + 1


def test_what_the_recorder_lost_is_said(tmp_path):
    assert lost_events({}) == lost_events({"ring_stats": None, "missed_event_pages": None}) == 0
    cpu = {"entries": "900", "overrun": "40", "commit overrun": "0", "dropped events": 2}
    stats = {"ring_stats": {"0": cpu, "1": cpu | {"overrun": "x"}}, "missed_event_pages": 1}
    assert lost_events(stats) == 40 + 2 + 2 + 1
    folder = write_capture(tmp_path / "c", manifest=stats, events=[{"t": 1, "obj": 600}])
    with open_recording(folder) as recording:
        assert recording.source["events_lost"] == 45
    convert_capture(folder, tmp_path / "c.kmtrace.parquet")
    with open_recording(tmp_path / "c.kmtrace.parquet") as recording:
        assert recording.source["events_lost"] == 45


def test_readings_of_unknown_groups_are_refused(tmp_path):
    folder = write_capture(tmp_path / "c", memcgs=[{"memcg": 9}])
    with pytest.raises(UsageProblem, match="memcgs.parquet: column memcg holds 9; expected below"):
        read_truth(folder)
