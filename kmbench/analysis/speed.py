"""Simulator speed side by side: machines or commits, each measurement against the same one."""

from __future__ import annotations

import json
from typing import Literal

import polars as pl

from kmbench.analysis.compare_view import format_ratio
from kmbench.analysis.metrics import NOT_APPLICABLE
from kmbench.analysis.tables import Column, Grid
from kmbench.errors import UsageProblem, unknown

__all__ = ["compare_speed", "speed_grid"]

HIGHER = ("events/s",)  # units of which more is better; of seconds and bytes, less is


def compare_speed(
    speed: pl.LazyFrame, across: Literal["machine", "commit"], baseline: str | None = None
) -> pl.DataFrame:
    """Every measurement of every machine or commit, with its ratio to the ``baseline``'s.

    ``across``: what is compared; of the other, the newest commit of each machine counts, or each
    machine is compared with itself.  ``baseline``: a name or the beginning of one, default the
    first machine by name or the oldest commit.  Columns: ``machine``, ``commit``, ``benchmark``,
    ``parameters``, ``unit``, ``value``, ``low``, ``high``, ``baseline``, ``ratio``.
    """
    keys = ["benchmark", "parameters", "unit"]
    frame = speed.with_columns(
        pl.col("machine", "commit", "benchmark", "unit", "environment").cast(pl.String)
    ).collect()
    frame = frame.sort("date", "environment").unique(
        ["machine", "commit", *keys], keep="last", maintain_order=True
    )
    if across == "machine":
        frame = frame.unique(["machine", *keys], keep="last", maintain_order=True)
        known = sorted(frame["machine"].unique())
        same = keys
    else:
        known = frame["commit"].unique(maintain_order=True).to_list()
        same = ["machine", *keys]
    chosen = _named(baseline, known, across) if baseline else known[0]
    base = frame.filter(pl.col(across) == chosen).select(*same, baseline="value")
    return (
        frame.join(base, on=same, how="left")
        .with_columns(ratio=pl.col("value") / pl.col("baseline"))
        .select("machine", "commit", *keys, "value", "low", "high", "baseline", "ratio")
        .sort(*keys, "machine", maintain_order=True)
    )


def _named(wanted: str, known: list[str], kind: str) -> str:
    found = [name for name in known if name.startswith(wanted)]
    if len(found) > 1 and wanted not in found:
        raise UsageProblem(f"{kind} {wanted!r} means several: {', '.join(found)}")
    if not found:
        raise unknown(kind, wanted, known)
    return wanted if wanted in found else found[0]


def speed_grid(frame: pl.DataFrame, across: Literal["machine", "commit"]) -> Grid:
    """The frame of :func:`compare_speed` as a table: measurements down, machines or commits across.

    With commits across, every machine has rows of its own.
    """
    places = frame[across].unique(maintain_order=True).to_list()
    lead = ["benchmark", "parameters"] + (["machine"] if across == "commit" else [])
    columns = [Column(name, left=True) for name in lead]
    columns += [Column("", left=True)]
    for place in places:
        head = place[:10] if across == "commit" else place
        columns += [Column("value", head), Column("ratio", head)]
    rows = []
    for key, part in frame.group_by([*lead, "unit"], maintain_order=True):
        cells = {row[across]: row for row in part.iter_rows(named=True)}
        words = [key[0], _plain(key[1]), *key[2:-1]]
        mark = "^" if key[-1] in HIGHER else "v"
        line = [*(str(word) for word in words), f"{key[-1]} {mark}"]
        for place in places:
            cell = cells.get(place)
            line += (
                [f"{cell['value']:.4g}", format_ratio(cell["ratio"])]
                if cell
                else [NOT_APPLICABLE, NOT_APPLICABLE]
            )
        rows.append(line)
    notes = [f"v lower is better, ^ higher is better; 1.00x = {across} that is compared with"]
    return Grid("", columns, rows, len(lead) + 1, notes)


def _plain(parameters: str) -> str:
    return " ".join(str(value) for value in json.loads(parameters).values()) or NOT_APPLICABLE
