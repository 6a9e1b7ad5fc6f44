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

from kmbench.core import events as ev
from kmbench.core.specialise import cached
from kmbench.trace.passes import OWN_VECTOR

GAP_NS = 4_000  # from the last event of the interrupt to the event of the allocation
NEW_SLAB_GAP_NS = 50_000  # to the event of a vector: pages are allocated in between, and touched
BURST_NS = 20_000  # events of one interrupt are at most this far apart
_FREE, _INTERRUPT = ev.FREE, ev.CTX_INTERRUPT


@cached
def _move(events, role, nr_keys, gap, new_slab_gap, burst):  # pragma: no cover - compiled
    freed = np.zeros(nr_keys, np.int64)  # when, and one
    first = np.zeros(256, np.int64)
    last = np.full(256, -1, np.int64)
    awaits = np.full(256, -1, np.int64)  # task whose allocation had to make a vector
    late = np.zeros(len(events), np.bool_)
    latest = np.int64(0)
    for i in range(len(events)):
        t, c, task, key = events[i].t, events[i].cpu, events[i].task, events[i].obj
        is_free = events[i].op == _FREE
        if is_free:
            freed[key] = t + 1
        if events[i].gfp & _INTERRUPT:
            if last[c] < 0 or t - last[c] > burst:
                first[c] = t
            last[c] = latest = t
            continue
        near = last[c] >= 0 and (awaits[c] == task or t - last[c] <= gap)
        if not is_free and near and freed[key] <= first[c]:
            events[i].t = max(first[c] - 1, 0)
            late[i] = events[i].t < latest
        if not late[i]:
            latest = events[i].t
        if not is_free and role[i] == OWN_VECTOR:
            awaits[c] = task
            if last[c] >= 0 and t - last[c] <= new_slab_gap:
                continue
        else:
            awaits[c] = -1
        last[c] = -1
    return late


def before_interrupts(events: np.ndarray, role: np.ndarray, nr_keys: int) -> np.ndarray:
    """Give overtaken allocations a time before the interrupt, in place.

    events: EVENT array of slab operations in time order, ``obj`` a key below `nr_keys`.
    role: u1 per event, see passes.py; OWN_VECTOR tells allocations of vectors.

    Returns which events (bool) now stand later than their time says.
    """
    return _move(events, role, nr_keys, GAP_NS, NEW_SLAB_GAP_NS, BURST_NS)
