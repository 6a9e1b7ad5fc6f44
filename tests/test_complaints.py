"""What does not compile is told in an author's words, at the line where it is."""

import random
import time

import pytest

from kmbench.core.build import Accounting, build_state, build_tables
from kmbench.core.fingerprint import fingerprint
from kmbench.core.jit import JIT
from kmbench.core.ops import COUNTER_KMEM, counter_charge, table
from kmbench.core.specialise import Hooks, as_helper, check_hooks, plain
from kmbench.errors import PluginProblem
from kmbench.testing.observe import Endless, no_longer_than
from kmbench.testing.stream import SETUP

SEEN: dict = {}
COUNT = 0


def other_strategys_table(S, P, cpu, memcg, cache, gfp):
    return cache + P.stock[cpu].nr_pages


def misspelt_table(S, P, cpu, memcg, cache, gfp):
    return S.caches[cache].root


def global_dict(S, P, cpu, memcg, cache, gfp):
    SEEN[cache] = 1
    return cache


def global_number(S, P, cpu, memcg, cache, gfp):
    global COUNT
    COUNT += 1
    return cache


def local_list(S, P, cpu, memcg, cache, gfp):
    both = [cache, memcg]
    return both[0]


def text(S, P, cpu, memcg, cache, gfp):
    return len(f"{cache}")


def half_a_row(S, P, cpu, memcg, cache, gfp):
    return P.seen[memcg / 2].n


def whole_row(S, P, cpu, memcg, cache, gfp):
    P.seen[cache] = 5
    return cache


def undecorated(S, P, cpu, memcg, cache, gfp):
    return as_it_is(cache)


def as_it_is(cache):
    return cache


def clock(S, P, cpu, memcg, cache, gfp):
    return cache + int(time.time())


def tries(S, P, cpu, memcg, cache, gfp):
    try:
        return cache // memcg
    except ZeroDivisionError:
        return cache


def generates(S, P, cpu, memcg, cache, gfp):
    yield cache


def too_few(S, P, cpu, memcg, cache, gfp):
    return counter_charge(S, COUNTER_KMEM, memcg)


def throws_dice(S, P, cpu, memcg, cache, gfp):
    return cache + int(random.random() * 0)


def complaint(hook) -> str:
    """What is said of a strategy whose `select` it is; empty if nothing."""
    S = build_state(SETUP, Accounting(), 1, 0)
    P = build_tables({"seen": table("cache", n="i8")}, S)
    from numba import typeof

    try:
        helper = as_helper(hook)
        key = fingerprint([helper])
        check_hooks(Hooks(key, {"select": helper}), typeof(S), typeof(P))
    except PluginProblem as problem:
        return str(problem)
    return ""


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
@pytest.mark.parametrize(
    ("hook", "line", "words"),
    [
        (other_strategys_table, 1, "there is no table 'stock', but in S"),
        (misspelt_table, 1, "there is no table 'caches'; did you mean 'cache'?"),
        (global_dict, 0, "uses the global 'SEEN' of type dict"),
        (global_number, 2, "sets a global; what a strategy remembers belongs into its tables"),
        (local_list, 1, "makes a list, dict, string or array"),
        (text, 1, "makes a list, dict, string or array"),
        (half_a_row, 1, "a row of a table is a whole number, not a value of type float64"),
        (whole_row, 1, "a row of a table cannot be set as a whole"),
        (undecorated, 1, "calls 'as_it_is', a plain function; helpers of hooks are decorated"),
        (clock, 1, "time.time is not for compiled code"),
        (tries, 3, "try and except are not for compiled code"),
        (generates, 0, "returns a value of type generator; expected a whole number"),
        (too_few, 1, "calls a helper with other arguments than it has"),
    ],
)
def test_a_hook_that_does_not_compile(hook, line, words):
    said = complaint(hook)
    assert words in said
    assert f"test_complaints.py:{plain(hook).__code__.co_firstlineno + line}: " in said
    assert not {"Tables", "nopython", "Overload", "\x1b"} & set(said.split())
    assert len(said) < 400


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_what_compiles_has_no_complaint():
    assert complaint(throws_dice) == ""  # that it is not deterministic is another check's


def test_what_never_ends_is_ended():
    with pytest.raises(Endless, match="no end within 0.05 s"), no_longer_than(0.05):
        while True:
            pass
