"""Allocations that an interrupt overtook in the recording.

The kernel traces an allocation after it has happened.  The slow path of SLUB runs with interrupts
disabled (Linux 6.18 mm/slub.c:___slab_alloc, local_lock_irqsave), so an interrupt that came
meanwhile is served right at its end: what the interrupt's softirqs free is traced before the
allocation, which took place earlier.  Seen in task_struct: RCU frees objects of the very slab that
the interrupted CPU has just found empty.  Where the interrupt freed the very object that was
allocated, the allocation came after it.

A slab that is new is allocated with interrupts enabled (new_slab), which takes longer, and where
its objects are charged, its vector is allocated, and traced, on the way (alloc_slab_obj_exts).  An
interrupt shortly before the vector, or between it and the allocation it is for, came after SLUB had
found no free object.
"""

import numpy as np

from kmbench.core.specialise import cached

GAP_NS = 4_000  # from the last event of the interrupt to the event of the allocation
NEW_SLAB_GAP_NS = 10_000  # to the event of a vector: pages are allocated in between
BURST_NS = 20_000  # events of one interrupt are at most this far apart
_INTERRUPT = 7  # ctx: hardirq, softirq, nmi
FREED, ALLOCATED, VECTOR = 0, 1, 2


@cached
def _move(
    t, kind, cpu, task, ctx, obj, nr_objects, gap, new_slab_gap, burst
):  # pragma: no cover - compiled
    out = t.copy()
    freed = np.zeros(nr_objects, np.int64)  # when, and one: pages never written cost nothing
    first = np.zeros(256, np.int64)
    last = np.full(256, -1, np.int64)
    awaits = np.full(256, -1, np.int64)  # task whose allocation had to make a vector
    moved = 0
    for i in range(len(t)):
        c = cpu[i]
        if kind[i] == FREED:
            freed[obj[i]] = t[i] + 1
        if ctx[i] & _INTERRUPT:
            if last[c] < 0 or t[i] - last[c] > burst:
                first[c] = t[i]
            last[c] = t[i]
            continue
        near = last[c] >= 0 and (awaits[c] == task[i] or t[i] - last[c] <= gap)
        if kind[i] != FREED and near and freed[obj[i]] <= first[c]:
            out[i] = max(first[c] - 1, 0)
            moved += 1
        if kind[i] == VECTOR:
            awaits[c] = task[i]
            if last[c] >= 0 and t[i] - last[c] <= new_slab_gap:
                continue
        else:
            awaits[c] = -1
        last[c] = -1
    return out, moved


def before_interrupts(
    t: np.ndarray,
    kind: np.ndarray,
    cpu: np.ndarray,
    task: np.ndarray,
    ctx: np.ndarray,
    obj: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Times (i8, ns) with overtaken allocations put before the interrupt, and how many those are.

    All arrays are in time order; kind is FREED, ALLOCATED or VECTOR, ctx the recorder's context
    bits (1 hardirq, 2 softirq, 4 nmi), obj a number per object.
    """
    t = np.ascontiguousarray(t, np.int64)
    arrays = [np.ascontiguousarray(values) for values in (kind, cpu, task, ctx, obj)]
    nr_objects = int(obj.max()) + 1 if len(obj) else 0
    return _move(t, *arrays, nr_objects, GAP_NS, NEW_SLAB_GAP_NS, BURST_NS)
