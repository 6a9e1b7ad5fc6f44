"""Sweeps: what a grid means, resuming, failures as rows, and executors that lose workers."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

import kmbench
from kmbench.cli.app import main
from kmbench.core.jit import JIT
from kmbench.errors import UsageProblem
from kmbench.sweep.filters import Filter
from kmbench.sweep.grid import load_grid
from kmbench.sweep.plan import code_of, plan_sweep, settle_code
from kmbench.sweep.work import Order, run_jobs
from kmbench.unused import refuse_unused

ROOT = Path(__file__).parent.parent
SPREAD = ROOT / "workloads" / "waste" / "spread.toml"
CHURN = ROOT / "workloads" / "recorded" / "churn.toml"
PLUGINS = kmbench.load_plugins()
GRID = """
strategies = ["none", "costa-2012"]
seeds = 2
filters = ["workload.groups < 9 or workload.objects == 2"]
[product]
"workload.groups" = [3, 9]
"strategies.costa-2012.independent" = [true, false]
[zip]
"workload.objects" = [2, 5]
"workload.size" = [64, 192]
"""


def write_grid(folder: Path, text: str = GRID) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "grid.toml"
    text = textwrap.dedent(text)
    path.write_text(text if "scenario =" in text else f"scenario = {str(SPREAD)!r}\n{text}")
    return path


def sweep(*arguments, out: Path, code: int = 0) -> dict:
    """What `kmbench sweep` says as JSON, run in a process of its own."""
    words = [sys.executable, "-m", "kmbench", "sweep", *map(str, arguments)]
    done = subprocess.run(
        [*words, "--out", str(out), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def content(out: Path) -> dict[str, bytes]:
    """Every stored file but the wall-clock figures."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.glob("*/*.parquet")
        if path.parent.name != "timing"
    }


def test_a_grid_is_product_times_zip_less_what_filters_drop(tmp_path):
    points = list(load_grid(write_grid(tmp_path)).points(()))
    seen = {
        (p.scenario.parameters["groups"], p.scenario.parameters["objects"],
         p.scenario.parameters["size"], p.scenario.strategies["costa-2012"]["independent"])
        for p in points
    }  # fmt: skip
    pairs = ((3, 2, 64), (3, 5, 192), (9, 2, 64))
    assert seen == {(*pair, flag) for pair in pairs for flag in (True, False)}
    assert len(points) == 2 * len(seen)


def test_equal_runs_are_made_once_and_strategies_are_paired(tmp_path):
    made = plan_sweep(load_grid(write_grid(tmp_path)), PLUGINS)
    assert len(set(made.run_ids)) == len(made.run_ids)
    names = [name for job in made.jobs for name in job.strategies]
    assert names.count("none") == 6  # once a seed and point of the workload
    assert names.count("costa-2012") == 12


def test_seeds_come_from_the_point_and_not_from_its_place(tmp_path):
    first = plan_sweep(load_grid(write_grid(tmp_path)), PLUGINS)
    turned = GRID.replace("[3, 9]", "[9, 3]").replace("[true, false]", "[false, true]")
    second = plan_sweep(load_grid(write_grid(tmp_path, turned)), PLUGINS)
    assert set(first.run_ids) == set(second.run_ids)
    assert first.run_ids != second.run_ids
    seeds = [job.scenario.seed for job in first.jobs]
    assert len(set(seeds)) == 6
    smaller = plan_sweep(load_grid(write_grid(tmp_path, GRID.replace("[3, 9]", "[3]"))), PLUGINS)
    assert set(smaller.run_ids) < set(first.run_ids)


BAD_GRIDS = {
    "key": ("sedes = 2", "unknown key 'sedes'; did you mean 'seeds'?"),
    "seeds": ("seeds = 0", "seeds = 0: expected a whole number"),
    "seed": ("[product]\nseed = [1, 2]", "use `seeds`"),
    "scenario": ("[product]\nera = ['6.81']", "unknown era '6.81'; did you mean '6.18'?"),
    "parameter": ("[product]\n'workload.gruops' = [1]", "'gruops'; did you mean 'groups'?"),
    "value": ("[product]\n'workload.groups' = ['many']", "expected a whole number"),
    "machine": ("[product]\n'machine.cpu' = [1]", "unknown key 'cpu'; did you mean 'cpus'?"),
    "strategy": ("strategies = ['nome']", "unknown strategy 'nome'; did you mean 'none'?"),
    "unused": (
        "strategies = ['none']\n[product]\n'strategies.costa-2012.independent' = [true]",
        "strategies.costa-2012.independent is not used",
    ),
    "its machine": (
        f"scenario = {str(CHURN)!r}\n[product]\n'machine.cpus' = [1, 2]",
        "workload replay: machine.cpus is not used: it brings its own machine",
    ),
    "its name": ("[product]\nname = ['a', 'b']", "name: no run depends on it"),
    "its parameter": (
        "strategies = ['costa-2012']\n[product]\n'strategies.costa-2012.indep' = [true]",
        "did you mean 'independent'?",
    ),
    "unquoted": ("[product]\nworkload.groups = [1]", "quote a dotted key"),
    "empty": ("[product]\n'workload.groups' = []", "expected a list of values"),
    "lengths": ("[zip]\n'workload.groups' = [1]\n'workload.size' = [8, 16]", "equally many"),
    "twice": ("[product]\n'workload.size' = [8]\n[zip]\n'workload.size' = [8]", "in both"),
    "filter": ("filters = ['groups > 1']\n[product]\n'workload.groups' = [1]", "is not varied"),
    "call": ("filters = ['exit()']\n[product]\n'workload.groups' = [1]", "expected comparisons"),
    "syntax": ("filters = ['1 +']", "not an expression"),
    "nothing left": (
        "filters = ['workload.groups > 1']\n[product]\n'workload.groups' = [1]",
        "the filters leave no point",
    ),
    "not TOML": ("seeds = = 1", "not TOML"),
    "date": ("[product]\n'workload.groups' = [2012-02-21]", "expected numbers, strings"),
}


@pytest.mark.parametrize("name", BAD_GRIDS)
def test_a_bad_grid_is_one_line_and_code_2(tmp_path, capsys, name):
    text, words = BAD_GRIDS[name]
    assert main(["sweep", str(write_grid(tmp_path, text)), "-n"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_key_that_a_run_looks_at_is_taken():
    keys = ["machine.cpus", "machine.nodes", "machine.memory", "machine.page_size", "era"]
    for path in (SPREAD, ROOT / "workloads" / "churn" / "short_lives.toml"):
        refuse_unused(kmbench.load_scenario(path), keys, PLUGINS)
    slab = kmbench.load_scenario(CHURN, {"allocator": "slab"})
    refuse_unused(slab, ["era"], PLUGINS)
    for key in keys[:4]:
        with pytest.raises(UsageProblem, match=f"{key} is not used"):
            refuse_unused(slab, [key], PLUGINS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b * 2 == 6", True), ("not a.b in [1, 2]", True), ("a.b % 2 == 0 or -c > 0", False),
     ("1 < a.b < 3", False), ("a.b - 1 >= 2 and c != 'x'", True)],
)  # fmt: skip
def test_filters(text, expected):
    assert Filter(text, {"a.b", "c"}).keeps({"a.b": 3, "c": 1}) is expected


def test_a_filter_that_cannot_be_worked_out_is_bad_usage():
    with pytest.raises(UsageProblem, match="filter 'c > 1'"):
        Filter("c > 1", {"c"}).keeps({"c": "text"})


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


HOSTILE = """
import kmbench
from kmbench.core.ops import table

def select(S, P, cpu, memcg, cache, gfp):
    n = 0
    while P.par[0].loops and S.k[0].nr_cpus > 0:
        n += 1
    P.seen[1 << 40].n = n
    return cache

@kmbench.hookimpl
def kmbench_register_strategies(register):
    register(kmbench.Strategy(
        name="hostile", description="d", source="s", hooks={"select": select},
        tables={"seen": table(1, n="i8")},
        parameters=(kmbench.Parameter("loops", True, "or writes out of bounds"),),
    ))
"""
COMPILE = """
import sys, kmbench
from kmbench.core.geometry import make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup
setup = Setup(Machine(memory_pages=4096), "6.18", (make_cache("a", 64),), (GroupSpec("/", 0),), 2)
kmbench.Simulation(setup, kmbench.load_plugins((sys.argv[1],)).strategy("hostile"))
"""


@pytest.mark.skipif(not JIT, reason="plain Python neither crashes nor needs a C timer")
def test_a_plugin_that_loops_or_crashes_ends_only_its_own_runs(tmp_path):
    plugin = tmp_path / "hostile.py"
    plugin.write_text(HOSTILE)
    subprocess.run([sys.executable, "-c", COMPILE, str(plugin)], check=True)
    text = """
    strategies = ["none", "hostile"]
    [product]
    "strategies.hostile.loops" = [true, false]
    """
    options = write_grid(tmp_path, text), "-p", plugin, "--timeout", 5, "--retries", 0, "-w", 2
    said = sweep(*options, out=tmp_path / "out", code=1)
    assert said["ok"] == 1
    rows = kmbench.open_results(tmp_path / "out").runs.collect()
    bad = rows.filter(pl.col("status") == "failed").sort("strategy_params")
    assert bad["strategy"].to_list() == ["hostile", "hostile"]
    assert "Segmentation fault" in bad["error"][0]
    assert bad["error"][1] == "no end within 5 s"
    assert all("in feed" in text for text in bad["traceback"])


# --- a cluster that loses and gains workers, on this machine ---

LARGE = """
strategies = ["none", "costa-2012"]
seeds = 12
[product]
"workload.groups" = [100, 200]
"workload.objects" = [60]
"workload.freed" = [0.3]
"""


class Cluster:
    """A dask scheduler and its workers, each a process; no nanny brings one back."""

    def __init__(self, folder: Path):
        self.file = folder / "scheduler.json"
        self.processes: list[subprocess.Popen] = []
        self.start("scheduler", "--port", "0", "--host", "127.0.0.1")
        wait_until(self.file.exists)
        self.address = json.loads(self.file.read_text())["address"]

    def start(self, kind: str, *options: str) -> subprocess.Popen:
        words = [sys.executable, "-m", "dask", kind, "--no-dashboard", *options]
        words += ["--scheduler-file", str(self.file)]
        self.processes.append(
            subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        return self.processes[-1]

    def worker(self) -> subprocess.Popen:
        return self.start("worker", "--nthreads", "1", "--no-nanny")


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip("distributed")
    made = Cluster(tmp_path)
    yield made
    for process in reversed(made.processes):
        process.kill()
        process.wait()


@pytest.mark.skipif(not JIT, reason="too slow as plain Python")
def test_a_cluster_that_loses_a_worker_gains_one_and_loses_its_client(tmp_path, cluster):
    grid, out = write_grid(tmp_path / "g", LARGE), tmp_path / "out"
    sweep(grid, "--executor", "serial", out=tmp_path / "serial")
    doomed = cluster.worker()
    words = [sys.executable, "-m", "kmbench", "sweep", str(grid), "--executor", "dask", "--out",
             str(out), "--scheduler", cluster.address]  # fmt: skip

    def made() -> int:
        return len(list(out.glob("runs/[!.]*.parquet")))

    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        wait_until(lambda: made() >= 2)
        os.kill(doomed.pid, signal.SIGKILL)
        cluster.worker()
        killed_at = made()
        wait_until(lambda: made() >= killed_at + 2)
        client.kill()
    assert killed_at + 2 <= made() < 48
    cluster.worker()
    said = sweep(grid, "--executor", "dask", "--scheduler", cluster.address, out=out)
    assert said["there"] + said["ok"] == 48
    assert said["failed"] == {}
    assert content(out) == content(tmp_path / "serial")


def test_workers_of_a_cluster_are_left_alone_while_they_run():
    distributed = pytest.importorskip("distributed")
    from kmbench.executor import Place
    from kmbench_executors.dask_worker import WATCHES

    with distributed.LocalCluster(1, processes=False, dashboard_address=None) as cluster:
        callbacks = cluster.workers[0].periodic_callbacks
        before = set(callbacks)
        assert before >= set(WATCHES)
        with PLUGINS.executor("dask").open(Place(0, cluster.scheduler_address)) as pool:
            assert pool.executor.submit(pow, 2, 3).result() == 8
            assert set(callbacks) == before - set(WATCHES)
        assert set(callbacks) == before
        assert all(callback.is_running() for callback in callbacks.values())


def test_a_run_that_takes_over_a_timer_gets_a_little_more_time(monkeypatch, tmp_path):
    from kmbench.sweep import work

    now, armed = [0.0], []
    monkeypatch.setattr(work.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        work.faulthandler, "dump_traceback_later", lambda limit, **_: armed.append((now[0], limit))
    )
    with work.Watch(work.Order(str(tmp_path), timeout_s=5)) as watch:
        for i in range(10):
            now[0] = i * 0.2
            watch.begin(f"{i:016}")
        (file,) = (tmp_path / "sweeps" / "running").iterdir()
        assert file.read_text() == f"{9:016}\n"
        watch.rest()
        watch.begin("b")
    assert armed == [(0.0, 5.5), (pytest.approx(0.6), 5.5), (pytest.approx(1.2), 5.5),
                     (pytest.approx(1.8), 5.5), (pytest.approx(1.8), 5.5)]  # fmt: skip


def test_tasks_grow_until_they_last_a_second(monkeypatch, tmp_path):
    from kmbench.executor import Place, Pool
    from kmbench.sweep import drive
    from kmbench.sweep.work import Order, Report

    sizes = []

    class Fake:
        """Runs nothing, reports 10 ms a run."""

        def submit(self, fn, *arguments):
            future = drive.Future()
            if not arguments:
                future.set_result(None)
                return future
            jobs, order = arguments
            sizes.append(len(jobs))
            future.set_result([Report(i, "", 0.01) for job in jobs for i in job.run_ids])
            return future

    from contextlib import contextmanager

    @contextmanager
    def opened(place):
        yield Pool(Fake(), lambda: 1)

    text = "strategies = ['none']\nseeds = 1000"
    made = plan_sweep(load_grid(write_grid(tmp_path, text)), PLUGINS)
    executor = kmbench.ExecutorPlugin("fake", "d", opened)
    order = Order(str(tmp_path))
    outcome = drive.Drive(made, set(), order, executor, Place(1), PLUGINS).run()
    assert outcome.ok == sum(sizes) == 1000
    assert sizes[0] == 1
    assert max(sizes) == 100  # 100 runs of 10 ms last a second
    assert all(later <= max(earlier, 100) for earlier, later in pairwise(sizes))
