"""Published figures beside ours: runs the scenarios that carry them, prices, and judges.

An entry that ``calibrates`` is not a prediction.  It tells what the operations take that it
consists of, and no others: those costs of the profile are scaled by one factor such that this
figure is met, the rest stays as the profile has it, and all other figures of the scenario are then
priced.  So a calibration on what was measured without accounting predicts what accounting costs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl

from kmbench.analysis.compare import with_excess
from kmbench.analysis.metrics import select_metrics
from kmbench.analysis.pricing import PRICED, price_runs
from kmbench.analysis.tables import Column, Grid
from kmbench.errors import UsageProblem
from kmbench.hardware.profile import COSTS, Profile
from kmbench.plugins import Plugins
from kmbench.published import Published, Term
from kmbench.runs import run
from kmbench.scenario import Scenario, load_scenario

__all__ = [
    "CALIBRATED", "MET", "MISSED", "Counted", "Verdict", "consists_of", "count_all", "judge",
    "published_grid",
]  # fmt: skip

MET, MISSED, CALIBRATED = "met", "missed", "calibrated"
PART = 0.01  # of a figure: a cost with less of it is none that the figure could tell
Scales = Callable[["Counted", Published, Profile], Collection[str]]


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


def count_all(
    paths: Iterable[str | Path],
    plugins: Plugins,
    out: str | Path,
    progress: Callable[[str, int, int | None], None] = lambda strategy, nr, total: None,
    settings: Mapping[str, str] = MappingProxyType({}),
    costs: Mapping[str, float] = MappingProxyType({}),
) -> list[Counted]:
    """Run the scenarios at `paths` that carry published figures, under all settings wanted.

    `settings` (dotted key -> text) change all of them, also where a figure sets the same, `costs`
    (ns) the profile that each names.  Runs are stored in the dataset folder `out`.  Raises
    UsageProblem for bad input, and when no scenario has a figure.
    """
    loaded = [(path, load_scenario(path, settings)) for path in paths]
    loaded = [(path, scenario) for path, scenario in loaded if scenario.published]
    if not loaded:
        raise UsageProblem("none of the scenarios has [[published]] figures")
    for path, scenario in loaded:
        for entry in scenario.published:
            _check(entry, plugins, f"{path}: {entry.figure}")
    return [
        Counted(path, scenario, plugins, out, progress, settings, costs)
        for path, scenario in loaded
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


class Counted:
    """What one scenario counted under all the settings of its figures, priced with any profile."""

    def __init__(
        self,
        path: str | Path,
        scenario: Scenario,
        plugins: Plugins,
        out: str | Path,
        progress: Callable,
        settings: Mapping[str, str],
        costs: Mapping[str, float],
    ):
        self.scenario = scenario
        self.profile = scenario.profile()
        if costs:
            self.profile = self.profile.with_costs(costs, "given")
        wanted: dict[tuple, set[str]] = {}  # settings -> strategies
        for entry in scenario.published:
            for nr, term in enumerate(entry.terms[0]):
                wanted.setdefault(_key(entry, nr), set()).add(term.strategy)
        self._frames = {}
        for key, strategies in wanted.items():
            changed = replace(load_scenario(path, {**dict(key), **settings}), name=scenario.name)
            made = run(changed, sorted(strategies), out=out, plugins=plugins, progress=progress)
            with made.reading():
                of_these = pl.col("run_id").cast(pl.String).is_in(made.run_ids())
                self._frames[key] = (
                    made.runs.filter(of_these).collect(), made.ops.filter(of_these).collect()
                )  # fmt: skip
        self._priced: dict[tuple, pl.DataFrame] = {}

    def figure(self, entry: Published, profile: Profile) -> float | None:
        """Our figure for `entry` on a machine; None where our runs have none."""
        terms, sign = entry.terms
        values = [self._value(_key(entry, nr), term, profile) for nr, term in enumerate(terms)]
        if any(value is None for value in values):
            return None
        if not sign:
            return values[0]
        if sign == "-":
            return values[0] - values[1]
        return values[0] / values[1] if values[1] else None

    def _value(self, key: tuple, term: Term, profile: Profile) -> float | None:
        at = key, profile.label
        if at not in self._priced:
            runs, ops = self._frames[key]
            self._priced[at] = with_excess(price_runs(runs, ops.lazy(), profile).lazy()).collect()
        name = select_metrics([term.metric])[0].name
        return self._priced[at].filter(pl.col("strategy") == term.strategy)[name].mean()

    def time(self, entry: Published, profile: Profile) -> float:
        """Our figure as a time: of a rate its inverse, for times add up."""
        value = self.figure(entry, profile)
        return _as_time(entry, value) if value else 0.0

    def verdicts(
        self, profile: Profile | None = None, scales: Scales | None = None
    ) -> list[Verdict]:
        """Every figure beside ours, on a machine (default: the scenario's) that is calibrated where
        an entry does; `scales` says which costs that changes, :func:`consists_of` by default."""
        profile = profile or self.profile
        for entry in self.scenario.published:
            if entry.calibrates:
                profile = self._calibrated(profile, entry, scales or consists_of)
        return [
            Verdict(self.scenario.name, profile.label, entry, self.figure(entry, profile))
            for entry in self.scenario.published
        ]

    def _calibrated(self, profile: Profile, entry: Published, scales: Scales) -> Profile:
        names = scales(self, entry, profile)
        ours, rest = (self.time(entry, p) for p in (profile, profile.scaled(0, names)))
        wanted = _as_time(entry, entry.value)
        if ours <= rest or wanted <= rest:
            raise UsageProblem(
                f"{self.scenario.name}: {entry.what}: {profile.name} cannot be scaled to "
                f"{entry.value:g} {entry.unit}"
            )
        return profile.scaled((wanted - rest) / (ours - rest), names)


def consists_of(
    counted: Counted, entry: Published, profile: Profile, part: float = PART
) -> list[str]:
    """The costs that make up at least `part` of a figure."""
    whole = counted.time(entry, profile)
    return [
        name for name in COSTS
        if whole - counted.time(entry, profile.scaled(0, [name])) >= part * whole > 0
    ]  # fmt: skip


def _key(entry: Published, term: int) -> tuple:
    return tuple(sorted(entry.settings_of(term).items()))


def _as_time(entry: Published, value: float) -> float:
    rate = select_metrics([entry.terms[0][0].metric])[0].direction == "higher"
    return 1 / value if rate else value


def judge(
    paths: Iterable[str | Path],
    plugins: Plugins,
    out: str | Path,
    progress: Callable[[str, int, int | None], None] = lambda strategy, nr, total: None,
) -> list[Verdict]:
    """Count and compare every figure of the scenarios at `paths`; see :func:`count_all`."""
    return [
        verdict
        for counted in count_all(paths, plugins, out, progress)
        for verdict in counted.verdicts()
    ]


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
