"""How a metric grows with a parameter: CPUs, groups, live objects, whatever the runs vary."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from kmbench.analysis.metrics import select_metrics
from kmbench.analysis.parameters import parameter_names, parameter_values, strategy_labels

__all__ = ["CONTEXT_OF_CURVES", "curves", "varied"]

CONTEXT_OF_CURVES = ("scenario", "allocator", "era", "hardware")
_COLUMNS = ("cpus", "groups")  # of `runs`, besides the parameters of the scenario


def varied(runs: pl.DataFrame) -> list[str]:
    """The numeric parameters that have several values within one scenario, by name."""
    return [name for name in _candidates(runs) if not _values(runs, name).is_empty()]


def _candidates(runs: pl.DataFrame) -> list[str]:
    names = parameter_names(runs, "scenario_params")
    return [*(name for name in _COLUMNS if name not in names), *sorted(names)]


def _values(runs: pl.DataFrame, name: str) -> pl.DataFrame:
    """``runs`` with the number ``x`` of those scenarios in which it takes several values."""
    plain = name in _COLUMNS and name not in parameter_names(runs, "scenario_params")
    values = runs[name] if plain else parameter_values(runs, "scenario_params", name)
    return (
        runs.with_columns(x=values.cast(pl.Float64, strict=False))
        .filter(pl.col("x").is_not_null())
        .filter(pl.col("x").n_unique().over(CONTEXT_OF_CURVES) > 1)
    )


def curves(runs: pl.DataFrame, parameter: str, metrics: Sequence[str] = ()) -> pl.DataFrame:
    """Means of ``metrics`` (default: the headline ones) by strategy and value of ``parameter``.

    ``runs``: successful runs of :func:`kmbench.analysis.compare.load_runs`.  Columns:
    :data:`CONTEXT_OF_CURVES`, ``strategy``, ``x``, ``runs`` (how many), ``metric``, ``value``;
    parameters other than this one are averaged over.  Empty where it does not vary.
    """
    names = [metric.name for metric in select_metrics(metrics)]
    keys = [*CONTEXT_OF_CURVES, "strategy", "x"]
    found = _values(runs, parameter)
    return (
        found.with_columns(strategy=strategy_labels(found))
        .group_by(keys)
        .agg(pl.col(names).cast(pl.Float64).mean(), runs=pl.len())
        .unpivot(names, index=[*keys, "runs"], variable_name="metric", value_name="value")
        .drop_nulls("value")
        .sort([*CONTEXT_OF_CURVES, "metric", "strategy", "x"])
    )
