"""The conformance kit: first-party strategies and the template pass, broken ones are caught."""

import json
import os
import random
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import kmbench
from broken_strategies import BROKEN
from kmbench.cli.app import main
from kmbench.core import events as ev
from kmbench.core.geometry import make_cache
from kmbench.core.jit import JIT
from kmbench.core.ops import table
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.specialise import plain
from kmbench.errors import PluginProblem, UsageProblem
from kmbench.testing import CHECKS, KINDS, check_strategies, others
from kmbench.testing.kit import SEEN_PLAIN
from kmbench.testing.others import see_workload
from kmbench.testing.template import make_distribution

HERE = Path(__file__).parent
BROKEN_FILE = str(HERE / "broken_strategies.py")
needs_jit = pytest.mark.skipif(not JIT, reason="the kit compiles")


IN_PYTHON = [name for name, (_, check, *_) in BROKEN.items() if check in SEEN_PLAIN[:-1]]


@pytest.fixture(scope="module")
def seen_in_python():
    """The findings of everything that shows without compiling: one process for all strategies."""
    found = check_strategies(IN_PYTHON, [BROKEN_FILE], SEEN_PLAIN[:-1])
    return {(finding.name, finding.check): finding for finding in found}


@needs_jit
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_strategy_is_caught_with_its_hook_and_line(name, seen_in_python):
    _, check, words, culprit = BROKEN[name]
    if name in IN_PYTHON:
        finding = seen_in_python[name, check]
    else:
        (finding,) = check_strategies([name], [BROKEN_FILE], [check])
    assert not finding.ok
    assert words in finding.message
    if culprit is not None:
        first = plain(culprit).__code__.co_firstlineno
        last = max(line for *_, line in plain(culprit).__code__.co_lines() if line)
        places = [f"broken_strategies.py:{line}" for line in range(first, last + 1)]
        assert any(place in finding.message for place in places), finding.message
        hook = next(h for h, func in BROKEN[name][0].items() if func is culprit)
        assert hook in finding.message


def test_what_a_strategy_has_no_hook_for_is_told_as_not_declared(seen_in_python):
    finding = seen_in_python["any-order", "work"]
    assert (finding.ok, finding.declared) == (True, False)
    assert finding.message == "not declared: it has no run_work"
    finding = seen_in_python["any-order", "refunds"]
    assert finding.message == "not declared: it has no obj_free or slab_gone"
    assert seen_in_python["works-on", "work"].declared
    declared = {check for (_, check), finding in seen_in_python.items() if finding.declared}
    assert declared == set(SEEN_PLAIN[:-1])


def test_first_party_strategies_pass_what_plain_python_shows():
    names = sorted(kmbench.load_plugins().strategies)
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    words = [sys.executable, "-m", "kmbench.testing.observe", "plain", *names]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert {name: seen[name]["problems"] for name in names} == {name: [] for name in names}
    assert all(seen[name]["complete"] for name in names)
    used = {hook for name in names for ran in seen[name]["ran"] for hook in ran}
    assert {"select", "slab_new", "slab_gone", "post_alloc", "obj_free", "run_work"} <= used


@needs_jit
def test_a_first_party_strategy_conforms(capsys):
    checks = [word for check in CHECKS if check != "speed" for word in ("--check", check)]
    assert main(["plugins", "check", "linux-6.18", "--json", *checks]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in found] == [check for check in CHECKS if check != "speed"]
    assert all(row["ok"] and (row["message"] == "") == row["declared"] for row in found)
    assert [row["check"] for row in found if not row["declared"]] == ["copies", "work"]


def generated(change=lambda events: None, **options):
    """A workload of five events, as `change` leaves them."""

    def batches(S):
        made = np.zeros(5, ev.EVENT)
        made["t"], made["op"], made["memcg"], made["obj"] = range(5), ev.ALLOC, 1, range(1, 6)
        made["cache"] = 1
        change(made)
        yield made

    setup = Setup(
        Machine(memory_pages=1024), "6.18", (make_cache("a", 64),), (GroupSpec("/", 0),), 10
    )
    options = {"nr_events": 5} | options
    return kmbench.Workload(
        "w", "d", "s", lambda given, host: kmbench.OpenWorkload(setup, batches, **options)
    )


def put(**values):
    def change(events):
        for name, value in values.items():
            events[name][-1] = value() if callable(value) else value

    return change


@pytest.mark.parametrize(
    ("workload", "check", "words"),
    [
        (generated(), "", ""),
        (generated(put(t=1)), "events", "event 4: t = 1: time goes back"),
        (generated(put(op=99)), "events", "op = 99: expected 0 to 21"),
        (generated(put(memcg=2)), "events", "memcg = 2: expected 0 to 1"),
        (generated(put(obj=-1)), "events", "obj = -1: expected 0 to 9"),
        (generated(put(op=ev.FREE, obj=9)), "events", "1 events of 5 were passed over"),
        (generated(nr_events=6), "announced", "announces 6 events and has 5"),
        (generated(put(arg=lambda: random.SystemRandom().randrange(1 << 30))), "deterministic",
         "batch 0: other events"),
    ],
)  # fmt: skip
def test_a_broken_workload_is_caught(workload, check, words):
    problems = see_workload(workload, {})["problems"]
    assert list(problems) == ([check] if check else [])
    assert words in problems.get(check, "")


@pytest.mark.parametrize(
    ("plugin", "check", "words"),
    [
        ({"contained": False}, "workers", "but tasks run in another process"),
        ({"fail": OSError("no network")}, "answers", "OSError: no network"),
        ({"fail": UsageProblem("needs mpi4py")}, "passed over", "not looked at: needs mpi4py"),
        ({"stays": True}, "ends", "are left"),
    ],
)  # fmt: skip
def test_a_broken_executor_is_caught(plugin, check, words, monkeypatch):
    monkeypatch.setattr(others, "LEFT_S", 0.2)
    processes = kmbench.load_plugins().executor("processes")
    left = []

    @contextmanager
    def opened(place):
        if "fail" in plugin:
            raise plugin["fail"]
        if "stays" in plugin:
            left.append(subprocess.Popen(["sleep", "60"]))
        with processes.open(place) as pool:
            yield pool

    broken = kmbench.ExecutorPlugin("e", "d", opened, plugin.get("contained", True))
    seen = others.see_executor(broken, {})
    for process in left:
        process.kill()
        process.wait()
    assert words in seen.get("problems", seen)[check]


def test_workloads_shrinkers_and_executors_conform(capsys, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # of the processes that are watched
    names = "slab_pairs", "lru", "serial", "replay"
    assert main(["plugins", "check", *names, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    kinds = {row["name"]: row["kind"] for row in found}
    assert kinds == dict(zip(names, ("workload", "shrinker", "executor", "workload"), strict=True))
    assert {row["name"] for row in found if not row["declared"]} == {"replay"}
    told = [row["message"] for row in found if row["name"] == "replay"]
    assert all("path: expected a trace file" in message for message in told)
    for kind in ("workload", "shrinker", "executor"):
        checks = [row["check"] for row in found if row["kind"] == kind]
        assert checks[: len(KINDS[kind])] == list(KINDS[kind])
    assert main(["plugins", "check", "spread", "--set", "grups=3"]) == 2
    assert "did you mean 'groups'" in capsys.readouterr().err


def test_the_template_conforms(tmp_path, capsys):
    assert main(["plugins", "new", "page-hog", "--in", str(tmp_path)]) == 0
    root = tmp_path / "kmbench-page-hog"
    assert str(root) in capsys.readouterr().out
    module = root / "kmbench_page_hog" / "__init__.py"
    findings = check_strategies(["page-hog"], [str(module)], SEEN_PLAIN[:-1])
    assert [f.message for f in findings if not f.ok] == []
    assert main(["plugins", "new", "page-hog", "--in", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_the_template_writes_is_valid(tmp_path):
    import tomllib

    root = make_distribution("page-hog", tmp_path)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["kmbench"] == {"page-hog": "kmbench_page_hog"}
    for path in root.rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
    assert "{" not in (root / "README.md").read_text()
    assert "${{ matrix.python }}" in (root / ".github/workflows/test.yml").read_text()


@pytest.mark.parametrize("name", ["Page", "page_hog", "-page", "none"])
def test_a_name_that_cannot_be_is_bad_usage(tmp_path, capsys, name):
    assert main(["plugins", "new", "--in", str(tmp_path), "--", name]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "expected names, or --all"), (["none", "--all"], "expected names, or --all"),
     (["spread", "--check", "leak"], "unknown check 'leak'"),
     (["nome"], "did you mean 'none'?"), (["none", "--check", "leek"], "did you mean 'leak'?"),
     (["none", "-p", "/nowhere.py"], "no such plugin file")],
)  # fmt: skip
def test_check_of_what_is_not_there(capsys, arguments, words):
    assert main(["plugins", "check", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_plugins_alone_lists(capsys):
    assert main(["plugins"]) == 0
    alone = capsys.readouterr().out
    assert main(["plugins", "list"]) == 0
    assert capsys.readouterr().out == alone
    assert main(["plugins", "--json"]) == 0
    assert "processes" in [e["name"] for e in json.loads(capsys.readouterr().out)["executors"]]


def test_tables_that_cannot_be_are_told_when_they_are_declared():
    with pytest.raises(PluginProblem, match="field n: dtype 'O': expected one of i1"):
        table("cpu", n="O")
    strategy = kmbench.Strategy("t", "d", "s", tables={"seen": table("cpus", n="i8")})
    with pytest.raises(PluginProblem, match="'seen': cannot be sized by 'cpus'; did you mean"):
        kmbench.Simulation(kmbench_setup(), strategy)
    for name in ("a__b", "_a", "a_", "class", "a b"):
        strategy = kmbench.Strategy("t", "d", "s", tables={name: table("cpu", n="i8")})
        with pytest.raises(PluginProblem, match=f"table '{name}': expected a name"):
            kmbench.Simulation(kmbench_setup(), strategy)


def kmbench_setup():
    from kmbench.testing.stream import SETUP

    return SETUP


pytest_plugins = ["pytester"]


def test_the_fixture_fails_with_the_finding(pytester, monkeypatch):
    pytester.makepyfile(
        """
        import kmbench.testing.kit as kit

        def fake(names):
            return [kit.Finding(names[0], "leak", names[0] == "good", "select (x.py:3): leaks")]

        def test_good(kmbench_conformance, monkeypatch):
            monkeypatch.setattr(kit, "check_strategies", fake)
            kmbench_conformance("good", "leak")

        def test_bad(kmbench_conformance, monkeypatch):
            monkeypatch.setattr(kit, "check_strategies", fake)
            kmbench_conformance("bad", "leak")
        """
    )
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*leak: select (x.py:3): leaks*"])
