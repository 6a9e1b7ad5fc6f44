"""Live objects: what a replay is left with, beside a ledger of the operations and the kernel.

The ledger starts from the kernel's own count and counts the operations that are replayed, one by
one; it knows of no slab, CPU or list.  So the replay and the ledger may not differ by an object.
Vectors of obj_cgroups stand apart: those of the recording are left out, and the strategy makes its
own.  What is left between the ledger and the kernel's count at the end was not traced.
"""

from typing import NamedTuple

import numpy as np

from kmbench.core.events import ALLOC, FREE
from kmbench.core.setup import Setup
from kmbench.core.specialise import cached
from kmbench.simulate import Simulation
from kmbench.trace.truth import Truth

_ALLOC, _FREE = ALLOC, FREE


class Live(NamedTuple):
    """Live objects of a cache at the end of the workload."""

    cache: str
    replay: int  # without the strategy's vectors
    ledger: int  # the kernel's count at the start, and what the replayed operations did to it
    vectors: int  # the strategy's own
    kernel: int | None  # as the kernel counted at the end; None: not known
    recorded_vectors: int | None  # made and not given back, as recorded

    @property
    def differs(self) -> bool:
        """Whether the replay is not left with what its operations leave."""
        return self.replay != self.ledger

    @property
    def drift(self) -> int | None:
        """Objects that the kernel has more than the recording accounts for."""
        if self.kernel is None or self.recorded_vectors is None:
            return None
        return self.kernel - self.ledger - self.recorded_vectors


@cached
def _count(events, cache_of, net):  # pragma: no cover - compiled
    for i in range(len(events)):
        obj = events[i].obj
        if events[i].op == _ALLOC:
            cache_of[obj] = events[i].cache
            net[events[i].cache] += 1
        elif events[i].op == _FREE:
            # the cache that it is in: a free may be recorded under another name
            net[cache_of[obj]] -= 1


class Ledger:
    """Allocations less frees per cache row."""

    def __init__(self, setup: Setup):
        self._cache_of = np.zeros(setup.nr_objects, np.int32)
        known = setup.initial_objects[setup.initial_objects["slab"] > 0]
        self._cache_of[known["obj"]] = setup.initial_slabs["cache"][known["slab"] - 1]
        self.net = np.zeros(len(setup.caches) + 1, np.int64)

    def add(self, events: np.ndarray) -> None:
        """Count EVENT records, in order."""
        _count(np.ascontiguousarray(events), self._cache_of, self.net)


def live_counts(
    truth: Truth, simulation: Simulation, ledger: Ledger, vectors: dict[str, int] | None
) -> tuple[Live, ...]:
    """Every scored cache whose count at the start is known, by name.

    simulation, ledger: fed until ``truth.totals["t_end"]``.
    vectors: recorded ones that were left out, made less given back, by cache; None: not known.
    """
    S = simulation.S
    rows = len(S.cache)
    root = S.cache["root"]  # copies count for the cache that they are of
    live = np.zeros(rows, np.int64)
    np.add.at(live, np.repeat(root, S.k["nr_cpus"][0]), S.cpu["live"])
    slab = S.obj["slab"][simulation.setup.nr_objects :]
    own = np.zeros(rows, np.int64)
    np.add.at(own, root[S.slab["cache"][slab[slab > 0]]], 1)
    counts = []
    for row, spec in enumerate(simulation.setup.caches, 1):
        known = truth.caches.get(spec.name, {})
        start = known.get("live_start")
        if known.get("scoreable") and start is not None:
            replay, expected = int(live[row] - own[row]), start + int(ledger.net[row])
            recorded = None if vectors is None else vectors.get(spec.name, 0)
            counts.append(Live(spec.name, replay, expected, int(own[row]), known["live_end"],
                               recorded))  # fmt: skip
    return tuple(sorted(counts))
