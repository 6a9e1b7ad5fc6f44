"""What accounting adds to an allocation and a free that find all they need, in counted operations.

Counted in a run of the compiled model, not declared: a small machine, one object after another.
"""

from typing import NamedTuple

import numpy as np

from kmbench.core.events import (
    ALLOC,
    CG_CREATE,
    EVENT,
    FREE,
    GFP_KERNEL,
    MARK,
    SLAB_ACCOUNT,
    SLAB_RECLAIM_ACCOUNT,
)
from kmbench.core.paths import PLUGIN_PATH, Ops
from kmbench.core.setup import CacheSpec, GroupSpec, Machine, Setup
from kmbench.simulate import Simulation
from kmbench.strategy import Strategy

__all__ = ["FastPath", "fast_path", "spoken"]

NONE = Ops()
NR = 8  # objects measured: few enough for one slab and one page of bytes


class FastPath(NamedTuple):
    """Operations beyond those of strategy `none`, an object or slab."""

    alloc: Ops
    """Accounted allocation that finds copy, slab and stock ready."""
    free: Ops
    """Free of such an object."""
    unused: Ops
    """The root's allocation from an accounted cache, while there is no other group."""
    unused_other: Ops
    """The same from a cache that the design does not account, if it leaves any out."""
    unused_slab: Ops
    """A slab made for the root, while there is no other group."""


def spoken(ops: Ops) -> str:
    """``br 2, ptr 1``, or ``0``."""
    named = zip(Ops._fields, ops, strict=True)
    return ", ".join(f"{name} {nr:g}" for name, nr in named if nr) or "0"


def _cache(name: str, flags: int) -> CacheSpec:
    return CacheSpec(name, 192, 192, 0, 21, 0, 5, 0, 0, flags=flags)


CACHES = (
    _cache("dentry", SLAB_ACCOUNT | SLAB_RECLAIM_ACCOUNT),
    _cache("skbuff_head_cache", 0),
    _cache("other", 0),
)


class _Probe:
    """A simulation of the strategy with a group (row 2) that can be made."""

    def __init__(self, strategy: Strategy):
        groups = (GroupSpec("/", 0), GroupSpec("/g", online=False))
        setup = Setup(Machine(cpus=1, memory_pages=1024), "6.18", CACHES, groups, 256)
        self.sim = Simulation(setup, strategy)
        other = strategy.path_ops({p.name: p.default for p in strategy.parameters})
        self.ops = [other.get(path.name, path.ops) for path in strategy.paths]
        self.t = self.handle = 0

    def feed(self, op: int, count: int = 1, cache: int = 0, memcg: int = 1, obj=0) -> None:
        events = np.zeros(count, EVENT)
        events["op"], events["memcg"], events["cache"], events["t"] = op, memcg, cache, self.t
        events["gfp"], events["obj"] = GFP_KERNEL, obj
        events["arg"] = op == CG_CREATE
        self.sim.feed(events)

    def alloc(self, cache: int, memcg: int, count: int) -> Ops:
        """Allocate; operations an object."""
        first, self.handle = self.handle + 1, self.handle + count
        return self.counted(ALLOC, count, cache, memcg, np.arange(first, first + count))

    def counted(self, op: int, count: int, cache: int, memcg: int, obj) -> Ops:
        before = self.sim.S.path["count"].copy()
        self.feed(op, count, cache, memcg, obj)
        passed = self.sim.S.path["count"] - before
        total = np.zeros(len(Ops._fields))
        for row, ops in enumerate(self.ops, PLUGIN_PATH):
            total += passed[row] * np.array(ops)
        return Ops(*(total / count).tolist())


def _less(a: Ops, b: Ops) -> Ops:
    return Ops(*(x - y for x, y in zip(a, b, strict=True)))


def fast_path(strategy: Strategy) -> FastPath:
    """Count the operations of `strategy`'s fast paths."""
    probe = _Probe(strategy)
    made = [probe.alloc(cache, 1, 1) for cache in (1, 2, 3)]
    root = [probe.alloc(cache, 1, NR) for cache in (1, 2, 3)]
    probe.feed(CG_CREATE, memcg=2)
    for cache in (1, 2):
        probe.alloc(cache, 2, 1)  # a design that copies caches late makes the copy now
        probe.t += 100_000_000
        probe.feed(MARK)
        probe.alloc(cache, 2, 4)
        if probe.sim.S.memcg["billed_slab"][2]:
            break
    else:
        return FastPath(NONE, NONE, root[0], root[2], _less(made[0], root[0]))
    probe.alloc(cache, 2, NR)
    warm = np.arange(probe.handle - NR + 1, probe.handle + 1)
    probe.feed(FREE, NR, obj=warm)
    alloc = probe.alloc(cache, 2, NR)
    last = np.arange(probe.handle - NR + 1, probe.handle + 1)
    free = probe.counted(FREE, NR, 0, 2, last)
    return FastPath(alloc, free, root[cache - 1], root[2], _less(made[2], root[2]))
