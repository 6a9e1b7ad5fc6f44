"""Where the names of points go, so that they neither overlap each other nor other points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Place", "places"]

WIDTH, HEIGHT = 430.0, 250.0  # of the plot that is assumed, in pixels
LETTER, LINE = 7.3, 13.0
GAP = 11.0  # from the middle of a point to its name
RADIUS = 8.0
SHIFTS = (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5)  # in lines


class Place(NamedTuple):
    """Offset of a name from its point, in pixels."""

    dx: float
    dy: float
    align: str
    """``left`` or ``right``; empty: there is no room for the name."""


Box = tuple[float, float, float, float]  # left, top, right, bottom


def places(names: Sequence[str], xs: Sequence[float], ys: Sequence[float]) -> list[Place]:
    """A place for each name: beside its point, shifted up or down as far as it must be."""
    points = list(zip(_scaled(xs, WIDTH), _scaled([-y for y in ys], HEIGHT), strict=True))
    taken: list[Box] = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in points]
    found = []
    for name, (x, y) in zip(names, points, strict=True):
        place, box = _first_free(len(name) * LETTER, x, y, taken)
        if box:
            taken.append(box)
        found.append(place)
    return found


def _first_free(wide: float, x: float, y: float, taken: list[Box]) -> tuple[Place, Box | None]:
    for shift in SHIFTS:
        top = y + shift * LINE - LINE / 2
        for align, left in (("left", x + GAP), ("right", x - GAP - wide)):
            box = (left, top, left + wide, top + LINE)
            inside = left >= 0 and left + wide <= WIDTH + 4 * GAP and -LINE <= top <= HEIGHT + LINE
            if inside and not any(_overlap(box, other) for other in taken):
                return Place(GAP if align == "left" else -GAP, shift * LINE, align), box
    return Place(0, 0, ""), None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _scaled(values: Sequence[float], size: float) -> list[float]:
    """``values`` from 0 to ``size``; in the middle when they are all the same."""
    low, high = min(values), max(values)
    return [size * (v - low) / (high - low) if high > low else size / 2 for v in values]
