"""A colour per strategy that holds on light and on dark paper.

Strategies whose names begin alike are one family: its members share a stretch of the colour wheel
and differ in lightness, so that a row of kernel releases reads as a row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

__all__ = ["strategy_colours"]

NEUTRAL = "none"
GREY = "#8b929e"
HUES = (35, 70, 145, 330, 10, 110, 300, 190)
"""Degrees in OKLCH for families of one or two, in turn."""
RAMP = (185, 285)
"""From teal to violet: the largest family."""
CHROMA = 0.145


def strategy_colours(names: Iterable[str]) -> dict[str, str]:
    """``#rrggbb`` by name; the same names give the same colours."""
    names = sorted(set(names))
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(re.split(r"[-\[\d]", name, maxsplit=1)[0], []).append(name)
    families.pop(NEUTRAL, None)
    largest = max(families, key=lambda family: (len(families[family]), family), default="")
    colours = {name: GREY for name in names if re.split(r"[-\[\d]", name)[0] == NEUTRAL}
    others = 0
    for family, members in families.items():
        if family == largest and len(members) > 2:
            first, last = RAMP
        else:
            first = last = HUES[others % len(HUES)]
            others += 1
        for i, name in enumerate(members):
            part = i / (len(members) - 1) if len(members) > 1 else 0.5
            colours[name] = _hex(0.75 - 0.19 * part, CHROMA, first + (last - first) * part)
    return colours


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """OKLCH (Ottosson, "A perceptual color space for image processing", 2020) as sRGB."""
    a = chroma * math.cos(math.radians(hue))
    b = chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    values = (min(max(x, 0.0), 1.0) for x in linear)
    coded = (12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055 for x in values)
    return "#" + "".join(f"{round(255 * x):02x}" for x in coded)
