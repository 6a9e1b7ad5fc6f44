"""What counted operations cost on a machine: counts times a hardware profile, in ns.

Counts come from the mechanism alone; the same ones can be priced for any machine, when they are
made or later.  Two choices are made here.  A dependent load hits the cache where the data of its
path is found again: paths of single objects and charges in L1, those of slabs and pages in L2,
those of groups in L3.  And a line that comes from the same node comes from every CPU there alike,
so that hardware threads of the own core have their share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from kmbench.hardware.profile import Profile
from kmbench.store.schema import LINE_VECTOR, VECTOR

__all__ = ["PRICED", "PRICED_FROM", "closed_loop", "fetch_ns", "near_ns", "price", "price_runs"]

LOADS = {"slab": "ptr_l2", "page": "ptr_l2", "group": "ptr_l3"}  # the rest: ptr_l1
ALLOC_PHASES = ("alloc", "slab", "page")
PRICED = ("alloc_ns", "free_ns", "charge_ns", "line_ns", "pair_ns", "pairs_per_s")
"""Columns of ``runs`` that depend on the hardware profile."""
PRICED_FROM = (
    "run_id", "allocs", "frees", "cpus", "nodes", "running", "think_ns", "hot_line_writes"
)  # fmt: skip
"""Columns of ``runs`` that these are worked out from, beside the table ``ops``."""
TINY_NS = 1e-9


def near_ns(profile: Profile) -> float:
    """A line from another CPU of the node: the mean over the CPUs it can come from."""
    others = max(profile.cpus // profile.nodes - 1, 1)
    siblings = min(profile.threads_per_core - 1, others)
    core, socket = profile.ns("line_core"), profile.ns("line_socket")
    return (siblings * core + (others - siblings) * socket) / others


def _row_ns(profile: Profile) -> pl.Expr:
    """What the operations of a row of ``ops`` take, in ns."""
    phase = pl.col("phase").cast(pl.String)
    levels = {name: profile.ns(level) for name, level in LOADS.items()}
    load = phase.replace_strict(levels, default=profile.ns("ptr_l1"), return_dtype=pl.Float64)
    costs = {kind: pl.lit(profile.ns(kind)) for kind in VECTOR if kind != "ptr"}
    costs |= {"ptr": load, "near": pl.lit(near_ns(profile))}
    costs |= {"far": pl.lit(profile.ns("line_remote")), "wait": pl.lit(profile.ns("wait"))}
    return pl.sum_horizontal(
        pl.col(kind).fill_null(0) * costs[kind] for kind in (*VECTOR, *LINE_VECTOR)
    )


def price(ops: pl.LazyFrame, profile: Profile) -> pl.LazyFrame:
    """Nanoseconds by run and phase: columns ``run_id``, ``phase``, ``ns``, ``waits`` (also ns)."""
    wait = pl.col("wait").fill_null(0) * profile.ns("wait")
    return ops.group_by("run_id", pl.col("phase").cast(pl.String)).agg(
        ns=_row_ns(profile).sum(), waits=wait.sum()
    )


def price_runs(runs: pl.DataFrame, ops: pl.LazyFrame, profile: Profile) -> pl.DataFrame:
    """`runs` with :data:`PRICED` and ``hardware`` of `profile`.

    `runs` needs the columns :data:`PRICED_FROM`; `ops` is the table of the same runs.
    """
    prices = price(ops, profile).collect()
    by_run: dict[str, dict[str, tuple[float, float]]] = {}
    for run_id, phase, ns, waits in prices.iter_rows():
        by_run.setdefault(str(run_id), {})[phase] = (ns, waits)
    rows = [_run_prices(row, by_run.get(str(row["run_id"]), {}), profile)
            for row in runs.iter_rows(named=True)]  # fmt: skip
    columns = [pl.Series(name, [row[name] for row in rows], pl.Float64) for name in PRICED]
    return runs.with_columns(*columns, hardware=pl.lit(profile.label))


def _run_prices(
    run: Mapping[str, Any], phases: Mapping[str, tuple[float, float]], profile: Profile
) -> dict[str, float | None]:
    values: dict[str, float | None] = dict.fromkeys(PRICED)
    allocs, frees = run["allocs"], run["frees"]
    if not allocs or not phases:
        return values
    ns = {phase: total for phase, (total, _) in phases.items()}
    values["alloc_ns"] = sum(ns.get(phase, 0.0) for phase in ALLOC_PHASES) / allocs
    values["free_ns"] = ns.get("free", 0.0) / frees if frees else 0.0
    values["charge_ns"] = ns.get("charge", 0.0) / allocs
    values["line_ns"] = ns.get("line", 0.0) / allocs
    values["pair_ns"] = sum(v for v in values.values() if v is not None)
    if run["hot_line_writes"] is not None and run["running"]:
        own = values["pair_ns"] - values["line_ns"] + run["think_ns"]
        hot = run["hot_line_writes"] * fetch_ns(profile, run["cpus"], run["nodes"])
        values["pairs_per_s"] = closed_loop(own, hot, run["running"])
    return values


def fetch_ns(profile: Profile, cpus: int, nodes: int) -> float:
    """A line that all CPUs of a machine write in turn: the mean over the CPUs it can come from."""
    if cpus == 1:
        return 0.0
    near = cpus // nodes - 1
    far = cpus - 1 - near
    return (near * near_ns(profile) + far * profile.ns("line_remote")) / (near + far)


def closed_loop(own_ns: float, hot_ns: float, cpus: int) -> float:
    """Pairs per second of `cpus` CPUs that do nothing but allocate and free.

    Each spends `own_ns` a pair by itself and `hot_ns` at the one line that moves most, which serves
    one CPU at a time: a closed queueing network of a delay and a single server, solved by mean
    value analysis (Reiser and Lavenberg, 1980).
    """
    waiting = 0.0
    rate = 0.0
    for customers in range(1, cpus + 1):
        at_line = hot_ns * (1 + waiting)
        rate = customers / max(own_ns + at_line, TINY_NS)
        waiting = rate * at_line
    return rate * 1e9
