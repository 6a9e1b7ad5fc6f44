"""A report as one HTML file without any link to elsewhere, and its figures as SVG and PNG."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from kmbench.analysis.metrics import METRICS
from kmbench.analysis.report.content import Content
from kmbench.analysis.report.figures import (
    CONFIG,
    FIGURES,
    SCHEMA,
    STEP,
    Figure,
    filled,
    units_of,
)
from kmbench.errors import UsageProblem

__all__ = ["report_html", "write_figures"]

SCALED = ("pair_ns", "slab_bytes_mean", "metadata_bytes")  # the curves that go to files
FIGURE_WIDTH, FIGURE_HEIGHT = 640, 320
SMALL_WIDTH = 230
PNG_SCALE = 2.0


def _converter() -> Any:
    """The module that brings Vega, or one line on how to get it."""
    try:
        import vl_convert
    except ImportError as error:
        raise UsageProblem(
            "reports need the package vl-convert-python: pip install 'kmbench[report]'"
        ) from error
    return vl_convert


# --- the page ---


def report_html(content: Content, title: str = "Kernel memory, accounted") -> str:
    """The page; needs no network and no other file.  Raises UsageProblem without vl-convert."""
    vega = _converter().javascript_bundle()
    data = {
        "facts": content.facts | {"version": _version()},
        "config": CONFIG,
        "step": STEP,
        "colours": content.colours,
        "metrics": [
            {
                "name": m.name, "id": m.id, "unit": m.unit, "direction": m.direction,
                "label": m.label, "definition": m.definition, "headline": m.headline,
            }
            for m in METRICS.values()
        ],
        "contexts": content.contexts.to_dicts(),
        "tables": {name: packed(frame) for name, frame in content.tables.items()},
        "figures": {
            name: {
                "title": figure.title, "caption": figure.caption, "table": figure.table,
                "spec": {"$schema": SCHEMA} | figure.spec, "bytes": figure.bytes,
                "each": figure.each, "lines": figure.lines,
            }
            for name, figure in FIGURES.items()
        },
    }  # fmt: skip
    assets = files("kmbench.analysis.report") / "assets"
    parts = {
        "title": escape(title),
        "style": (assets / "style.css").read_text(),
        "vega": _script(vega),
        "data": json.dumps(data, separators=(",", ":"), default=str).replace("<", "\\u003c"),
        "app": _script((assets / "app.js").read_text() + (assets / "tables.js").read_text()),
    }
    page = (assets / "page.html").read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)


def _script(text: str) -> str:
    """JavaScript in which no string ends the element that holds it."""
    return re.sub(r"<(?=/script|!--)", r"<\\", text, flags=re.IGNORECASE)


def _version() -> str:
    try:
        return version("kmbench")
    except PackageNotFoundError:
        return "from source"


def packed(frame: pl.DataFrame) -> dict[str, Any]:
    """``frame`` by columns; words once each, ``{"words": [...], "codes": [...]}``."""
    out: dict[str, Any] = {}
    for name, column in zip(frame.columns, frame.get_columns(), strict=True):
        if column.dtype in (pl.String, pl.Categorical):
            words = column.cast(pl.String).unique(maintain_order=True).to_list()
            places = {word: i for i, word in enumerate(words)}
            out[name] = {"words": words, "codes": [places[w] for w in column.cast(pl.String)]}
        elif column.dtype == pl.Float64:
            # seven digits are more than a picture shows, and half the size
            finite = (None if x is None or x != x else float(f"{x:.7g}") for x in column)
            out[name] = [int(x) if x is not None and x == int(x) else x for x in finite]
        else:
            out[name] = column.to_list()
    return out


# --- figures as files ---


def write_figures(content: Content, folder: Path) -> list[Path]:
    """Every figure of every context as ``NAME.svg`` and ``NAME.png`` in ``folder``; their paths.

    Raises :class:`UsageProblem` when the folder cannot be written or vl-convert is missing.
    """
    converter = _converter()
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, spec in static_figures(content):
            svg = folder / f"{name}.svg"
            svg.write_text(converter.vegalite_to_svg(spec))
            png = folder / f"{name}.png"
            png.write_bytes(converter.vegalite_to_png(spec, scale=PNG_SCALE))
            written += [svg, png]
    except OSError as error:
        raise UsageProblem(f"cannot write {folder}: {error.strerror or error}") from error
    return written


def static_figures(content: Content) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and complete specification of every figure, on white paper, data included."""
    for context in content.contexts.iter_rows(named=True):
        place = _file_name(context["label"])
        for name, figure in FIGURES.items():
            if name in ("scaling", "cache"):
                continue
            rows = content.tables[figure.table].filter(context=context["context"])
            if name == "latency":
                rows = rows.filter(group="")
            if figure.each and rows.height:
                yield f"{place}.{name}", _faceted(figure, rows, content)
            elif rows.height:
                yield f"{place}.{name}", _single(figure, rows, content)
    table = content.tables["scaling"].filter(pl.col("metric").is_in(SCALED))
    for (parameter, scenario, metric), rows in table.partition_by(
        ["parameter", "scenario", "metric"], as_dict=True, maintain_order=True
    ).items():
        name = f"{_file_name(scenario)}.{metric}.over.{_file_name(parameter)}"
        yield name, _single(FIGURES["scaling"], rows, content, parameter, metric)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-")


def _words(
    figure: Figure, rows: pl.DataFrame, content: Content, parameter: str, metric: str
) -> dict[str, Any]:
    """What the dollar words of a specification stand for with these rows."""
    present = set(rows["strategy"])
    colours = {name: colour for name, colour in content.colours.items() if name in present}
    columns = list(figure.bytes)
    measure = METRICS[metric] if metric else None
    if measure and measure.unit == "B":
        columns = ["value"]
    largest = max((rows[name].max() or 0 for name in columns), default=0)
    unit, divisor = units_of(largest)
    label = ""
    if measure:
        label = measure.label + (f", {unit}" if measure.unit == "B" else "")
    return {
        "COLOURS": {"domain": list(colours), "range": list(colours.values())},
        "ORDER": list(colours), "UNIT": unit, "DIVISOR": divisor,
        "DOMAIN": [0, largest / divisor], "COLUMNS": 0, "PARAMETER": parameter, "LABEL": label,
        "FORMAT": ".0%" if measure and measure.unit == "1" else ".4~r",
    }  # fmt: skip


def _single(
    figure: Figure, rows: pl.DataFrame, content: Content, parameter: str = "", metric: str = ""
) -> dict[str, Any]:
    spec = filled(figure.spec, _words(figure, rows, content, parameter, metric))
    _show_legend(spec)
    height = STEP * rows["strategy"].n_unique() if figure.lines else FIGURE_HEIGHT
    return {
        "$schema": SCHEMA, "title": figure.title, "width": FIGURE_WIDTH, "height": height,
        "config": CONFIG, "background": "white", "padding": 12,
        "data": {"values": rows.to_dicts()}, **spec,
    }  # fmt: skip


def _faceted(figure: Figure, rows: pl.DataFrame, content: Content) -> dict[str, Any]:
    words = _words(figure, rows, content, "", "")
    inner = filled(figure.spec, words)
    inner["layer"] = inner["layer"][:2]  # the last one answers the pointer
    return {
        "$schema": SCHEMA, "title": figure.title, "background": "white", "padding": 12,
        "config": CONFIG, "data": {"values": rows.to_dicts()}, "columns": 3,
        "facet": {"field": figure.each, "type": "nominal", "title": None,
                  "sort": words["ORDER"]},
        "spec": {"width": SMALL_WIDTH, "height": 120, **inner},
    }  # fmt: skip


def _show_legend(spec: dict[str, Any]) -> None:
    """Legends of the strategies, which the page shows as buttons instead."""
    for channel in ("color", "stroke"):
        if isinstance(spec.get("encoding", {}).get(channel), dict):
            coded = copy.copy(spec["encoding"][channel])
            if coded.get("field") == "strategy":
                coded.pop("legend", None)
                spec["encoding"][channel] = coded
