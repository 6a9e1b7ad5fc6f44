"""Sweeps whose workers crash, hang, are lost or are left alone, and how their tasks grow."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

import kmbench
from grids import PLUGINS, content, sweep, write_grid
from kmbench.core.jit import JIT
from kmbench.sweep.grid import load_grid
from kmbench.sweep.plan import plan_sweep
from kmbench.sweep.work import Order

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
    from kmbench.sweep.work import Report

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
