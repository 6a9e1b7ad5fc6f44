"""The design space: every composition of policies that plugins register, and who wins in it.

A point is a composition with parameters.  All are tried, or a random choice of them, or those that
a genetic search (NSGA-II, by optuna) asks for; each on every scenario, beside the registered
strategies.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from kmbench.analysis.pareto import on_front
from kmbench.analysis.pricing import price_runs
from kmbench.errors import UsageProblem
from kmbench.hardware.profile import Profile
from kmbench.plugins import Plugins
from kmbench.runs import make_plans
from kmbench.scenario import Scenario
from kmbench.store.catalogue import METRICS
from kmbench.store.dataset import Results
from kmbench.strategy import Strategy
from kmbench.sweep.plan import Job, Sweep, code_of

__all__ = ["AXES", "PRICED_AXES", "Design", "Space", "judge", "search"]

AXES = ("ops_per_alloc", "slab_bytes_mean", "charge_error_median", "unaccounted_share")
"""Overhead, waste, accuracy, and what escapes; lower is better for each.

The last is an axis of its own: what escapes would otherwise make up for what is charged in excess.
"""
PRICED_AXES = ("pair_ns", *AXES[1:])
"""The same where a hardware profile says what operations cost: ns of an allocation and its free."""
BASELINE = "none"


@dataclass(frozen=True)
class Design:
    """A registered strategy, or a composition with parameters."""

    strategy: str
    parameters: tuple[tuple[str, Any], ...] = ()


class Space:
    """The designs that can be chosen, and the registered ones beside them."""

    def __init__(self, plugins: Plugins, compositions: Sequence[str] = ()):
        """`compositions`: names; default all.  UsageProblem for one that does not exist."""
        for name in compositions:
            if name not in plugins.compositions:
                plugins.strategy(name)  # a name that is none at all
                raise UsageProblem(f"{name} is a strategy, not a composition: it has no choices")
        self.plugins = plugins
        self.families = [plugins.compositions[n] for n in compositions or plugins.compositions]
        if not self.families:
            raise UsageProblem("no plugin registers compositions")
        self.known = [Design(name) for name in sorted(plugins.strategies)]

    def designs(self) -> list[Design]:
        """Every composition, in the order of their parameters."""
        return [
            Design(family.name, tuple(zip(self._names(family), row, strict=True)))
            for family in self.families
            for row in itertools.product(*(values for _, values in choices(family)))
        ]

    def sample(self, count: int, seed: int) -> list[Design]:
        """`count` compositions at random, all of them if there are fewer."""
        everything = self.designs()
        return random.Random(seed).sample(everything, min(count, len(everything)))

    def words(self, design: Design) -> str:
        """How people name a design: what differs from the defaults of its family."""
        usual = {p.name: p.default for p in self.plugins.strategy(design.strategy).parameters}
        given = [
            value if isinstance(value, str) else name if value else f"no {name}"
            for name, value in design.parameters
            if value != usual[name]
        ]
        return f"{design.strategy}: {', '.join(given) or 'as it is'}" if design.parameters else (
            design.strategy
        )  # fmt: skip

    @staticmethod
    def _names(family: Strategy) -> list[str]:
        return [name for name, _ in choices(family)]

    def sweep(self, designs: Sequence[Design], scenarios: Sequence[Scenario], seeds: int) -> Sweep:
        """The runs of designs on scenarios, as a sweep."""
        jobs, known = [], set()
        for scenario in scenarios:
            for seed in range(scenario.seed, scenario.seed + seeds):
                for design in designs:
                    run_id, posed = self.run_of(design, scenario.with_seed(seed))
                    if run_id not in known:
                        known.add(run_id)
                        jobs.append(Job(posed, (design.strategy,), (run_id,)))
        used = {
            "strategy": dict.fromkeys(design.strategy for design in designs),
            "workload": dict.fromkeys(scenario.workload for scenario in scenarios),
            "shrinker": dict.fromkeys(name for one in scenarios for name in one.shrinkers),
        }
        return Sweep(jobs, "", code_of(self.plugins, used), 0.0)

    def run_of(self, design: Design, scenario: Scenario) -> tuple[str, Scenario]:
        """The id of a design's run, and the scenario that it is a run of."""
        given = {design.strategy: dict(design.parameters)} if design.parameters else {}
        posed = replace(scenario, strategies=given)
        (plan,) = make_plans(posed, [design.strategy], self.plugins)
        return plan.run_id, posed


def choices(family: Strategy) -> list[tuple[str, tuple]]:
    """The parameters of a composition that can be chosen, with their values."""
    return [
        (p.name, p.choices or (False, True))
        for p in family.parameters
        if p.choices or isinstance(p.default, bool)
    ]


def search(
    space: Space,
    trials: int,
    seed: int,
    evaluate: Callable[[list[Design]], dict[Design, tuple[float, ...] | None]],
    generation: int = 48,
) -> list[Design]:
    """Designs that NSGA-II came to in `trials` trials.

    `evaluate` runs a generation: the value of each design on every axis, None where it failed.
    Raises UsageProblem when optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UsageProblem(
            "--search nsga2: optuna is not installed: pip install 'kmbench[explore]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.NSGAIISampler(population_size=generation, seed=seed)
    study = optuna.create_study(directions=["minimize"] * len(AXES), sampler=sampler)
    seen: dict[Design, tuple[float, ...] | None] = {}
    for first in range(0, trials, generation):
        asked = [study.ask() for _ in range(min(generation, trials - first))]
        designs = [_suggest(trial, space) for trial in asked]
        new = list({design: None for design in designs if design not in seen})
        seen |= evaluate(new)
        for trial, design in zip(asked, designs, strict=True):
            values = seen[design]
            if values is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, values)
    return list(seen)


def _suggest(trial, space: Space) -> Design:
    names = [family.name for family in space.families]
    family = space.families[names.index(trial.suggest_categorical("family", names))]
    return Design(
        family.name,
        tuple(
            (name, trial.suggest_categorical(f"{family.name}.{name}", list(values)))
            for name, values in choices(family)
        ),
    )


def judge(
    results: Results, space: Space, designs: Sequence[Design], scenarios: Sequence[Scenario],
    seeds: int, hardware: Profile | None = None,
) -> pl.DataFrame:  # fmt: skip
    """One row a design: its axes, whether it is on the front, and who beats it.

    Columns: ``design``, ``parameters`` (JSON), ``historic``, AXES (means over scenarios and seeds;
    slab bytes as a ratio to strategy ``none``; with `hardware` PRICED_AXES), ``leak_bytes``,
    ``front``, ``front_historic`` (among the registered strategies alone), ``beaten_by``.  Designs
    with a failed run are left out.
    """
    axes = PRICED_AXES if hardware else AXES
    with results.reading():
        rows = results.runs.filter(pl.col("status") == "ok").collect()
        if hardware:
            rows = price_runs(rows, results.ops, hardware)
    by_id = {row["run_id"]: row for row in rows.iter_rows(named=True)}
    ids = {
        (design, s, n): space.run_of(design, scenario.with_seed(scenario.seed + n))[0]
        for s, scenario in enumerate(scenarios)
        for n in range(seeds)
        for design in designs
    }
    made = []
    for design in designs:
        points = []
        for s, n in itertools.product(range(len(scenarios)), range(seeds)):
            row, base = (by_id.get(ids.get((d, s, n), "")) for d in (design, Design(BASELINE)))
            if row is None or base is None:
                break
            points.append((
                row[axes[0]], row["slab_bytes_mean"] / base["slab_bytes_mean"],
                row["charge_error_median"], row["unaccounted_share"], row["leak_bytes"] or 0.0,
            ))  # fmt: skip
        if len(points) == len(scenarios) * seeds and None not in itertools.chain(*points):
            means = [sum(column) / len(points) for column in zip(*points, strict=True)]
            made.append((design, means))
    frame = pl.DataFrame(
        {
            "design": [space.words(design) for design, _ in made],
            "strategy": [design.strategy for design, _ in made],
            "parameters": [json.dumps(dict(design.parameters)) for design, _ in made],
            "historic": [not design.parameters for design, _ in made],
            **{
                name: [means[i] for _, means in made]
                for i, name in enumerate((*axes, "leak_bytes"))
            },
        }
    )
    metrics = [METRICS[name] for name in axes]
    # no accounting at all costs nothing and is not an answer
    contest = frame.filter(pl.col("strategy") != BASELINE)
    old = contest.filter("historic")
    contest = contest.with_columns(front=on_front(contest, metrics))
    fronts = dict(zip(old["design"], on_front(old, metrics), strict=True))
    historic = pl.col("design").replace_strict(fronts, default=None, return_dtype=pl.Boolean)
    return contest.with_columns(
        front_historic=historic,
        beaten_by=pl.Series(_winners(contest, axes), dtype=pl.String),
    ).sort("front", *axes, descending=[True] + [False] * len(axes))


def _winners(frame: pl.DataFrame, axes: Sequence[str] = AXES) -> list[str | None]:
    """For each row the design on the front that beats it on every axis, the nearest one."""
    rows = frame.select("design", *axes).rows()
    front = [row for row, on in zip(rows, frame["front"], strict=True) if on]
    found = []
    for row in rows:
        better = [
            other
            for other in front
            if other[1:] != row[1:] and all(a <= b for a, b in zip(other[1:], row[1:], strict=True))
        ]
        found.append(min(better, key=lambda other: sum(other[1:]))[0] if better else None)
    return found
