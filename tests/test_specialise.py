"""The cache of compiled engines: found again, never used after a change to what made it."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest

import reclaim_box
from kmbench.core.events import EVENT
from kmbench.core.fingerprint import fingerprint
from kmbench.core.jit import JIT
from kmbench.errors import PluginProblem
from kmbench.simulate import Simulation

needs_jit = pytest.mark.skipif(not JIT, reason="nothing is compiled without JIT")

PLUGIN = {
    "mine/constants.py": "STEP = 1\n",
    "mine/deep.py": """
        from mine.constants import STEP
        from kmbench.core.ops import inlined

        @inlined
        def step(S):
            return STEP
        """,
    "mine/helper.py": """
        from kmbench.core.ops import inlined
        from mine.deep import step

        @inlined
        def bump(S, P):
            P.seen[0].n += step(S)

        @inlined
        def unused(S):
            return 7
        """,
    "mine/__init__.py": """
        import kmbench
        from kmbench.core.ops import table
        from mine.helper import bump

        def post_alloc(S, P, cpu, memcg, cache, gfp, slab, billed):
            bump(S, P)
            return billed

        mine = kmbench.Strategy(
            name="mine", description="counts", source="a test", hooks={"post_alloc": post_alloc},
            tables={"seen": table(1, n="i8")},
        )
        """,
}
PROGRAM = """
import json, sys
import numpy as np
import kmbench
from kmbench.core.events import ALLOC, EVENT
from kmbench.core.geometry import make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup
from mine import mine

setup = Setup(Machine(memory_pages=4096), "6.18", (make_cache("a", 64),), (GroupSpec("/", 0),), 11)
simulation = kmbench.Simulation(setup, mine)
events = np.zeros(10, EVENT)
events["op"], events["obj"], events["cache"] = ALLOC, range(1, 11), 1
simulation.feed(events)
print(json.dumps([int(simulation.P.seen["n"][0]), simulation.cache_hit]))
"""


class Range(NamedTuple):
    low: int
    high: int


class Other(NamedTuple):
    high: int
    low: int


class Short(NamedTuple):
    low: int
    high: int = 5


def function(body: str, arguments: str = "S", **names: object) -> Callable:
    """A function of these arguments in a module of these names."""
    exec(f"def f({arguments}):\n {body}", names)
    return names["f"]


def write_plugin(folder: Path, changes: dict[str, str] | None = None) -> None:
    for name, text in (PLUGIN | (changes or {})).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))


def run_program(folder: Path, cache: str = "", lines: bool = False) -> list:
    """What the strategy counted, and whether its engine came from the cache, in a new process.

    `lines`: all that it printed instead.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "KMBENCH_CACHE": cache or str(folder / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines() if lines else json.loads(done.stdout)


@needs_jit
def test_an_edit_anywhere_recompiles_and_other_edits_do_not(tmp_path):
    write_plugin(tmp_path)
    assert run_program(tmp_path) == [10, False]
    assert run_program(tmp_path) == [10, True]
    comment = {
        "mine/helper.py": "# a comment moves every line\n"
        + textwrap.dedent(PLUGIN["mine/helper.py"])
    }
    write_plugin(tmp_path, comment)
    assert run_program(tmp_path) == [10, True]
    unreached = {"mine/helper.py": PLUGIN["mine/helper.py"].replace("return 7", "return 8")}
    write_plugin(tmp_path, unreached)
    assert run_program(tmp_path) == [10, True]
    two_imports_away = {
        "mine/deep.py": PLUGIN["mine/deep.py"].replace("return STEP", "return STEP + 2")
    }
    write_plugin(tmp_path, two_imports_away)
    assert run_program(tmp_path) == [30, False]
    constant_three_away = {"mine/constants.py": "STEP = 5\n"}
    write_plugin(tmp_path, constant_three_away)
    assert run_program(tmp_path) == [50, False]
    write_plugin(tmp_path)
    assert run_program(tmp_path) == [10, True]


@needs_jit
def test_a_damaged_or_unwritable_cache_costs_time_and_nothing_else(tmp_path):
    write_plugin(tmp_path)
    assert run_program(tmp_path) == [10, False]
    for path in (tmp_path / "cache").rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[:100])
    assert run_program(tmp_path)[0] == 10
    assert run_program(tmp_path, cache="/proc/nowhere") == [10, False]


class TestFingerprint:
    def test_same_code_same_hash(self):
        def one():
            return 1

        def two():
            return 1

        assert fingerprint([one]) == fingerprint([two])

    @pytest.mark.parametrize("other", ["return 2", "return 1.0", "return True", "x = 1; return x"])
    def test_any_change_of_meaning_changes_it(self, other):
        def made(body):
            names: dict = {}
            exec(f"def f():\n {body}", names)
            return names["f"]

        assert fingerprint([made("return 1")]) != fingerprint([made(other)])

    def test_globals_and_defaults_count(self):
        names: dict = {"LIMIT": 3}
        exec("def f(a=1):\n return a + LIMIT", names)
        before = fingerprint([names["f"]])
        names["LIMIT"] = 4
        changed = fingerprint([names["f"]])
        names["LIMIT"] = 3
        names["f"].__defaults__ = (2,)
        assert len({before, changed, fingerprint([names["f"]])}) == 3

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("S.low = 1", "S.high = 1"),
            ("S.low, S.high = 1, 2", "S.high, S.low = 1, 2"),
            ("return min(S, 3)", "return max(S, 3)"),
            ("return abs(S)", "return bool(S)"),
        ],
    )
    def test_names_of_fields_and_builtins_count(self, one, other):
        """Bytecode holds them by number."""
        assert fingerprint([function(one)]) != fingerprint([function(other)])

    @pytest.mark.parametrize(
        ("body", "one", "other"),
        [
            ("return X.low", Range(low=1, high=2), Other(high=1, low=2)),
            ("return X", ((1, 2), 3), ((1, 2, 3),)),
            ("return X(1)", Range, Short),
            ("return X.ON", IntEnum("X", {"ON": 1}), IntEnum("X", {"ON": 2})),
            ("return X[0]", np.array([1, 2]), np.array([3, 2])),
            ("return X", np.int64(1), np.int64(2)),
            (
                "return X(low=1, high=S)",
                function("return low - high", "low, high"),
                function("return high - low", "high, low"),
            ),
        ],
    )
    def test_all_of_a_global_counts(self, body, one, other):
        assert fingerprint([function(body, X=one)]) != fingerprint([function(body, X=other)])

    def test_a_module_of_a_closure_counts(self):
        def hook(step):
            constants = ModuleType("constants")
            constants.STEP = step
            return lambda S: constants.STEP

        assert fingerprint([hook(1)]) != fingerprint([hook(2)])

    def test_documentation_does_not_count(self):
        def without(S):
            return 5

        def with_it(S):
            """What it does."""
            return 5

        assert fingerprint([without]) == fingerprint([with_it])

    def test_recursion_ends(self):
        def again(n):
            return again(n - 1)

        assert fingerprint([again])

    def test_a_global_that_cannot_be_hashed_is_named_with_its_place(self):
        names: dict = {"TABLE": {}}
        exec(compile("def f():\n return TABLE", "plugin.py", "exec"), names)
        with pytest.raises(
            PluginProblem, match=r"plugin.py:1: f uses the global 'TABLE' of type dict"
        ):
            fingerprint([names["f"]])


@needs_jit
def test_a_hook_may_print(tmp_path):
    """It did not end, in the process that had compiled it: its environment was not there."""
    hook = PLUGIN["mine/helper.py"].replace(
        "P.seen", 'print("one more", S.k[0].cpu)\n            P.seen'
    )
    write_plugin(tmp_path, {"mine/helper.py": hook})
    for hit in (False, True):
        *printed, last = run_program(tmp_path, lines=True)
        assert printed == ["one more 0"] * 10
        assert json.loads(last) == [10, hit]


@needs_jit
def test_the_core_counts_no_references(tmp_path, monkeypatch):
    """One counted reference a helper call would cost several times the time of the model."""
    monkeypatch.setenv("KMBENCH_CACHE", str(tmp_path))

    from kmbench.core.geometry import make_cache
    from kmbench.core.setup import GroupSpec, Machine, Setup
    from kmbench.plugins import load_plugins
    from kmbench.simulate import read_only

    setup = Setup(
        Machine(memory_pages=4096), "6.18", (make_cache("a", 64),), (GroupSpec("/", 0),), 2
    )
    simulation = Simulation(setup, load_plugins().strategy("none"))
    dispatcher = simulation.engine.dispatcher
    simulation.feed(read_only(np.zeros(0, EVENT)))
    for signature in dispatcher.signatures:  # other tests may have run it on SLAB, too
        assert "NRT_incref" not in dispatcher.inspect_llvm(signature)


@needs_jit
def test_tables_of_other_names_are_not_taken_for_one_another():
    """numba takes two types of one name for one: a second plugin's names must not be lost."""
    from numba import njit

    from kmbench.core.tables import records, tables_class

    @njit
    def low_of(P):
        return P.low[0].n

    dtype = np.dtype([("n", "i8")])
    low, high = records(1, dtype), records(1, dtype)
    low["n"], high["n"] = 1, 2
    assert low_of(tables_class(("low", "high"))(low, high)) == 1
    assert low_of(tables_class(("high", "low"))(high, low)) == 1


@needs_jit
def test_types_do_not_depend_on_which_of_equal_dtypes_came_first():
    """numpy takes an aligned dtype and one that is not for equal where their fields lie alike."""
    from numba import typeof

    from kmbench.core.tables import tables_class

    fields = [("a_field_of_this_test", "i8")]
    made = tables_class(("low",))
    aligned, packed = (
        typeof(made(np.zeros(1, np.dtype(fields, align=align)))) for align in (True, False)
    )
    assert np.dtype(fields, align=True) == np.dtype(fields)
    assert repr(aligned.kinds) != repr(packed.kinds) and aligned != packed


@needs_jit
def test_runs_with_reclaim_share_an_engine():
    """Each of them loaded its own again; a shrinker that is edited still gives another one."""
    first, second = (reclaim_box.Box(as_posted=True).sim for _ in range(2))
    assert second.engine is first.engine and second.S.R is first.S.R
    assert second.cache_hit and second.compile_s < first.compile_s

    strategy, memory = first.strategy, reclaim_box.memory(as_posted=True)
    edited = {**memory.shrinker.hooks, "lru_del": function("return", arguments="S, Q, obj")}
    changed = memory._replace(shrinker=replace(memory.shrinker, hooks=edited))
    third = Simulation(first.setup, strategy, memory=changed)
    assert third.engine is not first.engine
    assert third.S.R._numba_type != first.S.R._numba_type


@pytest.mark.parametrize(
    "events", [np.zeros(3), np.zeros((3, 1), EVENT), np.zeros(3, [("t", "i8"), ("op", "u1")])]
)
def test_only_events_are_fed(events):
    """Compiled code does not look at what it is given: other records would be read as events."""
    with pytest.raises(TypeError, match="expected one of EVENT"):
        reclaim_box.Box(as_posted=True).sim.feed(events)
