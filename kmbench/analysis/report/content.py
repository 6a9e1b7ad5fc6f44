"""What a report shows, gathered from a dataset: small tables, whatever the size of the dataset."""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from kmbench.analysis import pareto, scaling, timelines
from kmbench.analysis.compare import CONTEXT, Comparison, compare, load_runs
from kmbench.analysis.groups import group_means, with_subtrees
from kmbench.analysis.metrics import METRICS, format_value
from kmbench.analysis.parameters import strategy_labels
from kmbench.analysis.report.colours import strategy_colours
from kmbench.analysis.report.labels import Place, places
from kmbench.analysis.speed import compare_speed
from kmbench.errors import UsageProblem
from kmbench.store.dataset import Results
from kmbench.store.schema import VECTOR
from kmbench.store.speed import open_speed

__all__ = ["Content", "gather"]

TOP_GROUPS = 8
TOP_CACHES = 40
GROUP_POINTS = 60
MOST_RUNS = 2000  # rows of the table of runs
ALLOC_PHASES = ("alloc", "slab", "page", "charge")


class Content(NamedTuple):
    """Tables of a report; ``context`` is the row of :attr:`contexts`, ``strategy`` a label."""

    facts: dict[str, Any]
    """``folder``, ``baseline``, ``runs``, ``events``, ``notes``."""
    colours: dict[str, str]
    """Every strategy, in the order to show them, with its colour."""
    contexts: pl.DataFrame
    """``label``, ``pairs``, ``shown`` (parameters of the runs whose timelines are shown)."""
    tables: dict[str, pl.DataFrame]
    """``summary``, ``pareto``, ``totals``, ``groups``, ``slabs``, ``waste``, ``ops``, ``paths``,
    ``latency``, ``caches``, ``scaling``, ``runs`` and ``speed``."""


def gather(results: Results, baseline: str = "none") -> Content:
    """Read what a report over all runs of ``results`` needs.

    Timelines are those of one run per context and strategy, all of the same workload and seed; they
    are thinned while they are read.  Raises :class:`UsageProblem` when there is no run.
    """
    runs = load_runs(results)
    good = runs.filter(pl.col("status") == "ok")
    if not good.height:
        raise UsageProblem(f"{results.path}: no successful run to report; `kmbench run` makes some")
    good = good.with_columns(strategy=strategy_labels(good))
    if baseline not in good["strategy"]:
        baseline = sorted(good["strategy"].unique())[0]
    comparison = compare(results, baseline=baseline, metrics=list(METRICS))
    contexts = (
        good.select(CONTEXT)
        .unique(maintain_order=True)
        .sort(
            CONTEXT,
            descending=[name == "allocator" for name in CONTEXT],  # today's allocator first
        )
    )
    contexts = contexts.with_row_index("context").with_columns(pl.col("context").cast(pl.Int64))
    shown = _representatives(good, contexts)
    tables = {
        "summary": _summary(comparison, contexts),
        "pareto": _pareto(comparison, contexts),
        **_timelines(results, shown),
        "ops": _ops(results, shown, ["phase"]),
        "paths": _ops(results, shown, ["path", "phase"]),
        "caches": _caches(results, shown),
        "scaling": _scaling(good),
        "runs": _runs(runs),
        "speed": _speed(results),
    }
    tables["latency"] = _latency(results, shown, tables["groups"])
    tables["waste"] = _waste(tables["slabs"], tables["summary"])
    names = sorted(good["strategy"].unique(), key=lambda name: (name != baseline, name))
    colours = strategy_colours(names)
    facts = {
        "folder": str(results.path), "baseline": baseline, "runs": runs.height,
        "events": int(good["events"].sum()), "notes": comparison.notes,
    }  # fmt: skip
    return Content(
        facts, {name: colours[name] for name in names}, _described(contexts, comparison, shown),
        tables,
    )  # fmt: skip


def _representatives(good: pl.DataFrame, contexts: pl.DataFrame) -> pl.DataFrame:
    """One run per context and strategy: of the workload and seed that most strategies share."""
    kind = ["context", "workload_hash", "seed"]
    own = good.join(contexts, on=CONTEXT, nulls_equal=True)
    shared = own.group_by(kind).agg(strategies=pl.col("strategy").n_unique())
    order = {"context": False, "strategies": True, "seed": False, "workload_hash": False}
    best = shared.sort(list(order), descending=list(order.values()))
    best = best.unique("context", keep="first", maintain_order=True)
    chosen = own.join(best.select(kind), on=kind, nulls_equal=True).sort("when", "run_id")
    return chosen.unique(["context", "strategy"], keep="last", maintain_order=True).select(
        "run_id", "context", "strategy", "seed", "allocs", "frees", "scenario_params"
    )


def _described(contexts: pl.DataFrame, comparison: Comparison, shown: pl.DataFrame) -> pl.DataFrame:
    """``contexts`` with words for people."""
    told = [name for name in CONTEXT if name == "scenario" or contexts[name].n_unique() > 1]
    text = [
        pl.concat_str(pl.lit(f"{name} " if name in ("cpus", "era") else ""), pl.col(name))
        for name in told
    ]
    pairs = comparison.frame.group_by(CONTEXT).agg(pl.col("pairs").max())
    first = shown.group_by("context").agg(
        seed=pl.col("seed").first(), shown=pl.col("scenario_params").first()
    )
    return (
        contexts.with_columns(label=pl.concat_str(text, separator=", ", ignore_nulls=True))
        .join(pairs, on=CONTEXT, how="left", nulls_equal=True)
        .join(first, on="context", how="left")
        .sort("context")
    )


def _summary(comparison: Comparison, contexts: pl.DataFrame) -> pl.DataFrame:
    """The comparison of all metrics, with the values as people read them."""
    frame = comparison.frame.join(contexts, on=CONTEXT, nulls_equal=True)
    texts = [
        format_value(METRICS[name], value) for name, value in frame.select("metric", "value").rows()
    ]
    return frame.with_columns(text=pl.Series(texts, dtype=pl.String)).select(
        "context", "strategy", "metric", "value", "text", "ratio", "ratio_low", "ratio_high",
        "significant", "pairs",
    )  # fmt: skip


def _pareto(comparison: Comparison, contexts: pl.DataFrame) -> pl.DataFrame:
    """Points with the places of their names in the figures over ``pareto.AXES[0]``."""
    found = pareto.points(comparison.frame, CONTEXT).join(contexts, on=CONTEXT, nulls_equal=True)
    x, *others = pareto.AXES
    parts = []
    for part in found.partition_by("context", maintain_order=True):
        for y in others:
            part = part.with_columns(_places(part, x, y))
        parts.append(part)
    names = [f"{column} {y}" for y in others for column in Place._fields]
    return pl.concat(parts).select("context", "strategy", *pareto.AXES, "front", *names)


def _places(part: pl.DataFrame, x: str, y: str) -> list[pl.Series]:
    """Columns ``dx Y``, ``dy Y`` and ``align Y``; nothing for points without a value."""
    number = pl.int_range(pl.len()).alias("row")
    whole = part.select(number, "strategy", x, y).drop_nulls()
    found = [Place(0.0, 0.0, "")] * part.height
    if whole.height:
        names, xs, ys = (whole[name].to_list() for name in ("strategy", x, y))
        for row, place in zip(whole["row"], places(names, xs, ys), strict=True):
            found[row] = place
    kinds = (pl.Float64, pl.Float64, pl.String)
    return [
        pl.Series(f"{field} {y}", [place[i] for place in found], dtype=kinds[i])
        for i, field in enumerate(Place._fields)
    ]


def _keyed(frame: pl.LazyFrame, shown: pl.DataFrame) -> pl.LazyFrame:
    """``frame`` with ``context`` and ``strategy`` for ``run_id``."""
    keys = shown.lazy().select("run_id", "context", "strategy")
    return keys.join(frame, on="run_id", maintain_order="right").drop("run_id")


def _timelines(results: Results, shown: pl.DataFrame) -> dict[str, pl.DataFrame]:
    mine = pl.col("run_id").is_in(shown["run_id"].implode())
    timeline, caches = results.timeline.filter(mine), results.caches.filter(mine)
    with results.reading():
        means = group_means(timeline).collect(engine="streaming")
        top = (
            shown.select("run_id", "context").join(means, on="run_id")
            .group_by("context", "group").agg(most=pl.max_horizontal("used", "charged").max())
            .sort(["context", "most", "group"], descending=[False, True, False])
            .group_by("context", maintain_order=True).head(TOP_GROUPS)
        )  # fmt: skip
        wanted = shown.join(top, on="context").select("run_id", "group").lazy()
        own = with_subtrees(timeline, ["run_id"]).join(wanted, on=["run_id", "group"])
        curves = timelines.group_curves(own, GROUP_POINTS)
        return {
            "totals": _whole(_keyed(timelines.total_curves(timeline), shown).collect()),
            "groups": _whole(
                _keyed(curves, shown).with_columns(pl.col("group").cast(pl.String)).collect()
            ),
            "slabs": _whole(_keyed(timelines.slab_curves(caches), shown).collect()),
        }


def _whole(frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` with time in seconds and bytes as whole numbers."""
    return frame.with_columns(
        pl.col(pl.Float64).round(0).cast(pl.Int64), t=(pl.col("t") / 1e9).round(6)
    )


def _waste(slabs: pl.DataFrame, summary: pl.DataFrame) -> pl.DataFrame:
    """Memory of slabs in which no object lives, by kind; means over the shown run."""
    keys = ["context", "strategy"]
    means = slabs.group_by(keys, maintain_order=True).agg(pl.col("slabs", "live", "idle").mean())
    metadata = summary.filter(metric="metadata_bytes").select(*keys, metadata="value")
    free = pl.col("slabs") - pl.col("live")
    return (
        means.join(metadata, on=keys, how="left")
        .select(
            *keys,
            pl.min_horizontal("idle", free).alias("idle on CPUs and empty"),
            (free - pl.min_horizontal("idle", free)).alias("free in partial slabs"),
            pl.col("metadata").fill_null(0).alias("metadata"),
        )
        .unpivot(index=keys, variable_name="kind", value_name="bytes")
        .with_columns(pl.col("bytes").round(0).cast(pl.Int64))
    )


def _ops(results: Results, shown: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Operations per allocation (of phase free: per freed object) and times taken, by path."""
    counts = shown.lazy().select("run_id", "context", "strategy", "allocs", "frees")
    own = results.ops.filter(pl.col("run_id").is_in(shown["run_id"].implode()))
    number = pl.when(pl.col("phase") == "free").then("frees").otherwise("allocs")
    with results.reading():
        return (
            counts.join(own, on="run_id")
            .with_columns(pl.col(name).cast(pl.String) for name in ("path", "phase"))
            .with_columns(all=pl.sum_horizontal(VECTOR), number=number)
            .filter(pl.col("number") > 0)
            .group_by("context", "strategy", *by)
            .agg(
                ops=(pl.col("all") / pl.col("number")).sum().round(4),
                taken=(1000 * pl.col("count") / pl.col("number")).sum().round(3),
            )
            .sort("context", "strategy", *by)
            .collect()
        )


def _latency(results: Results, shown: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """Share of allocations and of frees that took so long or longer, by group; ``""``: all of them.

    Groups are those that have a timeline.
    """
    own = results.latency.filter(pl.col("run_id").is_in(shown["run_id"].implode()))
    with results.reading():
        found = _keyed(own, shown).with_columns(pl.col("group", "op").cast(pl.String)).collect()
    keys = ["context", "strategy", "group", "op"]
    one = found.join(groups.select("context", "group").unique(), on=["context", "group"])
    counts = pl.concat([one, found.with_columns(group=pl.lit(""))])
    counts = counts.group_by(*keys, ns="low").agg(pl.col("count").sum()).sort(*keys, "ns")
    slower = pl.col("count").cum_sum(reverse=True).over(keys) / pl.col("count").sum().over(keys)
    return counts.select(*keys, "ns", share=slower)


def _speed(results: Results) -> pl.DataFrame:
    """What asv measured of the simulator, against the oldest commit; empty if nothing was."""
    names = ("machine", "commit", "benchmark", "parameters", "unit", "value", "ratio")
    try:
        speed = open_speed(results.path)
    except UsageProblem:  # none was imported
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    return compare_speed(speed, "commit").select(names)


def _caches(results: Results, shown: pl.DataFrame) -> pl.DataFrame:
    """The caches with most slab memory, copies included, means over samples."""
    own = results.caches.filter(pl.col("run_id").is_in(shown["run_id"].implode()))
    with results.reading():
        found = _keyed(timelines.cache_families(own), shown).collect()
    # what a strategy keeps in copies alone has its name from the others, which share the caches
    elsewhere = pl.col("cache").drop_nulls().first().over("context", "family")
    found = found.with_columns(pl.col("cache").fill_null(elsewhere)).drop_nulls("cache")
    found = found.drop("family")
    top = (
        found.group_by("context", "cache").agg(pl.col("slabs").max())
        .sort(["context", "slabs", "cache"], descending=[False, True, False])
        .group_by("context", maintain_order=True).head(TOP_CACHES)
    )  # fmt: skip
    return found.join(top.select("context", "cache"), on=["context", "cache"]).with_columns(
        pl.col("slabs", "live", "objects").round(0).cast(pl.Int64), pl.col("copies").round(1)
    )


def _scaling(good: pl.DataFrame) -> pl.DataFrame:
    """Every headline metric over every parameter that the runs vary."""
    parts = [
        scaling.curves(good, name).with_columns(parameter=pl.lit(name))
        for name in scaling.varied(good)
    ]
    empty = scaling.curves(good.head(0), "cpus").with_columns(parameter=pl.lit(""))
    found = pl.concat([empty, *parts])
    text = pl.concat_str(["scenario", "allocator", "era"], separator=", ", ignore_nulls=True)
    return found.select("parameter", "strategy", "x", "metric", "value", "runs", scenario=text)


def _runs(runs: pl.DataFrame) -> pl.DataFrame:
    names = (
        "run_id", "scenario", "strategy", "strategy_params", "scenario_params", "allocator", "era",
        "seed", "status", "error", "events", "groups", "cpus", "hardware", "workload_hash",
        "trace_hash", "versions", "events_per_s",
    )  # fmt: skip
    return runs.select(names).with_columns(pl.col("run_id").cast(pl.String)).head(MOST_RUNS)
