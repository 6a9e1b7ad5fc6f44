"""Metrics by name, and their numbers as people read them.

The catalogue itself is :data:`METRICS`; this module finds metrics in it and formats values by
unit: bytes in binary multiples, fractions in percent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kmbench.errors import unknown
from kmbench.store.catalogue import METRICS, STORED, Metric

__all__ = ["METRICS", "STORED", "Metric", "direction_mark", "format_value", "select_metrics"]

NOT_APPLICABLE = "-"


def select_metrics(names: Iterable[str] = ()) -> list[Metric]:
    """The metrics with these names or ids (case does not matter), in the order given.

    No names: the headline metrics.  Raises :class:`kmbench.errors.UsageProblem` with the nearest
    name when one is unknown.
    """
    by_key = {metric.id.casefold(): metric for metric in METRICS.values()}
    by_key |= {metric.name.casefold(): metric for metric in METRICS.values()}
    chosen: dict[str, Metric] = {}
    for name in names:
        metric = by_key.get(name.strip().casefold().replace("-", "_"))
        if metric is None:
            raise unknown("metric", name, METRICS)
        chosen[metric.name] = metric
    return list(chosen.values()) or [metric for metric in METRICS.values() if metric.headline]


def direction_mark(direction: str | None) -> str:
    """One ASCII character: ``v`` lower is better, ``^`` higher is better."""
    return {"lower": "v", "higher": "^"}.get(direction or "", " ")


def format_bytes(value: float) -> str:
    """Four significant digits with a binary unit: ``98.00 KiB``."""
    size = abs(value)
    if size < 1024:
        return f"{value:.0f} B" if size == int(size) else f"{value:.1f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        size /= 1024
        value /= 1024
        if size < 1023.5 or unit == "PiB":
            break
    return f"{value:.{_decimals(size)}f} {unit}"


def format_count(value: float) -> str:
    """Whole numbers with separators, others with four significant digits."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{_decimals(abs(value))}f}"


def _decimals(size: float) -> int:
    return 2 if size < 100 else 1 if size < 1000 else 0


def _format_share(value: float) -> str:
    return f"{100 * value:.{_decimals(abs(100 * value))}f} %"


def _format_rate(value: float) -> str:
    for limit, unit in ((1e9, "G/s"), (1e6, "M/s"), (1e3, "k/s")):
        if value >= limit:
            return f"{value / limit:.2f} {unit}"
    return f"{value:.0f} /s"


_FORMATTERS: dict[str, Callable[[float], str]] = {
    "B": format_bytes,
    "1": _format_share,
    "ops": lambda value: f"{value:.2f}",
    "count": format_count,
    "ns": lambda value: f"{value:,.{_decimals(abs(value))}f} ns",
    "s": lambda value: f"{value:.3f} s",
    "events/s": _format_rate,
    "pairs/s": _format_rate,
}


def format_value(metric: Metric, value: float | None) -> str:
    """``value`` of ``metric`` with its unit; ``-`` where there is none."""
    return NOT_APPLICABLE if value is None else _FORMATTERS[metric.unit](value)
