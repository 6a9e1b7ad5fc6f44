"""A recorded workload under other strategies and allocators: what the same host would have used."""

from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kmbench.core.events import EVENT, SAMPLE
from kmbench.core.sample import TIMELINE_COLUMNS, TOTAL_COLUMNS
from kmbench.core.slab_geometry import on_slab
from kmbench.errors import unknown
from kmbench.plugins import Plugins, load_plugins
from kmbench.scenario import ALLOCATORS
from kmbench.simulate import Simulation
from kmbench.trace.recording import open_recording

ROOT = 1


class Alternative(NamedTuple):
    """One strategy's use of memory over the recording; arrays have one entry a sample."""

    strategy: str
    allocator: str
    t: np.ndarray  # ns
    slab_bytes: np.ndarray  # pages of all slabs, times the page size
    charged_bytes: np.ndarray  # to the groups right below the root: metric A0 is its mean
    true_bytes: np.ndarray  # slots of live objects and pages that groups really allocated
    metadata_bytes: np.ndarray
    copies: int  # per-group copies of caches that were made
    failed: int  # allocations that failed

    def row(self) -> dict[str, Any]:
        """Peaks and means, as a plain document."""
        means = {
            f"{name}_mean": float(getattr(self, name).mean())
            for name in ("slab_bytes", "charged_bytes", "true_bytes", "metadata_bytes")
        }
        return {
            "strategy": self.strategy, "allocator": self.allocator,
            "slab_bytes_peak": int(self.slab_bytes.max()),
            "slab_bytes_end": int(self.slab_bytes[-1]), **means,
            "copies": self.copies, "failed_allocs": self.failed,
        }  # fmt: skip


def _measure(simulation: Simulation, strategy: str) -> Alternative:
    timeline, _, totals = simulation.tables()
    t = dict(zip(TIMELINE_COLUMNS, timeline, strict=True))
    total = dict(zip(TOTAL_COLUMNS, totals, strict=True))
    page, k = simulation.setup.machine.page_size, simulation.S.k[0]
    samples = len(total["t"])
    groups = t["memcg"] > ROOT
    below_root = groups & (t["parent"] <= ROOT)
    kernel = np.maximum(t["kmem_usage"], t["memory_kernel"])
    charged = np.bincount(t["sample"][below_root], kernel[below_root], minlength=samples)
    used = np.bincount(
        t["sample"][groups], (t["true_slab"] + t["true_pages"])[groups], minlength=samples
    )
    setup = simulation.setup
    return Alternative(
        strategy, setup.allocator, total["t"], total["slab_pages"] * page, charged, used,
        total["metadata"], int(k["nr_caches"]) - 1 - len(setup.caches), int(k["nr_failed"]),
    )  # fmt: skip


def what_if(
    path: str | Path,
    strategies: Iterable[str] | None = None,
    *,
    allocators: Iterable[str] = ("slub",),
    sample_every: int = 0,
    plugins: Plugins | None = None,
    progress: Callable[[str], None] = lambda strategy: None,
) -> list[Alternative]:
    """Replay a recording under `strategies` (default: all that are registered), ``none`` first, on
    each of `allocators` (slub, slab).

    sample_every: ns between samples, besides those that the recording asks for; 0 = only those.
    progress: called with the name of every strategy before its engine is compiled or loaded.

    Raises UsageProblem for a file that is no recording, and for unknown strategies and allocators.
    """
    plugins = plugins or load_plugins()
    names = list(strategies or sorted(plugins.strategies, key=lambda name: (name != "none", name)))
    chosen = [plugins.strategy(name) for name in names]
    allocators = list(dict.fromkeys(allocators))
    for allocator in allocators:
        if allocator not in ALLOCATORS:
            raise unknown("allocator", allocator, ALLOCATORS)
    with open_recording(path) as recording:
        simulations = []
        for allocator, strategy in product(allocators, chosen):
            progress(strategy.name)
            setup = on_slab(recording.setup) if allocator == "slab" else recording.setup
            simulations.append(Simulation(setup, strategy, sample_every=sample_every))
        last = 0
        for batch in recording.batches:
            for simulation in simulations:
                simulation.feed(batch)
            last = int(batch["t"][-1]) if len(batch) else last
    end = np.zeros(1, EVENT)
    end["op"], end["t"] = SAMPLE, last
    for simulation in simulations:
        simulation.feed(end)
    return [_measure(simulation, simulation.strategy.name) for simulation in simulations]
