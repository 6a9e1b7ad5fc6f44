"""The figures as Vega-Lite specifications: for the page and for files alike.

Words in capitals after a dollar sign stand for what depends on the data: ``$UNIT`` and ``$DIVISOR``
of bytes, ``$LABEL`` and ``$FORMAT`` of a metric.  :func:`filled` puts them in.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from kmbench.analysis.metrics import METRICS

__all__ = ["CONFIG", "FIGURES", "SCHEMA", "STEP", "Figure", "filled", "units_of"]

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
COLOUR: Spec = {"field": "strategy", "type": "nominal", "scale": "$COLOURS", "legend": None}
NAMES: Spec = {"field": "strategy", "type": "nominal", "title": None, "sort": "$ORDER"}
STEP = 24  # pixels from a line to the next
CONFIG: Spec = {
    "font": "system-ui, -apple-system, 'Segoe UI', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "#5b6370", "titleColor": "#5b6370", "gridColor": "#e3e1dc",
        "domainColor": "#c9c7c2", "tickColor": "#c9c7c2", "titleFontWeight": 500,
        "labelFontSize": 11, "titleFontSize": 11.5, "labelLimit": 160,
    },
    "legend": {"labelColor": "#5b6370", "labelFontSize": 11.5, "symbolType": "square",
               "title": None},
    "title": {"anchor": "start", "fontSize": 15, "offset": 12},
    "header": {"labelFontSize": 12, "labelFontWeight": 600},
}  # fmt: skip
"""How figures look on white paper; the page puts its own colours in."""
SECONDS: Spec = {
    "field": "t", "type": "quantitative", "title": "seconds of model time",
    "scale": {"nice": False}, "axis": {"grid": False, "tickCount": 5},
}  # fmt: skip
STRATEGY_TIP: Spec = {"field": "strategy", "title": "strategy"}


class Figure(NamedTuple):
    """One figure: what it shows and how."""

    title: str
    caption: str
    table: str
    """Of :class:`kmbench.analysis.report.content.Content`."""
    spec: Spec
    bytes: tuple[str, ...] = ()
    """Columns in bytes, which share a unit."""
    each: str = ""
    """One small picture per value of this column, with the same axes."""
    lines: bool = False
    """A line per strategy: as high as there are strategies."""


def _bytes(*columns: str) -> list[Spec]:
    """Transforms that put ``columns`` into the unit of the figure."""
    return [{"calculate": f"datum['{name}'] / $DIVISOR", "as": name} for name in columns]


def _scatter(x: str, y: str) -> Spec:
    """Strategies on two metrics, those of the front filled."""
    first, second = METRICS[x], METRICS[y]
    transform = _bytes(y) if second.unit == "B" else []
    unit = ", $UNIT" if second.unit == "B" else ""
    axis: Spec = {"format": ".0%"} if second.unit == "1" else {}
    shared: Spec = {
        "x": {
            "field": x, "type": "quantitative",
            "title": f"{first.label} ({first.id}), {first.unit}",
            "scale": {"zero": False, "padding": 24}, "axis": {"tickCount": 6},
        },
        "y": {
            "field": y, "type": "quantitative", "title": f"{second.label} ({second.id}){unit}",
            "scale": {"zero": False, "padding": 18}, "axis": axis,
        },
    }  # fmt: skip
    return {
        "transform": transform,
        "encoding": shared,
        "layer": [
            {
                "mark": {"type": "point", "size": 150, "strokeWidth": 2.5, "tooltip": True},
                "encoding": {
                    "stroke": COLOUR,
                    "fill": {"condition": {**COLOUR, "test": "datum.front"},
                             "value": "transparent"},
                    "shape": {"condition": {"test": "datum.front", "value": "circle"},
                              "value": "diamond"},
                    "tooltip": [
                        STRATEGY_TIP,
                        {"field": x, "title": f"{first.label}, {first.unit}", "format": ".3~f"},
                        {"field": y, "title": second.label + unit,
                         "format": axis.get("format", ".4~r")},
                        {"field": "front", "title": "on the front"},
                    ],
                },
            },
            *(
                {
                    "transform": [{"filter": f"datum['align {y}'] == '{align}'"}],
                    "mark": {
                        "type": "text", "align": align, "fontSize": 11.5, "fontWeight": 600,
                        "dx": {"expr": f"datum['dx {y}']"}, "dy": {"expr": f"datum['dy {y}']"},
                    },
                    "encoding": {"text": {"field": "strategy"}, "color": COLOUR},
                }
                for align in ("left", "right")
            ),
        ],
    }  # fmt: skip


_TIMELINE: Spec = {
    "transform": _bytes("used", "charged"),
    "encoding": {"x": SECONDS},
    "layer": [
        {
            "mark": {"type": "area", "interpolate": "step-after", "opacity": 0.28,
                     "color": "#8b929e"},
            "encoding": {"y": {"field": "used", "type": "quantitative", "title": "$UNIT",
                               "scale": {"domain": "$DOMAIN"}}},
        },
        {
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
            "encoding": {"y": {"field": "charged", "type": "quantitative"}, "stroke": COLOUR},
        },
        {
            "params": [{"name": "here", "select": {
                "type": "point", "on": "pointermove", "nearest": True, "encodings": ["x"],
                "clear": "pointerout"}}],
            "mark": {"type": "rule", "opacity": 0},
            "encoding": {
                "opacity": {"condition": {"param": "here", "empty": False, "value": 0.5},
                            "value": 0},
                "tooltip": [
                    STRATEGY_TIP,
                    {"field": "t", "title": "second", "format": ".3~f"},
                    {"field": "used", "title": "truly used, $UNIT", "format": ".4~r"},
                    {"field": "charged", "title": "charged, $UNIT", "format": ".4~r"},
                ],
            },
        },
    ],
}  # fmt: skip

_SLABS: Spec = {
    "transform": _bytes("slabs", "live"),
    "params": [{"name": "near", "select": {
        "type": "point", "fields": ["strategy"], "on": "pointerover", "clear": "pointerout"}}],
    "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
    "encoding": {
        "x": SECONDS,
        "y": {"field": "slabs", "type": "quantitative", "title": "slabs in $UNIT",
              "scale": {"zero": False}},
        "stroke": COLOUR,
        "opacity": {"condition": {"param": "near", "value": 1}, "value": 0.25},
        "tooltip": [STRATEGY_TIP, {"field": "slabs", "title": "slabs, $UNIT", "format": ".4~r"},
                    {"field": "live", "title": "live objects, $UNIT", "format": ".4~r"}],
    },
}  # fmt: skip


_LATENCY: Spec = {
    "mark": {"type": "line", "interpolate": "step-before", "strokeWidth": 2},
    "transform": [{"filter": "datum.ns > 0"}],
    "encoding": {
        "x": {"field": "ns", "type": "quantitative", "title": "ns of model time",
              "scale": {"type": "log", "nice": False}, "axis": {"grid": False, "tickCount": 6}},
        "y": {"field": "share", "type": "quantitative", "title": "took so long or longer",
              "scale": {"type": "log", "domainMax": 1}, "axis": {"format": "~%", "tickCount": 5}},
        "stroke": COLOUR,
        "strokeDash": {"field": "op", "type": "nominal", "sort": ["alloc", "free"],
                       "legend": {"orient": "top", "symbolType": "stroke"}},
        "tooltip": [STRATEGY_TIP, {"field": "op", "title": "operation"},
                    {"field": "ns", "title": "ns", "format": ".4~r"},
                    {"field": "share", "title": "share", "format": ".3~%"}],
    },
}  # fmt: skip


def _bars(field: str, title: str, kind: str, kinds: list[str], scheme: list[str]) -> Spec:
    """Stacked bars, a strategy a row."""
    return {
        "mark": {"type": "bar", "cornerRadiusEnd": 2},
        "encoding": {
            "y": NAMES,
            "x": {"field": field, "type": "quantitative", "title": title, "stack": True,
                  "axis": {"tickCount": 8}},
            "color": {
                "field": kind, "type": "nominal", "title": None, "sort": kinds,
                "scale": {"domain": kinds, "range": scheme},
                "legend": {"orient": "top", "columns": "$COLUMNS", "labelLimit": 400},
            },
            "order": {"field": "order", "type": "quantitative"},
            "tooltip": [STRATEGY_TIP, {"field": kind, "title": "what"},
                        {"field": field, "title": title, "format": ".4~r"}],
        },
    }  # fmt: skip


_WASTE_KINDS = [
    "free in partial slabs", "idle on CPUs and empty", "metadata",
]  # fmt: skip
_PHASES = ["alloc", "slab", "page", "charge", "free", "group"]

_WASTE = _bars(
    "bytes", "memory without a live object, $UNIT", "kind", _WASTE_KINDS,
    ["#d08a3c", "#7c8fb5", "#b0578d"],
)  # fmt: skip
_WASTE["transform"] = [
    *_bytes("bytes"),
    {"calculate": f"indexof({json.dumps(_WASTE_KINDS)}, datum.kind)", "as": "order"},
]

_OPS = _bars(
    "ops", "operations per allocated or freed object", "phase", _PHASES,
    ["#4f8fd0", "#3aa58f", "#96a83f", "#d97a4a", "#9a86c8", "#9aa0aa"],
)  # fmt: skip
_OPS["transform"] = [
    {"calculate": f"indexof({json.dumps(_PHASES)}, datum.phase)", "as": "order"},
]

_SCALING: Spec = {
    "mark": {"type": "line", "point": {"filled": True, "size": 50}, "strokeWidth": 2},
    "transform": [{"calculate": "datum.value / $DIVISOR", "as": "value"}],
    "encoding": {
        "x": {"field": "x", "type": "quantitative", "title": "$PARAMETER",
              "scale": {"type": "log", "nice": False}, "axis": {"grid": False, "tickCount": 6}},
        "y": {"field": "value", "type": "quantitative", "title": "$LABEL",
              "axis": {"format": "$FORMAT"}},
        "color": COLOUR,
        "tooltip": [STRATEGY_TIP, {"field": "x", "title": "$PARAMETER"},
                    {"field": "value", "title": "$LABEL", "format": "$FORMAT"},
                    {"field": "runs", "title": "runs"}],
    },
}  # fmt: skip

_CACHE: Spec = {
    "transform": _bytes("slabs", "live"),
    "encoding": {"y": NAMES},
    "layer": [
        {"mark": {"type": "bar", "opacity": 0.35, "cornerRadiusEnd": 2},
         "encoding": {"x": {"field": "slabs", "type": "quantitative",
                            "title": "slabs, live objects inside, $UNIT"}, "color": COLOUR,
                      "tooltip": [STRATEGY_TIP,
                                  {"field": "slabs", "title": "slabs, $UNIT", "format": ".4~r"},
                                  {"field": "live", "title": "live, $UNIT", "format": ".4~r"},
                                  {"field": "copies", "title": "copies with slabs"}]}},
        {"mark": {"type": "bar", "height": 8},
         "encoding": {"x": {"field": "live", "type": "quantitative"}, "color": COLOUR}},
    ],
}  # fmt: skip

FIGURES: dict[str, Figure] = {
    "cost-waste": Figure(
        "Overhead against waste",
        "Filled: no other strategy is as good on overhead, waste and charge error together.",
        "pareto", _scatter("pair_ns", "slab_bytes_mean"), ("slab_bytes_mean",),
    ),
    "cost-error": Figure(
        "Overhead against accuracy",
        "The same strategies; further down is a bill nearer to the truth.",
        "pareto", _scatter("pair_ns", "charge_error_median"),
    ),
    "charged": Figure(
        "Charged against true",
        "Grey: what the groups' tasks really allocated. Line: what the groups were charged.",
        "totals", _TIMELINE, ("used", "charged"), each="strategy",
    ),
    "slabs": Figure(
        "Slab memory over time", "Pages of all slabs.", "slabs", _SLABS, ("slabs", "live"),
    ),
    "waste": Figure(
        "Where the waste is", "Slab memory in which no object lives, and what accounting adds.",
        "waste", _WASTE, ("bytes",), lines=True,
    ),
    "operations": Figure(
        "Operations by phase",
        "Branches, loads, atomics and locks; alloc to charge per allocated object, free per freed.",
        "ops", _OPS, lines=True,
    ),
    "latency": Figure(
        "Latency", "What one allocation (line) or free (dashes) costs; charging included.",
        "latency", _LATENCY,
    ),
    "scaling": Figure(
        "Growth", "Means over all other parameters and seeds.", "scaling", _SCALING,
    ),
    "cache": Figure(
        "One cache", "Its slabs, copies included, and the live objects in them; means over time.",
        "caches", _CACHE, ("slabs", "live"), lines=True,
    ),
}  # fmt: skip


def units_of(largest: float) -> tuple[str, int]:
    """The unit in which bytes up to ``largest`` read well, and its size."""
    for power, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if largest >= 1 << power:
            return name, 1 << power
    return "B", 1


def filled(spec: Spec, words: dict[str, Any]) -> Spec:
    """``spec`` with every ``$WORD`` replaced: a whole string by the value, else by its text."""
    text = json.dumps(spec)
    for word, value in words.items():
        text = text.replace(f'"${word}"', json.dumps(value))
        plain = value if isinstance(value, str) else json.dumps(value)
        text = text.replace(f"${word}", json.dumps(plain)[1:-1])
    return json.loads(text)
