"""Caches of benchmarks/executed.py."""

from pathlib import Path

import pytest


@pytest.fixture
def caches(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import caches

    return caches


def test_what_fits_misses_nothing_and_a_round_that_is_one_too_long_all_of_its_set(caches):
    fits = [(line,) for line in range(8 * 64)]
    assert caches.misses(fits, 64, 8) == 0
    assert caches.misses([*fits, (8 * 64,)], 64, 8) == 9  # the ninth of set 0
    assert caches.misses([*fits, (8 * 64,)], 64, 16) == 0
    assert caches.misses([(0,), (64,), (0,), (128,)], 64, 2) == 2  # 0 was used last each time


def test_instructions_in_a_row_share_an_entry_until_a_jump_a_line_or_enough_of_them(caches):
    row = [(at, 4) for at in range(48, 80, 4)]  # 4 on a line, 4 on the next
    assert caches.decoded(row, 8) == [(0, 48), (1, 64)]
    assert caches.decoded(row, 3) == [(0, 48), (0, 60), (1, 64), (1, 76)]
    assert caches.decoded([(0, 4), (16, 4), (0, 4)], 8) == [(0, 0), (0, 16), (0, 0)]


def test_bytes_are_on_every_line_they_touch(caches):
    assert list(caches.lines(63, 1)) == [0]
    assert list(caches.lines(63, 2)) == [0, 1]
