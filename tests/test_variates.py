"""Random numbers of generators: uniform, independent by concern, and variates of the right law.

Seeds are fixed, so nothing here can fail by chance; a statistic may be as far from its mean as one
in ten thousand would be.
"""

from itertools import permutations
from math import exp, log, sqrt
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest

from kmbench.core.rng import below, next_u32, seed_stream
from kmbench_workloads.variates import (
    EXPONENTIAL,
    FIXED,
    LOGNORMAL,
    QUANTILES,
    SCALE,
    SIGMA,
    choose,
    duration,
    quantiles,
    shuffle,
    zipf,
)


class Words(SimpleNamespace):
    """A stream's record for plain Python, which is slow on numpy's."""

    def __setitem__(self, name, value):
        setattr(self, name, value)


def stream(seed=1, concern="test"):
    streams = [Words()]
    seed_stream(streams, seed, concern)
    return streams


def chi_square(counts, expected):
    """How many standard deviations the statistic is above its mean."""
    counts, expected = np.asarray(counts, float), np.broadcast_to(expected, len(counts))
    free = len(counts) - 1
    return (((counts - expected) ** 2 / expected).sum() - free) / sqrt(2 * free)


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_of_a_draw_is_uniform(shift):
    streams = stream()
    draws = np.array([next_u32(streams) for _ in range(51_200)])
    assert abs(chi_square(np.bincount(draws >> shift & 255, minlength=256), 200)) < 4


def test_successive_draws_do_not_know_each_other():
    streams = stream(seed=2)
    draws = np.array([next_u32(streams) >> 28 for _ in range(51_201)])
    assert abs(chi_square(np.bincount(draws[:-1] * 16 + draws[1:], minlength=256), 200)) < 4


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, "waits"), (1, "fates")), ((1, "waits"), (2, "waits")), ((0, "a"), (0, "b")),
     ((7, "container_churn waits"), (7, "container_churn choices"))],
)  # fmt: skip
def test_streams_of_other_concerns_and_seeds_are_independent(one, other):
    a, b = stream(*one), stream(*other)
    pairs = np.array([(next_u32(a), next_u32(b)) for _ in range(25_600)])
    cells = (pairs[:, 0] >> 28) * 16 + (pairs[:, 1] >> 28)
    assert abs(chi_square(np.bincount(cells, minlength=256), 100)) < 4
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 4 / sqrt(len(pairs))


def test_a_draw_below_n_is_uniform():
    streams = stream(seed=3)
    counts = np.bincount([below(streams, 7) for _ in range(14_000)], minlength=7)
    assert abs(chi_square(counts, 2000)) < 4


@pytest.mark.parametrize(("names", "exponent"), [(1, 1.0), (5, 0.0), (1000, 1.0), (777, 0.7)])
def test_an_alias_table_has_the_closed_form_s_probabilities(names, exponent):
    """Zipf: rank i with 1 / i**exponent, over their sum."""
    cut, other = zipf(names, exponent)
    share = cut / 2**32
    np.add.at(share, other, 1 - cut / 2**32)
    wanted = np.arange(1, names + 1) ** -exponent
    assert np.abs(share / names - wanted / wanted.sum()).max() < 2**-31
    assert cut.min() >= 0 and cut.max() <= 2**32


def test_drawn_ranks_have_zipf_s_frequencies():
    names, draws = 50, 50_000
    cut, other = zipf(names, 1.0)
    alias = [SimpleNamespace(cut=int(c), other=int(o)) for c, o in zip(cut, other, strict=True)]
    streams = stream(seed=4)
    counts = np.bincount([choose(streams, alias, names) for _ in range(draws)], minlength=names)
    weights = 1 / np.arange(1, names + 1)
    assert abs(chi_square(counts, draws * weights / weights.sum())) < 4


PARTS = [SimpleNamespace(units=units) for units in quantiles()]


@pytest.mark.parametrize("kind", [EXPONENTIAL, LOGNORMAL])
def test_the_mean_of_durations_is_exact(kind):
    units = quantiles()[(kind - 1) * QUANTILES : kind * QUANTILES]
    assert sum(units) == QUANTILES << SCALE
    assert all(a <= b for a, b in zip(units, units[1:], strict=False)) and units[0] >= 0


@pytest.mark.parametrize("kind", [EXPONENTIAL, LOGNORMAL])
def test_durations_have_the_distribution_of_the_closed_form(kind):
    """Kolmogorov and Smirnov's distance, beyond what the parts allow."""
    mean, draws = 10**9, 20_000
    streams = stream(seed=5)
    drawn = np.sort([duration(streams, PARTS, kind, mean) for _ in range(draws)]) / mean
    if kind == EXPONENTIAL:
        below_it = np.array([1 - exp(-x) for x in drawn])
    else:
        law = NormalDist(-(SIGMA**2) / 2, SIGMA)
        below_it = np.array([law.cdf(log(x)) for x in drawn])
    distance = np.abs(below_it - (np.arange(draws) + 0.5) / draws).max()
    assert distance < 2 / sqrt(draws) + 1 / QUANTILES


def test_a_long_duration_stays_in_64_bits():
    """As compiled: the longest of the parts times the longest mean that a generator may have."""
    longest, mean = max(part.units for part in PARTS), 10**15
    assert longest * (mean >> SCALE) + (longest * ((1 << SCALE) - 1) >> SCALE) < 2**62
    streams, other = stream(), stream()
    short, long = ([duration(s, PARTS, LOGNORMAL, m) for _ in range(500)]
                   for s, m in ((streams, 10**9), (other, mean)))  # fmt: skip
    assert all(abs(x / 10**6 - y) <= 1 for x, y in zip(long, short, strict=True))


def test_a_fixed_duration_draws_nothing():
    streams = stream()
    before = vars(streams[0]).copy()
    assert duration(streams, PARTS, FIXED, 12_345) == 12_345
    assert vars(streams[0]) == before


def test_every_order_is_as_likely_as_another():
    streams = stream(seed=6)
    counts = dict.fromkeys(permutations(range(4)), 0)
    for _ in range(4800):
        order = [SimpleNamespace(at=i) for i in (9, 0, 1, 2, 3, 9)]
        shuffle(streams, order, 1, 4)
        assert order[0].at == order[-1].at == 9
        counts[tuple(row.at for row in order[1:-1])] += 1
    assert abs(chi_square(list(counts.values()), 200)) < 4
