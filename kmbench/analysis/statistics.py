"""Paired bootstrap: how sure a difference between two strategies is, over seeds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["MIN_PAIRS", "Paired", "paired"]

MIN_PAIRS = 6
"""Fewest pairs that can be called significant: with five, even five equal signs are chance in
1 of 16 tries (2 * 0.5**5 > 0.05)."""

RESAMPLES = 2000
BLOCKS = 250
"""More pairs than twice this are averaged in this many blocks first: the mean of block means has
the variance of the mean, and drawing stays cheap."""
CHUNK = 4_000_000  # resampled values held at a time
LOW, HIGH = 2.5, 97.5


class Paired(NamedTuple):
    """A strategy against the baseline over the pairs they share."""

    n: int
    value: float
    """Mean of the strategy."""
    baseline: float
    """Mean of the baseline."""
    ratio: float | None
    """``value / baseline``; 1 when both are 0, ``None`` when only the baseline is."""
    ratio_low: float | None
    ratio_high: float | None
    """Bootstrap 95 % interval of the ratio; ``None`` for one pair."""
    difference: float
    difference_low: float | None
    difference_high: float | None
    """Bootstrap 95 % interval of ``value - baseline``; ``None`` for one pair."""
    significant: bool
    """At least :data:`MIN_PAIRS` pairs and an interval of the difference without 0."""


def paired(values: np.ndarray, baselines: np.ndarray) -> Paired:
    """Compare float64 arrays of equal length; element i of both comes from the same pair.

    The percentile bootstrap draws pairs, so what seeds have in common cancels.  The draw itself is
    seeded: the same data gives the same interval.
    """
    n = len(values)
    value, baseline = float(values.mean()), float(baselines.mean())
    ratio = _ratio(value, baseline)
    if n < 2:
        difference = value - baseline
        return Paired(n, value, baseline, ratio, None, None, difference, None, None, False)
    means = _resampled_means(_blocks(np.column_stack([values, baselines, values - baselines])))
    low, high = np.percentile(means[:, 2], [LOW, HIGH])
    ratio_low = ratio_high = None
    if ratio is not None:
        safe = means[:, 1] != 0
        ratios = np.divide(means[:, 0], means[:, 1], out=np.ones(len(means)), where=safe)
        if safe.all() or not value:
            ratio_low, ratio_high = (float(x) for x in np.percentile(ratios, [LOW, HIGH]))
    significant = bool(n >= MIN_PAIRS and (low > 0 or high < 0))
    return Paired(
        n, value, baseline, ratio, ratio_low, ratio_high,
        value - baseline, float(low), float(high), significant,
    )  # fmt: skip


def _ratio(value: float, baseline: float) -> float | None:
    if baseline:
        return value / baseline
    return None if value else 1.0


def _blocks(pairs: np.ndarray) -> np.ndarray:
    """``pairs`` (n, any), or the means of :data:`BLOCKS` blocks of them where there are many.

    Neighbours fall into different blocks.  What is left over after equal blocks is not drawn.
    """
    size = len(pairs) // BLOCKS
    if size < 2:
        return pairs
    return pairs[: size * BLOCKS].reshape(size, BLOCKS, -1).mean(axis=0)


def _resampled_means(pairs: np.ndarray) -> np.ndarray:
    """Means of RESAMPLES draws with replacement of the rows of ``pairs`` (n, any)."""
    rng = np.random.default_rng(0)
    n = len(pairs)
    at_once = max(1, CHUNK // n)
    means = [
        pairs[rng.integers(0, n, (min(at_once, RESAMPLES - done), n))].mean(axis=1)
        for done in range(0, RESAMPLES, at_once)
    ]
    return np.concatenate(means)
