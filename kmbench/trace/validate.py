"""A recording replayed through the ordinary engine, and scored against what the machine read.

Nothing of this model was made for the purpose: it is the engine of `kmbench run`, with the strategy
``linux-6.18`` by default, started from the recorded initial state.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from kmbench.core.sample import CACHE_COLUMNS, TIMELINE_COLUMNS
from kmbench.core.setup import Setup
from kmbench.core.state import OFFLINE
from kmbench.errors import UsageProblem, unknown
from kmbench.plugins import Plugins, load_plugins
from kmbench.simulate import Simulation
from kmbench.trace.live import Ledger, live_counts
from kmbench.trace.recording import open_recording
from kmbench.trace.score import COLUMNS, PAGE, Row, Score, score
from kmbench.trace.truth import ACTIVE, KMEM, PARTIAL, SLABS, Truth, read_truth

STRATEGY = "linux-6.18"

# short name of a bound -> the row of the score that it judges
BOUNDS = {
    "kmem-exact": "kmem readings exact",
    "kmem-page": "kmem readings within a page",
    "kmem-4-pages": "kmem readings within 4 pages",
    "kmem-sum": "kmem sum of errors / usage",
    "slabs-exact": "slabs caches exact at every snapshot",
    "slabs-within": "slabs caches within max(1, 1 %)",
    "pages-total": "slab pages mean error / total",
    "pages-moved": "slab pages mean error / moved",
    "made-sum": "slabs made sum",
    "made-cache": "slabs made worst cache",
    "returned-sum": "slabs returned sum",
    "returned-cache": "slabs returned worst cache",
    "live": "live objects, caches that differ",
    "zombies": "zombies missed",
}


class Prediction(NamedTuple):
    """What the engine says about a recording, by the recorded names."""

    slabs: pl.DataFrame  # cache, t (ns), num_slabs, active_objs, partial_slabs, live_objs,
    # made, returned (slabs since the start), objs_per_slab
    kmem: pl.DataFrame  # memcg, t (ns), bytes
    zombies: int  # removed groups that were not released by the end


class Validation(NamedTuple):
    """A score with what led to it."""

    name: str
    strategy: str
    score: Score
    details: pl.DataFrame  # per scored item of every kind, worst first: see :func:`_details`
    lifetimes: dict[str, tuple[int, int] | None]  # slabs made, returned: (real, predicted)
    nr_events: int
    skipped: int  # events of the recording that the model could not take
    lost: int  # events that the recorder lost
    engine_s: float
    reader_s: float

    @property
    def passed(self) -> bool:
        """Whether no bound is missed."""
        return self.score.passed


def _without_cpu_partial(setup: Setup) -> Setup:
    slabs = setup.initial_slabs.copy()
    slabs["where"][slabs["where"] == 2] = 3
    caches = tuple(c._replace(cpu_partial=0, cpu_partial_slabs=0) for c in setup.caches)
    return setup._replace(caches=caches, initial_slabs=slabs)


def _packed(slabs: pl.DataFrame) -> pl.DataFrame:
    full = (pl.col("live_objs") + pl.col("objs_per_slab") - 1) // pl.col("objs_per_slab")
    return slabs.with_columns(num_slabs=full)


def _same(table):
    return table


class Ablation(NamedTuple):
    """A poorer model, to see that the score can tell."""

    description: str
    setup: Callable[[Setup], Setup] = _same
    slabs: Callable[[pl.DataFrame], pl.DataFrame] = _same


ABLATIONS = {
    "cpu-partial": Ablation("no cpu partial lists", setup=_without_cpu_partial),
    "packing": Ablation("ideal packing: as few slabs as the live objects need", slabs=_packed),
}


def predict(simulation: Simulation) -> Prediction:
    """What a simulation that has replayed a recording says, by the recorded names."""
    setup = simulation.setup
    timeline, caches, _ = simulation.tables()
    t = dict(zip(TIMELINE_COLUMNS, timeline, strict=True))
    c = dict(zip(CACHE_COLUMNS, caches, strict=True))
    names = np.array([cache.name for cache in setup.caches], object)
    groups = np.array([group.name for group in setup.groups], object)
    own = c["memcg"] == 0  # a strategy's copies are no caches of the recorded kernel
    slabs = pl.DataFrame(
        {
            "cache": pl.Series(names[c["cache"][own] - 1].tolist(), dtype=pl.String),
            "t": c["t"][own],
            "num_slabs": c["num_slabs"][own],
            ACTIVE: c["active_objs"][own],
            PARTIAL: c["node_partial"][own],
            "live_objs": c["live_objs"][own],
            "made": c["slabs_made"][own],
            "returned": c["slabs_gone"][own],
            "objs_per_slab": c["objs_per_slab"][own],
        }
    )
    kmem = pl.DataFrame(
        {
            "memcg": pl.Series(groups[t["memcg"] - 1].tolist(), dtype=pl.String),
            "t": t["t"],
            "bytes": t["kmem_usage"],
        }
    )
    return Prediction(slabs, kmem, int((simulation.S.memcg["state"] == OFFLINE).sum()))


def _details(truth: Truth, prediction: Prediction, readings: pl.DataFrame) -> pl.DataFrame:
    """Errors per scored item: kind, item, readings, exact (share), p50, p95, worst, mean_real,
    mean_error; of the scored kinds and of active objects and partial slabs, worst first."""
    scored = truth.readings.filter(pl.col("scored"))
    parts = [readings.filter(pl.col("scored") & pl.col("kind").is_in([SLABS, KMEM]))]
    sampled = prediction.slabs.select("t").unique()
    for kind in (ACTIVE, PARTIAL):
        side = prediction.slabs.select("t", pl.col("cache").alias("item"), predicted=kind)
        part = scored.filter(pl.col("kind") == kind).join(sampled, on="t", how="semi")
        part = part.join(side, on=["item", "t"], how="left").with_columns(
            pl.col("predicted").fill_null(0)
        )
        parts.append(part.select(pl.lit("").alias("capture"), *COLUMNS[1:]))
    error = (pl.col("predicted") - pl.col("real")).abs()
    return (
        pl.concat(parts)
        .group_by("kind", "item", maintain_order=True)
        .agg(
            readings=pl.len(),
            exact=(error == 0).fill_null(False).mean(),
            p50=error.quantile(0.5, "higher"),
            p95=error.quantile(0.95, "higher"),
            worst=error.max(),
            mean_real=pl.col("real").mean(),
            mean_error=error.mean(),
        )
        .sort("mean_error", "item", descending=[True, False], nulls_last=False)
    )


def judge(result: Score, bounds: Mapping[str, float]) -> Score:
    """`result` with other bounds; `bounds` maps names of BOUNDS to limits.

    Raises UsageProblem for a bound that there is not.
    """
    limits = {}
    for name, limit in bounds.items():
        if name not in BOUNDS:
            raise unknown("bound", name, BOUNDS)
        limits[BOUNDS[name]] = limit
    return result._replace(rows=tuple(_judge(row, limits) for row in result.rows))


def _judge(row: Row, limits: Mapping[str, float]) -> Row:
    if row.quantity not in limits:
        return row
    limit, sign = limits[row.quantity], row.bound.split()[0]
    passed = None
    if row.value is not None:
        passed = row.value >= limit if sign == ">=" else row.value <= limit
    return row._replace(bound=f"{sign} {limit:g}", passed=passed)


def _timed_feed(simulation: Simulation, events: np.ndarray) -> float:
    """Replay `events`; how long it took, in seconds."""
    began = time.perf_counter()
    simulation.feed(events)
    return time.perf_counter() - began


def validate(
    path: str | Path,
    *,
    strategy: str = STRATEGY,
    bounds: Mapping[str, float] | None = None,
    ablation: str | None = None,
    plugins: Plugins | None = None,
    progress: Callable[[int], None] = lambda nr: None,
) -> Validation:
    """Replay a capture folder, or a trace file with its readings beside it, and score it.

    strategy: name of a registered strategy.
    bounds: limits that differ from the defaults, by their names in BOUNDS.
    ablation: name of a poorer model in ABLATIONS.
    progress: called with the number of events after every batch.

    Raises UsageProblem for files that are no recording, and for unknown names.
    """
    if ablation is not None and ablation not in ABLATIONS:
        raise unknown("ablation", ablation, ABLATIONS)
    for name in set(bounds or {}) - set(BOUNDS):
        raise unknown("bound", name, BOUNDS)
    poorer = ABLATIONS[ablation] if ablation else Ablation("")
    chosen = (plugins or load_plugins()).strategy(strategy)
    truth = read_truth(path)  # before the work: there may be none
    began = time.perf_counter()
    with open_recording(path) as recording:
        simulation = Simulation(poorer.setup(recording.setup), chosen)
        ledger, live, engine_s = Ledger(recording.setup), (), 0.0
        counts = truth, simulation, ledger, recording.source.get("vectors")
        for batch in recording.batches:
            until = int(np.searchsorted(batch["t"], truth.totals["t_end"], "right"))
            ledger.add(batch[:until])
            engine_s += _timed_feed(simulation, batch[:until])
            if until < len(batch):
                live = live or live_counts(*counts)
                engine_s += _timed_feed(simulation, batch[until:])
            progress(len(batch))
        live = live or live_counts(*counts)
        reader_s = time.perf_counter() - began - engine_s - simulation.compile_s
        nr_events, lost = recording.nr_events, int(recording.source.get("events_lost", 0))
    prediction = predict(simulation)
    prediction = prediction._replace(slabs=poorer.slabs(prediction.slabs))
    if not len(prediction.slabs):
        raise UsageProblem(f"{path}: no event samples the model; expected some op sample")
    result = score(
        truth, prediction.slabs, prediction.kmem, zombies=prediction.zombies, live=live
    )  # fmt: skip
    return Validation(
        truth.name, strategy, judge(result, bounds or {}),
        _details(truth, prediction, result.readings),
        _lifetimes(truth, prediction.slabs), nr_events,
        int(simulation.S.k["nr_skipped"][0]), lost, engine_s, reader_s,
    )  # fmt: skip


def pooled(validations: list[Validation]) -> dict[str, float | None]:
    """Row of the score -> its value over all recordings together, where that means anything."""
    readings = pl.concat([v.score.readings for v in validations]).filter(pl.col("scored"))
    items = pl.concat([v.score.items for v in validations]).filter(pl.col("kind") == SLABS)
    kmem = readings.filter(pl.col("kind") == KMEM)
    # a reading without a prediction is as wrong as it can be
    error = (pl.col("predicted").fill_null(-1 << 40) - pl.col("real")).abs()
    out: dict[str, float | None] = {}
    if len(kmem):
        for name, pages in (("kmem-exact", 0), ("kmem-page", 1), ("kmem-4-pages", 4)):
            out[BOUNDS[name]] = kmem.select((error <= PAGE * pages).mean()).item()
        out[BOUNDS["kmem-sum"]] = kmem.select(error.sum()).item() / max(kmem["real"].sum(), 1)
    if len(items):
        out[BOUNDS["slabs-exact"]] = items.select((pl.col("exact") == 1).mean()).item()
        out[BOUNDS["slabs-within"]] = items.select((pl.col("within") == 1).mean()).item()
    for name in ("made", "returned"):
        counts = [v.lifetimes[name] for v in validations if v.lifetimes[name] is not None]
        real, predicted = (sum(pair[i] for pair in counts) for i in (0, 1))
        out[BOUNDS[f"{name}-sum"]] = abs(predicted - real) / real if real else None
    return out


def _lifetimes(truth: Truth, slabs: pl.DataFrame) -> dict[str, tuple[int, int] | None]:
    """Slabs made and returned until the recorder's final shrink, (real, predicted) each."""
    before = slabs.filter(pl.col("t") <= truth.totals["t_end"])
    last = before.filter(pl.col("t") == before["t"].max())
    known = {n for n, row in truth.caches.items() if row["scoreable"]}
    out: dict[str, tuple[int, int] | None] = {}
    for name, key in (("made", "slabs_made"), ("returned", "slabs_gone")):
        real = [truth.caches[n][key] for n in known]
        predicted = last.filter(pl.col("cache").is_in(list(known)))[name].sum()
        out[name] = None if None in real or not real else (sum(real), int(predicted))
    return out
