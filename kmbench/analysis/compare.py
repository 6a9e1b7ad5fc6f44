"""Strategies side by side: paired comparison over seeds against a baseline.

Runs are a pair when they have the same workload bytes and seed, in the same context (scenario,
allocator, era, hardware, CPUs).  Different contexts are never mixed: each gets its own comparison.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from kmbench.analysis.metrics import METRICS, Metric, select_metrics
from kmbench.analysis.pricing import price_runs
from kmbench.analysis.statistics import paired
from kmbench.errors import UsageProblem, unknown
from kmbench.hardware.profile import Profile
from kmbench.store.dataset import Results

__all__ = ["CONTEXT", "Comparison", "compare", "load_runs", "strategy_labels", "with_excess"]

CONTEXT = ("scenario", "allocator", "era", "hardware", "cpus")
PAIR = ("workload_hash", "seed")
REFERENCE = "none"  # W3 is measured against this strategy, whatever the baseline is
REFERENCE_KEYS = (*PAIR, "allocator", "era", "hardware", "cpus")
JSON_COLUMNS = ("strategy_params", "scenario_params")

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
    results: Results, run_ids: Iterable[str] | None = None, hardware: Profile | None = None
) -> pl.DataFrame:
    """Every run with its derived metrics, ``events_per_s`` and ``when`` included.

    ``hardware`` prices the counts of all runs anew.
    """
    timing = results.timing.select("run_id", "events_per_s", "when")
    with results.reading():
        runs = results.runs
        if hardware:
            runs = price_runs(runs.collect(), results.ops, hardware).lazy()
        runs = with_excess(runs).join(timing, on="run_id", how="left")
        if run_ids is not None:
            runs = runs.filter(pl.col("run_id").cast(pl.String).is_in(list(run_ids)))
        return runs.sort("run_id").collect()


def compare(
    results: Results,
    *,
    baseline: str = REFERENCE,
    by: str | None = None,
    metrics: Sequence[str] = (),
    run_ids: Iterable[str] | None = None,
    hardware: Profile | None = None,
) -> Comparison:
    """Compare all strategies of ``results`` with ``baseline``.

    ``by``: a column of ``runs`` or a parameter of scenario or strategy; each of its values is
    compared on its own.  ``metrics``: names or ids, default the headline ones.  ``run_ids``: only
    these runs.  ``hardware``: the machine whose costs price all runs, instead of each run's own.
    Raises :class:`UsageProblem` on unknown names and when nothing can be compared.
    """
    chosen = select_metrics(metrics)
    runs = load_runs(results, run_ids, hardware)
    if not runs.height:
        raise UsageProblem(f"{results.path}: no complete runs; `kmbench run` makes some")
    runs, by_strategy = _split_by(runs, by)
    runs, notes = _usable(runs)
    if not runs.height:
        raise UsageProblem(f"{results.path}: no successful run to compare; {notes[0]}")
    runs = runs.with_columns(label=pl.Series(strategy_labels(runs, by if by_strategy else None)))
    labels = runs["label"].unique().to_list()
    if baseline not in labels:
        labels += [name for name in runs["strategy"].unique() if name not in labels]
        raise unknown("strategy", baseline, labels)
    rows: list[dict[str, Any]] = []
    for context, part in runs.partition_by(CONTEXT, as_dict=True, maintain_order=True).items():
        here = dict(zip(CONTEXT, context, strict=True))
        found, missing = _compare_context(part, baseline, chosen, by_strategy)
        rows += [here | row for row in found]
        if missing:
            words = ", ".join(f"{key} {value}" for key, value in here.items())
            notes.append(f"{words}: no run of {baseline} shares workload and seed with {missing}")
    schema = {name: runs.schema[name] for name in CONTEXT} | TIDY
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Comparison(frame, baseline, by, chosen, notes)


def _compare_context(
    part: pl.DataFrame, baseline: str, metrics: list[Metric], by_strategy: bool
) -> tuple[list[dict[str, Any]], str]:
    """The rows of one context, and the strategies that had no pair."""
    base = part.filter(pl.col("label") == baseline)
    keys = list(PAIR) if by_strategy else [*PAIR, "by"]
    names = [metric.name for metric in metrics]
    base_values = base.select(*keys, pl.col(names).name.prefix("base:"))
    rows = []
    unpaired = []
    values_of_by = part["by"].unique().sort().to_list()
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
    once = good.sort("when", "run_id", nulls_last=False).unique(same, keep="last")
    if once.height < good.height:
        notes.append(
            f"{good.height - once.height} older run(s) of the same strategy, workload and seed "
            "left out"
        )
    return once.sort("run_id"), notes


def _split_by(runs: pl.DataFrame, by: str | None) -> tuple[pl.DataFrame, bool]:
    """``runs`` with the text column ``by``; whether it is a parameter of the strategy."""
    if by is None:
        return runs.with_columns(by=pl.lit(None, pl.String)), False
    parsed = {name: [_parameters(text) for text in runs[name]] for name in JSON_COLUMNS}
    known = {name: {key for row in rows for key in row} for name, rows in parsed.items()}
    plain = set(runs.columns) - {*JSON_COLUMNS, *METRICS, "run_id", "strategy", "when"}
    if by in plain:
        return runs.with_columns(by=pl.col(by).cast(pl.String)), False
    for column in reversed(JSON_COLUMNS):
        if by in known[column]:
            values = [_word(row[by]) if by in row else None for row in parsed[column]]
            with_by = runs.with_columns(by=pl.Series(values, dtype=pl.String))
            return with_by, column == "strategy_params"
    raise unknown("parameter", by, plain.union(*known.values()))


def _parameters(text: str | None) -> Mapping[str, Any]:
    """A JSON object of parameters; empty when there is none."""
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        value = {}
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    """A parameter's value without spaces or quotes."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "+".join(_word(item) for item in value)
    return json.dumps(value, separators=(",", ":"))


def strategy_labels(runs: pl.DataFrame, without: str | None = None) -> list[str]:
    """A name per run: the strategy, with the parameters in which its runs differ, if they do.

    The parameter ``without`` is left out, because it is told apart already.
    """
    parameters = [
        {key: _word(value) for key, value in _parameters(text).items() if key != without}
        for text in runs["strategy_params"]
    ]
    seen: dict[str, dict[str, set[str | None]]] = {}
    for strategy, row in zip(runs["strategy"], parameters, strict=True):
        keys = seen.setdefault(strategy, {})
        for key in row:
            keys.setdefault(key, set())
    for strategy, row in zip(runs["strategy"], parameters, strict=True):
        for key, values in seen[strategy].items():
            values.add(row.get(key))
    labels = []
    for strategy, row in zip(runs["strategy"], parameters, strict=True):
        differing = [key for key, values in sorted(seen[strategy].items()) if len(values) > 1]
        words = ",".join(f"{key}={row[key]}" for key in differing if key in row)
        labels.append(f"{strategy}[{words}]" if words else strategy)
    return labels
