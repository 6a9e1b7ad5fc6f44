"""Where the labels of points go in a figure: near their point, on nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Box", "place_labels"]

NEAREST, STEPS, STEP = 2.0, 24, 4.0  # gaps between a mark and its label that are tried
SIDES = ((1, -1), (1, 0), (1, 1), (0, -1), (0, 1), (-1, -1), (-1, 0), (-1, 1))  # right above first
UNDER = 12.0  # on a dot, or nearer to another mark: as bad as so much farther off


class Box(NamedTuple):
    """A rectangle, y downwards."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        """Whether they have a point in common."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    def off(self, other: Box) -> float:
        """How far their centres are apart."""
        across = self.x + self.width / 2 - other.x - other.width / 2
        return math.hypot(across, self.y + self.height / 2 - other.y - other.height / 2)

    def within(self, other: Box) -> bool:
        """Whether all of it is inside `other`."""
        return (
            other.x <= self.x
            and other.y <= self.y
            and self.x + self.width <= other.x + other.width
            and self.y + self.height <= other.y + other.height
        )


def place_labels(
    marks: Sequence[Box],
    sizes: Sequence[tuple[float, float]],
    dots: Sequence[Box],
    space: Box,
) -> list[Box]:
    """A place for the label of every mark, inside `space`.

    A label meets no mark and no other label as long as there is a free place near its mark, and as
    few `dots` as it can without going far.  `sizes`: width and height of each label.  The same for
    the same arguments.
    """
    placed: list[Box] = []
    for mark, size in zip(marks, sizes, strict=True):
        prices = [
            (far + _price(box, mark, marks, placed, dots, space), box)
            for far, box in _choices(mark, size)
        ]
        placed.append(min(prices, key=lambda choice: choice[0])[1])
    return placed


def _price(
    box: Box, mark: Box, marks: Sequence[Box], placed: Sequence[Box], dots: Sequence[Box],
    space: Box,
) -> float:  # fmt: skip
    """What speaks against this place for the label of `mark`."""
    taken = sum(box.meets(other) for other in (*marks, *placed))
    hidden = sum(box.meets(dot) for dot in dots)
    astray = any(box.off(other) < box.off(mark) for other in marks)
    return UNDER * (hidden + astray) + 1e4 * taken + 1e3 * (not box.within(space))


def _choices(mark: Box, size: tuple[float, float]) -> list[tuple[float, Box]]:
    """Boxes of this size around a mark, nearest first, with their distance."""
    width, height = size
    found = []
    for step in range(STEPS):
        far = NEAREST + step * STEP
        for side, level in SIDES:
            x = (mark.x - width - far, mark.x + (mark.width - width) / 2, mark.x + mark.width + far)
            y = (
                mark.y - height - far,
                mark.y + (mark.height - height) / 2,
                mark.y + mark.height + far,
            )
            found.append((far, Box(x[side + 1], y[level + 1], width, height)))
    return found
