"""One run: scenario x strategy x seed, from the workload's events to the stored tables."""

import hashlib
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kmbench.analysis.pricing import (
    latency_figures,
    path_prices,
    price_run,
)
from kmbench.analysis.summary import summarise
from kmbench.apart import compile_apart, keeps_engines
from kmbench.core.events import NR_CAUSES
from kmbench.core.sample import TOTAL_COLUMNS
from kmbench.core.slab_geometry import on_slab
from kmbench.core.state import State
from kmbench.errors import UsageProblem, one_line
from kmbench.memory import Memory
from kmbench.parameters import parse_parameters
from kmbench.plugins import LOCAL, Loaded, Plugins, load_plugins
from kmbench.scenario import Scenario, load_scenario
from kmbench.shrinker import NO_SHRINKER
from kmbench.simulate import Outcome, Timing, simulate
from kmbench.store.dataset import Results, write_run
from kmbench.strategy import Strategy
from kmbench.tabulate import (
    access_table,
    cache_table,
    failure_table,
    latency_table,
    op_table,
    strategy_paths,
    timeline_table,
)
from kmbench.threads import Abandoned, default_jobs, in_threads
from kmbench.unused import refuse_unused
from kmbench.workload import OpenWorkload

Progress = Callable[[str, int, int | None], None]  # strategy, events done, events in all


ZOMBIES = TOTAL_COLUMNS.index("zombies")  # and zombie_pages


class Plan(NamedTuple):
    """One run to make, with everything that its results depend on."""

    scenario: Scenario
    workload: OpenWorkload
    strategy: Strategy
    parameters: dict[str, Any]
    identity: dict[str, Any]
    run_id: str
    memory: Memory | None = None


Watch = Callable[[Plan, State], None]


def run(
    scenario: Scenario | str | Path,
    strategies: Iterable[str] | None = None,
    *,
    seeds: int = 1,
    out: str | Path = "results",
    settings: Mapping[str, str] | None = None,
    plugins: Plugins | None = None,
    jobs: int | None = None,
    progress: Progress = lambda strategy, nr, total: None,
    watch: Watch | None = None,
) -> Results:
    """Run strategies over a scenario, paired on the same events, and store the results.

    `scenario`: a Scenario or the path of a TOML file, changed by `settings` (dotted key -> text).
    `strategies`: names; default those of the scenario, else all that are registered.  `seeds`: how
    many, counted from the scenario's.  Results go to the dataset folder `out`; what is returned
    shows just these runs.  `jobs`: runs made at a time, in threads; default ``$KMBENCH_JOBS``, else
    one a CPU.  `watch` is called with the plan and the state after every batch of events; then
    one run is made at a time.  Raises UsageProblem for bad input before anything is run.
    """
    plugins = plugins or load_plugins()
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario, settings)
        refuse_unused(scenario, settings or (), plugins)
    names = list(dict.fromkeys(strategies or scenario.strategies or sorted(plugins.strategies)))
    plans = [
        plan
        for seed in range(scenario.seed, scenario.seed + seeds)
        for plan in make_plans(scenario.with_seed(seed), names, plugins)
    ]
    jobs = 1 if watch else min(jobs or default_jobs(), len(plans))
    others_compile = jobs > 1 and keeps_engines()

    told: Counter[str] = Counter()  # by run: when it begins, when its engine is there, batches

    def make(plan: Plan, go_on: Callable[[], None]) -> None:
        def tell(strategy: str, nr: int, total: int | None) -> None:
            go_on()
            told[plan.run_id] += 1
            progress(strategy, nr, total)

        began = time.perf_counter()
        tell(plan.strategy.name, 0, plan.workload.nr_events)
        order = partial(compile_apart, plan.scenario, plan.strategy.name, plugins.files, go_on)
        seen = plan if watch is None else _watched(plan, watch)
        store(plan, replay(seen, tell, order if others_compile else None), out, began)

    try:
        in_threads(make, engines_first(plans), jobs)
    except Abandoned as interrupt:
        raise KeyboardInterrupt(_what_goes_on(interrupt.items, told)) from None
    return Results(Path(out), [plan.run_id for plan in plans])


def _what_goes_on(plans: Iterable[Plan], told: Mapping[str, int]) -> str:
    """Where the user's interrupt found runs that did not end for it."""
    names = {told[plan.run_id] > 1: plan.strategy.name for plan in plans}
    if True in names:
        return (
            f"strategy {names[True]} goes on: if one of its hooks, or the workload, never ends, "
            f"`kmbench plugins check` says which"
        )
    return f"the engine of strategy {names[False]} was being made"


def engines_first(plans: Iterable[Plan]) -> list[Plan]:
    """The plans, first one of each engine: those that share one would wait for its compiler."""
    known: Counter[tuple] = Counter()

    def turn(plan: Plan) -> int:
        hooks = tuple(sorted(plan.strategy.resolved_hooks().items()))
        known[hooks] += 1
        return known[hooks]

    return sorted(plans, key=turn)


def _watched(plan: Plan, watch: Watch) -> Plan:
    """``plan`` with a workload that lets ``watch`` see the state between its batches."""

    def batches(S: State) -> Iterator[np.ndarray]:
        for batch in plan.workload.batches(S):
            yield batch
            watch(plan, S)

    return plan._replace(workload=plan.workload._replace(batches=batches))


def make_plans(scenario: Scenario, names: Iterable[str], plugins: Plugins) -> list[Plan]:
    """The runs of one scenario and seed; the workload is opened once and shared."""
    source = plugins.workload(scenario.workload)
    where = f"{scenario.name}: workload {source.name}"
    given = parse_parameters(source.parameters, scenario.parameters, where)
    chosen = [plugins.strategy(name) for name in names]
    parameters = [
        parse_parameters(
            s.parameters, scenario.strategies.get(s.name, {}), f"{scenario.name}: strategy {s.name}"
        )
        for s in chosen
    ]
    workload = source.open(given, scenario.host()._replace(workloads=plugins.workloads))
    memory = make_memory(scenario, plugins)
    if workload.reclaims and memory is None:
        raise UsageProblem(f"{where}: needs a table [shrinkers] or [reclaim] in the scenario")
    if scenario.allocator == "slab":
        workload = workload._replace(setup=on_slab(workload.setup, scenario.kernel_era()))
    common = {
        "scenario": {
            k: v
            for k, v in asdict(scenario).items()
            if k not in ("strategies", "folder", "description", "hardware", "published")
            and (v or k not in ("reclaim", "shrinkers", "latency"))
        },
        "workload": given,
        "trace": workload.trace_hash,
        "hardware": scenario.profile().label,
        "kmbench": _installed("kmbench"),
        "workload_plugin": version_of(plugins.origin(source)),
    }
    plans = []
    for strategy, values in zip(chosen, parameters, strict=True):
        identity = {
            **common,
            "strategy": strategy.name,
            "strategy_params": values,
            "strategy_plugin": version_of(plugins.origin(strategy)),
        }
        run_id = _digest(identity)
        plans.append(Plan(scenario, workload, strategy, values, identity, run_id, memory))
    return plans


def make_memory(scenario: Scenario, plugins: Plugins) -> Memory | None:
    """What the scenario says about reclaim: at most one shrinker and one listener; or None."""
    if not scenario.shrinkers and not scenario.reclaim:
        return None
    memory = Memory(scenario.reclaim_values())
    for name, given in scenario.shrinkers.items():
        shrinker = plugins.shrinker(name)
        where = f"{scenario.name}: shrinker {name}"
        values = parse_parameters(shrinker.parameters, given, where)
        known = memory.listener if shrinker.listener else memory.shrinker
        if known is not NO_SHRINKER:
            kind = "listener" if shrinker.listener else "shrinker"
            raise UsageProblem(f"{where}: a run has one {kind}, and {known.name} is given already")
        if shrinker.listener:
            memory = memory._replace(listener=shrinker, listener_parameters=values)
        else:
            memory = memory._replace(shrinker=shrinker, parameters=values)
    return memory


def replay(
    plan: Plan,
    progress: Progress = lambda strategy, nr, total: None,
    apart: Callable[[], None] | None = None,
) -> Outcome:
    """Make one run; `apart` has another process compile its engine, when none is on disk."""
    scenario, workload = plan.scenario, plan.workload
    return simulate(
        workload, plan.strategy, plan.parameters, scenario.seed, scenario.sample_ns(),
        scenario.teardown, lambda nr: progress(plan.strategy.name, nr, workload.nr_events),
        plan.memory, _prices(plan) if scenario.latency else None, apart,
    )  # fmt: skip


def _prices(plan: Plan) -> np.ndarray:
    """Nanoseconds of every path at the scenario's hardware, by row."""
    return path_prices(strategy_paths(plan.strategy, plan.parameters), plan.scenario.profile())


def perform(plan: Plan) -> tuple:
    """Make one run; its row, its tables and its timing, as :func:`write_run` takes them."""
    began = time.perf_counter()
    return collect(plan, replay(plan), began)


def store(plan: Plan, outcome: Outcome, out: str | Path, began: float) -> None:
    """Store one run that began at `began` (``time.perf_counter``)."""
    write_run(out, *collect(plan, outcome, began))


def collect(plan: Plan, outcome: Outcome, began: float) -> tuple:
    """A run's row, its tables and its timing."""
    setup = plan.workload.setup
    tables = {
        "timeline": timeline_table(outcome, setup, plan.run_id),
        "caches": cache_table(outcome, setup, plan.strategy, plan.run_id),
        "ops": op_table(outcome, plan.strategy, plan.parameters, plan.run_id),
        "failures": failure_table(outcome, plan.run_id),
    }
    if plan.scenario.latency:
        tables["latency"] = latency_table(outcome, setup, plan.run_id)
    if plan.memory:
        tables["accesses"] = access_table(outcome, setup, plan.run_id)
    return run_row(plan, outcome, tables), tables, timing_row(plan, outcome, began)


def run_row(plan: Plan, outcome: Outcome, tables: Mapping[str, Any]) -> dict[str, Any]:
    """The run's row: parameters, provenance, counts and metrics."""
    setup, k = plan.workload.setup, outcome.S.k[0]
    totals = outcome.totals
    nr_samples = totals.shape[1]
    unaccounted = np.zeros((nr_samples, NR_CAUSES), np.int64)
    unaccounted[:, 1:] = totals[8 : 7 + NR_CAUSES].T
    page_size = setup.machine.page_size
    metrics = summarise(
        tables["timeline"], tables["caches"], tables["ops"], page_size=page_size,
        allocs=int(k["nr_allocs"]), frees=int(k["nr_frees"]),
        failed_allocs=int(k["nr_failed"] - k["nr_no_id"]),
        unaccounted=unaccounted, owned=totals[7], metadata=totals[6],
        zombies=totals[ZOMBIES : ZOMBIES + 2], final=outcome.final,
        leak=None if outcome.leak_pages is None else outcome.leak_pages * page_size,
    )  # fmt: skip
    row = {
        **known_row(plan),
        "events": int(k["nr_events"]),
        "allocs": int(k["nr_allocs"]),
        "frees": int(k["nr_frees"]),
        "failed_no_pages": int(k["nr_failed_pages"]),
        "failed_limit": int(k["nr_failed_limit"]),
        "failed_no_group": int(
            k["nr_failed"] - k["nr_failed_pages"] - k["nr_failed_limit"] - k["nr_no_id"]
        ),
        "failed_no_id": int(k["nr_no_id"]),
        "skipped": int(k["nr_skipped"]),
        "status": "ok",
        "model_ns": outcome.model_ns,
        **metrics,
        **(latency_figures(tables["latency"]) if "latency" in tables else {}),
    }
    return row | price_run(row, tables["ops"], plan.scenario.profile())


def failed_row(plan: Plan, error: str, traceback: str) -> dict[str, Any]:
    """The row of a run that came to nothing: what was asked for, and what went wrong."""
    nothing = dict.fromkeys(
        ("events", "allocs", "frees", "failed_allocs", "skipped", "model_ns"), 0
    )
    row = {**known_row(plan), **nothing}
    return {**row, "status": "failed", "error": one_line(error), "traceback": traceback}


def known_row(plan: Plan) -> dict[str, Any]:
    """What is known of a run before it is made."""
    scenario, setup = plan.scenario, plan.workload.setup
    versions = {
        key: plan.identity[key] for key in ("kmbench", "workload_plugin", "strategy_plugin")
    }
    workload_identity = {
        key: plan.identity[key] for key in ("scenario", "workload", "trace", "workload_plugin")
    }
    return {
        "run_id": plan.run_id,
        "scenario": scenario.name,
        "scenario_params": _json(plan.identity["workload"]),
        "strategy": plan.strategy.name,
        "strategy_params": _json(plan.parameters),
        "allocator": scenario.allocator,
        "era": setup.era,
        "seed": scenario.seed,
        "workload": scenario.workload,
        "workload_hash": _digest(workload_identity),
        "trace_hash": plan.workload.trace_hash,
        "versions": _json(versions),
        "cpus": setup.machine.cpus,
        "nodes": setup.machine.nodes,
        "running": plan.workload.running or None,
        "think_ns": plan.workload.think_ns,
        "busy": plan.workload.busy or plan.workload.running or None,
        "groups": len(setup.groups),
        "hardware": scenario.profile().label,
    }


def timing_row(plan: Plan, outcome: Outcome, began: float) -> dict[str, Any]:
    """Wall-clock figures of the run; kept apart, since nothing else may depend on the clock."""
    timing: Timing = outcome.timing
    events = int(outcome.S.k["nr_events"][0])
    return {
        "run_id": plan.run_id,
        "events": events,
        "engine_s": timing.engine_s,
        "reader_s": timing.reader_s,
        "compile_s": timing.compile_s,
        "cache_hit": timing.cache_hit,
        "total_s": time.perf_counter() - began,
        "events_per_s": events / timing.engine_s if timing.engine_s else 0.0,
        "host": f"{platform.system()} {platform.machine()}",
        "when": datetime.now(UTC),
    }


def version_of(plugin: Loaded) -> str:
    """Name and version of where a plugin came from; a local file is known by its content."""
    if plugin.version != LOCAL:
        return _installed(plugin.distribution)
    path = Path(plugin.distribution)
    return f"{path.stem} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


@cache
def _installed(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return f"{distribution} (source)"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(value: Any) -> str:
    return hashlib.sha256(_json(value).encode()).hexdigest()[:16]
