"""Address spaces whose end was not recorded.

The last reference to a dead process's mm_struct is dropped by whoever runs next on its CPU
(Linux 6.18 kernel/sched/core.c:finish_task_switch, mmdrop).  Where that is a task that the
recorder leaves out, the frees of the mm_struct, of its page directory and of its per-CPU counters
(kernel/fork.c:__mmdrop) are missing together.  They are put in at the end of the process's exit,
on the CPU where it ended.
"""

import numpy as np

from kmbench.core import events as ev
from kmbench.core.events import EVENT

WITHIN_NS = 30_000  # mm_init() allocates the page directory and the counters within this time


def _lost(t: np.ndarray, key: np.ndarray, is_alloc: np.ndarray) -> np.ndarray:
    """Which allocations are followed by no free of the same key (bool per event)."""
    order = np.lexsort((np.arange(len(t)), key))
    lost = np.zeros(len(t), bool)
    same = np.zeros(len(t), bool)
    same[:-1] = key[order][1:] == key[order][:-1]
    freed = np.zeros(len(t), bool)
    freed[:-1] = ~is_alloc[order][1:]
    lost[order] = is_alloc[order] & ~(same & freed)
    return lost


def _with_lost(events: np.ndarray, alloc_op: int) -> np.ndarray:
    """Allocations among `events` that were not seen freed, by task and time."""
    found = events[_lost(events["t"], events["obj"], events["op"] == alloc_op)]
    return found[np.argsort(found["t"], kind="stable")]


def lost_mm_frees(
    slab: np.ndarray,
    by_exec: np.ndarray,
    mm_cache: int,
    pages: np.ndarray,
    percpu: np.ndarray,
    stacks: np.ndarray,
) -> np.ndarray:
    """FREE, PAGE_FREE and PERCPU_FREE events for the address spaces that were lost.

    slab, pages, percpu, stacks: EVENT arrays with keys in ``obj``; pages without the frees that
        were not traced either.  A stack begins with a fork and ends with the end of an exit.
    by_exec: bool per slab event; the mm_struct was made by exec for the task itself, not by fork
        for a child.
    """
    of_mm = np.flatnonzero(slab["cache"] == mm_cache)
    mine = slab[of_mm]
    lost = _lost(mine["t"], mine["obj"], mine["op"] == ev.ALLOC)
    if not np.any(lost):
        return np.zeros(0, EVENT)
    pages = pages[pages["arg"] == 0]
    forks = stacks[stacks["op"] == ev.PAGE_ALLOC]
    exits = stacks[stacks["op"] == ev.PAGE_FREE]
    sides = (
        (_with_lost(pages, ev.PAGE_ALLOC), ev.PAGE_FREE, 1),
        (_with_lost(percpu, ev.PERCPU_ALLOC), ev.PERCPU_FREE, 2),
    )
    rows = []
    for index in np.flatnonzero(lost):
        event = mine[index]
        t = int(event["t"])
        # fork makes the stack first, then the address space; the stack's key stands for the task
        if by_exec[of_mm[index]]:
            stack = event["task"] + exits["obj"][:1] - exits["task"][:1]
        else:
            stack = forks["obj"][(forks["task"] == event["task"]) & (forks["t"] <= t)][-1:]
        ends = exits[np.isin(exits["obj"], stack) & (exits["t"] > t)]
        if not len(ends):
            continue
        cpu, done = ends[0]["cpu"], int(ends[0]["t"])
        parts = [(event, ev.FREE)]
        for events, op, most in sides:
            near = (events["task"] == event["task"]) & (events["t"] > t)
            near &= events["t"] <= t + WITHIN_NS
            parts += [(other, op) for other in events[near][:most]]
        for other, op in parts:
            row = other.copy()
            row["t"], row["cpu"], row["op"] = done + 1, cpu, op
            row["gfp"] = 0
            rows.append(row)
    return np.array(rows, EVENT) if rows else np.zeros(0, EVENT)
