"""Allocations that an interrupt overtook in the recording.

The kernel traces an allocation after it has happened.  The slow path of SLUB runs with interrupts
disabled (Linux 6.18 mm/slub.c:___slab_alloc, local_lock_irqsave), so an interrupt that came
meanwhile is served right at its end: what the interrupt's softirqs free is traced before the
allocation, which took place earlier.  Seen in task_struct: RCU frees objects of the very slab that
the interrupted CPU has just found empty.
"""

import numpy as np

from kmbench.core.specialise import cached

GAP_NS = 4_000  # from the last event of the interrupt to the event of the allocation
BURST_NS = 20_000  # events of one interrupt are at most this far apart
_INTERRUPT = 7  # ctx: hardirq, softirq, nmi


@cached
def _move(t, is_alloc, cpu, ctx, gap, burst):  # pragma: no cover - compiled
    out = t.copy()
    first = np.zeros(256, np.int64)
    last = np.full(256, -1, np.int64)
    moved = 0
    for i in range(len(t)):
        c = cpu[i]
        if ctx[i] & _INTERRUPT:
            if last[c] < 0 or t[i] - last[c] > burst:
                first[c] = t[i]
            last[c] = t[i]
            continue
        if is_alloc[i] and last[c] >= 0 and t[i] - last[c] <= gap:
            out[i] = max(first[c] - 1, 0)
            moved += 1
        last[c] = -1
    return out, moved


def before_interrupts(
    t: np.ndarray, is_alloc: np.ndarray, cpu: np.ndarray, ctx: np.ndarray
) -> tuple[np.ndarray, int]:
    """Times (i8, ns) with overtaken allocations put before the interrupt, and how many those are.

    All arrays are in time order; ctx is the recorder's context bits (1 hardirq, 2 softirq, 4 nmi).
    """
    t = np.ascontiguousarray(t, np.int64)
    cpu, ctx = np.ascontiguousarray(cpu), np.ascontiguousarray(ctx)
    return _move(t, np.ascontiguousarray(is_alloc), cpu, ctx, GAP_NS, BURST_NS)
