"""Gates: a condition on a comparison that a CI job can fail on, such as ``W0<=1.05x``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from kmbench.analysis.compare import Comparison
from kmbench.analysis.metrics import Metric, format_value, select_metrics
from kmbench.errors import UsageProblem, unknown

__all__ = ["Gate", "failures", "parse_gate"]

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_UNITS = {"": 1.0, "%": 0.01, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30}
_PATTERN = re.compile(
    r"\s*(?:(?P<strategy>[^:<>]+):)?\s*(?P<metric>[\w.-]+)\s*(?P<operator><=|>=|==|<|>)\s*"
    r"(?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*(?P<unit>x|%|[KMG](?:iB)?)?\s*"
)


class Gate(NamedTuple):
    """One condition."""

    text: str
    strategy: str | None
    """``None``: every strategy but the baseline."""
    metric: Metric
    operator: str
    limit: float
    relative: bool
    """The limit is a multiple of the baseline (``1.05x``), not a value."""


def parse_gate(text: str) -> Gate:
    """``[STRATEGY:]METRIC OP NUMBER[x|%|K|M|G]``; raises :class:`UsageProblem`."""
    match = _PATTERN.fullmatch(text)
    if not match:
        raise UsageProblem(f"gate {text!r} is not [STRATEGY:]METRIC<=NUMBER[x|%|K|M|G]")
    unit = match["unit"] or ""
    factor = 1.0 if unit == "x" else _UNITS[unit[:1]]
    metric = select_metrics([match["metric"]])[0]
    strategy = match["strategy"].strip() if match["strategy"] else None
    limit = float(match["number"]) * factor
    return Gate(text.strip(), strategy, metric, match["operator"], limit, unit == "x")


def failures(gate: Gate, comparison: Comparison) -> list[str]:
    """A line for every strategy that does not hold ``gate``; empty when all do.

    A strategy for which the metric could not be measured does not hold it.
    """
    rows = comparison.frame.filter(pl.col("metric") == gate.metric.name)
    if gate.strategy is None:
        rows = rows.filter(pl.col("strategy") != comparison.baseline)
    elif gate.strategy not in rows["strategy"]:
        raise unknown("strategy", gate.strategy, rows["strategy"].unique())
    else:
        rows = rows.filter(pl.col("strategy") == gate.strategy)
    if not rows.height:
        return [f"{gate.text}: nothing to compare with {comparison.baseline}"]
    lines = []
    for row in rows.iter_rows(named=True):
        value = row["ratio"] if gate.relative else row["value"]
        if value is not None and _OPERATORS[gate.operator](value, gate.limit):
            continue
        shown = "not measured" if value is None else format_value(gate.metric, row["value"])
        if gate.relative:
            shown = f"{value:.3f}x ({shown})" if value is not None else "no ratio to the baseline"
        where = f"{row['strategy']}, {row['scenario']}"
        lines.append(f"{gate.text}: {where}: {shown}")
    return lines
