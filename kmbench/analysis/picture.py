"""Curves over time as plain text for a terminal, and as SVG for a page."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np

WIDTH, HEIGHT = 84, 8
SEVERAL = "#"  # two or more curves in one place
_COLOURS = ("#222222", "#d1495b", "#00798c", "#edae49", "#66a182", "#7768ae")


class Curve(NamedTuple):
    """Values over time."""

    label: str
    mark: str  # one letter
    t: np.ndarray  # ns
    values: np.ndarray


def number(value: float) -> str:
    """A number in at most 7 letters: 950, 12.3k, 4.56M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            scaled = value / (1e3 if unit == "k" else factor)
            return f"{scaled:.4g}{unit}"
    return f"{value:.4g}"


def _limits(curves: Sequence[Curve]) -> tuple[float, float, float, float]:
    t = np.concatenate([curve.t for curve in curves])
    values = np.concatenate([curve.values for curve in curves])
    return float(t.min()), float(t.max()), float(values.min()), float(values.max())


def _columns(curve: Curve, first: float, last: float, width: int) -> np.ndarray:
    """Mean of the curve in each of `width` slices of time; without a value there, the one before.
    Slices before the first value are NaN."""
    span = max(last - first, 1)
    at = np.minimum((curve.t - first) * width // span, width - 1).astype(int)
    sums = np.bincount(at, weights=curve.values, minlength=width)
    counts = np.bincount(at, minlength=width)
    out = np.full(width, np.nan)
    out[counts > 0] = sums[counts > 0] / counts[counts > 0]
    for column in range(1, width):
        if counts[column] == 0:
            out[column] = out[column - 1]
    return out


def text_chart(
    title: str, curves: Sequence[Curve], width: int = WIDTH, height: int = HEIGHT
) -> str:
    """`curves` in one ASCII chart, each with its mark; ``#`` where several meet.

    The axis runs from the smallest value to the largest, not from 0.
    """
    curves = [curve for curve in curves if len(curve.t)]
    if not curves:
        return f"{title}: nothing was read"
    first, last, low, high = _limits(curves)
    cells = [[" "] * width for _ in range(height)]
    span = high - low or 1.0
    for curve in curves:
        for column, value in enumerate(_columns(curve, first, last, width)):
            if np.isnan(value):
                continue
            row = height - 1 - int(round((value - low) / span * (height - 1)))
            taken = cells[row][column]
            cells[row][column] = curve.mark if taken in (" ", curve.mark) else SEVERAL
    legend = ", ".join(f"{curve.mark} {curve.label}" for curve in curves)
    labels = [""] * height
    labels[0] = number(high)
    labels[-1] = number(low)
    lines = [f"{title}   ({legend}, {SEVERAL} several)"]
    lines += [
        f"{label:>8} |{''.join(row).rstrip()}" for label, row in zip(labels, cells, strict=True)
    ]
    left, right = f"{first / 1e9:.1f} s", f"{last / 1e9:.1f} s"
    lines.append(f"{'':8} +{'-' * width}")
    lines.append(f"{'':10}{left}{right.rjust(width - len(left))}")
    return "\n".join(lines)


def svg_charts(charts: Sequence[tuple[str, Sequence[Curve]]]) -> str:
    """A page of charts, one below the other, as one SVG document."""
    wide, tall, left, top = 720, 180, 80, 30
    total = (tall + top + 30) * len(charts)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide + left + 20} {total}" '
        'font-family="sans-serif" font-size="12">'
    ]
    for i, (title, curves) in enumerate(charts):
        y = i * (tall + top + 30) + top
        out.append(f'<text x="{left}" y="{y - 12}">{escape(title)}</text>')
        out.append(f'<path d="M{left} {y}V{y + tall}H{left + wide}" fill="none" stroke="#999999"/>')
        drawn = [curve for curve in curves if len(curve.t)]
        if not drawn:
            continue
        first, last, low, high = _limits(drawn)
        for at, value in ((y + 10, high), (y + tall, low)):
            out.append(f'<text x="{left - 6}" y="{at}" text-anchor="end">{number(value)}</text>')
        out.append(f'<text x="{left}" y="{y + tall + 15}">{first / 1e9:.1f} s</text>')
        out.append(
            f'<text x="{left + wide}" y="{y + tall + 15}" text-anchor="end">'
            f"{last / 1e9:.1f} s</text>"
        )
        for j, curve in enumerate(drawn):
            colour = _COLOURS[j % len(_COLOURS)]
            x = left + (curve.t - first) / (last - first or 1) * wide
            v = y + tall - (curve.values - low) / (high - low or 1) * tall
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, v, strict=True))
            dash = ' stroke-dasharray="4 3"' if j else ""
            out.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}"{dash} '
                f'stroke-width="1.5"/><text x="{left + wide - 10}" y="{y + 12 + 14 * j}" '
                f'text-anchor="end" fill="{colour}">{escape(curve.label)}</text>'
            )
    out.append("</svg>\n")
    return "\n".join(out)
