"""Drives the compiled engine over a workload's events and collects what it writes."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from kmbench.core.build import build_state, build_tables
from kmbench.core.events import (
    CG_CREATE,
    CG_OFFLINE,
    CG_RELEASE,
    EVENT,
    FLUSH,
    FREE,
    PAGE_FREE,
    PERCPU_FREE,
    SAMPLE,
    SHRINK,
)
from kmbench.core.grow import grow
from kmbench.core.jit import SLAB_TABLE
from kmbench.core.latency import PRICE_TABLE, with_latency
from kmbench.core.load import load_initial
from kmbench.core.loop import engine
from kmbench.core.paths import ALLOC_PATH, ARRAY_ALLOC, ARRAY_FREE, FREE_PATH
from kmbench.core.sample import CACHE_COLUMNS, TIMELINE_COLUMNS, TOTAL_COLUMNS
from kmbench.core.setup import Setup
from kmbench.core.specialise import Engine, specialise
from kmbench.core.state import DONE, PERCPU, RELEASED, State
from kmbench.errors import UsageProblem
from kmbench.final import final_figures
from kmbench.memory import Memory
from kmbench.strategy import Strategy
from kmbench.trace.checks import check_setup
from kmbench.workload import OpenWorkload

BUFFER_ROWS = 1 << 12
MOST_BYTES = 3 << 20  # of a buffer: numpy asks for huge pages from 4 MiB on, dear to clear
LOOK_AHEAD_OBJECTS = 1 << 17  # object records that no longer fit the caches: prefetch pays


class Timing(NamedTuple):
    """Wall-clock seconds; never part of the deterministic results."""

    engine_s: float
    reader_s: float
    compile_s: float
    cache_hit: bool


class Outcome(NamedTuple):
    """What the engine produced: int64 matrices (columns, rows) and the final state.

    `timeline` and `caches` are in the pieces that the engine filled, one after another.
    """

    timeline: list[np.ndarray]
    caches: list[np.ndarray]
    totals: np.ndarray
    S: State
    model_ns: int
    leak_pages: int | None
    final: dict
    timing: Timing


class Simulation:
    """One strategy on one setup, fed event by event or batch by batch."""

    def __init__(
        self,
        setup: Setup,
        strategy: Strategy,
        parameters: dict | None = None,
        seed: int = 0,
        sample_every: int = 0,
        look_ahead: bool | None = None,
        memory: Memory | None = None,
        prices: np.ndarray | None = None,
        apart: Callable[[], None] | None = None,
    ):
        """`prices`: ns of every path, by row, for histograms of latency (core.latency).

        `apart` has another process compile the engine, when none is on disk.
        """
        check_setup(setup, "setup")
        parameters = {p.name: p.default for p in strategy.parameters} | (parameters or {})
        if strategy.growth:
            setup = grow(setup, strategy.growth(setup, parameters))
        self.setup = setup
        self.strategy = strategy
        accounting = strategy.accounting(parameters)
        self.S = build_state(setup, accounting, seed, sample_every)
        self.P = build_tables(strategy.all_tables(parameters), self.S)
        if "par" in self.P._fields:
            for name in parameters.keys() & set(self.P.par.dtype.names):
                self.P.par[name] = parameters[name]
        if strategy.prepare:
            strategy.prepare(self.S, self.P, setup, parameters)
        hooks = strategy.resolved_hooks()
        if memory:
            self.S = memory.join(self.S, setup, accounting, hooks, self.P)
        if prices is not None:
            on_slab = SLAB_TABLE in self.S._fields
            always = (ARRAY_ALLOC, ARRAY_FREE) if on_slab else (ALLOC_PATH, FREE_PATH)
            self.S = with_latency(self.S, prices, *always)
        self.look_ahead = (
            setup.nr_objects >= LOOK_AHEAD_OBJECTS if look_ahead is None else look_ahead
        )
        self.engine: Engine = specialise(engine, hooks, self.S.R if memory else None)
        self._rows = {
            "timeline": _Rows(len(TIMELINE_COLUMNS), "nr_timeline", "nr_groups"),
            "caches": _Rows(len(CACHE_COLUMNS), "nr_cache_rows", "nr_caches"),
            "totals": _Rows(len(TOTAL_COLUMNS), "nr_total_rows", "nr_nodes"),
        }
        self.compile_s, self.cache_hit = self._compile(apart)
        self._load()
        self.feed(_boot(setup))
        for name in ("nr_events", "nr_allocs", "nr_frees"):
            self.S.k[name] = 0

    def _arguments(self, events: np.ndarray) -> tuple:
        buffers = (self._rows[name].buffer for name in ("timeline", "caches", "totals"))
        return (
            self.S,
            self.engine.hooks,
            self.P,
            events,
            0,
            len(events),
            self.look_ahead,
            *buffers,
        )

    def _compile(self, apart: Callable[[], None] | None) -> tuple[float, bool]:
        arguments = self._arguments(read_only(np.zeros(0, EVENT)))
        taken = self.engine.compile_for(*arguments, apart=apart)
        self._enter = self.engine.entered_by(*arguments)
        return taken

    def _load(self) -> None:
        if len(self.setup.initial_slabs) == 0 and len(self.setup.initial_objects) == 0:
            return
        loader = specialise(load_initial, {})
        given = (
            self.setup.initial_slabs, self.setup.initial_objects, self.setup.initial_sheaves
        )  # fmt: skip
        arguments = (self.S, loader.hooks, *map(read_only, given))
        seconds, hit = loader.compile_for(*arguments)
        self.compile_s += seconds
        self.cache_hit = self.cache_hit and hit
        if failed := loader.call(*arguments):
            raise UsageProblem(
                f"memory of {self.setup.machine.memory_pages} pages is too small for the slabs at "
                f"the start: no pages for slab {failed} of {len(self.setup.initial_slabs)}"
            )

    def feed(self, events: np.ndarray) -> None:
        """Process EVENT records, in order."""
        if events.dtype != EVENT or events.ndim != 1:
            raise TypeError(f"events: {events.ndim} axes of {events.dtype}; expected one of EVENT")
        events = read_only(events)
        S, hooks, P, events, start, stop, ahead, *buffers = self._arguments(events)
        while True:
            start = self._enter(S, hooks, P, events, start, stop, ahead, *buffers)
            if S.k["status"][0] == DONE:
                return
            for rows in self._rows.values():
                rows.keep(S.k[0])
            buffers = [rows.buffer for rows in self._rows.values()]

    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Timeline, caches and totals written so far, (columns, rows) each."""
        timeline, caches, totals = (np.concatenate(p, axis=1) for p in self.pieces())
        return timeline, caches, totals

    def pieces(self) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """The same, in the pieces that the engine filled: nothing is copied."""
        timeline, caches, totals = (rows.pieces(self.S.k[0]) for rows in self._rows.values())
        return timeline, caches, totals

    def teardown(self) -> int:
        """Free everything, remove every group, empty the stocks; pages that stay charged (A7)."""
        self.feed(_teardown(self.S))
        return int(np.abs(self.S.counter["usage"][2:4]).sum())  # the root's: of all groups


class _Rows:
    """A table that grows: the engine fills a buffer, whose rows are set aside when it is full.

    ``k[used]`` is how many rows of the buffer are filled, ``k[sample]`` the most that one sample
    can take.
    """

    def __init__(self, columns: int, used: str, sample: str):
        self.columns, self.used, self.sample = columns, used, sample
        self.kept: list[np.ndarray] = []
        self.buffer = _buffer(columns, BUFFER_ROWS)

    def keep(self, k: np.void) -> None:
        """Set the filled buffer aside and go on with another one."""
        self.kept.append(self.buffer[:, : int(k[self.used])])
        rows = min(2 * self.buffer.shape[1], MOST_BYTES // (8 * self.columns))
        self.buffer = _buffer(self.columns, max(rows, 2 * int(k[self.sample])))
        k[self.used] = 0

    def pieces(self, k: np.void) -> list[np.ndarray]:
        """Everything so far, (columns, rows) each, as the engine wrote it."""
        return [*self.kept, self.buffer[:, : int(k[self.used])]]


def _buffer(columns: int, rows: int) -> np.ndarray:
    """An empty table for at least so many rows.

    A row is written to all columns at once: were they a power of two apart, all would fall into the
    same set of every cache and evict one another.
    """
    return np.zeros((columns, rows // 512 * 512 + 520), np.int64)


def read_only(array: np.ndarray) -> np.ndarray:
    """A read-only contiguous view; in plain Python a recarray of int64, which compiled code makes
    of every whole number that it reads: ``gfp & ~flag`` of a uint32 is an error in numpy."""
    from kmbench.core.jit import JIT

    if not JIT and array.dtype.names:
        array = array.astype([(name, "i8") for name in array.dtype.names]).view(np.recarray)
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _boot(setup: Setup) -> np.ndarray:
    online = [row for row, group in enumerate(setup.groups, 1) if group.online]
    events = np.zeros(len(online), EVENT)
    events["op"] = CG_CREATE
    events["memcg"] = online
    events["arg"] = [setup.groups[row - 1].parent for row in online]
    return events


def _teardown(S: State) -> np.ndarray:
    slab = S.obj["slab"][: S.k["nr_objects"][0]]
    now = S.k["now"][0]
    live = np.flatnonzero(slab)
    where = slab[live]
    frees = np.zeros(len(live), EVENT)
    frees["obj"] = live
    frees["op"] = np.where(where > 0, FREE, np.where(where == PERCPU, PERCPU_FREE, PAGE_FREE))
    state, parent = S.memcg["state"], S.memcg["parent"]
    rows = np.flatnonzero((state > 0) & (state < RELEASED))
    rows = rows[rows > 1]
    depth = np.zeros(len(S.memcg), int)
    at = parent.copy()
    while at.any():
        depth[at > 0] += 1
        at = parent[at]
    rows = rows[np.argsort(-depth[rows], kind="stable")]
    gone = np.zeros(2 * len(rows), EVENT)
    gone["op"] = np.repeat([CG_OFFLINE, CG_RELEASE], len(rows))
    gone["memcg"] = np.tile(rows, 2)
    gone = gone[~((gone["op"] == CG_OFFLINE) & (state[gone["memcg"]] == 2))]
    rounds = 4  # pages come back after a grace period, or once work that was queued has run
    last = np.zeros(2 * rounds, EVENT)
    last["op"] = np.tile([SHRINK, FLUSH], rounds)
    step = max(int(S.k["rcu_delay"][0]), int(S.k["work_delay"][0]))
    last["t"] = np.repeat(np.arange(rounds) * step, 2)
    for part in (frees, gone, last):
        part["t"] += now
    return np.concatenate([frees, gone, last])


def simulate(
    workload: OpenWorkload,
    strategy: Strategy,
    parameters: dict,
    seed: int,
    sample_every: int,
    teardown: bool,
    progress: Callable[[int], None] = lambda nr: None,
    memory: Memory | None = None,
    prices: np.ndarray | None = None,
    apart: Callable[[], None] | None = None,
) -> Outcome:
    """Run a workload through a strategy from the first event to the last.

    `progress` is called when the engine is there, with 0, and with the events of every batch.
    """
    simulation = Simulation(
        workload.setup, strategy, parameters, seed, sample_every, memory=memory, prices=prices,
        apart=apart,
    )  # fmt: skip
    S = simulation.S
    S.k["crowded"] = workload.running > 0
    progress(0)
    engine_s = reader_s = 0.0
    first = last = None
    batches: Iterator[np.ndarray] = workload.batches(S)
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        read = time.perf_counter()
        reader_s += read - began
        if batch is None:
            break
        if len(batch) == 0:
            continue
        first = int(batch["t"][0]) if first is None else first
        simulation.feed(batch)
        last = int(batch["t"][-1])
        engine_s += time.perf_counter() - read
        progress(len(batch))
    end = np.zeros(1, EVENT)
    end["op"], end["t"] = SAMPLE, last or 0
    simulation.feed(end)
    S.k["nr_events"] -= 1
    timeline, caches, totals = simulation.pieces()
    outcome = Outcome(
        timeline, caches, np.concatenate(totals, axis=1), S, (last or 0) - (first or 0), None,
        final_figures(S, simulation.P),
        Timing(engine_s, reader_s, simulation.compile_s, simulation.cache_hit),
    )  # fmt: skip
    if teardown:
        counted = ("k", "path", *(["spent"] if PRICE_TABLE in S._fields else []))
        counts = [getattr(S, name).copy() for name in counted]
        outcome = outcome._replace(leak_pages=simulation.teardown())
        for name, before in zip(counted, counts, strict=True):
            getattr(S, name)[:] = before
    return outcome
