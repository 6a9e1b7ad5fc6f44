"""Tables as people and programs read them: plain text, Markdown, CSV, JSON and Parquet.

Plain text is ASCII, aligned with blanks and at most 100 columns wide (or as asked, or as a terminal
has), so that it survives a mail client.  A table that is wider is cut into blocks of whole column
groups, each block repeating the leading columns; a group that alone is wider is parted too.  Words
in the last column are broken into lines first.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, NamedTuple

import polars as pl

__all__ = ["Column", "Grid", "as_json", "as_markdown", "as_text", "encode", "room"]

WIDTH = 100
NARROWEST = 40  # that tables are fit to
WORDS = 24  # least width of a column whose words are broken into lines
GAP = "  "


class Column(NamedTuple):
    """A column of a grid."""

    head: str
    group: str = ""
    """Neighbours with the same group share a headline and stay together where a line holds them."""
    left: bool = False
    """Aligned to the left (words) instead of to the right (numbers)."""


class Grid(NamedTuple):
    """A table ready to print: every cell is a string."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    lead: int = 1
    """Leading columns, repeated in every block."""
    notes: Sequence[str] = ()
    """Lines below the table."""


def room() -> int:
    """Columns of plain text where nobody asks for a number: 100, less on a narrower terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return WIDTH
    return min(WIDTH, max(NARROWEST, get_terminal_size().columns))


def as_text(grid: Grid, width: int | None = None) -> str:
    """``grid`` as aligned ASCII of at most ``width`` columns where one group fits into it; default
    :func:`room`."""
    width = width or room()
    grid = _broken(grid, width)
    widths = _widths(grid)
    parts = []
    for block in _blocks(grid, widths, width):
        parts.append("\n".join(_lines(grid, widths, block)))
    head = [*wrap(grid.title, width), ""] if grid.title else []
    notes = ["", *(line for note in grid.notes for line in wrap(note, width))] if grid.notes else []
    return _ascii("\n".join([*head, "\n\n".join(parts), *notes]))


def _broken(grid: Grid, width: int) -> Grid:
    """``grid`` with the words of its last column in as many lines as they need."""
    widths = _widths(grid)
    left = width - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
    if not grid.columns[-1].left or widths[-1] <= left or left < WORDS:
        return grid
    rows: list[Sequence[str]] = []
    for *lead, words in grid.rows:
        first, *more = wrap(words, left, break_long_words=False, break_on_hyphens=False) or [""]
        rows += [[*lead, first], *([*("" for _ in lead), line] for line in more)]
    return grid._replace(rows=rows)


def _ascii(text: str) -> str:
    """Foreign letters as escapes: a mail client may not show them, and they would not align."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _widths(grid: Grid) -> list[int]:
    cells = [[column.head, *(row[i] for row in grid.rows)] for i, column in enumerate(grid.columns)]
    widths = [max(len(_ascii(cell)) for cell in column) for column in cells]
    for first, last in _groups(grid, range(len(widths))):
        need = len(_ascii(grid.columns[first].group))
        have = sum(widths[first:last]) + len(GAP) * (last - first - 1)
        widths[last - 1] += max(0, need - have)
    return widths


def _groups(grid: Grid, columns: Sequence[int]) -> list[tuple[int, int]]:
    """Runs (first, end) of neighbouring ``columns`` of one group; no group: each alone."""
    runs: list[tuple[int, int]] = []
    for i in columns:
        group = grid.columns[i].group
        if runs and group and runs[-1][1] == i and grid.columns[runs[-1][0]].group == group:
            runs[-1] = (runs[-1][0], i + 1)
        else:
            runs.append((i, i + 1))
    return runs


def _blocks(grid: Grid, widths: list[int], width: int) -> list[list[int]]:
    """Columns of every block, the leading ones included."""
    lead = list(range(grid.lead))
    free = width - sum(widths[i] + len(GAP) for i in lead)
    blocks: list[list[int]] = []
    left = 0
    for group in _groups(grid, range(grid.lead, len(widths))):
        need = sum(widths[slice(*group)]) + len(GAP) * (group[1] - group[0])
        single = [(i, i + 1) for i in range(*group)]
        for first, end in single if need > free + len(GAP) else [group]:
            need = sum(widths[first:end]) + len(GAP) * (end - first)
            if not blocks or need > left + len(GAP):
                blocks.append(list(lead))
                left = free
            blocks[-1] += range(first, end)
            left -= need
    return blocks or [lead]


def _lines(grid: Grid, widths: list[int], block: list[int]) -> list[str]:
    lines = []
    if any(grid.columns[i].group for i in block):
        heads = []
        for first, end in _groups(grid, block):
            span = sum(widths[first:end]) + len(GAP) * (end - first - 1)
            last = end == block[-1] + 1
            heads.append(_ascii(grid.columns[first].group)[: None if last else span].ljust(span))
        lines.append(GAP.join(heads))
    lines.append(_line(grid, widths, block, [column.head for column in grid.columns]))
    lines.append(GAP.join("-" * widths[i] for i in block))
    lines += [_line(grid, widths, block, row) for row in grid.rows]
    return [line.rstrip() for line in lines]


def _line(grid: Grid, widths: list[int], block: list[int], cells: Sequence[str]) -> str:
    padded = []
    for i in block:
        cell = _ascii(cells[i])
        padded.append(cell.ljust(widths[i]) if grid.columns[i].left else cell.rjust(widths[i]))
    return GAP.join(padded)


def as_markdown(grid: Grid) -> str:
    """``grid`` as a Markdown table; group and head of a column make one heading."""
    heads = [" ".join(filter(None, (column.group, column.head))) for column in grid.columns]
    rules = [":--" if column.left else "--:" for column in grid.columns]
    rows = [heads, rules, *grid.rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    head = [f"**{grid.title}**", ""] if grid.title else []
    notes = ["", *grid.notes] if grid.notes else []
    return "\n".join([*head, *lines, *notes])


def as_json(value: Any) -> str:
    """``value`` as indented JSON; numbers that JSON does not have become null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def encode(frame: pl.DataFrame, form: str) -> bytes:
    """``frame`` as ``csv``, ``json`` (an array of objects) or ``parquet``."""
    if form == "csv":
        return frame.write_csv().encode()
    if form == "json":
        return (as_json(frame.to_dicts()) + "\n").encode()
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()
