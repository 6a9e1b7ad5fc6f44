"""Published figures that a scenario is compared with: the format, checked.

In a scenario file::

    [[published]]
    what = "64 B, accounted"              # words for the table
    figure = "linux-5.9:pair_ns"          # STRATEGY:METRIC, or two of them joined by " / " or " - "
    value = 67.98
    unit = "ns"
    source = "Waiman Long, 2021"          # who published it, where
    tolerance = 0.3                       # of the value
    set = { "workload.size" = 64 }        # changes of the scenario for this figure, as --set does
    against = { "workload.in_root" = true }  # more changes, for the second of two metrics only
    calibrates = true                     # not a prediction: the profile is scaled to meet it
    reason = "why it is missed"           # known and explained
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from kmbench.errors import UsageProblem, unknown

__all__ = ["Published", "Term", "published_from"]

_TERM = r"([^\s:]+):([a-z_0-9]+)"
_FIGURE = re.compile(rf"{_TERM}(?: ([/-]) {_TERM})?")


class Term(NamedTuple):
    """One metric of one strategy."""

    strategy: str
    metric: str


class Published(NamedTuple):
    """One figure that somebody published."""

    what: str
    figure: str
    value: float
    unit: str
    source: str
    tolerance: float = 0.3
    settings: Mapping[str, str] = {}
    against: Mapping[str, str] = {}
    """Settings of the second metric alone, where they differ."""
    calibrates: bool = False
    reason: str = ""

    @property
    def terms(self) -> tuple[list[Term], str]:
        """The metrics that the figure is made of, and what joins two: ``/``, ``-`` or nothing."""
        match = _FIGURE.fullmatch(self.figure)
        assert match
        terms = [Term(match[1], match[2])]
        if match[3]:
            terms.append(Term(match[4], match[5]))
        return terms, match[3] or ""

    def settings_of(self, term: int) -> dict[str, str]:
        """The scenario's changes for the first (0) or second (1) metric."""
        return {**self.settings, **(self.against if term else {})}


_KINDS = {
    "what": str, "figure": str, "value": float, "unit": str, "source": str, "tolerance": float,
    "set": dict, "against": dict, "calibrates": bool, "reason": str,
}  # fmt: skip
_NEEDED = ("what", "figure", "value", "unit", "source")
_WORDS = {str: "a string", float: "a number", dict: "a table", bool: "true or false"}


def published_from(values: Any, where: str) -> tuple[Published, ...]:
    """The ``[[published]]`` entries of a scenario; UsageProblem names the one that is wrong."""
    if not isinstance(values, list) or not all(isinstance(entry, dict) for entry in values):
        raise UsageProblem(f"{where}: published: expected [[published]] tables")
    entries = tuple(_entry(dict(e), f"{where}: published {i}") for i, e in enumerate(values, 1))
    if sum(entry.calibrates for entry in entries) > 1:
        raise UsageProblem(f"{where}: published: expected at most one entry that calibrates")
    return entries


def _entry(given: dict[str, Any], where: str) -> Published:
    for name, value in given.items():
        if name not in _KINDS:
            raise unknown("key", name, _KINDS).within(where)
        kind = _KINDS[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            given[name] = value = float(value)
        if not isinstance(value, kind):
            raise UsageProblem(f"{where}: {name} = {value!r}: expected {_WORDS[kind]}")
    for name in _NEEDED:
        if name not in given:
            raise UsageProblem(f"{where}: {name}: expected {_WORDS[_KINDS[name]]}, there is none")
    if not _FIGURE.fullmatch(given["figure"]):
        raise UsageProblem(
            f"{where}: figure = {given['figure']!r}: expected STRATEGY:METRIC, or two of them "
            "joined by ' / ' or ' - '"
        )
    if given.get("against") and not _FIGURE.fullmatch(given["figure"])[3]:
        raise UsageProblem(f"{where}: against: expected a figure of two metrics")
    if not given["value"]:
        raise UsageProblem(f"{where}: value: expected a number other than 0")
    settings, against = (
        {key: _text(value) for key, value in given.pop(name, {}).items()}
        for name in ("set", "against")
    )
    return Published(**given, settings=settings, against=against)


def _text(value: Any) -> str:
    """A value as ``--set`` takes it: a string stays one, whatever it looks like."""
    return json.dumps(value) if isinstance(value, bool | str) else str(value)
