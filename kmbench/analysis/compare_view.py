"""A comparison laid out: metrics down, strategies across, the baseline first as 1.00x."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from kmbench.analysis.compare import CONTEXT, Comparison
from kmbench.analysis.metrics import (
    METRICS,
    NOT_APPLICABLE,
    Metric,
    direction_mark,
    format_value,
)
from kmbench.analysis.parameters import in_order
from kmbench.analysis.statistics import MIN_PAIRS
from kmbench.analysis.tables import Column, Grid

__all__ = ["format_ratio", "grids", "title_of"]

LEGEND = "v lower is better, ^ higher is better; 1.00x = {baseline}, beside it the value itself"
LEGEND_SEEDS = (
    "[low high]: 95 % bootstrap interval of the ratio over the pairs; * differs significantly "
    "(interval of the difference without 0, at least {pairs} pairs)"
)


def grids(comparison: Comparison, pivot: bool = False) -> Iterator[Grid]:
    """One grid per context of ``comparison``; notes stand below the last.

    ``pivot``: strategies down; across the values of ``by``, in one grid per context and metric, or
    without ``by`` the metrics.
    """
    parts = comparison.frame.partition_by(CONTEXT, as_dict=True, maintain_order=True)
    for number, (key, part) in enumerate(parts.items(), start=1):
        context = dict(zip(CONTEXT, key, strict=True))
        notes = _legend(comparison, part)
        if number == len(parts):
            notes += [f"note: {note}" for note in comparison.notes]
        if pivot and comparison.by is None:
            yield _metrics_across(comparison, context, part, notes)
        elif pivot:
            for metric in comparison.metrics:
                last = metric is comparison.metrics[-1]
                yield _pivot(comparison, context, part, metric, notes if last else [])
        else:
            yield _grid(comparison, context, part, notes)


def _pivot(
    comparison: Comparison,
    context: Mapping[str, Any],
    part: pl.DataFrame,
    metric: Metric,
    notes: list[str],
) -> Grid:
    """One metric: a row per strategy, a column group per value of ``by``."""
    rows = part.filter(pl.col("metric") == metric.name)
    values = in_order(rows["by"].unique())
    cells = {(r["strategy"], r["by"]): r for r in rows.iter_rows(named=True)}
    columns = [Column("strategy", left=True)]
    for value in values:
        across = f"{comparison.by} {value or NOT_APPLICABLE}"
        columns += [Column("value", across), Column("ratio", across)]
    lines = [
        [strategy, *(text for v in values for text in _cell(cells.get((strategy, v)), False))]
        for strategy in rows["strategy"].unique(maintain_order=True)
    ]
    mark = direction_mark(metric.direction).strip()
    title = f"{metric.label}{' ' + mark if mark else ''} ({title_of(context, rows)})"
    return Grid(title, columns, lines, 1, notes)


def _metrics_across(
    comparison: Comparison, context: Mapping[str, Any], part: pl.DataFrame, notes: list[str]
) -> Grid:
    """A row per strategy, a column group per metric."""
    cells = {(r["strategy"], r["metric"]): r for r in part.iter_rows(named=True)}
    columns = [Column("strategy", left=True)]
    for metric in comparison.metrics:
        head = f"{metric.label} {direction_mark(metric.direction)}".strip()
        columns += [Column("value", head), Column("ratio", head)]
    lines = [
        [s, *(text for m in comparison.metrics for text in _cell(cells.get((s, m.name)), False))]
        for s in part["strategy"].unique(maintain_order=True)
    ]
    return Grid(title_of(context, part), columns, lines, 1, notes)


def _legend(comparison: Comparison, part: pl.DataFrame) -> list[str]:
    lines = [LEGEND.format(baseline=comparison.baseline)]
    if _has_interval(part):
        lines.append(LEGEND_SEEDS.format(pairs=MIN_PAIRS))
    return lines


def _has_interval(part: pl.DataFrame) -> bool:
    return part.filter(pl.col("pairs") > 1)["ratio_low"].count() > 0


def _grid(
    comparison: Comparison, context: Mapping[str, Any], part: pl.DataFrame, notes: list[str]
) -> Grid:
    strategies = part["strategy"].unique(maintain_order=True).to_list()
    interval = _has_interval(part)
    columns = [Column("metric", left=True)]
    if comparison.by:
        columns.append(Column(comparison.by, left=True))
    columns.append(Column(""))
    lead = len(columns)
    for strategy in strategies:
        columns += [Column("value", strategy), Column("ratio", strategy)]
        if interval and strategy != comparison.baseline:
            columns.append(Column("95 % interval", strategy))
    rows = []
    cells = {(r["metric"], r["by"], r["strategy"]): r for r in part.iter_rows(named=True)}
    for metric in comparison.metrics:
        for by in in_order(part["by"].unique()):
            found = [cells.get((metric.name, by, strategy)) for strategy in strategies]
            if all(cell is None for cell in found):
                continue
            row = [metric.label, *([by or NOT_APPLICABLE] if comparison.by else [])]
            row.append(direction_mark(metric.direction))
            for strategy, cell in zip(strategies, found, strict=True):
                row += _cell(cell, interval and strategy != comparison.baseline)
            rows.append(row)
    return Grid(title_of(context, part), columns, rows, lead, notes)


def title_of(context: Mapping[str, Any], part: pl.DataFrame) -> str:
    """``context`` and the number of pairs in words."""
    pairs = part["pairs"].max() or 0
    words = [f"{key} {value}" for key, value in context.items() if value is not None]
    return ", ".join([*words, f"{pairs} pair{'s' if pairs != 1 else ''}"])


def _cell(cell: Mapping[str, Any] | None, interval: bool) -> list[str]:
    if cell is None:
        return [NOT_APPLICABLE] * (3 if interval else 2)
    value = format_value(METRICS[cell["metric"]], cell["value"])
    mark = "*" if cell["significant"] and cell["ratio"] is not None else " "
    texts = [value, format_ratio(cell["ratio"]) + mark]
    if interval:
        low, high = cell["ratio_low"], cell["ratio_high"]
        texts.append("" if low is None else f"[{low:.2f} {high:.2f}]")
    return texts


def format_ratio(ratio: float | None) -> str:
    """``1.24x``; ``-`` where the baseline is zero or was not measured."""
    if ratio is None:
        return NOT_APPLICABLE
    return f"{ratio:.2f}x" if abs(ratio) < 1000 else f"{ratio:.3g}x"
