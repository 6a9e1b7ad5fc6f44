"""The runs of a grid, which of them are there already, and the code that they are made by."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import polars as pl

from kmbench import final, runs, simulate, tabulate
from kmbench.analysis import groups, summary
from kmbench.core import build, vm
from kmbench.core.fingerprint import fingerprint
from kmbench.core.loop import engine
from kmbench.core.reclaim import RECLAIM
from kmbench.core.shrinkers import SHRINKER_HOOKS
from kmbench.errors import UsageProblem
from kmbench.plugins import Plugins
from kmbench.runs import version_of
from kmbench.scenario import Scenario
from kmbench.shrinker import Shrinker
from kmbench.store.dataset import open_results
from kmbench.strategy import Strategy
from kmbench.sweep.grid import Grid
from kmbench.unused import refuse_unused

__all__ = ["Job", "Sweep", "code_of", "finished", "plan_sweep", "settle_code"]

ENGINE_EVENTS_PER_S = 2e7  # for the estimate only: an engine on one core of a 2020s server
RUN_S = 0.02  # what a run takes beside its events


class Job(NamedTuple):
    """Strategies to run on the same events; a job is run in one go."""

    scenario: Scenario
    strategies: tuple[str, ...]
    run_ids: tuple[str, ...]

    def apart(self) -> list[Job]:
        """One job for each strategy."""
        pairs = zip(self.strategies, self.run_ids, strict=True)
        return [Job(self.scenario, (name,), (run_id,)) for name, run_id in pairs]

    def without(self, done: set[str]) -> Job:
        """The runs that are not in `done`."""
        pairs = zip(self.strategies, self.run_ids, strict=True)
        left = [pair for pair in pairs if pair[1] not in done]
        return Job(self.scenario, *(tuple(part[i] for part in left) for i in (0, 1)))


@dataclass
class Sweep:
    """Everything that a grid asks for."""

    jobs: list[Job]
    digest: str  # of the grid
    code: dict[str, str]  # versions, and fingerprints of what the results depend on
    seconds: float  # of work, estimated

    @property
    def run_ids(self) -> list[str]:
        """Every run once, in the order of the grid."""
        return [run_id for job in self.jobs for run_id in job.run_ids]


def plan_sweep(grid: Grid, plugins: Plugins) -> Sweep:
    """Check and number every run of the grid.  Raises UsageProblem for the first that is wrong."""
    known: set[str] = set()
    jobs, versions = [], {}
    used: dict[str, dict[str, None]] = {kind: {} for kind in ("strategy", "workload", "shrinker")}
    seconds = 0.0
    checked: set[tuple[str, str]] = set()
    for point in grid.points(tuple(sorted(plugins.strategies))):
        kind = (point.scenario.name, point.scenario.workload)
        if kind not in checked:
            checked.add(kind)
            refuse_unused(point.scenario, point.values, plugins)
        plans = runs.make_plans(point.scenario, point.strategies, plugins)
        for plan in plans:
            used["strategy"][plan.strategy.name] = None
            for part in ("kmbench", "workload_plugin", "strategy_plugin"):
                name, _, number = plan.identity[part].partition(" ")
                versions[f"version of {name}"] = number
        used["workload"][point.scenario.workload] = None
        for shrinker in point.scenario.shrinkers:
            used["shrinker"][shrinker] = None
            name, _, number = version_of(plugins.origin(plugins.shrinker(shrinker))).partition(" ")
            versions[f"version of {name}"] = number
        job = Job(
            point.scenario, tuple(plan.strategy.name for plan in plans),
            tuple(plan.run_id for plan in plans),
        ).without(known)  # fmt: skip
        if not job.run_ids:
            continue
        known.update(job.run_ids)
        jobs.append(job)
        events = plans[0].workload.nr_events or 0
        seconds += len(job.run_ids) * (RUN_S + events / ENGINE_EVENTS_PER_S)
    if not jobs:
        raise UsageProblem(f"{grid.name}: the filters leave no point")
    code = versions | code_of(plugins, used)
    return Sweep(jobs, grid.digest(), code, seconds)


def code_of(plugins: Plugins, used: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Fingerprints of the code that makes the results: the host's and that of what it hosts.

    `used`: names by kind, which is ``strategy``, ``workload`` or ``shrinker``.
    """
    code = {"code of kmbench": _host_code()}
    for name in used.get("strategy", ()):
        strategy = plugins.strategy(name)
        code[f"code of strategy {name}"] = _code(strategy, strategy.resolved_hooks(), (engine,))
    for name in used.get("shrinker", ()):
        shrinker = plugins.shrinker(name)
        code[f"code of shrinker {name}"] = _code(shrinker, shrinker.hooks)
    for name in used.get("workload", ()):
        opened = plugins.workload(name).open
        code[f"code of workload {name}"] = _digest(_source(inspect.getmodule(opened) or opened))
    return code


def _code(
    plugin: Strategy | Shrinker, hooks: Mapping[str, Callable], loop: tuple[Callable, ...] = ()
) -> str:
    """Of hooks, and of what else a strategy or a shrinker declares or has run as Python."""
    parts = {part.name: getattr(plugin, part.name) for part in fields(plugin)}
    said = {name: part for name, part in parts.items() if name not in ("hooks", "design")}
    modules = [inspect.getmodule(part) for part in said.values() if inspect.isfunction(part)]
    sources = [_source(module) for module in modules if module is not None]
    declared = repr([part for part in said.values() if not callable(part)])
    compiled = fingerprint([*loop, *hooks.values()], tuple(hooks))
    return _digest("\n".join([compiled, declared, *sources]))


@cache
def _source(part: ModuleType | Callable) -> str:
    """As it was when it was first asked for: a worker does not run what was edited since."""
    return inspect.getsource(part)


@cache
def _host_code() -> str:
    modules = (final, runs, simulate, tabulate, groups, summary, build, vm)
    compiled = fingerprint([*SHRINKER_HOOKS.values(), *RECLAIM.values()])
    return _digest("".join([*map(_source, modules), compiled]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def settle_code(sweep: Sweep, out: Path, changed: str | None) -> bool:
    """Compare with the code that this sweep began with; record it when there is none yet.

    `changed` says what to do when it differs: None refuses with UsageProblem, ``keep`` goes on with
    what is there, ``rerun`` makes everything again.  Returns whether runs that are there count.
    """
    record = out / "sweeps" / f"{sweep.digest}.json"
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        before = None
    except OSError as error:
        raise UsageProblem(f"cannot read {record}: {error.strerror}") from None
    except ValueError:
        before = ""
    if before is not None and not isinstance(before, dict):
        raise UsageProblem(f"{record}: not the record of a sweep; remove it")
    differs = [] if before is None else list(_differences(before, sweep.code))
    if differs and changed is None:
        raise UsageProblem(
            f"{', '.join(differs)} changed since this sweep began; --changed-code keep goes on "
            f"with the runs that are there, --changed-code rerun makes all of them again"
        )
    if before is None or differs:
        partial = record.with_name(f".{record.name}.{os.getpid()}")
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(sweep.code, indent=1, sort_keys=True), encoding="utf-8")
            os.replace(partial, record)
        except OSError as error:
            raise UsageProblem(f"cannot write {record}: {error.strerror or error}") from None
    return not (differs and changed == "rerun")


def _differences(before: dict, now: dict) -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new = before.get(key, "nothing"), now.get(key, "nothing")
        if old != new:
            yield f"{key} ({old} -> {new})" if key.startswith("version") else key


def finished(out: Path, run_ids: list[str]) -> set[str]:
    """Which of these runs are there and did not fail."""
    if not (out / "runs").is_dir():
        return set()
    results = open_results(out)
    with results.reading():
        ok = results.runs.filter(pl.col("status") == "ok").select(pl.col("run_id").cast(pl.String))
        return set(ok.collect()["run_id"]) & set(run_ids)
