"""Runs told apart by their parameters: names of variants, and the values of one parameter.

Parameters are JSON objects in ``scenario_params`` and ``strategy_params``; many runs share few of
them, so every text is parsed once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

__all__ = ["JSON_COLUMNS", "in_order", "parameter_names", "parameter_values", "strategy_labels"]

JSON_COLUMNS = ("strategy_params", "scenario_params")


def parameters(text: str | None) -> Mapping[str, Any]:
    """A JSON object of parameters, those in tables by dotted names; empty when there is none."""
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        value = {}
    return _flat(value) if isinstance(value, dict) else {}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    made = {}
    for name, value in values.items():
        inner = _flat(value) if isinstance(value, dict) else {}
        made |= {f"{name}.{key}": item for key, item in inner.items()} or {name: value}
    return made


def word(value: Any) -> str:
    """A parameter's value without spaces or quotes."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "+".join(word(item) for item in value)
    return json.dumps(value, separators=(",", ":"))


def parameter_names(runs: pl.DataFrame, column: str) -> set[str]:
    """Every key of the JSON objects in ``column``."""
    return {key for text in runs[column].unique() for key in parameters(text)}


def parameter_values(runs: pl.DataFrame, column: str, name: str) -> pl.Series:
    """The values of parameter ``name`` of the JSON objects in ``column`` as words, else null."""
    texts = runs[column].unique().to_list()
    parsed = [parameters(text) for text in texts]
    values = [word(row[name]) if name in row else None for row in parsed]
    table = pl.DataFrame({column: texts, "value": pl.Series(values, dtype=pl.String)})
    found = runs.select(column).join(
        table, on=column, how="left", nulls_equal=True, maintain_order="left"
    )
    return found["value"].alias(name)


def strategy_labels(
    runs: pl.DataFrame, without: str | None = None, apart: Sequence[str] = ("scenario",)
) -> pl.Series:
    """A name per run: the strategy, with the parameters in which its runs differ, if they do.

    Runs that differ in a column of ``apart`` are never shown side by side, so each value is named
    by itself.  The parameter ``without`` is left out, because it is told apart already.
    """
    keys = [*apart, "strategy"]
    kinds = runs.select(*keys, "strategy_params").unique()
    variants: dict[tuple, dict[str | None, dict[str, str]]] = {}
    for *key, text in kinds.iter_rows():
        row = {name: word(value) for name, value in parameters(text).items() if name != without}
        variants.setdefault(tuple(key), {})[text] = row
    labels = [_label(key[-1], variants[tuple(key)], text) for *key, text in kinds.iter_rows()]
    table = kinds.with_columns(label=pl.Series(labels, dtype=pl.String))
    return runs.select(*keys, "strategy_params").join(
        table, on=[*keys, "strategy_params"], how="left", nulls_equal=True, maintain_order="left"
    )["label"]


def _label(strategy: str, variants: Mapping[str | None, dict[str, str]], text: str | None) -> str:
    keys = sorted({key for row in variants.values() for key in row})
    differing = [key for key in keys if len({row.get(key) for row in variants.values()}) > 1]
    own = variants[text]
    words = ",".join(f"{key}={own[key]}" for key in differing if key in own)
    return f"{strategy}[{words}]" if words else strategy


def in_order(values: Iterable[str | None]) -> list[str | None]:
    """Values of a parameter in the order to show them: numbers by size, then words, null first."""

    def key(value: str | None) -> tuple[int, float, str]:
        if value is None:
            return 0, 0.0, ""
        try:
            return 1, float(value), value
        except ValueError:
            return 2, 0.0, value

    return sorted(values, key=key)
