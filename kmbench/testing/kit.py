"""The checks, and how their findings are put into an author's words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kmbench.errors import PluginProblem, UsageProblem, unknown
from kmbench.plugins import Plugins, load_plugins
from kmbench.testing.capabilities import CAPABILITIES, undeclared
from kmbench.testing.observe import EVENT_S, TIMED_EVENTS

__all__ = ["CHECKS", "KINDS", "Finding", "check_plugins", "check_strategies"]

CHECKS = {
    "types": "every hook compiles and returns what the host expects",
    "bounds": "hooks stay within the tables",
    "fields": "what hooks store fits its field",
    "rows": "hooks return rows that exist",
    "counters": "no counter falls below zero, no count goes down",
    "conservation": "pages and bills add up after every event",
    "leak": "nothing stays charged once everything is gone",
    **{check: capability.words for check, capability in CAPABILITIES.items()},
    "plain": "plain Python gives what compiled code gives",
    "deterministic": "the same events give the same state",
    "speed": "an event takes at most so many times what it takes without a strategy",
    "cached": "a second process finds the compiled engine",
}
"""The checks of strategies, in the order of reports; those of CAPABILITIES where declared."""

WORKLOAD_CHECKS = {
    "machines": "it opens for machines of other sizes, or refuses them in one line",
    "events": "time never goes back, rows exist, and no event makes no sense",
    "announced": "it has as many events as it announces",
    "deterministic": "the same parameters and seed give the same events",
}
SHRINKER_CHECKS = {
    "runs": "every hook compiles and runs while memory is short",
    "conservation": "pages add up after every event",
    "useful": "it frees something, or hears of pressure",
    "deterministic": "the same events give the same state",
}
EXECUTOR_CHECKS = {
    "answers": "tasks answer, each its own caller",
    "errors": "what a task raises comes out of its future",
    "workers": "it counts its workers, and contains them if it says so",
    "ends": "no process is left once it is closed",
}

KINDS = {
    "strategy": CHECKS,
    "workload": WORKLOAD_CHECKS,
    "shrinker": SHRINKER_CHECKS,
    "executor": EXECUTOR_CHECKS,
}
"""The checks of every kind of plugin."""

SLOWEST = 4.0  # times `none`, on the stream of the kit; designs of the kernel take 1.2 to 1.8
LONGEST_S = 300  # for one process of observation, and for each further name in it


class Finding(NamedTuple):
    """What one check found out about one strategy, workload, shrinker or executor."""

    name: str
    check: str
    ok: bool
    message: str  # what is wrong, or why it was not looked at; else empty
    declared: bool = True  # False: the check is about something that it does not claim to do
    kind: str = "strategy"


def check_plugins(
    names: Iterable[str] = (),
    files: Iterable[str] = (),
    checks: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Check what plugins register, by name: strategies, workloads, shrinkers, executors.

    Without `names` everything that is installed or in the local `files`.  `checks`: only these,
    of those that a kind has.  `settings`: parameters of workloads and shrinkers.  Raises
    UsageProblem for a name or check that does not exist.
    """
    files, names, checks = [str(file) for file in files], list(names), list(checks)
    plugins = _loaded(files)
    known = {kind: sorted(registered(plugins, kind)) for kind in KINDS}
    wanted = {kind: [name for name in known[kind] if not names or name in names] for kind in KINDS}
    everywhere = [name for found in known.values() for name in found]
    for name in names:
        if name not in everywhere:
            raise unknown("plugin", name, everywhere)
    for check in checks:
        possible = [check for kind in KINDS if wanted[kind] for check in KINDS[kind]]
        if check not in possible:
            raise unknown("check", check, possible)
    findings: list[Finding] = []
    of_strategies = [check for check in checks if check in CHECKS]
    if wanted["strategy"] and (of_strategies or not checks):
        findings += check_strategies(wanted["strategy"], files, of_strategies)
    for kind in list(KINDS)[1:]:
        for name in wanted[kind]:
            findings += _check_other(kind, name, files, checks, settings or {})
    return findings


def registered(plugins: Plugins, kind: str) -> Iterable[str]:
    """The names that plugins register of a kind; compositions are strategies."""
    if kind == "strategy":
        return [*plugins.strategies, *plugins.compositions]
    return getattr(plugins, f"{kind}s")


def _loaded(files: Sequence[str]) -> Plugins:
    plugins = load_plugins(tuple(files))
    for failed in plugins.failed:
        if failed.distribution in files:
            raise PluginProblem(f"{failed.distribution}: {failed.error}")
    return plugins


def _check_other(
    kind: str, name: str, files: list[str], checks: list[str], settings: Mapping[str, Any]
) -> list[Finding]:
    """Check a workload, shrinker or executor in a process of its own."""
    words = ["kmbench.testing.others", kind, name, "--settings", json.dumps(dict(settings))]
    seen = _process(words, files, LONGEST_S)
    if "bad settings" in seen:
        raise UsageProblem(seen["bad settings"])
    findings = []
    for check in KINDS[kind]:
        if checks and check not in checks:
            continue
        message = seen.get("problems", {}).get(check, "") or seen.get("died", "")
        why = seen.get("passed over", "")
        findings.append(Finding(name, check, not message, message or why, not why, kind))
    return findings


def check_strategies(
    names: Iterable[str], files: Iterable[str] = (), checks: Iterable[str] = ()
) -> list[Finding]:
    """Check strategies by name, installed or in local `files`; all CHECKS or only `checks`.

    Strategies run in processes of their own, so one that crashes or never ends is a finding.
    Raises UsageProblem for a name that does not exist.
    """
    wanted = list(checks) or list(CHECKS)
    for check in wanted:
        if check not in CHECKS:
            raise unknown("check", check, CHECKS)
    files, names = [str(file) for file in files], list(names)
    plugins = _loaded(files)
    strategies = {name: plugins.strategy(name) for name in names}
    seen = _Observed(names, files)
    findings = []
    for name, strategy in strategies.items():
        apart = {check: undeclared(strategy, check) for check in wanted}
        problems = _problems(name, seen, {check for check in wanted if not apart[check]})
        findings += [
            Finding(name, check, check not in problems or bool(why), why or problems.get(check, ""),
                    not why)
            for check, why in apart.items()
        ]  # fmt: skip
    return findings


SEEN_PLAIN = (
    "bounds", "fields", "rows", "counters", "conservation", "leak", *CAPABILITIES, "plain",
)  # fmt: skip
SEEN_COMPILED = ("types", "plain", "deterministic", "speed", "cached")


class _Observed:
    """What processes saw of strategies: of all of them in one process where that is possible."""

    def __init__(self, names: list[str], files: list[str]):
        self.names, self.files = names, files
        self.seen: dict[tuple[str, int], dict[str, Any]] = {}

    def of(self, mode: str, name: str, number: int = 0) -> dict[str, Any]:
        """What process `number` in `mode` saw; ``died`` says how it ended without seeing."""
        if (mode, number) not in self.seen:
            seen = self._all(mode, self.names)
            if "died" in seen and len(self.names) == 1:
                seen = {self.names[0]: seen}
            for missing in [name for name in self.names if name not in seen]:
                one = self._all(mode, [missing])
                seen[missing] = one if "died" in one else one[missing]
            self.seen[mode, number] = seen
        return self.seen[mode, number][name]

    def _all(self, mode: str, names: list[str]) -> dict[str, Any]:
        plain = {"NUMBA_DISABLE_JIT": "1" if mode == "plain" else "0"}
        words = ["kmbench.testing.observe", mode, *names]
        return _process(words, self.files, LONGEST_S * len(names), plain)


def _problems(name: str, observed: _Observed, wanted: set[str]) -> dict[str, str]:
    """Message by check that failed.  What cannot be looked at any more fails as well."""
    found: dict[str, str] = {}
    if "cached" in wanted:
        found |= _prints(name, observed)
    plain = None
    if wanted & {*SEEN_PLAIN, "speed"}:
        plain = observed.of("plain", name)
        if "died" in plain:
            plain = {"problems": [{"check": "plain", "message": plain["died"]}]}
        for problem in plain["problems"]:
            found[problem["check"]] = problem["message"]
        if not plain.get("complete"):
            _unseen(found, SEEN_PLAIN, "it does not get through as plain Python")
    if plain and plain.get("endless"):
        _unseen(found, SEEN_COMPILED, "it does not get through as plain Python")
    elif wanted - found.keys() & {*SEEN_COMPILED}:
        compiled = observed.of("compiled", name)
        if "endless" in compiled:
            found.setdefault("types", _endless(compiled["endless"], observed.of("plain", name)))
            _unseen(found, SEEN_COMPILED, "it does not end compiled")
        elif error := compiled.get("error") or compiled.get("died"):
            found.setdefault("types", error)
            _unseen(found, SEEN_COMPILED, "it does not run compiled")
        else:
            found |= _compiled(compiled, plain)
            if wanted & {"cached", "deterministic"} - found.keys():
                again = _second(compiled, observed.of("compiled", name, 1))
                found |= {check: text for check, text in again.items() if check not in found}
    return found


def _endless(event: int, plain: Mapping[str, Any]) -> str:
    """What is known of compiled code that does not end at an event, or with -1 at one of many."""
    if event < 0:
        return f"compiled, {TIMED_EVENTS:,} events do not end within {EVENT_S} s of CPU time"
    ran = plain["ran"][event] if plain.get("complete") else []
    hooks = ", ".join(plain["places"][hook] for hook in ran) or "a hook"
    return f"{hooks}: compiled, event {event} does not end within {EVENT_S} s of CPU time"


def _unseen(found: dict[str, str], checks: tuple[str, ...], why: str) -> None:
    for check in checks:
        found.setdefault(check, f"not looked at: {why}")


def _prints(name: str, observed: _Observed) -> dict[str, str]:
    first, second = (observed.of("prints", name, number) for number in range(2))
    for hook, value in first.items():
        if second.get(hook) != value:
            return {
                "cached": f"{hook}: has another fingerprint in each process: it uses a value "
                f"that changes (a time, a process id, a random number)"
                f"{_line(name, observed.files, hook)}"
            }
    return {}


def _line(name: str, files: list[str], hook: str) -> str:
    """``; file:line`` of a hook."""
    from kmbench.strategy import place

    hooks = load_plugins(tuple(files)).strategy(name).hooks
    return f"; {place(hooks[hook])}" if hook in hooks else ""


def _compiled(compiled: Mapping[str, Any], plain: Mapping[str, Any] | None) -> dict[str, str]:
    wrong: dict[str, str] = {}
    if compiled["digests"] != compiled["again"]:
        event = _first_difference(compiled["digests"], compiled["again"])
        wrong["deterministic"] = f"event {event}: the same events twice give another state"
    ratio = compiled["ns"] / compiled["none_ns"]
    if ratio > SLOWEST:
        most = f"; most of it in {plain['slowest']}" if plain and "slowest" in plain else ""
        wrong["speed"] = (
            f"{compiled['ns']:.0f} ns an event, {ratio:.1f} times none, at most {SLOWEST:g}{most}"
        )
    if plain and plain.get("complete"):
        event = _first_difference(plain["digests"], compiled["digests"])
        if event is not None:
            hooks = ", ".join(plain["places"][hook] for hook in plain["ran"][event])
            wrong["plain"] = (
                f"{hooks or 'prepare or a table'}: event {event} gives another state as plain "
                f"Python than compiled"
            )
    return wrong


def _second(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, str]:
    wrong: dict[str, str] = {}
    if not second.get("cache_hit"):
        wrong["cached"] = "a second process compiled the engine again"
    if first["digests"] != second.get("digests"):
        event = _first_difference(first["digests"], second.get("digests", []))
        wrong["deterministic"] = f"event {event}: two processes come to another state"
    return wrong


def _first_difference(first: list, second: list) -> int | None:
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return i
    return None if len(first) == len(second) else min(len(first), len(second))


def _process(
    words: list[str], files: list[str], longest_s: float, environment: Mapping[str, str] = {}
) -> dict[str, Any]:
    """What a new process ``python -m WORDS...`` printed; ``died`` says how it ended without."""
    words = [sys.executable, "-X", "faulthandler", "-m", *words]
    for file in files:
        words += ["-p", file]
    try:
        done = subprocess.run(
            words, env={**os.environ, **environment}, capture_output=True, text=True,
            timeout=longest_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"died": f"no end within {longest_s} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["without a word"]
        return {"died": f"its process ended with {done.returncode}: {lines[-1]}"}
    return json.loads(done.stdout)
