"""The asv suite runs, publishes and compares; its results become a table."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from kmbench.analysis.report import gather, report_html
from kmbench.analysis.speed import compare_speed, speed_grid
from kmbench.cli import app
from kmbench.errors import UsageProblem
from kmbench.store.dataset import open_results
from kmbench.store.speed import import_asv, open_speed
from make_results import write_all

ROOT = Path(__file__).parent.parent
BENCHMARK = "simulated.Simulated.track_events_per_second"
OLD, NEW = "a" * 40, "b" * 40
COLUMNS = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a",
           "stats_ci_99_b", "stats_q_25", "stats_q_75", "stats_number"]  # fmt: skip


def write_asv(folder, machine, commit, values, date=1_700_000_000_000):
    """A results folder as asv 0.6 writes it: one benchmark over two strategies."""
    home = folder / "results" / machine
    home.mkdir(parents=True, exist_ok=True)
    about = {BENCHMARK: {"param_names": ["strategy"], "unit": "events/s"}, "version": 2}
    (folder / "results" / "benchmarks.json").write_text(json.dumps(about))
    (home / "machine.json").write_text("{}")
    low = [value and value * 0.9 for value in values]
    row = [values, [["'none'", "'linux-6.18'"]], "v", 0, 1.0, low, None, None, None, [5, 5]]
    result = {
        "commit_hash": commit, "env_name": "py", "date": date, "version": 2,
        "params": {"machine": machine, "cpu": f"cpu of {machine}"}, "result_columns": COLUMNS,
        "results": {BENCHMARK: row},
    }  # fmt: skip
    file = home / f"{commit[:8]}-py.json"
    file.write_text(json.dumps(result))
    return file


def test_machines_merge_into_one_table(tmp_path):
    write_asv(tmp_path / "here", "here", NEW, [4e6, 2e6])
    write_asv(tmp_path / "there", "there", NEW, [8e6, None])  # one of them failed
    for name in ("here", "there"):
        import_asv(tmp_path / name, tmp_path / "out")
    frame = open_speed(tmp_path / "out").collect()
    assert frame.height == 3
    assert set(frame["machine"].cast(pl.String)) == {"here", "there"}
    assert set(frame["parameters"]) == {'{"strategy": "none"}', '{"strategy": "linux-6.18"}'}
    assert frame.filter(pl.col("value") == 4e6)["low"].item() == 3.6e6
    found = compare_speed(open_speed(tmp_path / "out"), "machine", "he")
    ratios = {(r["machine"], r["parameters"]): r["ratio"] for r in found.to_dicts()}
    assert ratios["there", '{"strategy": "none"}'] == 2
    assert ratios["here", '{"strategy": "linux-6.18"}'] == 1


def test_commits_compare_on_their_own_machine(tmp_path):
    for machine, speed in (("here", 1e6), ("there", 5e6)):
        write_asv(tmp_path, machine, OLD, [speed, speed])
        write_asv(tmp_path, machine, NEW, [speed * 1.5, speed], date=1_700_000_900_000)
    import_asv(tmp_path, tmp_path / "out")
    speed = open_speed(tmp_path / "out")
    found = compare_speed(speed, "commit").filter(
        pl.col("commit") == NEW, parameters='{"strategy": "none"}'
    )
    assert dict(found.select("machine", "ratio").iter_rows()) == {"here": 1.5, "there": 1.5}
    grid = speed_grid(compare_speed(speed, "commit"), "commit")
    assert [c.group for c in grid.columns[4::2]] == [OLD[:10], NEW[:10]]
    assert [BENCHMARK, "none", "here", "events/s ^", "1e+06", "1.00x", "1.5e+06", "1.50x"] in list(
        map(list, grid.rows)
    )
    newest = compare_speed(speed, "machine", "here")
    assert set(newest["commit"]) == {NEW}


def test_the_report_has_every_machine_and_commit(tmp_path):
    for machine in ("here", "there"):
        write_asv(tmp_path, machine, OLD, [1e6, 2e6])
        write_asv(tmp_path, machine, NEW, [3e6, 2e6], date=1_700_000_900_000)
    out = write_all(tmp_path / "out")
    import_asv(tmp_path, out)
    content = gather(open_results(out))
    rows = content.tables["speed"].select("machine", "commit", "value", "ratio").rows()
    assert len(rows) == 8 and ("there", NEW, 3e6, 3.0) in rows and ("here", OLD, 2e6, 1.0) in rows
    assert 'id="t-speed"' in report_html(content)


def test_importing_again_replaces(tmp_path):
    write_asv(tmp_path, "here", NEW, [1e6, 1e6])
    import_asv(tmp_path, tmp_path / "out")
    write_asv(tmp_path, "here", NEW, [3e6, 3e6])
    import_asv(tmp_path / "results", tmp_path / "out")
    assert open_speed(tmp_path / "out").collect()["value"].to_list() == [3e6, 3e6]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not a file of asv"),
        ('{"version": 1}', "expected 2"),
        ('{"version": 2, "params": {}}', "not a result of asv"),
        ('{"version": 2, "params": 7}', "not a result of asv"),
    ],
)
def test_what_is_not_of_asv_is_named(tmp_path, content, words):
    file = write_asv(tmp_path, "here", NEW, [1e6, 1e6])
    file.write_text(content)
    with pytest.raises(UsageProblem, match=words) as problem:
        import_asv(tmp_path, tmp_path / "out")
    assert str(file) in str(problem.value)


def damaged(value, rng):
    """``value`` with something else in a random place."""
    other = [None, 7, -1e308, 10**40, "x", [], {}, [[]], {"a": [None]}, True]
    if rng.random() < 0.25 or not isinstance(value, (dict, list)) or not value:
        return rng.choice(other)
    if isinstance(value, list):
        i = rng.randrange(len(value))
        return [damaged(v, rng) if i == j else v for j, v in enumerate(value)]
    key = rng.choice(sorted(value))
    return {k: damaged(v, rng) if k == key else v for k, v in value.items()}


def test_damaged_results_are_one_line(tmp_path):
    rng = random.Random(3)
    file = write_asv(tmp_path, "here", NEW, [1e6, 1e6])
    about = tmp_path / "results" / "benchmarks.json"
    texts = {path: path.read_text() for path in (file, about)}
    refused = 0
    for _ in range(400):
        path = rng.choice(list(texts))
        path.write_text(json.dumps(damaged(json.loads(texts[path]), rng)))
        try:
            import_asv(tmp_path, tmp_path / "out")
        except UsageProblem:
            refused += 1
        path.write_text(texts[path])
    assert 50 < refused < 400


def test_commands(tmp_path, capfd):
    out = str(tmp_path / "out")
    assert app.main(["asv", "import", str(tmp_path), "--dir", out]) == 2
    assert "no results of asv" in capfd.readouterr().err
    assert app.main(["asv", "compare", "--dir", out]) == 2
    assert "no measurements" in capfd.readouterr().err
    write_asv(tmp_path, "here", OLD, [1e6, 1e6])
    write_asv(tmp_path, "here", NEW, [2e6, 2e6], date=1_700_000_900_000)
    assert app.main(["asv", "import", str(tmp_path), "--dir", out, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["rows"] == 4
    assert app.main(["asv", "compare", "--dir", out, "--across", "commit"]) == 0
    assert "2.00x" in capfd.readouterr().out
    assert app.main(["asv", "compare", "--dir", out, "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)) == 2
    assert app.main(["asv", "compare", "--dir", out, "--baseline", "hre"]) == 2
    assert "did you mean 'here'" in capfd.readouterr().err


def test_the_suite_itself(tmp_path):
    """asv run, compare and publish over the project's own suite, restricted to one scenario."""
    pytest.importorskip("asv", reason="asv is not installed")
    if shutil.which("git") is None:
        pytest.skip("asv needs git")
    environment = os.environ | {
        "HOME": str(tmp_path), "KMBENCH_ASV_STRATEGIES": "none", "KMBENCH_ASV_SCENARIOS": "spread",
        "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e@e", "GIT_COMMITTER_NAME": "n",
        "GIT_COMMITTER_EMAIL": "e@e", "GIT_CONFIG_GLOBAL": os.devnull,
    }  # fmt: skip
    environment.setdefault("KMBENCH_CACHE", str(tmp_path / "cache"))

    def call(*arguments):
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    repo = tmp_path / "repo"
    repo.mkdir()
    call("git", "-C", str(repo), "init", "-q", "-b", "main")
    commits = []
    for words in ("one", "two"):
        call("git", "-C", str(repo), "commit", "-q", "--allow-empty", "-m", words)
        commits.append(call("git", "-C", str(repo), "rev-parse", "HEAD").strip())
    config = json.loads((ROOT / "benchmarks" / "asv.conf.json").read_text())
    config |= {
        "repo": str(repo), "benchmark_dir": str(ROOT / "benchmarks" / "suite"),
        "results_dir": str(tmp_path / "results"), "html_dir": str(tmp_path / "html"),
        "env_dir": str(tmp_path / "env"),
    }  # fmt: skip
    (tmp_path / "asv.conf.json").write_text(json.dumps(config))
    asv = (sys.executable, "-m", "asv")
    call(*asv, "machine", "--yes", "--machine", "testbed")
    for commit in commits:
        call(*asv, "run", "--python=same", "--machine", "testbed", "--set-commit-hash", commit,
             "--bench", "Simulated", "--quick")  # fmt: skip
    text = call(*asv, "compare", "--machine", "testbed", *commits)
    assert "track_slab_bytes" in text
    call(*asv, "publish")
    assert (tmp_path / "html" / "index.html").is_file()

    import_asv(tmp_path, tmp_path / "out")
    frame = open_speed(tmp_path / "out").collect()
    slabs = frame.filter(
        pl.col("benchmark").cast(pl.String).str.contains("slab_bytes"),
        pl.col("parameters").str.contains('"allocator": "slub"'),
    )
    assert slabs.height == len(commits)
    assert set(slabs["value"]) == {98_304.0}  # the same number on both commits: 24 slabs of 4 KiB
    assert json.loads(slabs["parameters"][0])["scenario"] == "spread"
