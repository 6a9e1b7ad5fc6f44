"""Finding, isolating and checking plugins; what is wrong with one is told in its author's terms."""

import textwrap
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import kmbench
from kmbench import hookspecs, plugins
from kmbench.core.events import EVENT
from kmbench.core.geometry import make_cache
from kmbench.core.hooks import RETURNS, STRATEGY_HOOKS
from kmbench.core.jit import JIT
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.errors import PluginProblem, UsageProblem

HEAD = """
import kmbench
from kmbench.core.ops import inlined, table

{hooks}

@kmbench.hookimpl
def kmbench_register_strategies(register):
    register(kmbench.Strategy(name={name!r}, description="d", source="s", hooks={{{registered}}}))
"""


def local_plugin(tmp_path, hooks="", registered="", name="mine"):
    path = tmp_path / f"{name}.py"
    text = HEAD.format(hooks=textwrap.dedent(hooks), registered=registered, name=name)
    path.write_text(text)
    return path


def test_first_party_plugins_are_found_like_any_others():
    loaded = kmbench.load_plugins()
    assert not loaded.failed
    assert {"none", "costa-2012", "linux-5.9", "linux-6.18"} <= set(loaded.strategies)
    assert {"replay", "slab_pairs", "spread"} <= set(loaded.workloads)


def test_every_hook_of_the_host_is_documented():
    for name in ("kmbench_register_strategies", "kmbench_register_workloads"):
        assert getattr(hookspecs, name).__doc__
    for name, hook in STRATEGY_HOOKS.items():
        assert hook.__doc__, name
    assert set(RETURNS) == set(STRATEGY_HOOKS)


def test_a_plugin_that_raises_at_import_is_recorded_and_the_rest_works(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no such luck')\n")
    loaded = kmbench.load_plugins((broken, local_plugin(tmp_path)))
    assert [(p.name, p.error) for p in loaded.failed] == [("broken", "RuntimeError: no such luck")]
    assert {"none", "mine"} <= set(loaded.strategies)


def test_an_entry_point_that_cannot_be_imported_is_recorded(monkeypatch):
    point = EntryPoint("ghost", "kmbench_ghost", "kmbench")
    real = plugins.entry_points
    monkeypatch.setattr(plugins, "entry_points", lambda group: [*real(group=group), point])
    loaded = kmbench.load_plugins()
    assert [p.name for p in loaded.failed] == ["ghost"]
    assert "none" in loaded.strategies


@pytest.mark.parametrize(
    ("variable", "pattern", "present", "absent"),
    [
        ("KMBENCH_PLUGINS", "main*", "none", "costa-2012"),
        ("KMBENCH_PLUGINS_DISABLE", "*2012, other", "none", "costa-2012"),
    ],
)
def test_patterns_choose_plugins(monkeypatch, variable, pattern, present, absent):
    monkeypatch.setenv(variable, pattern)
    loaded = kmbench.load_plugins()
    assert present in loaded.strategies
    assert absent not in loaded.strategies


def test_a_name_that_is_taken_is_refused_and_says_by_whom(tmp_path):
    loaded = kmbench.load_plugins((local_plugin(tmp_path, name="none"),))
    (failed,) = loaded.failed
    assert "'none' is already registered by kmbench" in failed.error


def test_another_abi_is_refused(tmp_path):
    path = local_plugin(tmp_path)
    path.write_text(path.read_text().replace('source="s"', 'source="s", abi=99'))
    (failed,) = kmbench.load_plugins((path,)).failed
    assert "written for abi 99" in failed.error


def test_a_missing_plugin_file_is_bad_usage(tmp_path):
    with pytest.raises(UsageProblem, match="no such plugin file"):
        kmbench.load_plugins((tmp_path / "none.py",))


@pytest.mark.parametrize(
    ("hooks", "registered", "message"),
    [
        (
            "def post_aloc(S, P): pass",
            '"post_aloc": post_aloc',
            "no hook 'post_aloc'; did you mean",
        ),
        (
            "def select(S, P, cpu):\n    return 1",
            '"select": select',
            r"mine.py:\d+: select\(S, P, cpu\): expected the arguments \(S, P, cpu, memcg, cache",
        ),
    ],
)
def test_hooks_of_the_wrong_name_or_shape(tmp_path, hooks, registered, message):
    (failed,) = kmbench.load_plugins((local_plugin(tmp_path, hooks, registered),)).failed
    with pytest.raises(PluginProblem, match=message):
        raise PluginProblem(failed.error)


SETUP = Setup(Machine(memory_pages=4096), "6.18", (make_cache("a", 64),), (GroupSpec("/", 0),), 11)
ARGUMENTS = ", ".join(("S", "P", "cpu", "memcg", "cache", "gfp", "slab", "billed"))


@pytest.mark.skipif(not JIT, reason="hooks are typed when they are compiled")
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return S.memcg[memcg].true_slap", r"mine.py.*true_slap"),
        ("pass", r"post_alloc: .*mine.py:\d+.*returns nothing; expected a whole number"),
        ("return 'x'", r"post_alloc: .*mine.py:\d+.*expected a whole number"),
        ("return 1.5", r"post_alloc: .*mine.py:\d+.*expected a whole number"),
        ("return unknown_name", r"mine.py.*unknown_name"),
    ],
)
def test_a_hook_with_a_type_error_is_one_line_with_its_place(tmp_path, body, message):
    hooks = f"def post_alloc({ARGUMENTS}):\n    {body}\n"
    loaded = kmbench.load_plugins((local_plugin(tmp_path, hooks, '"post_alloc": post_alloc'),))
    with pytest.raises(PluginProblem, match=message) as problem:
        kmbench.Simulation(SETUP, loaded.strategy("mine"))
    assert "\n" not in str(problem.value)


def test_a_local_strategy_runs(tmp_path):
    hooks = f"def post_alloc({ARGUMENTS}):\n    S.memcg[1].stock += 0\n    return billed\n"
    loaded = kmbench.load_plugins((local_plugin(tmp_path, hooks, '"post_alloc": post_alloc'),))
    simulation = kmbench.Simulation(SETUP, loaded.strategy("mine"))
    events = np.zeros(10, EVENT)
    events["obj"], events["cache"] = range(1, 11), 1
    simulation.feed(events)
    assert simulation.S.k["nr_allocs"][0] == 10


@pytest.mark.skipif(not JIT, reason="nothing is compiled without JIT")
def test_a_hook_is_checked_for_every_kind_of_table(tmp_path, monkeypatch):
    """What it returns may depend on them: having compiled for others is no excuse."""
    monkeypatch.setenv("KMBENCH_CACHE", str(tmp_path))
    setup = Setup(
        Machine(memory_pages=4096), "6.18", (make_cache("a", 64),), (GroupSpec("/", 0),), 2
    )

    def post_alloc(S, P, cpu, memcg, cache, gfp, slab, billed):
        return P.x[0].n

    def simulation(kind: str):
        tables = {"x": kmbench.core.tables.table(1, n=kind)}
        strategy = kmbench.Strategy("t", "d", "s", {"post_alloc": post_alloc}, tables=tables)
        return kmbench.Simulation(setup, strategy)

    assert not simulation("i8").cache_hit
    with pytest.raises(PluginProblem, match="post_alloc: .*test_plugins.py.*expected a whole num"):
        simulation("f8")
    assert simulation("i8").cache_hit


def test_names_are_apart_by_kind_and_by_file(tmp_path):
    text = """
import kmbench

@kmbench.hookimpl
def kmbench_register_{kind}(register):
    register(kmbench.{made})
"""
    made = {
        "strategies": "Strategy('mine', 'd', 's')",
        "shrinkers": "Shrinker('mine', 'd', 's')",
        "compositions": "Strategy('mine', 'd', 's')",
    }
    files = []
    for kind, call in made.items():
        files.append(tmp_path / kind / "mainline.py")  # as a plugin of ours, too
        files[-1].parent.mkdir()
        files[-1].write_text(text.format(kind=kind, made=call))
    loaded = kmbench.load_plugins(files)
    assert loaded.origin(loaded.strategy("mine")).distribution == str(files[0])
    assert loaded.origin(loaded.shrinker("mine")).distribution == str(files[1])
    (failed,) = loaded.failed  # nobody could say which strategy is meant
    assert (failed.distribution, failed.error) == (
        str(files[2]), f"PluginProblem: 'mine' is already registered by {files[0]}"
    )  # fmt: skip
