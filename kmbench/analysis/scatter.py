"""Designs as points: what an operation costs against what it buys, as SVG for a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from kmbench.analysis.labels import Box, place_labels

__all__ = ["Axis", "Point", "svg_scatter"]

WIDE, TALL, LEFT, TOP, GAP, KEY = 300, 260, 56, 34, 62, 190
NEW, OLD, REST = "#00798c", "#d1495b", "#c9c7c2"
DIGIT, LINE = 6.2, 10.0  # width of a digit and height of digits in the figure's font
SPACED = 4.0  # from a label to whatever is right of it
MARK = 7.0  # of a named point: a square
SAME = 2.0  # closer points are in one place
FAR = 8.0  # from here on a line leads from a label to its point


class Axis(NamedTuple):
    """A dimension of all points."""

    label: str
    spelling: str  # how a value is written, as of str.format


class Point(NamedTuple):
    """A design; `name` is told in the key if it is not empty."""

    name: str
    front: bool
    x: float
    y: tuple[float, ...]  # one a panel


def svg_scatter(x: Axis, ys: Sequence[Axis], points: Sequence[Point]) -> str:
    """A panel for each of `ys` over the same `x`, which is logarithmic; named points by number."""
    named = [point for point in points if point.name]
    order = sorted(named, key=lambda point: (point.x, point.name))
    total = LEFT + len(ys) * (WIDE + GAP) + KEY
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {TOP + TALL + 50}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{total}" height="{TOP + TALL + 50}" fill="#ffffff"/>',
    ]
    across = _Scale([math.log(point.x) for point in points])
    for panel, axis in enumerate(ys):
        left = LEFT + panel * (WIDE + GAP)
        up = _Scale([point.y[panel] for point in points])
        out += _frame(left, x, axis, across, up)

        def place(point: Point, panel=panel, left=left, up=up) -> tuple[float, float]:
            at = across.share(math.log(point.x)), up.share(point.y[panel])
            return left + at[0] * WIDE, TOP + (1 - at[1]) * TALL

        dots = []
        for point in sorted((p for p in points if not p.name), key=lambda p: p.front):
            colour, size = (NEW, 3.5) if point.front else (REST, 2)
            h, v = place(point)
            dots.append(_around(h, v, 2 * size))
            out.append(f'<circle cx="{h:.1f}" cy="{v:.1f}" r="{size}" fill="{colour}"/>')
        marks = [_around(*place(point), MARK) for point in order]
        for mark, point in zip(marks, order, strict=True):
            fill = OLD if point.front else "#ffffff"
            out.append(f'<rect x="{mark.x:.1f}" y="{mark.y:.1f}" width="{MARK:g}" '
                       f'height="{MARK:g}" fill="{fill}" stroke="{OLD}"/>')  # fmt: skip
        space = Box(left + 2, TOP - 8, WIDE + GAP // 2, TALL + 8)
        out += _labels(marks, dots, space)
    left = LEFT + len(ys) * (WIDE + GAP)
    for number, point in enumerate(order, 1):
        out.append(f'<text x="{left}" y="{TOP + 15 * number}" fill="{OLD}">'
                   f'{number} {escape(point.name)}</text>')  # fmt: skip
    below = TOP + 26 + 15 * len(order)
    for row, (colour, words) in enumerate(
        ((OLD, "filled: on the front"), (NEW, "never built, on the front"), (REST, "never built"))
    ):
        out.append(f'<circle cx="{left + 4}" cy="{below + 15 * row}" r="3.5" fill="{colour}"/>'
                   f'<text x="{left + 14}" y="{below + 4 + 15 * row}">{words}</text>')  # fmt: skip
    return "\n".join([*out, "</svg>\n"])


def _around(h: float, v: float, size: float) -> Box:
    """A square about a point."""
    return Box(h - size / 2, v - size / 2, size, size)


def _labels(marks: Sequence[Box], dots: Sequence[Box], space: Box) -> list[str]:
    """The numbers of marks, from 1 on; those in one place share a label."""
    together: dict[Box, list[int]] = {}
    for number, mark in enumerate(marks, 1):
        same = [one for one in together if max(abs(one.x - mark.x), abs(one.y - mark.y)) < SAME]
        together.setdefault(same[0] if same else mark, []).append(number)
    words = [", ".join(map(str, numbers)) for numbers in together.values()]
    sizes = [(DIGIT * len(text) + SPACED, LINE) for text in words]
    first = list(together)
    out = []
    for text, mark, at in zip(words, first, place_labels(first, sizes, dots, space), strict=True):
        h, v = mark.x + MARK / 2, mark.y + MARK / 2
        near = (
            min(max(h, at.x), at.x + at.width), min(max(v, at.y), at.y + at.height),
        )  # fmt: skip
        if math.dist(near, (h, v)) > MARK / 2 + FAR:
            out.append(f'<path d="M{h:.1f} {v:.1f}L{near[0]:.1f} {near[1]:.1f}" stroke="{OLD}" '
                       'stroke-width="0.5"/>')  # fmt: skip
        out.append(f'<text x="{at.x:.1f}" y="{at.y + LINE - 1:.1f}" fill="{OLD}">{text}</text>')
    return out


class _Scale:
    """From values to the share of an axis, with a margin at both ends."""

    def __init__(self, values: Sequence[float]):
        low, high = min(values), max(values)
        margin = 0.05 * ((high - low) or 1.0)
        self.low, self.span = low - margin, high - low + 2 * margin
        self.ends = low, (low + high) / 2, high

    def share(self, value: float) -> float:
        return (value - self.low) / self.span


def _frame(left: int, x: Axis, y: Axis, across: _Scale, up: _Scale) -> list[str]:
    """Axes with three values each, and what they are."""
    bottom = TOP + TALL
    out = [
        f'<path d="M{left} {TOP}V{bottom}H{left + WIDE}" fill="none" stroke="#999999"/>',
        f'<text x="{left}" y="{TOP - 12}" font-weight="600">{escape(y.label)}</text>',
        f'<text x="{left + WIDE}" y="{bottom + 34}" text-anchor="end">{escape(x.label)}</text>',
    ]
    for value in across.ends:
        at = left + across.share(value) * WIDE
        words = x.spelling.format(math.exp(value))
        out.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{words}</text>')
    for value in up.ends:
        at = TOP + (1 - up.share(value)) * TALL
        words = y.spelling.format(value)
        out.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{words}</text>')
    return out
