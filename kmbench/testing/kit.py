"""The checks, and how their findings are put into an author's words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kmbench.errors import PluginProblem, unknown
from kmbench.plugins import load_plugins

__all__ = ["CHECKS", "Finding", "check_strategies"]

CHECKS = {
    "types": "every hook compiles and returns what the host expects",
    "bounds": "hooks stay within the tables",
    "rows": "hooks return rows that exist",
    "counters": "no counter falls below zero, no count goes down",
    "conservation": "pages and bills add up after every event",
    "leak": "nothing stays charged once everything is gone",
    "plain": "plain Python gives what compiled code gives",
    "deterministic": "the same events give the same state",
    "speed": "an event takes at most so many times what it takes without a strategy",
    "cached": "a second process finds the compiled engine",
}
SLOWEST = 4.0  # times `none`, on the stream of the kit; designs of the kernel take 1.2 to 1.8
LONGEST_S = 300  # for one process of observation


class Finding(NamedTuple):
    """What one check found out about one strategy."""

    strategy: str
    check: str
    ok: bool
    message: str  # empty when ok


def check_strategies(
    names: Iterable[str], files: Iterable[str] = (), checks: Iterable[str] = ()
) -> list[Finding]:
    """Check strategies by name, installed or in local `files`; all CHECKS or only `checks`.

    Every strategy runs in processes of its own, so one that crashes or never ends is a finding.
    Raises UsageProblem for a name that does not exist.
    """
    wanted = list(checks) or list(CHECKS)
    for check in wanted:
        if check not in CHECKS:
            raise unknown("check", check, CHECKS)
    files = [str(file) for file in files]
    plugins = load_plugins(tuple(files))
    for failed in plugins.failed:
        if failed.distribution in files:
            raise PluginProblem(f"{failed.distribution}: {failed.error}")
    findings = []
    for name in names:
        plugins.strategy(name)
        problems = _problems(name, files, set(wanted))
        findings += [
            Finding(name, check, check not in problems, problems.get(check, ""))
            for check in wanted
        ]
    return findings


SEEN_PLAIN = ("bounds", "rows", "counters", "conservation", "leak", "plain")
SEEN_COMPILED = ("types", "plain", "deterministic", "speed", "cached")


def _problems(name: str, files: list[str], wanted: set[str]) -> dict[str, str]:
    """Message by check that failed.  What cannot be looked at any more fails as well."""
    found: dict[str, str] = {}
    if "cached" in wanted:
        found |= _prints(name, files)
    plain = None
    if wanted & {*SEEN_PLAIN, "speed"}:
        plain = _observe("plain", name, files)
        if "died" in plain:
            plain = {"problems": [{"check": "plain", "message": plain["died"]}]}
        for problem in plain["problems"]:
            found[problem["check"]] = problem["message"]
        if not plain.get("complete"):
            _unseen(found, SEEN_PLAIN, "it ends in plain Python")
    if wanted - found.keys() & {*SEEN_COMPILED}:
        compiled = _observe("compiled", name, files)
        if error := compiled.get("error") or compiled.get("died"):
            found.setdefault("types", error)
            _unseen(found, SEEN_COMPILED, "it does not run compiled")
        else:
            found |= _compiled(compiled, plain)
            if wanted & {"cached", "deterministic"} - found.keys():
                again = _second(compiled, _observe("compiled", name, files))
                found |= {check: text for check, text in again.items() if check not in found}
    return found


def _unseen(found: dict[str, str], checks: tuple[str, ...], why: str) -> None:
    for check in checks:
        found.setdefault(check, f"not looked at: {why}")


def _prints(name: str, files: list[str]) -> dict[str, str]:
    first, second = (_observe("prints", name, files) for _ in range(2))
    for hook, value in first.items():
        if second.get(hook) != value:
            return {
                "cached": f"{hook}: has another fingerprint in each process: it uses a value "
                f"that changes (a time, a process id, a random number){_line(name, files, hook)}"
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


def _observe(mode: str, name: str, files: list[str]) -> dict[str, Any]:
    """What a new process saw of the strategy; ``died`` says how it ended without seeing."""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1" if mode == "plain" else "0"}
    words = [sys.executable, "-X", "faulthandler", "-m", "kmbench.testing.observe", mode, name]
    for file in files:
        words += ["-p", file]
    try:
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"died": f"no end within {LONGEST_S} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["without a word"]
        return {"died": f"its process ended with {done.returncode}: {lines[-1]}"}
    return json.loads(done.stdout)[name]
