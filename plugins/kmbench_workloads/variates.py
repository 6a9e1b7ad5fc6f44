"""Random variates of generators: whole numbers from tables, one stream of random numbers a concern.

A table is made once, before the run; drawing from it takes one or two random numbers, additions and
shifts, so that compiled code and plain Python draw the same.

Durations come from :data:`QUANTILES` equally likely values, each the mean of its part of the
distribution: the mean is exact, and the distribution function is never off by more than one part.
A choice by popularity comes from an alias table (A. J. Walker, 1977, built as by M. D. Vose, 1991):
the probability of every rank is exact to 2**-31.
"""

from collections.abc import Callable
from math import log
from statistics import NormalDist

import numpy as np

from kmbench.core.jit import inlined
from kmbench.core.rng import below, next_u32
from kmbench.core.tables import Table, table

QUANTILES = 4096
SCALE = 16  # a quantile is in units of the mean / 2**SCALE
FIXED, EXPONENTIAL, LOGNORMAL = 0, 1, 2  # kinds of durations
SIGMA = 1.0  # of the logarithm of lognormal durations


def stream() -> Table:
    """The table of one stream (:func:`kmbench.core.rng.seed_stream`)."""
    return table(1, rng0="i8", rng1="i8", rng2="i8", rng3="i8")


def _parts(share_below: Callable[[float], float]) -> list[int]:
    """Means of the parts; `share_below(u)` is the share of the mean below the quantile of `u`."""
    whole = QUANTILES << SCALE
    edges = [int(share_below(i / QUANTILES) * whole) for i in range(1, QUANTILES)]
    return np.diff([0, *edges, whole]).tolist()


def quantiles() -> list[int]:
    """The table of durations: row (kind - 1) * QUANTILES + part, in means / 2**SCALE."""
    normal = NormalDist()
    exponential = _parts(lambda u: u + (1 - u) * log(1 - u))
    return exponential + _parts(lambda u: normal.cdf(normal.inv_cdf(u) - SIGMA))


@inlined
def duration(streams, parts, kind, mean):
    """A duration with this mean, in its unit, up to 2**57; `parts` has the field ``units``."""
    if kind == FIXED:
        return mean
    part = next_u32(streams) * QUANTILES >> 32
    units = parts[(kind - 1) * QUANTILES + part].units
    return units * (mean >> SCALE) + (units * (mean & (1 << SCALE) - 1) >> SCALE)


def zipf(names: int, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """The alias table of `names` ranks of popularity 1 / rank**exponent: `cut` and `other`.

    `cut` is out of 2**32: the chance that a draw of this row stays there; else it is `other`.
    """
    weights = np.arange(1, names + 1, dtype=float) ** -exponent
    left = (weights * (names / weights.sum())).tolist()
    other = list(range(names))
    small = [i for i, share in enumerate(left) if share < 1]
    large = [i for i, share in enumerate(left) if share >= 1]
    cut = [1.0] * names
    while small and large:
        giver, taker = large[-1], small.pop()
        cut[taker], other[taker] = left[taker], giver
        left[giver] -= 1 - left[taker]
        if left[giver] < 1:
            small.append(large.pop())
    return np.rint(np.array(cut) * 2**32).astype(np.int64), np.array(other, np.int32)


@inlined
def choose(streams, alias, names):
    """A row, 0 to names - 1, of an alias table with the fields ``cut`` and ``other``."""
    row = below(streams, names)
    return row if next_u32(streams) < alias[row].cut else alias[row].other


@inlined
def chance(streams, percent):
    """True `percent` times of 100."""
    return below(streams, 100) < percent


@inlined
def shuffle(streams, order, first, nr):
    """Shuffle the field ``at`` of rows `first` .. `first + nr - 1` (Fisher and Yates)."""
    for left in range(nr, 1, -1):
        i = first + below(streams, left)
        last = first + left - 1
        chosen = order[i].at
        order[i].at = order[last].at
        order[last].at = chosen
