"""Address spaces whose end was not recorded.

The last reference to a dead process's mm_struct is dropped by whoever runs next on its CPU
(Linux 6.18 kernel/sched/core.c:finish_task_switch, mmdrop).  Where that is a task that the
recorder leaves out, the frees of the mm_struct, of its page directory and of its per-CPU counters
(kernel/fork.c:__mmdrop) are missing together.  They are put in at the end of the process's exit,
on the CPU where it ended.

The last reference may also be held elsewhere: by a CPU that the process ran on before, or by
somebody who reads about it in /proc.  What a CPU frees it allocates first (mm/slub.c: the freelist
of its active slab): so where the place of the mm_struct is taken by the first one that a CPU
allocates after the exit, it was freed on that CPU.
"""

import numpy as np

from kmbench.core import events as ev
from kmbench.core.events import EVENT

_NEVER = np.iinfo(np.int64).max
WITHIN_NS = 30_000  # mm_init() allocates the page directory and the counters within this time


def _freed_at(events: np.ndarray, alloc_op: int) -> np.ndarray:
    """Per event (i8, ns): when what it allocated is freed; never when that was not seen."""
    key, op = events["obj"], events["op"]
    order = np.argsort(key, kind="stable")
    out = np.full(len(events), _NEVER)
    after = order[1:]
    freed = (key[after] == key[order[:-1]]) & (op[after] != alloc_op)
    out[order[:-1][freed]] = events["t"][after[freed]]
    return out


def _allocations(events: np.ndarray, alloc_op: int) -> tuple[np.ndarray, np.ndarray]:
    """Allocations among `events` by time, and when each is freed."""
    made = np.flatnonzero(events["op"] == alloc_op)
    made = made[np.argsort(events["t"][made], kind="stable")]
    return events[made], _freed_at(events, alloc_op)[made]


def _freed_on(mine: np.ndarray, index: int, done: int) -> int:
    """CPU on which the mm_struct of event `index` was freed after `done` (ns), -1 not known.

    mine: EVENT array, those of mm_struct.
    """
    made = (mine["op"] == ev.ALLOC) & (mine["t"] > done)
    again = np.flatnonzero(made & (mine["obj"] == mine[index]["obj"]))
    if not len(again):
        return -1
    cpu = mine["cpu"][again[0]]
    first = np.flatnonzero(made & (mine["cpu"] == cpu))[0]
    return int(cpu) if first == again[0] else -1


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
    lost = (mine["op"] == ev.ALLOC) & (_freed_at(mine, ev.ALLOC) == _NEVER)
    if not np.any(lost):
        return np.zeros(0, EVENT)
    pages = pages[pages["arg"] == 0]
    forks = stacks[stacks["op"] == ev.PAGE_ALLOC]
    exits = stacks[stacks["op"] == ev.PAGE_FREE]
    sides = (
        (*_allocations(pages, ev.PAGE_ALLOC), ev.PAGE_FREE, 1),
        (*_allocations(percpu, ev.PERCPU_ALLOC), ev.PERCPU_FREE, 2),
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
        cpu, done = int(ends[0]["cpu"]), int(ends[0]["t"])
        there = _freed_on(mine, index, done)
        cpu = cpu if there < 0 else there
        parts = [(event, ev.FREE)]
        for events, freed, op, most in sides:
            first, stop = np.searchsorted(events["t"], [t + 1, t + WITHIN_NS + 1])
            near = first + np.flatnonzero(events["task"][first:stop] == event["task"])
            # a free seen later is of somebody else: the page was given away untraced meanwhile
            parts += [(events[at], op) for at in near[:most] if freed[at] > done]
        for other, op in parts:
            row = other.copy()
            row["t"], row["cpu"], row["op"] = done + 1, cpu, op
            row["gfp"] = 0
            rows.append(row)
    return np.array(rows, EVENT) if rows else np.zeros(0, EVENT)
