"""The strategies that no other beats on every count: overhead, waste, accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from kmbench.analysis.metrics import METRICS, Metric, select_metrics

__all__ = ["AXES", "on_front", "points"]

AXES = ("pair_ns", "slab_bytes_mean", "charge_error_median")
"""Overhead, waste and accuracy."""


def on_front(frame: pl.DataFrame, metrics: Sequence[Metric]) -> pl.Series:
    """Whether no other row of ``frame`` is as good on every metric and better on one.

    Boolean, one per row; null where a metric is null.  A metric without a direction counts as
    lower is better.
    """
    signed = frame.select(
        pl.col(m.name).cast(pl.Float64) * (-1.0 if m.direction == "higher" else 1.0)
        for m in metrics
    )
    rows = signed.rows()
    front: list[bool | None] = []
    for row in rows:
        if None in row:
            front.append(None)
            continue
        front.append(
            not any(
                None not in other
                and other != row
                and all(a <= b for a, b in zip(other, row, strict=True))
                for other in rows
            )
        )
    return pl.Series("front", front, dtype=pl.Boolean)


def points(comparison: pl.DataFrame, by: Sequence[str], axes: Sequence[str] = AXES) -> pl.DataFrame:
    """A row per strategy: its value on each of ``axes``, and ``front``.

    ``comparison`` is the frame of :func:`kmbench.analysis.compare.compare` over at least these
    metrics; ``by`` names the columns that keep fronts apart.
    """
    metrics = [METRICS[name] for name in axes]
    assert metrics == select_metrics(axes)
    wide = comparison.filter(pl.col("metric").is_in(list(axes))).pivot(
        "metric", index=[*by, "strategy"], values="value", aggregate_function="mean"
    )
    missing = [pl.lit(None, pl.Float64).alias(name) for name in axes if name not in wide.columns]
    wide = wide.with_columns(missing)
    if not by:
        return wide.with_columns(front=on_front(wide, metrics))
    parts = wide.partition_by(by, maintain_order=True)
    return pl.concat([part.with_columns(front=on_front(part, metrics)) for part in parts])
