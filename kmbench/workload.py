"""Workloads: what a plugin registers as a source of events."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kmbench.core.build import build_tables
from kmbench.core.events import EVENT
from kmbench.core.setup import Setup
from kmbench.core.specialise import specialise
from kmbench.core.state import State
from kmbench.core.tables import Table, records
from kmbench.parameters import Parameter
from kmbench.strategy import ABI

BATCH = 1 << 16  # events a generator writes at a time


class Host(NamedTuple):
    """What a scenario asks for, as far as a workload needs to know."""

    cpus: int
    nodes: int
    memory_pages: int
    page_size: int
    era: str
    seed: int
    folder: str  # paths in the scenario are relative to this
    workloads: Mapping[str, "Workload"] = {}  # noqa: RUF012  all that are registered, by name


class OpenWorkload(NamedTuple):
    """A workload ready to run.

    `batches(S)` yields EVENT arrays in time order; it may look at the state between batches.  The
    runs of several strategies ask for it at the same time, each in a thread with its own state.
    `trace_hash` names recorded input (empty for generated).  `nr_events` may be None if unknown.
    `reclaims`: it has events that only a run with reclaim processes.
    `running` CPUs are at it at once, each spending `think_ns` an allocation on other things: what
    the rate of all of them together is computed with (metric T7; 0: no such rate).  They keep
    `busy` CPUs busy (0: as many), which share cores where these have several threads.
    """

    setup: Setup
    batches: Callable[[State], Iterator[np.ndarray]]
    trace_hash: str = ""
    nr_events: int | None = None
    reclaims: bool = False
    running: int = 0
    think_ns: int = 0
    busy: int = 0


@dataclass(frozen=True)
class Workload:
    """A source of events; ``open(parameters, host)`` returns an :class:`OpenWorkload`."""

    name: str
    description: str
    source: str
    open: Callable[[dict, Host], OpenWorkload]
    parameters: tuple[Parameter, ...] = ()
    abi: int = ABI


def generate(S, H, W, batch):
    """Have the generator write the next events; how many (0 = finished)."""
    return H.fill(S, W, batch)


def generated(
    setup: Setup,
    fill: Callable,
    tables: Mapping[str, Table],
    prepare: Callable[[State, tuple], None],
    nr_events: int | None = None,
    reclaims: bool = False,
) -> OpenWorkload:
    """A workload from a compiled generator.

    ``fill(S, W, batch)`` writes up to ``len(batch)`` EVENT records and returns how many; `W` are
    its `tables`, zeroed, then filled in by ``prepare(S, W)``.  It sees the state, with the fate of
    its earlier events, and draws only from streams of its own.
    """

    def batches(S: State) -> Iterator[np.ndarray]:
        W = build_tables(dict(tables), S)
        prepare(S, W)
        batch = records(BATCH, EVENT)
        generator = specialise(generate, {"fill": fill})
        arguments = S, generator.hooks, W, batch
        generator.compile_for(*arguments)
        write = generator.entered_by(*arguments)
        while nr := write(*arguments):
            yield batch[:nr]

    return OpenWorkload(setup, batches, "", nr_events, reclaims)
