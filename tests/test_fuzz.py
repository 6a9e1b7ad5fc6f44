"""Readers answer or refuse in one line, whatever is done to their files."""

import importlib.util
from contextlib import suppress
from pathlib import Path

import pytest

from kmbench.errors import KmbenchError

ROOT = Path(__file__).parent.parent


def _fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FUZZ = _fuzz()


@pytest.mark.parametrize("kind", FUZZ.KINDS)
def test_damaged_files_are_answered_or_refused_in_one_line(tmp_path, kind):
    feeder = FUZZ.KINDS[kind](tmp_path)
    if kind != "text":  # which is never whole
        feeder.read()
    refused = 0
    for number in range(60):
        try:
            feeder.feed(number)
        except KmbenchError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused


@pytest.mark.parametrize(("kind", "number"), [("trace", 3069), ("trace", 7370), ("results", 3287)])
def test_inputs_that_a_reader_once_broke_on(tmp_path, kind, number):
    with suppress(KmbenchError):
        FUZZ.KINDS[kind](tmp_path).feed(number)


def test_damage_follows_from_the_number_alone(tmp_path):
    import random

    first, again, other = (FUZZ.damage(b"abcdef" * 20, random.Random(n)) for n in (1, 1, 2))
    assert first == again != other
