"""Published figures beside ours: runs the scenarios that carry them, prices, and judges.

An entry that ``calibrates`` is not a prediction.  The costs of the profile, but for its ``FIXED``
ones, are scaled by one factor such that this figure is met; all other figures of the scenario are
then priced with it.  So a calibration on what was measured without accounting predicts what
accounting costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from kmbench.analysis.compare import load_runs
from kmbench.analysis.metrics import select_metrics
from kmbench.analysis.pricing import PRICED
from kmbench.analysis.tables import Column, Grid
from kmbench.errors import UsageProblem
from kmbench.hardware.profile import Profile
from kmbench.plugins import Plugins
from kmbench.published import Published, Term
from kmbench.runs import run
from kmbench.scenario import Scenario, load_scenario
from kmbench.store.dataset import Results

__all__ = ["CALIBRATED", "MET", "MISSED", "Verdict", "judge", "published_grid"]

MET, MISSED, CALIBRATED = "met", "missed", "calibrated"


class Verdict(NamedTuple):
    """One published figure and ours."""

    scenario: str
    hardware: str
    entry: Published
    ours: float | None
    """None where our run has no such figure."""

    @property
    def error(self) -> float | None:
        """How far ours is off, as a share of the published value."""
        value = self.entry.value
        return None if self.ours is None else (self.ours - value) / abs(value)

    @property
    def verdict(self) -> str:
        """Whether the figure is met within its tolerance, missed, or was calibrated on."""
        if self.entry.calibrates:
            return CALIBRATED
        within = self.error is not None and abs(self.error) <= self.entry.tolerance
        return MET if within else MISSED

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        entry = self.entry._asdict()
        names = {"ours": self.ours, "error": self.error, "verdict": self.verdict}
        return {"scenario": self.scenario, "hardware": self.hardware, **entry, **names}


def judge(
    paths: Iterable[str | Path],
    plugins: Plugins,
    out: str | Path,
    progress: Callable[[str, int, int | None], None] = lambda strategy, nr, total: None,
) -> list[Verdict]:
    """Run the scenarios at `paths` that carry published figures and compare every one.

    Runs are stored in the dataset folder `out`.  Raises UsageProblem for bad input, and when no
    scenario has a figure.
    """
    loaded = [(path, load_scenario(path)) for path in paths]
    loaded = [(path, scenario) for path, scenario in loaded if scenario.published]
    if not loaded:
        raise UsageProblem("none of the scenarios has [[published]] figures")
    for path, scenario in loaded:
        for entry in scenario.published:
            _check(entry, plugins, f"{path}: {entry.figure}")
    return [
        verdict
        for path, scenario in loaded
        for verdict in _judge_one(path, scenario, plugins, out, progress)
    ]


def _check(entry: Published, plugins: Plugins, where: str) -> None:
    terms, _ = entry.terms
    try:
        for term in terms:
            plugins.strategy(term.strategy)
        metrics = select_metrics([term.metric for term in terms])
    except UsageProblem as problem:
        raise problem.within(where) from None
    if entry.calibrates and (len(terms) > 1 or metrics[0].name not in PRICED):
        raise UsageProblem(f"{where}: expected one metric of {', '.join(PRICED)} to calibrate on")


def _judge_one(
    path: str | Path, scenario: Scenario, plugins: Plugins, out: str | Path, progress: Callable
) -> list[Verdict]:
    made: dict[tuple, Results] = {}
    wanted: dict[tuple, set[str]] = {}  # settings -> strategies
    for entry in scenario.published:
        for nr, term in enumerate(entry.terms[0]):
            key = tuple(sorted(entry.settings_of(nr).items()))
            wanted.setdefault(key, set()).add(term.strategy)

    def results(settings: dict[str, str]) -> Results:
        """The runs of all strategies wanted under these settings, made once."""
        key = tuple(sorted(settings.items()))
        if key not in made:
            changed = replace(load_scenario(path, settings), name=scenario.name)
            made[key] = run(
                changed, sorted(wanted[key]), out=out, plugins=plugins, progress=progress
            )
        return made[key]

    profile = scenario.profile()
    for entry in scenario.published:
        if entry.calibrates:
            profile = calibrated(profile, entry, results)
    return [
        Verdict(scenario.name, profile.label, entry, _figure(entry, results, profile))
        for entry in scenario.published
    ]


def calibrated(
    profile: Profile, entry: Published, results: Callable[[dict[str, str]], Results]
) -> Profile:
    """`profile` scaled such that `entry` is met, where no line between CPUs has a part in it."""
    ours, fixed = (_figure(entry, results, p) for p in (profile, profile.scaled(0)))
    value = entry.value
    if ours is None or fixed is None or ours == fixed:
        raise UsageProblem(f"{entry.figure}: no value to calibrate on")
    (term,), _ = entry.terms
    if select_metrics([term.metric])[0].direction == "higher":  # a rate: its inverse adds up
        value, ours, fixed = 1 / value, 1 / ours, 1 / fixed if fixed else 0.0
    return profile.scaled((value - fixed) / (ours - fixed))


def _figure(
    entry: Published, results: Callable[[dict[str, str]], Results], profile: Profile
) -> float | None:
    terms, sign = entry.terms
    values = [_value(results(entry.settings_of(nr)), term, profile)
              for nr, term in enumerate(terms)]  # fmt: skip
    if any(value is None for value in values):
        return None
    if not sign:
        return values[0]
    if sign == "-":
        return values[0] - values[1]
    return values[0] / values[1] if values[1] else None


def _value(results: Results, term: Term, profile: Profile) -> float | None:
    runs = load_runs(results, results.run_ids(), hardware=profile)
    name = select_metrics([term.metric])[0].name
    return runs.filter(pl.col("strategy") == term.strategy)[name].mean()


def published_grid(verdicts: list[Verdict]) -> Grid:
    """The table of `verdicts`, reasons for known misses below."""
    columns = [Column("figure", left=True), Column("published"), Column("ours"),
               Column("error (allowed)"), Column("verdict", left=True)]  # fmt: skip
    rows, notes, reasons = [], [], []
    last = ""
    for v in verdicts:
        if v.scenario != last:
            rows.append([f"{v.scenario} ({v.hardware})", *[""] * 4])
            sources = {e.entry.source for e in verdicts if e.scenario == v.scenario}
            notes += [f"{v.scenario}: {source}" for source in sorted(sources)]
            last = v.scenario
        mark = ""
        if v.verdict == MISSED and v.entry.reason:
            if v.entry.reason not in reasons:
                reasons.append(v.entry.reason)
            mark = f" [{reasons.index(v.entry.reason) + 1}]"
        ours = "-" if v.ours is None else _number(v.ours)
        error = "-" if v.error is None else f"{v.error:+.0%}"
        if v.verdict != CALIBRATED:
            error += f" ({v.entry.tolerance:.0%})"
        value = f"{_number(v.entry.value)} {v.entry.unit}".replace(" /", "/")
        rows.append([f"  {v.entry.what}", value, ours, error, v.verdict + mark])
    told = [v.verdict for v in verdicts if v.verdict != CALIBRATED]
    notes = [f"{told.count(MET)} of {len(told)} predictions met", *notes]
    notes += [f"[{i}] {reason}" for i, reason in enumerate(reasons, 1)]
    return Grid("", columns, rows, notes=notes)


def _number(value: float) -> str:
    for limit, letter in ((1e9, " G"), (1e6, " M")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
