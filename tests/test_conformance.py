"""The conformance kit: first-party strategies and the template pass, broken ones are caught."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kmbench
from broken_strategies import BROKEN
from kmbench.cli.app import main
from kmbench.core.jit import JIT
from kmbench.core.ops import table
from kmbench.core.specialise import plain
from kmbench.errors import PluginProblem
from kmbench.testing import CHECKS, check_strategies
from kmbench.testing.kit import SEEN_PLAIN
from kmbench.testing.template import make_distribution

HERE = Path(__file__).parent
BROKEN_FILE = str(HERE / "broken_strategies.py")
needs_jit = pytest.mark.skipif(not JIT, reason="the kit compiles")


@needs_jit
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_strategy_is_caught_with_its_hook_and_line(name):
    _, check, words, culprit = BROKEN[name]
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
    assert all(row["ok"] and row["message"] == "" for row in found)


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
    [(["nome"], "did you mean 'none'?"), (["none", "--check", "leek"], "did you mean 'leak'?"),
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
