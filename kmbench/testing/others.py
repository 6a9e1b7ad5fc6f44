"""Checks of workloads, shrinkers and executors, in a process of its own, which prints what it saw.

python -m kmbench.testing.others workload|shrinker|executor NAME [--settings JSON] [-p FILE]...
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kmbench.core import events as ev
from kmbench.core.geometry import make_cache
from kmbench.core.jit import JIT
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.vm import Reclaim
from kmbench.errors import KmbenchError, UsageProblem
from kmbench.executor import ExecutorPlugin, Place
from kmbench.memory import Memory
from kmbench.parameters import parse_parameters
from kmbench.plugins import load_plugins
from kmbench.shrinker import Shrinker
from kmbench.simulate import Simulation
from kmbench.strategy import Strategy
from kmbench.workload import Host, Workload

__all__ = ["main"]

MOST_EVENTS = 20_000 if JIT else 1000  # of a workload
LOOK_UPS = 4000 if JIT else 2000  # for a shrinker
LEFT_S = 10  # what an executor may take to end its processes
HOST = Host(cpus=2, nodes=1, memory_pages=1 << 16, page_size=4096, era="6.18", seed=7, folder=".")
OTHER_HOSTS = (
    HOST._replace(cpus=1),
    HOST._replace(cpus=8, nodes=2, memory_pages=1 << 20),
    HOST._replace(page_size=1 << 16, memory_pages=1 << 14),
    HOST._replace(era="3.5"),
)
NONE = Strategy("none", "", "")
SHORT = Setup(  # a machine that is too small for what happens on it
    Machine(cpus=2, memory_pages=400), "6.18",
    (make_cache("dentry", 1024, flags=ev.SLAB_ACCOUNT | ev.SLAB_RECLAIM_ACCOUNT),),
    (GroupSpec("/", 0), GroupSpec("/a"), GroupSpec("/b", memory_limit=150)), 2001,
)  # fmt: skip

Problems = dict[str, str]


# --- workloads ---


def see_workload(workload: Workload, settings: dict[str, Any]) -> dict[str, Any]:
    """Open it, and run its events twice without accounting."""
    try:
        given = parse_parameters(workload.parameters, settings, f"workload {workload.name}")
        opened = workload.open(given, HOST)
    except UsageProblem as problem:
        if settings:
            return {"bad settings": str(problem)}
        return {"passed over": f"not looked at: its defaults do not do: {problem}"}
    problems: Problems = {}
    for host in OTHER_HOSTS:
        try:
            workload.open(given, host)
        except KmbenchError:
            pass
        except Exception as error:
            asked = dict(host._asdict().items() - HOST._asdict().items())
            problems["machines"] = f"{asked}: {type(error).__name__}: {error}"
    first, wrong = _events(opened)
    problems |= wrong
    second, _ = _events(workload.open(given, HOST))
    if first != second and "events" not in problems:
        at = next((i for i, pair in enumerate(zip(first, second, strict=False))
                   if pair[0] != pair[1]), min(len(first), len(second)))  # fmt: skip
        problems["deterministic"] = f"batch {at}: other events with the same seed"
    return {"problems": problems}


def _events(opened) -> tuple[list[str], Problems]:
    """Hashes of the batches of a workload, and what is wrong with its events."""
    memory = Memory() if opened.reclaims else None
    simulation = Simulation(opened.setup, NONE, seed=HOST.seed, memory=memory)
    S = simulation.S
    seen: list[str] = []
    problems: Problems = {}
    count, last, cut = 0, -1, False
    for batch in opened.batches(S):
        if len(batch) == 0:
            continue
        cut = len(batch) > MOST_EVENTS - count
        batch = batch[: MOST_EVENTS - count]
        seen.append(hashlib.blake2b(np.ascontiguousarray(batch), digest_size=8).hexdigest())
        if wrong := _senseless(batch, opened.setup, last):
            return seen, {"events": f"event {count + wrong[0]}: {wrong[1]}"}
        last = int(batch["t"][-1])
        count += len(batch)
        simulation.feed(batch)
        if cut:
            break
    if not cut and opened.nr_events is not None and count != opened.nr_events:
        problems["announced"] = f"announces {opened.nr_events:,} events and has {count:,}"
    if not count:
        problems["events"] = "it has none"
    elif skipped := int(S.k["nr_skipped"][0]):
        problems["events"] = (
            f"{skipped} events of {count:,} were passed over: freed twice, of a group that is "
            f"gone, ..."
        )
    return seen, problems


def _senseless(batch: np.ndarray, setup: Setup, last: int) -> tuple[int, str] | None:
    """The first event that cannot be, and why."""
    bounds = {"op": ev.NR_OPS, "cpu": setup.machine.cpus, "memcg": len(setup.groups) + 1,
              "obj": setup.nr_objects}  # fmt: skip
    back = np.diff(batch["t"], prepend=last) < 0
    if back.any():
        at = int(np.argmax(back))
        return at, f"t = {batch['t'][at]}: time goes back"
    for name, most in bounds.items():
        wrong = (batch[name] >= most) | (batch[name].astype(np.int64) < 0)
        if wrong.any():
            at = int(np.argmax(wrong))
            return at, f"{name} = {batch[name][at]}: expected 0 to {most - 1}"
    return None


# --- shrinkers ---


def see_shrinker(shrinker: Shrinker, settings: dict[str, Any]) -> dict[str, Any]:
    """Run it while memory is short, twice."""
    try:
        where = f"shrinker {shrinker.name}"
        given = parse_parameters(shrinker.parameters, settings, where)
    except UsageProblem as problem:
        return {"bad settings": str(problem)}
    problems: Problems = {}
    digests = []
    for _ in range(2):
        try:
            simulation = _pressed(shrinker, given, problems)
        except KmbenchError as error:
            return {"died": str(error)}
        whole = hashlib.blake2b(digest_size=8)
        for table in simulation.S:
            if isinstance(table, np.ndarray):
                whole.update(np.ascontiguousarray(table).view(np.uint8))
        digests.append(whole.hexdigest())
    if digests[0] != digests[1]:
        problems["deterministic"] = "the same events twice give another state"
    vm = simulation.S.vm[0]
    if not shrinker.listener and not int(vm["freed_objects"]):
        problems["useful"] = (
            f"freed none of the objects on its lists in {int(vm['visits'])} visits of reclaim"
        )
    return {"problems": problems}


def _pressed(shrinker: Shrinker, given: dict[str, Any], problems: Problems) -> Simulation:
    """The kit's stream of look-ups and user pages, which memory is too small for."""
    reclaim = Reclaim(swap_pages=50)
    memory = (
        Memory(reclaim, listener=shrinker, listener_parameters=given) if shrinker.listener
        else Memory(reclaim, shrinker, given)
    )  # fmt: skip
    simulation = Simulation(SHORT, NONE, seed=7, memory=memory)
    stream = _look_ups(LOOK_UPS)
    for i in range(0, len(stream), 50):
        simulation.feed(stream[i : i + 50])
        k = simulation.S.k[0]
        pages = int(k["nr_free_pages"] + k["nr_slab_pages"] + k["nr_kernel_pages"])
        pages += int(simulation.S.vm["nr_user_pages"][0])
        if pages != SHORT.machine.memory_pages:
            problems.setdefault(
                "conservation",
                f"after event {i}, {pages} pages are free or held, of {SHORT.machine.memory_pages}",
            )
    return simulation


def _look_ups(count: int) -> np.ndarray:
    """Names are looked up, some more often than others, while user memory grows."""
    draw = np.random.default_rng(7)
    made = np.zeros(count, ev.EVENT)
    made["t"] = np.arange(count) * 200_000
    made["cpu"], made["memcg"] = draw.integers(0, 2, count), draw.integers(2, 4, count)
    made["gfp"], made["op"], made["cache"] = ev.GFP_KERNEL_ACCOUNT, ev.ACCESS, 1
    made["obj"] = 1 + (2000 * draw.random(count) ** 2).astype(np.int64)
    user = draw.random(count) < 0.1
    made["op"][user], made["obj"][user], made["arg"][user] = ev.USER_ALLOC, 0, 3
    made["cache"][user] = draw.integers(0, 3, int(user.sum()))
    return made


# --- executors ---


def see_executor(executor: ExecutorPlugin, settings: dict[str, Any]) -> dict[str, Any]:
    """Open it on this machine, have it work, and close it."""
    problems: Problems = {}
    before = _children()
    try:
        with executor.open(Place(workers=2)) as pool:
            futures = [pool.executor.submit(pow, number, 2) for number in range(20)]
            answers = [future.result(timeout=60) for future in futures]
            if answers != [number**2 for number in range(20)]:
                problems["answers"] = f"20 squares are {answers}"
            where = pool.executor.submit(os.getpid).result(timeout=60)
            if (where != os.getpid()) != executor.contained:
                problems["workers"] = (
                    f"contained = {executor.contained}, but tasks run in "
                    f"{'this process' if where == os.getpid() else 'another process'}"
                )
            if pool.workers() < 1:
                problems["workers"] = f"counts {pool.workers()} workers"
            error = pool.executor.submit(int, "no number").exception(timeout=60)
            if not isinstance(error, ValueError):
                problems["errors"] = f"int('no number') raises {error!r}, not a ValueError"
    except UsageProblem as problem:  # something that it needs is not installed
        return {"passed over": f"not looked at: {problem}"}
    except Exception as error:
        problems["answers"] = f"{type(error).__name__}: {error}"
    end = time.monotonic() + LEFT_S
    while (left := _children() - before) and time.monotonic() < end:
        time.sleep(0.05)
    if left:
        problems["ends"] = f"processes {sorted(left)} are left"
    return {"problems": problems}


def _children() -> set[int]:
    """Processes that this one started, but for the helper of multiprocessing."""
    import multiprocessing.resource_tracker

    helper = getattr(multiprocessing.resource_tracker._resource_tracker, "_pid", None)
    found = set()
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(entry))
    return found - {helper}


SEE: dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]] = {
    "workload": see_workload, "shrinker": see_shrinker, "executor": see_executor,
}  # fmt: skip


def main() -> None:
    """Observe one and print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=SEE)
    parser.add_argument("name")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("-p", "--plugin", action="append", default=[])
    options = parser.parse_args()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what plugins print is no answer
    plugins = load_plugins(tuple(options.plugin))
    found = getattr(plugins, options.kind)(options.name)
    with answer:
        json.dump(SEE[options.kind](found, options.settings), answer)


if __name__ == "__main__":
    main()
