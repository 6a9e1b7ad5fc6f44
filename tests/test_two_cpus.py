"""Two CPUs: allocations under way while the other one freed, and who freed an address space."""

import numpy as np
import pytest

from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.trace.interrupts import GAP_NS
from kmbench.trace.lost_mm import lost_mm_frees
from kmbench.trace.overlap import before_frees

ALLOC, FREE = ev.ALLOC, ev.FREE


def moved(rows):
    """rows: (t, op, cpu, cache, obj)."""
    events = np.zeros(len(rows), EVENT)
    for name, column in zip(
        ("t", "op", "cpu", "cache", "obj"), zip(*rows, strict=True), strict=True
    ):
        events[name] = column
    late = np.zeros(len(rows), bool)
    before_frees(events, late)
    return events["t"].tolist(), np.count_nonzero(late)


@pytest.mark.parametrize(
    ("free_cpu", "free_cache", "free_t", "expected"),
    [
        (1, 0, 99_900, 99_899),
        (1, 0, 100_000 - GAP_NS, 99_999 - GAP_NS),
        (1, 0, 99_999 - GAP_NS, 100_000),  # too long ago: the allocation has seen it
        (0, 0, 99_900, 100_000),  # its own CPU's
        (1, 1, 99_900, 100_000),  # of another cache
    ],
)
def test_a_free_on_another_cpu_came_after_the_allocation_under_way(
    free_cpu, free_cache, free_t, expected
):
    rows = [(free_t, FREE, free_cpu, free_cache, 1), (100_000, ALLOC, 0, 0, 2)]
    assert moved(rows) == ([free_t, expected], expected < 100_000)


def test_an_allocation_began_after_what_its_cpu_did_before():
    rows = [
        (99_000, FREE, 1, 0, 1), (99_500, ALLOC, 0, 1, 5), (99_700, FREE, 1, 0, 2),
        (99_800, FREE, 1, 0, 3), (100_000, ALLOC, 0, 0, 9),
    ]  # fmt: skip
    assert moved(rows) == ([99_000, 99_500, 99_700, 99_800, 99_699], 1)


def test_it_came_after_the_free_of_the_object_that_it_got():
    rows = [(99_600, FREE, 1, 0, 1), (99_700, FREE, 1, 0, 2), (99_800, FREE, 1, 0, 3),
            (100_000, ALLOC, 0, 0, 2)]  # fmt: skip
    assert moved(rows) == ([99_600, 99_700, 99_800, 99_799], 1)
    rows[3] = (100_000, ALLOC, 0, 0, 3)
    assert moved(rows)[1] == 0


def test_frees_stay_where_they_are():
    assert moved([(10, ALLOC, 1, 0, 1), (20, FREE, 0, 0, 2)])[1] == 0


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], 1),  # where the process ended
        ([(70_000, 7, 0)], 0),  # the first one that this CPU makes since then takes its place
        ([(70_000, 7, 1)], 1),
        ([(65_000, 8, 0), (70_000, 7, 0)], 1),  # the second
        ([(65_000, 8, 1), (70_000, 7, 0)], 0),
        ([(40_000, 8, 0), (70_000, 7, 0)], 0),  # before the exit
    ],
)
def test_a_lost_address_space_was_freed_where_its_place_is_taken_first(others, expected):
    """others: (t, obj, cpu) of later mm_structs."""
    slab = np.zeros(1 + len(others), EVENT)
    slab["op"], slab["cache"] = ev.ALLOC, 2
    slab["t"] = [100, *(t for t, _, _ in others)]
    slab["obj"] = [7, *(obj for _, obj, _ in others)]
    slab["cpu"] = [0, *(cpu for _, _, cpu in others)]
    slab["task"] = [5, *[9] * len(others)]
    stacks = np.zeros(2, EVENT)
    stacks["op"], stacks["t"] = [ev.PAGE_ALLOC, ev.PAGE_FREE], [50, 60_000]
    stacks["task"], stacks["cpu"], stacks["obj"] = [5, 6], [0, 1], 6
    none = np.zeros(0, EVENT)
    freed = lost_mm_frees(slab, np.zeros(len(slab), bool), 2, none, none, stacks)
    assert freed["obj"].tolist() == [7]
    assert (freed[0]["cpu"], freed[0]["t"]) == (expected, 60_001)
