"""What untraced tasks took from the slab lists between their listing and the first reading.

A recorder may list the slabs a moment before its events count, and meanwhile others are at work: in
all seven recordings of one recorder somebody wrote a file then.  The first reading of sysfs shows
it: node lists are shorter than they were listed, and a CPU on which nothing of a cache was traced
holds an active slab.  SLUB takes slabs off a node list, and makes one active, only to allocate, and
the CPU keeps what it took (Linux 6.18 mm/slub.c:get_partial_node): so as many objects were
allocated as, together with what was traced, leave the lists as they were read.  It was not the
recorder's CPU: that was busy recording.
"""

from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kmbench.core.events import ALLOC, EVENT, FREE, SLAB_RECLAIM_ACCOUNT
from kmbench.core.setup import CacheSpec
from kmbench.trace.capture_state import CPU_PARTIAL, CPU_SLAB, FULL, NODE_PARTIAL
from kmbench.trace.tables import open_parquet, read_arrays

_COLUMNS = ("t_sysfs", "cache", "partial_slabs", "cpu_partial_slabs", "cpu_slabs")
_MOST = 256  # allocations to try


class Lists(NamedTuple):
    """What sysfs says of a cache's slabs (mm/slub.c:show_slab_objects, slabs_cpu_partial_show)."""

    node: int  # slabs on the node list
    partial: int  # on the CPUs' partial lists
    cpu: int  # active ones, each with the partial list of its CPU


class SmallSlub:
    """One cache from its listed slabs on, for the few operations until the first reading.

    Every list holds rows of the listing, or negative numbers for slabs made since.
    """

    def __init__(self, slabs: np.ndarray, spec: CacheSpec, cpus: int):
        """slabs: INITIAL_SLAB, those of this cache."""
        self.spec = spec
        self.free: dict[int, int] = {}  # free objects; without: full
        self.active: list[int | None] = [None] * cpus
        self.partial: list[list[int]] = [[] for _ in range(cpus)]  # oldest first
        self.node: list[int] = []
        rows = np.flatnonzero(slabs["where"] != FULL)
        columns = (slabs[name][rows].tolist() for name in ("objects", "inuse", "where", "cpu"))
        for row, objects, inuse, where, cpu in zip(rows.tolist(), *columns, strict=True):
            self.free[row] = objects - inuse
            if where == CPU_SLAB:
                self.active[cpu] = row
            elif where == CPU_PARTIAL:
                self.partial[cpu].insert(0, row)
            elif where == NODE_PARTIAL:
                self.node.append(row)

    def copy(self) -> "SmallSlub":
        """Another one in the same state."""
        other = object.__new__(SmallSlub)
        other.spec, other.free, other.active = self.spec, self.free.copy(), self.active.copy()
        other.partial, other.node = [part.copy() for part in self.partial], self.node.copy()
        return other

    def alloc(self, cpu: int) -> int:
        """Allocate an object; its slab (___slab_alloc, get_partial_node)."""
        slab = self.active[cpu]
        if slab is None or not self.free.get(slab):
            slab = self._next(cpu)
            self.active[cpu] = slab
        self.free[slab] -= 1
        return slab

    def _next(self, cpu: int) -> int:
        if self.partial[cpu]:
            return self.partial[cpu].pop()
        if not self.node:
            slab = -1 - len(self.free)
            self.free[slab] = self.spec.objects
            return slab
        also = self.spec.cpu_partial_slabs // 2 + 1 if self.spec.cpu_partial else 0
        slab, *more = self.node[: 1 + also]
        self.partial[cpu] += more
        del self.node[: 1 + also]
        return slab

    def give_back(self, slab: int, cpu: int) -> None:
        """Free an object of `slab` (__slab_free, put_cpu_partial)."""
        was_full = not self.free.get(slab)
        self.free[slab] = self.free.get(slab, 0) + 1
        if slab in self.node:
            if self.free[slab] == self.spec.objects and len(self.node) >= self.spec.min_partial:
                self.node.remove(slab)
        elif was_full and slab not in self.active:
            if not self.spec.cpu_partial:
                self.node.append(slab)
                return
            if len(self.partial[cpu]) >= self.spec.cpu_partial_slabs:
                self._drain(cpu)
            self.partial[cpu].append(slab)

    def _drain(self, cpu: int) -> None:
        for slab in reversed(self.partial[cpu]):
            if self.free[slab] < self.spec.objects or len(self.node) < self.spec.min_partial:
                self.node.append(slab)
        self.partial[cpu] = []

    def lists(self) -> Lists:
        """What sysfs would say now."""
        held = [len(partial) for partial in self.partial]
        pairs = zip(self.active, held, strict=True)
        cpu = sum(1 + number for slab, number in pairs if slab is not None)
        return Lists(len(self.node), sum(held), cpu)


def needed(slub: SmallSlub, cpu: int, traced: Iterable[tuple], seen: Lists) -> int:
    """Fewest allocations on `cpu`, before what was traced, that leave the lists as `seen`.

    traced: (op, cpu, key, slab) of each operation; slab: of objects from before, else None.
    0 when no number does.
    """
    traced = list(traced)
    for count in range(_MOST):
        then, place = slub.copy(), {}
        for op, where, key, slab in traced:
            if op == ALLOC:
                place[key] = then.alloc(where)
            elif (slab := place.pop(key, slab)) is not None:
                then.give_back(slab, where)
        if then.lists() == seen:
            return count
        slub.alloc(cpu)
    return 0


def untraced_allocations(
    folder: Path, slabs: np.ndarray, caches: tuple[CacheSpec, ...], events: np.ndarray,
    slab_of: np.ndarray, cpus: int, key: int, end: int,
) -> np.ndarray:  # fmt: skip
    """ALLOC events at time 0, owned by the root, and FREE events for the same objects.

    slabs: INITIAL_SLAB, cache by cache.  events: EVENT array of what was traced, in time order.
    slab_of: i4 per key, 1-based row of `slabs` of an object that was there before, 0 of others.
    cpus: of the machine.  Keys of what is made are `key`, `key` + 1, ...

    When such objects are freed is not known.  Those of reclaimable caches, which hold what is
    cached, are at the time `end` (ns), the others at the first reading.
    """
    path = folder / "snapshots.parquet"
    with open_parquet(path) as file:
        if not set(_COLUMNS) <= set(file.schema_arrow.names):
            return np.zeros(0, EVENT)
    snaps = read_arrays(path, dict.fromkeys(_COLUMNS, "i"))
    times = snaps["t_sysfs"][snaps["t_sysfs"] >= 0]
    first = int(times.min(initial=np.iinfo(np.int64).max))
    events = events[: bisect_right(events["t"], first)]
    events = events[events["op"] <= FREE]
    if not len(times) or not len(events):
        return np.zeros(0, EVENT)
    busy = int(events["cpu"][0])
    idle = next((cpu for cpu in range(cpus) if cpu != busy), busy)
    begins = np.searchsorted(slabs["cache"], np.arange(1, len(caches) + 2)).tolist()
    states: dict[int, tuple[SmallSlub, list[tuple], Lists]] = {}
    for at in np.flatnonzero((snaps["t_sysfs"] == first) & (snaps["cache"] < len(caches))):
        row = int(snaps["cache"][at]) + 1
        if caches[row - 1].sheaf_capacity:
            continue
        begin, stop = begins[row - 1 : row + 1]
        mine = events[events["cache"] == row]
        traced = [
            (op, where, obj, slab - 1 - begin if slab else None)
            for op, where, obj, slab in zip(
                *(mine[name].tolist() for name in ("op", "cpu", "obj")),
                slab_of[mine["obj"]].tolist(), strict=True,
            )
        ]  # fmt: skip
        seen = Lists(*(int(snaps[name][at]) for name in _COLUMNS[2:]))
        states[row] = SmallSlub(slabs[begin:stop], caches[row - 1], cpus), traced, seen

    def explained(cpu: int, only_traced: bool) -> list[int]:
        """Rows of the caches, one per allocation on `cpu`."""
        found = []
        for row, (slub, traced, seen) in states.items():
            new = slub.active[cpu] is None and cpu not in (where for _, where, *_ in traced)
            if new and (traced or not only_traced):
                found += [row] * needed(slub.copy(), cpu, traced, seen)
        return found

    # a cache that was traced on the busy CPU only tells whether it was the other one
    cpu = idle if explained(idle, True) else busy
    rows = explained(cpu, False)
    out = np.zeros(2 * len(rows), EVENT)
    out["cache"], out["obj"] = rows * 2, key + np.tile(np.arange(len(rows)), 2)
    out["op"] = np.repeat([ALLOC, FREE], len(rows))
    stays = [caches[row - 1].flags & SLAB_RECLAIM_ACCOUNT != 0 for row in rows]
    out["t"][len(rows) :] = np.where(stays, end, first)
    out["memcg"], out["cpu"] = 1, cpu
    return out[np.argsort(out["t"], kind="stable")]
