"""A grid of runs, from a TOML file: what is varied, which points stay, and how often each is run.

Of such a file::

    scenario = "spread.toml"            # or a list; from the grid file's folder
    strategies = ["none", "linux-6.18"] # default: the scenario's, else all
    seeds = 3
    filters = ["workload.groups * machine.cpus <= 2000"]

    [product]                           # every combination
    "workload.groups" = [10, 100, 1000]
    "machine.cpus" = [1, 2, 4]
    "strategies.costa-2012.independent" = [true, false]

    [zip]                               # taken together, first with first
    "workload.size" = [64, 192]
    "workload.cache" = ["small", "dentry"]

the points are the combinations of `product`, each with every row of `zip`, that all `filters` keep.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kmbench.errors import UsageProblem, unknown
from kmbench.scenario import Scenario, read_scenario, scenario_from, set_values
from kmbench.sweep.filters import Filter

__all__ = ["Grid", "Point", "load_grid"]

MOST_POINTS = 10_000_000


@dataclass(frozen=True)
class Point:
    """One scenario of a grid, seed and all, and the strategies that run on it."""

    scenario: Scenario
    strategies: tuple[str, ...]
    values: Mapping[str, Any]  # of the keys that are varied


@dataclass(frozen=True)
class Grid:
    """What a grid file says."""

    name: str
    scenarios: tuple[Path, ...]
    strategies: tuple[str, ...] = ()
    seeds: int = 1
    product: Mapping[str, list] = field(default_factory=dict)
    zipped: Mapping[str, list] = field(default_factory=dict)
    filters: tuple[Filter, ...] = ()

    def combinations(self) -> Iterator[dict[str, Any]]:
        """The values of every point that the filters leave, in the order of the file."""
        together = [
            dict(zip(self.zipped, row, strict=True))
            for row in zip(*self.zipped.values(), strict=True)
        ] or [{}]
        for row in itertools.product(*self.product.values()):
            for zipped in together:
                values = dict(zip(self.product, row, strict=True)) | zipped
                if all(condition.keeps(values) for condition in self.filters):
                    yield values

    def digest(self) -> str:
        """What the grid asks for, as 16 hex digits; where it lies does not enter."""
        parts = [
            [path.read_text(encoding="utf-8") for path in self.scenarios], self.strategies,
            self.seeds, self.product, self.zipped, [condition.text for condition in self.filters],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def points(self, all_strategies: tuple[str, ...]) -> Iterator[Point]:
        """Every point, with `all_strategies` where neither grid nor scenario names any.

        Raises UsageProblem for a key or value that the scenario does not take.
        """
        read = [(path, read_scenario(path)) for path in self.scenarios]
        for path, content in read:
            for values in self.combinations():
                where = f"{self.name}: {path.name}"
                made = scenario_from(
                    set_values(deepcopy(content), values, where),
                    where, str(path.parent),
                )  # fmt: skip
                made = replace(made, name=content.get("name", path.stem))
                names = self.strategies or tuple(content.get("strategies", ())) or all_strategies
                self._check_used(values, names)
                for number in range(self.seeds):
                    yield Point(made.with_seed(seed_of(made, values, number)), names, values)

    def _check_used(self, values: Mapping[str, Any], names: tuple[str, ...]) -> None:
        for key in values:
            if key.startswith("strategies."):
                strategy = key.removeprefix("strategies.").rpartition(".")[0]
                if strategy not in names:
                    problem = unknown("strategy", strategy, names)
                    raise problem.within(f"{self.name}: {key} is not used")


def seed_of(scenario: Scenario, values: Mapping[str, Any], number: int) -> int:
    """The seed of a point's `number`-th run, from what the point is and from nothing else.

    Parameters of strategies do not enter: strategies are compared on the same events.
    """
    varied = {k: v for k, v in values.items() if not k.startswith("strategies.")}
    text = json.dumps([scenario.name, scenario.seed, varied, number], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def load_grid(path: str | Path) -> Grid:
    """Read a grid file.  Raises UsageProblem naming the file, the key and what is wrong."""
    path = Path(path)
    folder = path.resolve().parent  # workers may stand elsewhere
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageProblem(f"{path}: no such grid file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path}: cannot be read: {error}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageProblem(f"{path}: not TOML: {error}") from None
    known = {"scenario", "strategies", "seeds", "product", "zip", "filters"}
    if "workload" in content and "scenario" not in content:
        raise UsageProblem(f"{path}: a scenario, not a grid; `kmbench run` takes it")
    for key in content:
        if key not in known:
            raise unknown("key", key, known).within(str(path))
    scenarios = content.get("scenario", [])
    scenarios = [scenarios] if isinstance(scenarios, str) else _strings(path, content, "scenario")
    if not scenarios:
        raise UsageProblem(f"{path}: scenario: expected a scenario file, or a list of them")
    seeds = content.get("seeds", 1)
    if not isinstance(seeds, int) or isinstance(seeds, bool) or not 1 <= seeds <= 1_000_000:
        raise UsageProblem(f"{path}: seeds = {seeds!r}: expected a whole number, 1 to 1000000")
    product, zipped = (_axes(path, content, table) for table in ("product", "zip"))
    if twice := product.keys() & zipped.keys():
        raise UsageProblem(f"{path}: {min(twice)!r} is in both product and zip")
    if len({len(values) for values in zipped.values()}) > 1:
        lengths = ", ".join(f"{key} has {len(values)}" for key, values in zipped.items())
        raise UsageProblem(f"{path}: zip: expected equally many values, but {lengths}")
    count = seeds * len(scenarios)
    for values in (*product.values(), next(iter(zipped.values()), [0])):
        count *= len(values)
    if count > MOST_POINTS:
        raise UsageProblem(f"{path}: {count:,} points, at most {MOST_POINTS:,}")
    names = {*product, *zipped}
    filters = _strings(path, content, "filters")
    try:
        conditions = tuple(Filter(text, names) for text in filters)
    except UsageProblem as problem:
        raise problem.within(str(path)) from None
    return Grid(
        name=str(path),
        scenarios=tuple(folder / name for name in scenarios),
        strategies=tuple(_strings(path, content, "strategies")),
        seeds=seeds,
        product=product,
        zipped=zipped,
        filters=conditions,
    )


def _strings(path: Path, content: Mapping[str, Any], key: str) -> list[str]:
    values = content.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UsageProblem(f"{path}: {key}: expected a list of strings")
    return values


def _axes(path: Path, content: Mapping[str, Any], table: str) -> dict[str, list]:
    axes = content.get(table, {})
    if not isinstance(axes, dict):
        raise UsageProblem(f"{path}: {table}: expected a table")
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            hint = "; quote a dotted key" if isinstance(values, dict) else ""
            raise UsageProblem(f"{path}: {table}: {key}: expected a list of values{hint}")
        if key in ("name", "description", "published"):
            raise UsageProblem(f"{path}: {table}: {key}: no run depends on it")
        if key == "seed":
            raise UsageProblem(f"{path}: {table}: seed: use `seeds`, how many a point has")
        try:
            json.dumps(values)
        except (TypeError, ValueError):
            raise UsageProblem(
                f"{path}: {table}: {key}: expected numbers, strings, true or false"
            ) from None
    return axes
