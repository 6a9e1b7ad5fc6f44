"""What counted operations cost on a machine: counts times a hardware profile, in ns.

Counts come from the mechanism alone; the same ones can be priced for any machine, when they are
made or later.  Two choices are made here.  A dependent load hits the cache where the data of its
path is found again: paths of single objects and charges in L1, those of slabs and pages in L2,
those of groups, and of walks over all superblocks and groups, in L3.  And a line that comes from
the same node comes from every CPU there alike, so that hardware threads of the own core have their
share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from kmbench.analysis.summary import Columns, Frame
from kmbench.core.paths import Path
from kmbench.errors import UsageProblem
from kmbench.hardware.profile import Profile
from kmbench.store.schema import CALLS, LINE_VECTOR, VECTOR

__all__ = [
    "LATENCIES", "PRICED", "closed_loop", "fetch_ns", "latency_figures", "near_ns",
    "line_stations", "path_prices", "price", "price_run", "price_runs", "turns",
]  # fmt: skip

# the rest: ptr_l1
LOADS = {"slab": "ptr_l2", "page": "ptr_l2", "group": "ptr_l3", "reclaim": "ptr_l3"}
ALLOC_PHASES = ("alloc", "slab", "page")
PRICED = ("alloc_ns", "free_ns", "charge_ns", "line_ns", "pair_ns", "pairs_per_s", "visit_time")
"""Columns of ``runs`` that depend on the hardware profile."""
LATENCIES = ("alloc_p50_ns", "alloc_p99_ns", "alloc_p999_ns", "free_p99_ns")
"""Columns of ``runs`` that a run with ``latency = true`` has for the profile it ran with alone."""
KINDS = (*VECTOR, *LINE_VECTOR, *CALLS)
TINY_NS = 1e-9


def near_ns(profile: Profile) -> float:
    """A line from another CPU of the node: the mean over the CPUs it can come from."""
    others = max(profile.cpus // profile.nodes - 1, 1)
    siblings = min(profile.threads_per_core - 1, others)
    core, socket = profile.ns("line_core"), profile.ns("line_socket")
    return (siblings * core + (others - siblings) * socket) / others


def _row_ns(
    phases: Sequence[str], count: Callable[[str], np.ndarray | int], profile: Profile
) -> np.ndarray:
    """Nanoseconds of rows of ``ops``: their phases, and their counts by kind of operation."""
    usual = profile.ns("ptr_l1")
    levels = {name: profile.ns(level) for name, level in LOADS.items()}
    prices = {"ptr": np.array([levels.get(phase, usual) for phase in phases])}
    prices |= {"near": near_ns(profile), "far": profile.ns("line_remote")}
    total = np.zeros(len(phases))
    for kind in KINDS:
        total += count(kind) * (prices[kind] if kind in prices else profile.ns(kind))
    return total


def price(ops: Frame, profile: Profile) -> dict[str, dict[str, float]]:
    """Nanoseconds by run and phase."""
    if isinstance(ops, pl.LazyFrame):
        ops = ops.select("run_id", "phase", *KINDS)
    columns = Columns(ops)
    runs, phases = (columns.table.column(name).to_pylist() for name in ("run_id", "phase"))
    by_run: dict[str, dict[str, float]] = {}
    row_ns = _row_ns(phases, lambda kind: columns.otherwise(kind, 0), profile).tolist()
    for run, phase, ns in zip(runs, phases, row_ns, strict=True):
        of = by_run.setdefault(run, {})
        of[phase] = of.get(phase, 0.0) + ns
    return by_run


def path_prices(paths: Iterable[tuple[int, Path]], profile: Profile) -> np.ndarray:
    """float64 ns of one passage of each of `paths`, at their rows."""
    rows, known = zip(*paths, strict=True)
    prices = np.zeros(max(rows) + 1)
    prices[list(rows)] = _row_ns(
        [path.phase for path in known],
        lambda kind: np.array([getattr(path.ops, kind) for path in known]), profile,
    )  # fmt: skip
    return prices


def latency_figures(table: pa.Table) -> dict[str, float | None]:
    """Percentiles over all groups: the upper end, in ns, of the bucket that each falls into."""
    frame = pl.from_arrow(table).with_columns(pl.col("op").cast(pl.String))
    figures: dict[str, float | None] = {}
    for name in LATENCIES:
        op, share, _ = name.split("_")
        one = frame.filter(op=op).group_by("high").agg(pl.col("count").sum()).sort("high")
        reached = one["count"].cum_sum() >= float(f"0.{share[1:]}") * one["count"].sum()
        figures[name] = float(one.filter(reached)["high"][0]) if one.height else None
    return figures


def price_runs(runs: pl.DataFrame, ops: pl.LazyFrame, profile: Profile) -> pl.DataFrame:
    """`runs` with :data:`PRICED` and ``hardware`` of `profile`.

    `runs` needs the columns ``run_id``, ``allocs``, ``frees``, ``cpus``, ``nodes``, ``running``,
    ``think_ns``, ``busy``, ``lines`` and ``shrinker_visits``; `ops` is the table of the same runs.
    """
    by_run = price(ops, profile)
    rows = [_run_prices(row, by_run.get(str(row["run_id"]), {}), profile)
            for row in runs.iter_rows(named=True)]  # fmt: skip
    columns = [pl.Series(name, [row[name] for row in rows], pl.Float64) for name in PRICED]
    other = [name for name in LATENCIES if name in runs.columns]
    if other:  # made with another profile, they have no price here
        same = pl.col("hardware") == profile.label
        columns += [pl.when(same).then(pl.col(name)).alias(name) for name in other]
    return runs.with_columns(*columns, hardware=pl.lit(profile.label))


def price_run(run: Mapping[str, Any], ops: pa.Table, profile: Profile) -> dict[str, Any]:
    """The same columns of one run, of which `ops` is the table."""
    prices = _run_prices(run, price(ops, profile).get(run["run_id"], {}), profile)
    return {**prices, "hardware": profile.label}


def _run_prices(
    run: Mapping[str, Any], ns: Mapping[str, float], profile: Profile
) -> dict[str, float | None]:
    values: dict[str, float | None] = dict.fromkeys(PRICED)
    allocs, frees = run["allocs"], run["frees"]
    if run["shrinker_visits"] is not None:
        values["visit_time"] = ns.get("reclaim", 0.0) / 1e9
    if not allocs or not ns:
        return values
    values["alloc_ns"] = sum(ns.get(phase, 0.0) for phase in ALLOC_PHASES) / allocs
    values["free_ns"] = ns.get("free", 0.0) / frees if frees else 0.0
    values["charge_ns"] = ns.get("charge", 0.0) / allocs
    values["line_ns"] = ns.get("line", 0.0) / allocs
    values["pair_ns"] = sum(values[name] for name in PRICED[:4])
    if run["lines"] is not None and run["running"]:
        own = values["pair_ns"] - values["line_ns"] + run["think_ns"]
        stations = line_stations(run, own, profile)
        own *= sharing(profile, run["cpus"], run["busy"] or run["running"])
        values["pairs_per_s"] = closed_loop(own, stations, run["running"])
    return values


def line_stations(
    run: Mapping[str, Any], own_ns: float, profile: Profile
) -> list[tuple[float, float]]:
    """Of every shared line of a run: ns that it is taken a pair, and the share of CPUs at it.

    A line with several CPUs at it is fetched at every turn, from whichever had it; one that has a
    single one at a time, which may come from another CPU, as often as it moved in the stream.
    `own_ns`: what a pair takes a CPU that waits for no line.
    """
    each = fetch_ns(profile, run["cpus"], run["nodes"])
    near, far = near_ns(profile), profile.ns("line_remote")
    lines = json.loads(run["lines"])
    if any(len(line) != 8 for line in lines):
        raise UsageProblem(
            f"run {run['run_id']}: lines: expected 8 numbers a line (kmbench.store.schema); these "
            "were made by an earlier version: make the run anew"
        )
    visits = sum(line[2] for line in lines)
    stations = []
    for from_near, from_far, _, *counts, share in lines:
        if round(share * run["running"]) > 1:
            met = each * visits / max(own_ns, TINY_NS)
            stations.append((turns(*counts, met) * each, share))
        else:
            stations.append((from_near * near + from_far * far, share))
    return stations


def turns(takes: float, takes_on: float, looks: float, looks_on: float, met: float) -> float:
    """How often a line that several CPUs want is fetched, of visits counted in the core.

    A line stays with a CPU while the next one fetches it.  So what a CPU comes to do there within
    the time of a fetch after its turn is part of that turn: of visits that follow one another
    without another line between (``_on``) `met` such come within a fetch in the mean, and one in
    1 + `met` is a turn.  A look is a turn if somebody wrote the line before it, which in whatever
    order CPUs come are as many as takes are of all; the others join readers.
    """
    joined = met / (1 + met)
    takes -= joined * takes_on
    looks -= joined * looks_on
    return takes + looks * takes / max(takes + looks, TINY_NS)


def fetch_ns(profile: Profile, cpus: int, nodes: int) -> float:
    """A line that all CPUs of a machine write in turn: the mean over the CPUs it can come from."""
    if cpus == 1:
        return 0.0
    near = cpus // nodes - 1
    far = cpus - 1 - near
    return (near * near_ns(profile) + far * profile.ns("line_remote")) / (near + far)


def sharing(profile: Profile, cpus: int, busy: int) -> float:
    """How much longer everything takes for `busy` of a machine's `cpus`, which share its cores.

    They take cores of their own as long as there are any; a core whose threads are all busy gets
    ``smt`` as much done as with one of them.
    """
    cores = -(-cpus // profile.threads_per_core)
    more = min(busy, cpus) - cores
    if more <= 0 or profile.threads_per_core == 1:
        return 1.0
    return (cores + more) / (cores + more * (profile.smt - 1) / (profile.threads_per_core - 1))


def closed_loop(own_ns: float, lines: Sequence[tuple[float, float]], cpus: int) -> float:
    """Pairs per second of `cpus` CPUs that do nothing but allocate and free.

    Each spends `own_ns` a pair by itself and the ns of each of `lines` at that line, which serves
    one CPU at a time: a closed queueing network of a delay and single servers, solved by mean value
    analysis (Reiser and Lavenberg, 1980), exact where all CPUs come to every line.  A line that a
    share of them comes to, a group's own, has so many fewer that can be there already: of one CPU
    nobody.
    """
    taken, share = np.array(lines, np.float64).reshape(-1, 2).T
    share = np.maximum(share, 1 / cpus)
    waiting = np.zeros(len(taken))
    rate = 0.0
    for customers in range(1, cpus + 1):
        others = np.maximum(customers - 1 / share, 0) / max(customers - 1, 1)
        at_line = taken * (1 + waiting * others)
        rate = customers / max(own_ns + at_line.sum(), TINY_NS)
        waiting = rate * at_line
    return rate * 1e9
