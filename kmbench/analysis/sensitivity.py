"""What predictions of published figures lean on: every free choice changed, verdicts counted.

A cost of a profile is halved and doubled before the scenario calibrates, so what a calibration can
make up for it does.  The operations of a kind are multiplied by their cost, so this is as well what
half or twice as many of them would do.  And the rule which costs a calibration scales is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from kmbench.analysis.published import CALIBRATED, MET, Counted, Scales, Verdict, consists_of
from kmbench.analysis.tables import Column, Grid
from kmbench.errors import UsageProblem
from kmbench.hardware.profile import COSTS

__all__ = ["Outcome", "sensitivity", "sensitivity_grid"]

RULES: dict[str, Scales] = {
    "scaled: what the figure consists of": consists_of,
    "scaled: what makes up 5 % of it": lambda counted, entry, profile: consists_of(
        counted, entry, profile, 0.05
    ),
    "scaled: every cost": lambda counted, entry, profile: list(COSTS),
    "scaled: all but calls": lambda counted, entry, profile: [
        name for name in consists_of(counted, entry, profile) if name != "call"
    ],
}
FACTORS = (0.5, 2.0)


class Outcome(NamedTuple):
    """What became of all predictions under one change."""

    choice: str
    factor: float
    """1 for a rule, which is replaced."""
    met: int
    predictions: int
    median_error: float
    """Of |ours - published| / published."""
    changed: tuple[str, ...]
    """``SCENARIO: WHAT`` of every figure whose verdict is another than without the change."""


def sensitivity(counted: Iterable[Counted]) -> list[Outcome]:
    """The outcome without a change, under every rule, and under half and twice every cost."""
    counted = list(counted)

    def verdicts(cost: str = "", factor: float = 1.0, scales: Scales = consists_of):
        return [
            verdict
            for one in counted
            for verdict in one.verdicts(one.profile.scaled(factor, [cost]), scales)
        ]

    plain = verdicts()
    outcomes = []
    for choice, scales in RULES.items():
        outcomes.append(_outcome(choice, 1.0, verdicts(scales=scales), plain))
    for cost in COSTS:
        for factor in FACTORS:
            try:
                changed = verdicts(cost, factor)
            except UsageProblem:  # no factor reaches a calibrating figure
                changed = []
            outcomes.append(_outcome(cost, factor, changed, plain))
    return outcomes


def _outcome(choice: str, factor: float, verdicts: list[Verdict], plain: list[Verdict]) -> Outcome:
    told = [v for v in verdicts if v.verdict != CALIBRATED and v.error is not None]
    changed = tuple(
        f"{now.scenario}: {now.entry.what}"
        for now, then in zip(verdicts, plain, strict=bool(verdicts))
        if now.verdict != then.verdict
    )
    return Outcome(
        choice, factor, sum(v.verdict == MET for v in told), len(told),
        median(abs(v.error) for v in told) if told else float("nan"), changed,
    )  # fmt: skip


def sensitivity_grid(outcomes: list[Outcome]) -> Grid:
    """A row for every choice; costs that no prediction leans on are left out."""
    columns = [Column("choice", left=True), Column("met"), Column("error"),
               Column("met, doubled"), Column("error, doubled")]  # fmt: skip
    first = outcomes[0]
    rows = [[o.choice, f"{o.met} of {o.predictions}", f"{o.median_error:.1%}", "", ""]
            for o in outcomes if o.factor == 1]  # fmt: skip
    by_cost = {o.choice: {} for o in outcomes if o.factor != 1}
    for o in outcomes:
        if o.factor != 1:
            by_cost[o.choice][o.factor] = o
    idle = []
    for cost, (half, double) in ((c, (of[0.5], of[2.0])) for c, of in by_cost.items()):
        if half.median_error == double.median_error == first.median_error and not (
            half.changed or double.changed
        ):
            idle.append(cost)
            continue
        cells = [cell for o in (half, double)
                 for cell in (f"{o.met} of {o.predictions}", f"{o.median_error:.1%}")]  # fmt: skip
        rows.append([f"{cost} halved, doubled", *cells])
    notes = ["met: predictions within their tolerance; error: the median of |ours - published| / "
             "published over all of them"]  # fmt: skip
    if idle:
        notes.append(f"nothing changes with {', '.join(idle)}")
    return Grid("", columns, rows, notes=notes)
