"""Importing a capture: the slabs at the start, and what was taken before the first event."""

import numpy as np
import pytest

from kmbench.core import events as ev
from kmbench.core.geometry import make_cache
from kmbench.core.setup import INITIAL_SLAB
from kmbench.trace.capture import read_capture
from kmbench.trace.gap import Lists, SmallSlub, needed
from trace_capture import FREE, KMALLOC, ops, write_capture


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


def test_which_slabs_have_a_vector_at_the_start(tmp_path):
    """As recorded: of listed slabs, of full ones that are seen, and how many others have one."""
    dump = [
        {"pfn": 10, "inuse": 20, "objects": 21, "where": 0, "vector": 1},
        {"pfn": 11, "inuse": 3, "objects": 21, "where": 0, "vector": 0},
    ]
    slabs = [
        {"slab": 0, "pfn": 50, "t_alloc": -1, "vector0": 0},
        {"slab": 1, "pfn": 60, "t_alloc": -1, "vector0": 1},
    ]
    events = [{"t": 1, "obj": 1500}] + [
        {"t": 10 + at, "op": FREE, "obj": obj, "flags": 4} for at, obj in enumerate((0, 512))
    ]
    dumps = {"dentry": {"slabs": 8, "vectors": 4}}
    folder = write_capture(tmp_path / "c", events=events, slabs=slabs, slabdump=dump, dumps=dumps)
    rows = read_capture(folder).setup.initial_slabs
    assert rows["where"].tolist() == [3, 3, 4, 4, 4, 4, 4, 4]
    assert rows["vector"].tolist() == [1, 0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(("gfp", "vector"), [(0x400CC0, 1), (0xCC0, 0)])
def test_without_that_it_follows_from_how_the_cache_is_charged(tmp_path, gfp, vector):
    dump = [{"pfn": 10, "inuse": 20, "objects": 21, "where": 0}]
    events = [{"t": 1, "obj": 1500, "gfp": gfp}]
    folder = write_capture(
        tmp_path / "c", events=events, slabdump=dump, dumps={"dentry": {"slabs": 2}}
    )
    assert read_capture(folder).setup.initial_slabs["vector"].tolist() == [vector, vector]


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
