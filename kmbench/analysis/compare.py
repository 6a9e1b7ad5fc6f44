"""Strategies side by side: paired comparison over seeds against a baseline.

Runs are a pair when they have the same workload bytes and seed, in the same context (scenario,
allocator, era, hardware, CPUs).  Different contexts are never mixed: each gets its own comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from kmbench.analysis.metrics import METRICS, Metric, select_metrics
from kmbench.analysis.parameters import (
    JSON_COLUMNS,
    in_order,
    parameter_names,
    parameter_values,
    strategy_labels,
)
from kmbench.analysis.pricing import price_runs
from kmbench.analysis.statistics import paired
from kmbench.errors import UsageProblem, unknown
from kmbench.hardware.profile import Profile
from kmbench.store.dataset import Results

__all__ = ["CONTEXT", "Comparison", "compare", "load_runs", "with_excess"]

CONTEXT = ("scenario", "allocator", "era", "hardware", "cpus")
PAIR = ("workload_hash", "seed")
REFERENCE = "none"  # W3 is measured against this strategy, whatever the baseline is
REFERENCE_KEYS = (*PAIR, "allocator", "era", "hardware", "cpus")
FACTS = ("run_id", "strategy", *JSON_COLUMNS, *PAIR, "status", "error", "when")

WORKLOAD = "workload."  # before the name of a parameter

TIDY = {
    "by": pl.String, "metric": pl.String, "id": pl.String, "unit": pl.String,
    "direction": pl.String, "strategy": pl.String, "pairs": pl.Int64, "value": pl.Float64,
    "baseline": pl.Float64, "ratio": pl.Float64, "ratio_low": pl.Float64,
    "ratio_high": pl.Float64, "difference": pl.Float64, "difference_low": pl.Float64,
    "difference_high": pl.Float64, "significant": pl.Boolean,
}  # fmt: skip


class Comparison(NamedTuple):
    """The outcome of :func:`compare`."""

    frame: pl.DataFrame
    """One row per context, value of ``by``, metric and strategy (the baseline's own included):
    columns :data:`CONTEXT` and those of ``TIDY``.  ``value`` is the mean over the pairs."""
    baseline: str
    by: str | None
    metrics: list[Metric]
    notes: list[str]
    """What a reader must know: runs left out, contexts without a baseline."""


def with_excess(runs: pl.LazyFrame) -> pl.LazyFrame:
    """``runs`` with W3 and T6, ``excess_slab_bytes`` and ``overhead_ns``: what they have more than
    ``none`` on the same workload and seed."""
    reference = (
        runs.filter(pl.col("strategy") == REFERENCE, pl.col("status") == "ok")
        .group_by(REFERENCE_KEYS)
        .agg(pl.col("slab_bytes_mean", "pair_ns").mean().name.prefix("reference:"))
    )
    return (
        runs.join(reference, on=REFERENCE_KEYS, how="left", nulls_equal=True)
        .with_columns(
            excess_slab_bytes=pl.col("slab_bytes_mean") - pl.col("reference:slab_bytes_mean"),
            overhead_ns=pl.col("pair_ns") - pl.col("reference:pair_ns"),
        )
        .drop("reference:slab_bytes_mean", "reference:pair_ns")
    )


def load_runs(
    results: Results,
    run_ids: Iterable[str] | None = None,
    columns: Iterable[str] = (),
    hardware: Profile | None = None,
) -> pl.DataFrame:
    """Every run with its derived metrics, ``events_per_s`` and ``when`` included.

    ``columns``: read only these (default: all).  ``hardware`` prices the counts of all runs anew.
    """
    with results.reading():
        timing = results.timing.select("run_id", "events_per_s", "when")
        runs = results.runs
        if hardware:
            runs = price_runs(runs.collect(), results.ops, hardware).lazy()
        runs = with_excess(runs).join(timing, on="run_id", how="left")
        if run_ids is not None:
            runs = runs.filter(pl.col("run_id").cast(pl.String).is_in(list(run_ids)))
        if columns:
            runs = runs.select(list(dict.fromkeys(columns)))
        return runs.sort("run_id").collect()


def compare(
    results: Results,
    *,
    baseline: str = REFERENCE,
    by: str | None = None,
    metrics: Sequence[str] = (),
    run_ids: Iterable[str] | None = None,
    collapse: Sequence[str] = (),
    hardware: Profile | None = None,
    where: Mapping[str, str] | None = None,
    strategies: Sequence[str] = (),
) -> Comparison:
    """Compare all strategies of ``results`` with ``baseline``.

    ``by``: a column of ``runs`` or a parameter of workload or strategy, of the former also as
    ``workload.NAME``; each of its values is compared on its own.  ``collapse``: columns of
    :data:`CONTEXT` that do not part the runs: pairs still agree in them, but the means run over all
    their values.  ``metrics``: names or ids, default the headline ones.  ``run_ids``: only these
    runs.  ``hardware``: the machine whose costs price all runs, instead of each run's own.
    ``where``: only runs in which columns or parameters have these values, or one of several with
    commas between them; ``strategies``: only these and the baseline.  Raises :class:`UsageProblem`
    on unknown names and when nothing can be compared.
    """
    chosen = select_metrics(metrics)
    for name in collapse:
        if name not in CONTEXT:
            raise unknown("context", name, CONTEXT)
    apart = [name for name in CONTEXT if name not in collapse and name != by]
    with results.reading():
        known = results.runs.collect_schema().names()
    columns = [*FACTS, *CONTEXT, *(metric.name for metric in chosen)]
    wanted = dict(where or {})
    columns += [name for name in (by, *wanted) if name in known]
    runs = load_runs(results, run_ids, columns, hardware)
    if not runs.height:
        raise UsageProblem(f"{results.path}: no complete runs; `kmbench run` makes some")
    runs = _matching(runs, wanted, strategies and [*strategies, baseline], known)
    runs, by_strategy = _split_by(runs, by, known)
    runs, notes = _usable(runs)
    if by in known and by in parameter_names(runs, "scenario_params"):
        notes.append(f"{by} is the column of runs; {WORKLOAD}{by} is the workload's parameter")
    if not runs.height:
        raise UsageProblem(f"{results.path}: no successful run to compare; {notes[0]}")
    named_alone = [name for name in apart if name == "scenario"]
    runs = runs.with_columns(label=strategy_labels(runs, by if by_strategy else None, named_alone))
    labels = runs["label"].unique().to_list()
    if baseline not in labels:
        labels += [name for name in runs["strategy"].unique() if name not in labels]
        raise unknown("strategy", baseline, labels)
    rows: list[dict[str, Any]] = []
    keys = [*PAIR, *(name for name in CONTEXT if name not in apart)]
    for context, part in _parts(runs, apart):
        found, missing = _compare_context(part, baseline, chosen, keys, by_strategy)
        rows += [context | row for row in found]
        if missing:
            words = ", ".join(f"{key} {value}" for key, value in context.items())
            notes.append(
                f"{words or 'all'}: no run of {baseline} shares workload and seed with {missing}"
            )
    schema = {name: runs.schema[name] for name in CONTEXT} | TIDY
    rows = [dict.fromkeys(CONTEXT) | row for row in rows]
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Comparison(frame, baseline, by, chosen, notes)


def _parts(runs: pl.DataFrame, apart: list[str]) -> list[tuple[dict[str, Any], pl.DataFrame]]:
    """``runs`` cut by the columns ``apart``, with the values of each part."""
    if not apart:
        return [({}, runs)]
    parts = runs.partition_by(apart, as_dict=True, maintain_order=True)
    return [(dict(zip(apart, key, strict=True)), part) for key, part in parts.items()]


def _compare_context(
    part: pl.DataFrame,
    baseline: str,
    metrics: list[Metric],
    pair: list[str],
    by_strategy: bool,
) -> tuple[list[dict[str, Any]], str]:
    """The rows of one context, and the strategies that had no pair; ``pair``: what pairs share."""
    base = part.filter(pl.col("label") == baseline)
    keys = pair if by_strategy else [*pair, "by"]
    names = [metric.name for metric in metrics]
    base_values = base.select(*keys, pl.col(names).name.prefix("base:"))
    rows = []
    unpaired = []
    values_of_by = in_order(part["by"].unique())
    for label in _order(part["label"].unique().to_list(), baseline):
        whole = part.filter(pl.col("label") == label)
        joined = whole.join(base_values, on=keys, how="inner", nulls_equal=True)
        if not joined.height:
            unpaired.append(label)
        for value in values_of_by:
            own = pl.col("by").eq_missing(value)
            if by_strategy and label == baseline:
                own = pl.lit(True)  # the baseline does not have the parameter: it pairs with all
            cell, alone = joined.filter(own), whole.filter(own)
            if alone.height:
                rows += [_compare_cell(cell, alone, m, label, value) for m in metrics]
    return rows, ", ".join(unpaired)


def _compare_cell(
    pairs: pl.DataFrame, alone: pl.DataFrame, metric: Metric, label: str, by: str | None
) -> dict[str, Any]:
    """One strategy, one metric; without a pair only its own mean."""
    row: dict[str, Any] = dict.fromkeys(TIDY)
    row |= {
        "by": by, "metric": metric.name, "id": metric.id, "unit": metric.unit,
        "direction": metric.direction, "strategy": label, "pairs": 0, "significant": False,
    }  # fmt: skip
    both = pairs.select(
        value=pl.col(metric.name).cast(pl.Float64),
        base=pl.col(f"base:{metric.name}").cast(pl.Float64),
    ).drop_nulls()
    if both.height:
        result = paired(both["value"].to_numpy(), both["base"].to_numpy())
        row |= {"pairs": result.n} | {k: v for k, v in result._asdict().items() if k in TIDY}
    else:
        row["value"] = alone[metric.name].cast(pl.Float64).mean()
    return row


def _order(labels: list[str], baseline: str) -> list[str]:
    return sorted(labels, key=lambda label: (label != baseline, label))


def _usable(runs: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Successful runs, each once, and a note on what was left out."""
    notes = []
    good = runs.filter(pl.col("status") == "ok")
    if good.height < runs.height:
        bad = runs.filter(pl.col("status").ne_missing("ok"))
        why = bad["error"].drop_nulls().to_list() or ["no reason recorded"]
        notes.append(f"{bad.height} failed run(s) left out: {why[0]}")
    same = ["strategy", *JSON_COLUMNS, *CONTEXT, *PAIR, "by"]
    older = good.height - good.select(pl.struct(same).n_unique()).item()
    if older:
        notes.append(f"{older} older run(s) of the same strategy, workload and seed left out")
        good = good.sort("when", "run_id", nulls_last=False).unique(same, keep="last")
    return good.sort("run_id"), notes


def _matching(
    runs: pl.DataFrame, where: Mapping[str, str], strategies: Sequence[str], known: list[str]
) -> pl.DataFrame:
    """The ``runs`` with these values and (unless there are none) strategies."""
    for name, text in where.items():
        values = _column(runs, name, known)[0]
        wanted = [text] if text in values else text.split(",")
        for value in wanted:
            if value not in values:
                raise unknown(name, value, map(str, values.drop_nulls().unique()))
        runs = runs.filter(values.is_in(wanted))
    for name in strategies:
        if name not in runs["strategy"]:
            raise unknown("strategy", name, runs["strategy"].unique())
    return runs.filter(pl.col("strategy").is_in(strategies)) if strategies else runs


def _split_by(runs: pl.DataFrame, by: str | None, known: list[str]) -> tuple[pl.DataFrame, bool]:
    """``runs`` with the text column ``by``; whether it is a parameter of the strategy."""
    if by is None:
        return runs.with_columns(by=pl.lit(None, pl.String)), False
    values, of_strategy = _column(runs, by, known)
    return runs.with_columns(by=values), of_strategy


def _column(runs: pl.DataFrame, name: str, known: list[str]) -> tuple[pl.Series, bool]:
    """A column or parameter of ``runs`` as text; whether it is a parameter of the strategy.

    ``workload.NAME``, as ``--set`` has it, is the workload's where a column has that name, too.
    ``known``: all columns of the table ``runs``, those included that were not read.
    """
    plain = set(known) - {*JSON_COLUMNS, *METRICS, "run_id", "strategy"}
    if name in plain:
        return runs[name].cast(pl.String), False
    names = {column: parameter_names(runs, column) for column in JSON_COLUMNS}
    prefix, _, alone = name.partition(WORKLOAD)
    if not prefix and alone in names["scenario_params"]:
        return parameter_values(runs, "scenario_params", alone).alias(name), False
    for column in reversed(JSON_COLUMNS):
        if name in names[column]:
            return parameter_values(runs, column, name), column == "strategy_params"
    raise unknown("parameter", name, plain.union(*names.values()))
