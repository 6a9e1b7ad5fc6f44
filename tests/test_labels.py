"""Labels of a figure: near their point, on nothing else."""

import random
from itertools import combinations
from xml.etree import ElementTree

import pytest

from kmbench.analysis.labels import Box, place_labels
from kmbench.analysis.scatter import DIGIT, LINE, OLD, Axis, Point, svg_scatter

SPACE = Box(0, 0, 330, 270)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("seed", range(20))
def test_labels_meet_nothing(seed):
    """Twelve marks in a heap of 40 by 40, with dots all around."""
    draw = random.Random(seed)
    left, top = draw.uniform(0, 280), draw.uniform(0, 220)
    marks = [Box(left + draw.uniform(0, 40), top + draw.uniform(0, 40), 7, 7) for _ in range(12)]
    dots = [Box(draw.uniform(0, 323), draw.uniform(0, 263), 4, 4) for _ in range(100)]
    sizes = [(draw.choice((6.2, 12.4, 30)), 10) for _ in marks]
    placed = place_labels(marks, sizes, dots, SPACE)
    assert [(box.width, box.height) for box in placed] == sizes
    assert not any(one.meets(other) for one, other in combinations(placed, 2))
    assert not any(box.meets(mark) for box in placed for mark in marks)
    assert all(box.within(SPACE) for box in placed)
    assert placed == place_labels(marks, sizes, dots, SPACE)


def test_a_lone_point_has_its_label_right_above_unless_a_dot_is_there():
    mark, size = Box(100, 100, 7, 7), (12, 10)
    (free,) = place_labels([mark], [size], [], SPACE)
    assert (free.x, free.y) == (109, 88)
    (moved,) = place_labels([mark], [size], [Box(112, 90, 4, 4)], SPACE)
    assert (moved.x, moved.y) == (109, 98.5)
    first, _ = place_labels([mark, Box(110, 100, 7, 7)], [size] * 2, [], SPACE)
    assert first.x < 100  # above its right it would be taken for the other's


def test_numbers_in_a_figure_do_not_overlap():
    """Designs that cost and do nearly the same, two of them in one place."""
    points = [Point(f"d{i}", i % 2 == 0, 50 + i / 4, (0.3, 0.3 + i / 500)) for i in range(11)]
    points += [Point("same", True, 50.0, (0.3, 0.3)), Point("", True, 8.0, (1.0, 1.0))]
    axes = [Axis("one", "{:.0%}"), Axis("other", "{:.0%}")]
    drawn = ElementTree.fromstring(svg_scatter(Axis("ops", "{:.0f}"), axes, points))
    labels = {}
    for text in drawn.iter(f"{SVG}text"):
        if text.get("fill") == OLD and set(text.text) <= set("0123456789, "):
            x, y = float(text.get("x")), float(text.get("y")) - LINE + 1
            wide = DIGIT * len(text.text)
            labels[x, y] = text.text, Box(x + 0.1, y + 0.1, wide, LINE - 0.2)  # as rounded
    numbers = [number for text, _ in labels.values() for number in text.split(", ")]
    assert sorted(map(int, numbers)) == sorted([*range(1, 13)] * 2)
    assert any(text.startswith("1, 2") for text, _ in labels.values())
    boxes = [box for _, box in labels.values()]
    assert not any(one.meets(other) for one, other in combinations(boxes, 2))
    squares = [
        Box(*(float(part.get(name)) for name in ("x", "y", "width", "height")))
        for part in drawn.iter(f"{SVG}rect")
        if part.get("width") == "7"
    ]
    assert len(squares) == 2 * 12
    assert not any(box.meets(square) for box in boxes for square in squares)
