"""Hardware profiles: what each counted operation costs on a machine, typed, from and to TOML.

The model counts operations (:mod:`kmbench.core.paths`); a profile says how long one takes.  Each
cost carries where it comes from, and measured ones their spread.  A profile is known by its name
and a hash of everything that a price or a simulated machine depends on.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kmbench.errors import UsageProblem, unknown

__all__ = ["COSTS", "DEFAULT", "Cost", "Profile", "load_profile", "profile_from", "profile_names"]

COSTS = {
    "br": "a data dependent branch, mispredicted as rarely as in the loops priced",
    "ptr_l1": "a dependent load that hits the first level cache",
    "ptr_l2": "a dependent load from the second level cache",
    "ptr_l3": "a dependent load from the last level cache",
    "ptr_memory": "a dependent load from memory",
    "pcpu": "an operation on this CPU's own data",
    "cas": "a compare and exchange on this CPU's data, without the lock prefix",
    "rcu": "entering and leaving an RCU read section",
    "irq": "interrupts off and on again",
    "atom": "an atomic operation on a line that this CPU has",
    "call": "a function call and its return, with what mitigations of speculation make of it",
    "spin": "taking and releasing a spin lock that is free and on a line that this CPU has",
    "alloc": "a nested allocation",
    "work": "queueing a work item",
    "line_core": "fetching a line that another thread of the core wrote",
    "line_socket": "fetching a line that another core of the socket wrote",
    "line_remote": "fetching a line that another socket wrote",
    "wait": "waiting for a lock that another CPU holds, besides fetching its line",
}
"""Every cost of a profile, in ns, and what it is."""

DEFAULT = "server"  # prices runs whose scenario names no hardware
_FOLDER = Path(__file__).parent / "profiles"
_LIMITS = {
    "cpus": (1, 4096), "nodes": (1, 256), "threads_per_core": (1, 16), "page_size": (4096, 65536)
}  # fmt: skip
MOST_NS = 1e6


class Cost(NamedTuple):
    """What one operation takes."""

    ns: float
    source: str
    """Where the number comes from, or how it was derived."""
    quartiles: tuple[float, float] | None = None
    """First and third quartile of the repeats (ns), when it was measured."""

    @property
    def spread(self) -> float | None:
        """How far the quartiles are apart, as a share of the median."""
        if self.quartiles is None or not self.ns:
            return None
        return (self.quartiles[1] - self.quartiles[0]) / self.ns


@dataclass(frozen=True)
class Profile:
    """A machine: its size and what operations cost on it."""

    name: str
    description: str
    costs: Mapping[str, Cost]
    cpus: int = 2
    nodes: int = 1
    threads_per_core: int = 1
    smt: float = 1.0
    """What a core gets done with all its threads busy, beside what it does with one."""
    page_size: int = 4096
    memory: str = "6 GiB"
    details: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the calibration that nothing is computed from."""

    def ns(self, cost: str) -> float:
        """The cost of :data:`COSTS` in ns."""
        return self.costs[cost].ns

    @cached_property
    def label(self) -> str:
        """Name and content hash: two machines never share one."""
        content = [self.cpus, self.nodes, self.threads_per_core, self.page_size, self.memory]
        content.append(self.smt)
        content.append({name: cost.ns for name, cost in sorted(self.costs.items())})
        text = json.dumps(content, sort_keys=True)
        return f"{self.name} {hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def scaled(self, factor: float, names: Collection[str] = tuple(COSTS)) -> Profile:
        """The same machine with the costs `names` times `factor`."""
        costs = {
            name: Cost(cost.ns * factor, f"{cost.source}; times {factor:.4g}")
            if name in names
            else cost
            for name, cost in self.costs.items()
        }
        return replace(self, costs=costs)

    def with_costs(self, ns: Mapping[str, float], source: str) -> Profile:
        """The same machine with other costs; UsageProblem names one that is wrong."""
        for name, value in ns.items():
            if name not in COSTS:
                raise unknown("cost", name, COSTS)
            _check_ns(value, name)
        changed = {name: Cost(float(value), source) for name, value in ns.items()}
        return replace(self, costs={**self.costs, **changed})

    def to_toml(self) -> str:
        """The profile as TOML that :func:`profile_from` reads back."""
        lines = [f"{f.name} = {_toml(getattr(self, f.name))}" for f in fields(self)
                 if f.name not in ("costs", "details")]  # fmt: skip
        if self.details:
            lines += ["", "[details]"]
            lines += [f"{name} = {_toml(value)}" for name, value in self.details.items()]
        lines += ["", "[costs]"]
        for name in COSTS:
            cost = self.costs[name]
            parts = [f"ns = {_toml(cost.ns)}"]
            if cost.quartiles:
                parts.append(f"quartiles = {_toml(list(cost.quartiles))}")
            parts.append(f"source = {_toml(cost.source)}")
            lines.append(f"{name} = {{ {', '.join(parts)} }}")
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, float):
        return repr(round(value, 4))
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=True)  # of these types JSON is TOML


@cache
def profile_names() -> list[str]:
    """Names of the profiles that come with kmbench."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_profile(name: str | Path, folder: str | Path = ".") -> Profile:
    """A profile by name, or from a TOML file (a name that ends in ``.toml``, from `folder`).

    Raises UsageProblem naming the file, the field and what was expected.
    """
    if str(name).endswith(".toml"):
        path = Path(folder, name)
    elif str(name) in profile_names():
        path = _FOLDER / f"{name}.toml"
    else:
        raise unknown("hardware profile", str(name), profile_names())
    try:
        stamp = path.stat()
    except FileNotFoundError:
        raise UsageProblem(f"{path}: no such hardware profile") from None
    except (OSError, ValueError) as error:
        raise UsageProblem(f"{path}: cannot be read: {error}") from None
    return _read_profile(path, (stamp.st_mtime_ns, stamp.st_size, stamp.st_ino))


@lru_cache(maxsize=16)
def _read_profile(path: Path, stamp: tuple[int, ...]) -> Profile:
    """The profile in a file; `stamp` changes with the file.  A sweep asks for it with every run."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageProblem(f"{path}: not TOML: {error}") from None
    return profile_from(values, str(path))


def profile_from(values: Mapping[str, Any], where: str) -> Profile:
    """A profile from the content of a TOML file; UsageProblem names the field that is wrong."""
    given = dict(values)
    known = {f.name for f in fields(Profile)}
    for name in given:
        if name not in known:
            raise unknown("key", name, known).within(where)
    for name in ("name", "description", "memory"):
        if not isinstance(given.get(name, "-"), str) or given.get(name) == "":
            raise UsageProblem(f"{where}: {name} = {given[name]!r}: expected a string")
    if not re.fullmatch(r"\d+ ?[KMGT]iB", given.get("memory", "1 GiB")):
        raise UsageProblem(f"{where}: memory = {given['memory']!r}: expected as in '16 GiB'")
    for name in ("name", "description"):
        if name not in given:
            raise UsageProblem(f"{where}: {name}: expected a string, there is none")
    for name, (low, high) in _LIMITS.items():
        value = given.get(name, low)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UsageProblem(
                f"{where}: {name} = {value!r}: expected a whole number, {low} to {high}"
            )
    smt, threads = given.get("smt", 1.0), given.get("threads_per_core", 1)
    number = isinstance(smt, (int, float)) and not isinstance(smt, bool)
    if not number or not 1 <= smt <= threads:  # also of nan
        raise UsageProblem(f"{where}: smt = {smt!r}: expected a number, 1 to threads_per_core")
    if given.get("page_size", 4096) & (given.get("page_size", 4096) - 1):
        raise UsageProblem(f"{where}: page_size = {given['page_size']}: expected a power of two")
    if given.get("nodes", 1) > given.get("cpus", 2):
        raise UsageProblem(f"{where}: nodes = {given['nodes']}: expected at most one a CPU")
    if not isinstance(given.get("details", {}), dict):
        raise UsageProblem(f"{where}: details: expected a table")
    given["costs"] = _costs(given.get("costs"), where)
    return Profile(**given)


def _costs(values: Any, where: str) -> dict[str, Cost]:
    if not isinstance(values, dict):
        raise UsageProblem(f"{where}: costs: expected a table of {', '.join(COSTS)}")
    for name in values:
        if name not in COSTS:
            raise unknown("cost", name, COSTS).within(where)
    costs = {}
    for name in COSTS:
        at = f"{where}: costs.{name}"
        cost = values.get(name)
        if not isinstance(cost, dict) or not {"ns", "source"} <= cost.keys():
            raise UsageProblem(f"{at}: expected {{ ns = NUMBER, source = TEXT }}")
        for key in cost:
            if key not in Cost._fields:
                raise unknown("key", key, Cost._fields).within(at)
        _check_ns(cost["ns"], f"{at}.ns")
        if not isinstance(cost["source"], str) or not cost["source"].strip():
            raise UsageProblem(f"{at}.source: expected where the number comes from")
        spread = cost.get("quartiles")
        if spread is not None:
            if not isinstance(spread, list) or len(spread) != 2:
                raise UsageProblem(f"{at}.quartiles: expected two numbers")
            for value in spread:
                _check_ns(value, f"{at}.quartiles")
            spread = (float(spread[0]), float(spread[1]))
        costs[name] = Cost(float(cost["ns"]), cost["source"], spread)
    return costs


def _check_ns(value: Any, at: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= MOST_NS:
        raise UsageProblem(f"{at} = {value!r}: expected nanoseconds, 0 to {MOST_NS:.0f}")
