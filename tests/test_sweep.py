"""Sweeps: resuming, failures as rows, and code that changed meanwhile."""

import polars as pl
import pytest

import kmbench
from grids import content, sweep, write_grid
from kmbench.errors import UsageProblem
from kmbench.sweep.grid import load_grid
from kmbench.sweep.plan import code_of, plan_sweep, settle_code
from kmbench.sweep.work import Order, run_jobs


def test_executors_give_the_same_bytes_and_a_second_start_makes_nothing(tmp_path):
    grid = write_grid(tmp_path)
    serial, processes, streamed = (tmp_path / name for name in ("a", "b", "c"))
    first = sweep(grid, "--executor", "serial", out=serial)
    assert (first["runs"], first["there"], first["ok"]) == (18, 0, 18)
    sweep(grid, "--workers", 2, out=processes)
    sweep(grid, "--workers", 1, "--stream", out=streamed)
    assert content(serial) == content(processes) == content(streamed)
    assert len(content(serial)) == 18 * 6
    (serial / "runs" / "nothing.parquet").unlink(missing_ok=True)
    victims = sorted((serial / "runs").iterdir())[:3]
    for victim in victims:
        victim.unlink()
    again = sweep(grid, "--executor", "serial", out=serial)
    assert (again["there"], again["ok"]) == (15, 3)
    assert content(serial) == content(processes)


def test_dry_run_counts_and_writes_nothing(tmp_path):
    said = sweep(write_grid(tmp_path), "-n", out=tmp_path / "out")
    assert (said["runs"], said["there"], said["points"]) == (18, 0, 12)
    assert said["seconds"] > 0
    assert not (tmp_path / "out").exists()


PLUGIN = """
import kmbench

def select(S, P, cpu, memcg, cache, gfp):
    return cache{change}

@kmbench.hookimpl
def kmbench_register_strategies(register):
    register(kmbench.Strategy(name="mine", description="d", source="s", hooks={{"select": select}},
                              prepare=prepare))

def prepare(S, P, setup, parameters):
    if len(setup.groups) > {most}:
        raise ValueError("too many groups\\nfor me")
"""
MINE = "strategies = ['mine']\n[product]\n'workload.groups' = [2, 3, 4]"


def test_failures_are_rows_and_are_tried_again(tmp_path):
    grid, plugin = write_grid(tmp_path, MINE), tmp_path / "mine.py"
    plugin.write_text(PLUGIN.format(change="", most=3))
    options = grid, "--executor", "serial", "-p", plugin
    said = sweep(*options, out=tmp_path / "out", code=1)
    assert (said["ok"], list(said["failed"].values())) == (
        1, ["ValueError: too many groups for me"] * 2
    )  # fmt: skip
    failed = kmbench.open_results(tmp_path / "out").runs.filter(pl.col("status") == "failed")
    assert all("in prepare" in text for text in failed.collect()["traceback"])
    again = sweep(*options, out=tmp_path / "out", code=1)
    assert (again["there"], len(again["failed"])) == (1, 2)
    fast = sweep(*options, "--fail-fast", out=tmp_path / "fast", code=1)
    assert (fast["ok"], len(fast["failed"])) == (1, 1)


def test_changed_code_is_refused_unless_told(tmp_path):
    grid, plugin, out = write_grid(tmp_path, MINE), tmp_path / "mine.py", tmp_path / "out"

    def planned(change: str):
        plugin.write_text(PLUGIN.format(change=change, most=9))
        return plan_sweep(load_grid(grid), kmbench.load_plugins((plugin,)))

    first, second = planned(""), planned(" + 0 * cpu")
    assert settle_code(first, out, None)
    assert settle_code(first, out, None)
    changed = "code of strategy mine, version of mine.*--changed-code keep"
    with pytest.raises(UsageProblem, match=changed):
        settle_code(second, out, None)
    assert settle_code(second, out, "keep")
    assert settle_code(second, out, None)
    assert not settle_code(first, out, "rerun")
    # the same code under another name of the grid's file is the same sweep
    other = write_grid(tmp_path / "elsewhere", MINE)
    assert plan_sweep(load_grid(other), kmbench.load_plugins((plugin,))).digest == first.digest


THREE = """
import kmbench

def prepare(S, P, setup, parameters):
    raise ValueError("prepare {change}")

def scan(S, Q, memcg, nr, gfp):
    return len("{change}")

@kmbench.hookimpl
def kmbench_register_strategies(register):
    register(kmbench.Strategy("mine", "d", "s", prepare=prepare))

@kmbench.hookimpl
def kmbench_register_shrinkers(register):
    register(kmbench.Shrinker("mine", "d", "s", {{"scan": scan}}, batch={batch}))
"""


def test_code_beside_the_hooks_of_strategies_counts(tmp_path):
    """In one process, from files of one name: what a strategy runs as Python, and shrinkers."""

    def codes(folder: str, change: str, batch: int = 128):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(THREE.format(change=change, batch=batch))
        used = {"strategy": ["mine"], "shrinker": ["mine"]}
        return code_of(kmbench.load_plugins((path,)), used)

    first, again, other = codes("a", "1"), codes("b", "1"), codes("c", "2")
    batch = codes("d", "1", batch=64)
    assert first == again
    changed = {"code of strategy mine", "code of shrinker mine"}
    assert {key for key in first if first[key] != other[key]} == changed
    assert first["code of shrinker mine"] != batch["code of shrinker mine"]


def test_a_worker_that_lives_on_runs_what_was_edited(tmp_path):
    grid, plugin = write_grid(tmp_path, 'strategies = ["mine"]\n[product]\n'), tmp_path / "mine.py"
    said = []
    for change in ("one", "other"):
        plugin.write_text(THREE.format(change=change, batch=1))
        planned = plan_sweep(load_grid(grid), kmbench.load_plugins((plugin,)))
        code = tuple(item for item in planned.code.items() if item[0].startswith("code of "))
        order = Order(str(tmp_path), stream=True, retries=0, files=(str(plugin),), code=code)
        said += [report.error for report in run_jobs(planned.jobs, order)]
    assert said == ["ValueError: prepare one", "ValueError: prepare other"]


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e9"])
def test_a_timeout_is_a_number_of_seconds(tmp_path, seconds):
    options = write_grid(tmp_path), "--timeout", seconds
    assert "expected seconds" in sweep(*options, out=tmp_path / "out", code=2)["stderr"]


@pytest.mark.parametrize(
    ("executor", "scheduler", "words"),
    [
        ("dask", "first", "expected an address like tcp://host:8786"),
        ("processes", "tcp://first:8786", "--scheduler goes with dask"),
        ("serial", "tcp://first:8786", "--scheduler goes with dask"),
    ],
)
def test_a_scheduler_that_cannot_be_is_refused(tmp_path, executor, scheduler, words):
    options = write_grid(tmp_path), "--executor", executor, "--scheduler", scheduler
    assert words in sweep(*options, out=tmp_path / "out", code=2)["stderr"]


def test_a_timeout_needs_another_process(tmp_path):
    options = write_grid(tmp_path), "--executor", "serial", "--timeout", 5
    assert "leave out --timeout" in sweep(*options, out=tmp_path / "out", code=2)["stderr"]
