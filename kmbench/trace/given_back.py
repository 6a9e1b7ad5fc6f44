"""Objects that existed at the start and were given back untraced: by kfree_rcu(), in batches that
were waiting then, or by a task that the recorder leaves out.

How many places a slab had free at the start is known.  What is allocated in it beyond those, in
places of which nothing was seen yet, shows that objects of the start had gone.  When is only known
to be before that; but a batch goes slab by slab in one go (Linux 6.18 mm/slub.c:
kmem_cache_free_bulk) and its places are found again in one go, so everything that a CPU finds in
such a run is dated at its beginning.

A slab on no list at the start was full, or was made since by a task that the recorder leaves out:
its pages were not seen allocated either.  It counts as full if a CPU turned to another slab while
everything seen in it was in use, so that the other places were taken too, and if only few places
were found: of a new slab nearly all are.
"""

from typing import NamedTuple

import numpy as np

from kmbench.core.events import FREE
from kmbench.core.setup import CacheSpec
from kmbench.core.specialise import cached
from kmbench.trace.capture_state import FULL, HANDLE_SHIFT, InitialSlabs

RUN_NS = 1_000_000  # allocations of one run are at most this far apart
FEW = 4  # at most one place in so many of a slab that was full
_FREE = FREE
_IN_USE, _WAS_FREED = 1, 2  # states of a place; 0: nothing was seen of it


class GivenBack(NamedTuple):
    """Objects that existed at the start, by key, and when they went."""

    keys: np.ndarray  # capture handles
    slabs: np.ndarray  # i8: 1-based row of the initial slabs, per key
    frees: np.ndarray  # EVENT: FREE of each, in time order


@cached
def _first_allocations(raw, row_of_slab, shift, state, free, last, ran_out, out):
    # pragma: no cover - compiled
    n = 0
    for i in range(len(raw)):
        if raw[i].op > _FREE:
            continue
        key, cpu, cache = raw[i].obj, raw[i].cpu, raw[i].cache
        slab = key >> shift
        if slab >= len(row_of_slab):
            continue
        if raw[i].op == _FREE:
            free[slab] += state[key] != _WAS_FREED
            state[key] = _WAS_FREED
            continue
        before = last[cpu, cache]
        if before >= 0 and before != slab and free[before] == 0:
            ran_out[before] = True
        last[cpu, cache] = slab
        free[slab] -= state[key] == _WAS_FREED
        if state[key] == 0 and row_of_slab[slab] != 0:
            out[n] = i
            n += 1
        state[key] = _IN_USE
    return n


def _ranks(rows: np.ndarray) -> np.ndarray:
    """The how-manieth of its value each entry is, from 0."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
    return rank


def given_back_unseen(
    raw: np.ndarray,
    initial: InitialSlabs,
    caches: tuple[CacheSpec, ...],
    named: np.ndarray,
) -> GivenBack:
    """The objects of the start in whose places others were allocated without a free.

    raw: EVENT array in time order, ``obj`` a capture handle.
    named: 1-based rows of the initial slabs, of the objects that were seen freed.

    Caches with sheaves are left out: what lies in those counts as used in its slab.
    """
    slabs = initial.slabs
    count = len(initial.row_of_slab)
    places = count << HANDLE_SHIFT
    state, free = np.zeros(places, np.uint8), np.zeros(count, np.int64)
    last = np.full((256, len(caches) + 1), -1, np.int64)
    ran_out, first = np.zeros(count, np.bool_), np.empty(min(len(raw), places), np.int64)
    n = _first_allocations(
        raw, initial.row_of_slab, HANDLE_SHIFT, state, free, last, ran_out, first
    )
    first = first[:n]
    rows = initial.row_of_slab[raw["obj"][first] >> HANDLE_SHIFT].astype(np.int64)
    of = slabs[rows - 1]
    free = of["objects"].astype(np.int64) - of["inuse"]
    found = np.bincount(rows, minlength=len(slabs) + 1)[rows]
    unnamed = of["inuse"] - np.bincount(named, minlength=len(slabs) + 1)[rows]
    beyond = _ranks(rows) - free
    direct = np.array([cache.sheaf_capacity == 0 for cache in caches], bool)[of["cache"] - 1]
    ran_out = ran_out[raw["obj"][first] >> HANDLE_SHIFT]
    newer = (of["where"] == FULL) & ((FEW * found > of["objects"]) | ~ran_out)
    same = of["cache"] == raw["cache"][first]  # else the page has changed hands
    gone = direct & same & ~newer & (beyond >= 0) & (beyond < unnamed)
    frees = raw[first[gone]]
    frees["op"], frees["gfp"], frees["t"] = FREE, 0, _starts_of_runs(frees) - 1
    keys = frees["obj"].copy()
    return GivenBack(keys, rows[gone], frees[np.argsort(frees["t"], kind="stable")])


def _starts_of_runs(events: np.ndarray) -> np.ndarray:
    """When the run of each event (ns) began: of the same cache and CPU, no gap above RUN_NS."""
    order = np.lexsort((events["t"], events["cpu"], events["cache"]))
    t, cpu, cache = (events[name][order] for name in ("t", "cpu", "cache"))
    begins = np.ones(len(events), bool)
    begins[1:] = (np.diff(t) > RUN_NS) | (cpu[1:] != cpu[:-1]) | (cache[1:] != cache[:-1])
    out = np.empty(len(events), np.int64)
    out[order] = t[begins][np.cumsum(begins) - 1]
    return out
