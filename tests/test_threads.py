"""Several runs at a time: the same bytes, the first error, and engines from other processes."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import kmbench
from kmbench.apart import compile_apart
from kmbench.core.jit import JIT
from kmbench.errors import UsageProblem
from kmbench.plugins import load_plugins
from kmbench.runs import engines_first, make_plans
from kmbench.threads import default_jobs, in_threads

ROOT = Path(__file__).parents[1]
CHURN = ROOT / "workloads" / "recorded" / "churn.toml"
SPREAD = ROOT / "workloads" / "waste" / "spread.toml"


@pytest.mark.parametrize("path", [CHURN, SPREAD] if JIT else [SPREAD])
def test_results_do_not_depend_on_how_many_run_at_a_time(path, tmp_path):
    names = ["none", "kamezawa-2012", "linux-6.18"] if JIT else ["none"]
    settings = {"workload.groups": "5"} if path == SPREAD else None
    for jobs in (1, 4):
        kmbench.run(path, names, seeds=2, out=tmp_path / str(jobs), jobs=jobs, settings=settings)
    files = [p for p in sorted((tmp_path / "1").rglob("*.parquet")) if p.parts[-2] != "timing"]
    assert files
    for one in files:
        other = tmp_path / "4" / one.relative_to(tmp_path / "1")
        assert one.read_bytes() == other.read_bytes(), one


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_first_error_is_raised_and_the_rest_does_not_go_on(jobs):
    began, ended, failed = [], [], threading.Event()

    def make(item, go_on):
        began.append(item)
        if item == 1:
            failed.set()
            raise UsageProblem("one")
        while jobs > 1:  # runs on until it is told
            failed.wait()
            go_on()
        ended.append(item)

    with pytest.raises(UsageProblem, match="one"):
        in_threads(make, range(50), jobs)
    assert len(began) < 50
    assert ended == [0] * (jobs == 1)


def test_a_task_that_does_not_end_for_the_user_is_told():
    program = """
import os, signal, threading
import kmbench.threads
kmbench.threads.GRACE_S = 0.1
end, began = threading.Event(), threading.Event()
def make(item, go_on):
    if item == 2:
        began.set()
        end.wait()
    began.wait()
    os.kill(os.getpid(), signal.SIGINT)
    while item != 2:
        go_on()
try:
    kmbench.threads.in_threads(make, [1, 2, 3], 2)
except kmbench.threads.Abandoned as interrupt:
    print(interrupt.items)
end.set()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "[2]\n"


def test_the_users_interrupt_is_heard_at_once():
    """polars' handler of SIGINT has the kernel restart what it interrupts."""
    program = """
import os, signal, time
import polars
from kmbench.threads import in_threads
def make(item, go_on):
    if item == 1:
        os.kill(os.getpid(), signal.SIGINT)
    while True:
        go_on()
        time.sleep(0.01)
try:
    in_threads(make, [1, 2, 3], 2)
except KeyboardInterrupt:
    print("heard")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "heard\n"


def test_each_item_is_made_once():
    made = []
    in_threads(lambda item, go_on: made.append(item), range(100), 7)
    assert sorted(made) == list(range(100))


def test_how_many_at_a_time(monkeypatch):
    monkeypatch.setenv("KMBENCH_JOBS", "3")
    assert default_jobs() == 3
    monkeypatch.delenv("KMBENCH_JOBS")
    assert default_jobs() >= 1
    for bad in ("0", "two", "-1"):
        monkeypatch.setenv("KMBENCH_JOBS", bad)
        with pytest.raises(UsageProblem, match="KMBENCH_JOBS: .*expected a whole number from 1"):
            default_jobs()


def test_one_of_each_engine_comes_first():
    plugins = load_plugins()
    names = ["linux-4.5", "linux-5.3", "none", "linux-6.18"]
    plans = make_plans(kmbench.load_scenario(SPREAD), names, plugins)
    hooks = [plan.strategy.resolved_hooks() for plan in engines_first(plans)]
    assert hooks[0] == hooks[3]  # the two eras of copies are one engine
    assert len({tuple(sorted(h.items())) for h in hooks[:3]}) == 3


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_another_process_compiles(tmp_path):
    """What it leaves on disk is what this one would have made; what it cannot make is left."""
    program = f"""
import kmbench
from kmbench.apart import compile_apart
from kmbench.plugins import load_plugins
from kmbench.runs import make_plans, replay
scenario = kmbench.load_scenario({str(SPREAD)!r})
(plan,) = make_plans(scenario, ["none"], load_plugins())
compile_apart(scenario, "no-such-strategy", (), lambda: None)
called = []
apart = lambda: called.append(compile_apart(scenario, "none", (), lambda: None))
assert not replay(plan, apart=apart).timing.cache_hit
assert called == [None]
from kmbench.core.loop import engine
from kmbench.core.specialise import specialise
made = specialise(engine, plan.strategy.resolved_hooks()).dispatcher
assert sum(made.stats.cache_hits.values()) == 1 and not made.stats.cache_misses
"""
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"KMBENCH_CACHE": str(tmp_path / "cache")}
    )


def test_a_process_that_compiles_ends_with_who_waits_for_it():
    times = iter([None, None, KeyboardInterrupt])

    def go_on():
        if error := next(times):
            raise error

    before = set(children_now())
    with pytest.raises(KeyboardInterrupt):
        compile_apart(kmbench.load_scenario(SPREAD), "linux-6.18", (), go_on)
    assert set(children_now()) == before


def children_now():
    """Process ids of this process's children."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
