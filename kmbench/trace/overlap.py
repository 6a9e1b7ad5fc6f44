"""Allocations that frees on another CPU overtook in the recording.

The kernel traces an allocation after it has happened, and a free before it does (Linux 6.18
mm/slub.c: kmem_cache_alloc_noprof, kmem_cache_free).  Where two CPUs are at the same cache at the
same time, a free may so be traced before an allocation that had already found its slab full and was
on its way to the next one.

An allocation began after whatever its CPU did before, and at most as long before its event as the
slow path takes; frees on other CPUs since then came after it.  Where it got the very object of one
of them, it came after that one: had its slab been full but for several such objects, it would have
got the last of them.
"""

import numpy as np

from kmbench.core import events as ev
from kmbench.core.specialise import cached
from kmbench.trace.interrupts import GAP_NS

_FREE = ev.FREE


@cached
def _move(events, late, gap):  # pragma: no cover - compiled
    for i in range(len(events)):
        if events[i].op == _FREE:
            continue
        t, cpu, cache, key = events[i].t, events[i].cpu, events[i].cache, events[i].obj
        j = i - 1
        while j >= 0 and events[j].cpu != cpu and events[j].obj != key:
            if not late[j]:
                if t - events[j].t > gap:
                    break
                if events[j].op == _FREE and events[j].cache == cache and events[j].t <= t:
                    events[i].t = max(events[j].t - 1, 0)
                    late[i] = True
            j -= 1


def before_frees(events: np.ndarray, late: np.ndarray) -> None:
    """Give overtaken allocations a time before those frees, in place.

    events: EVENT array of slab operations in time order but for those (bool) in `late`, which
    grows: they stand later than their time says.
    """
    _move(events, late, GAP_NS)
