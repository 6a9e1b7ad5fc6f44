"""Scenarios: what is run, from TOML or Python, typed and checked."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from kmbench.core.geometry import ERAS
from kmbench.core.vm import Reclaim
from kmbench.errors import UsageProblem, unknown
from kmbench.hardware.profile import DEFAULT, Profile, load_profile
from kmbench.parameters import Parameter, parse_parameters
from kmbench.published import Published, published_from
from kmbench.workload import Host

TIME = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_BYTES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
ALLOCATORS = ("slub", "slab")


def parse_quantity(text: Any, units: Mapping[str, int], where: str) -> int:
    """``"100 ms"`` or ``"2 GiB"`` as a whole number of the smallest unit."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if not match or match[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise UsageProblem(f"{where} = {text!r}: expected a number and a unit of {known}")
    return round(float(match[1]) * units[match[2]])


def scenario_files(folder: Path) -> list[Path]:
    """Every scenario below a folder; grids, ``*.grid.toml``, lie beside what they vary."""
    return sorted(p for p in folder.rglob("*.toml") if not p.name.endswith(".grid.toml"))


@dataclass(frozen=True)
class Machine:
    """The simulated machine."""

    cpus: int = 2
    nodes: int = 1
    memory: str = "6 GiB"
    page_size: int = 4096


@dataclass(frozen=True)
class Scenario:
    """One scenario: machine, allocator, workload and the strategies to compare.

    `workload` is the workload's name, `parameters` its parameters.  `strategies` maps strategy
    names to parameters that differ from their defaults; empty means every registered strategy.
    `shrinkers` (by name, with parameters) and `reclaim` (fields of :class:`kmbench.Reclaim`) have
    the run model what happens when memory runs out; without either it does not.
    `sample_every` is the model time between timeline samples ("0 ns": only where the workload asks
    for one).  `teardown` frees everything at the end and reports what stayed charged (metric A7).
    `latency` keeps histograms of what each allocation and free costs, by group (metrics T8, T9).
    `allocator` is "slub" or "slab", `era` the kernel release whose allocator it is, by default the
    last one that has it; a recording runs on SLUB in the era that it was recorded in.
    `hardware` is the profile that prices operations, by name or as a TOML file; a scenario file
    that names one simulates its machine, but for what ``[machine]`` says otherwise.  `published`
    are figures to compare with (:mod:`kmbench.published`).
    """

    name: str
    workload: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    machine: Machine = Machine()
    allocator: str = "slub"
    era: str = ""
    sample_every: str = "100 ms"
    seed: int = 0
    teardown: bool = False
    latency: bool = False
    strategies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shrinkers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reclaim: Mapping[str, Any] = field(default_factory=dict)
    hardware: str = DEFAULT
    published: tuple[Published, ...] = ()
    folder: str = "."

    def __post_init__(self) -> None:
        m = self.machine
        for name, value, low, high in (
            ("machine.cpus", m.cpus, 1, 256),
            ("machine.nodes", m.nodes, 1, m.cpus),
            ("machine.page_size", m.page_size, 4096, 65536),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UsageProblem(
                    f"{self.name}: {name} = {value!r}: expected a whole number, {low} to {high}"
                )
        if m.page_size & (m.page_size - 1):
            raise UsageProblem(
                f"{self.name}: machine.page_size = {m.page_size}: expected a power of two"
            )
        for name in ("teardown", "latency"):
            if not isinstance(given := getattr(self, name), bool):
                raise UsageProblem(f"{self.name}: {name} = {given!r}: expected true or false")
        if self.allocator not in ALLOCATORS:
            raise unknown("allocator", str(self.allocator), ALLOCATORS).within(self.name)
        if self.era and self.era not in ERAS:
            raise unknown("era", str(self.era), ERAS).within(self.name)
        if self.era and self.era not in self._eras():
            raise UsageProblem(
                f"{self.name}: era = {self.era!r}: SLAB was removed in 6.8; expected one of "
                f"{', '.join(self._eras())}"
            )
        if not 2**20 <= self.memory_bytes() <= 2**43:
            raise UsageProblem(f"{self.name}: machine.memory: expected 1 MiB to 8 TiB")
        self.sample_ns()
        self.reclaim_values()
        self.profile()

    def _eras(self) -> list[str]:
        """Eras that have the allocator, oldest first."""
        return [era.name for era in ERAS.values() if era.slab or self.allocator == "slub"]

    def kernel_era(self) -> str:
        """The era that the allocator is of: the one asked for, or the last that has it."""
        return self.era or self._eras()[-1]

    def profile(self) -> Profile:
        """The hardware profile that operations are priced with."""
        try:
            return load_profile(self.hardware, self.folder)
        except UsageProblem as problem:
            raise problem.within(f"{self.name}: hardware") from None

    def memory_bytes(self) -> int:
        """Size of memory in bytes."""
        return parse_quantity(self.machine.memory, _BYTES, f"{self.name}: machine.memory")

    def sample_ns(self) -> int:
        """Model time between samples in ns."""
        return parse_quantity(self.sample_every, TIME, f"{self.name}: sample_every")

    def reclaim_values(self) -> Reclaim:
        """The parameters of reclaim."""
        where = f"{self.name}: reclaim"
        declared = [
            Parameter(name, default, "", minimum=0)
            if not isinstance(default, str)
            else Parameter(name, default, "")
            for name, default in Reclaim()._asdict().items()
        ]
        given = dict(self.reclaim)
        if "swap" in given:
            size = parse_quantity(given.pop("swap"), _BYTES, f"{where}.swap")
            given["swap_pages"] = size // self.machine.page_size
        return Reclaim(**parse_parameters(declared, given, where))

    def host(self) -> Host:
        """What a workload needs to know."""
        m = self.machine
        pages = self.memory_bytes() // m.page_size
        return Host(m.cpus, m.nodes, pages, m.page_size, self.kernel_era(), self.seed, self.folder)

    def with_seed(self, seed: int) -> "Scenario":
        """The same scenario with another seed."""
        return replace(self, seed=seed)


def _typed(cls: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = {f.name: f for f in fields(cls)}
    for name, value in values.items():
        if name not in known or name == "folder":
            raise unknown("key", name, set(known) - {"folder"}).within(where)
        default = known[name].default
        if isinstance(default, (str, int)) and not isinstance(default, bool):
            if not isinstance(value, type(default)) or isinstance(value, bool):
                expected = "a string" if isinstance(default, str) else "a whole number"
                raise UsageProblem(f"{where}: {name} = {value!r}: expected {expected}")
    return dict(values)


def _table(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UsageProblem(f"{where}: expected a table")
    return dict(values)


def scenario_from(values: Mapping[str, Any], name: str, folder: str) -> Scenario:
    """A scenario from the content of a TOML file; `name` is used in messages and by default."""
    values = dict(values)
    if "workload" not in values and "scenario" in values:
        raise UsageProblem(f"{name}: a grid, not a scenario; `kmbench sweep` takes it")
    workload = _table(values.pop("workload", None), f"{name}: workload")
    plugin = workload.pop("plugin", None)
    if not isinstance(plugin, str):
        raise UsageProblem(f"{name}: workload.plugin: expected the name of a workload")
    published = published_from(values.pop("published", []), name)
    given_machine = _typed(Machine, _table(values.pop("machine", {}), f"{name}: machine"), name)
    machine = Machine(**given_machine)
    chosen = {
        kind: _table(values.pop(kind, {}), f"{name}: {kind}")
        for kind in ("strategies", "shrinkers")
    }
    for kind, tables in chosen.items():
        for key, parameters in tables.items():
            _table(parameters, f"{name}: {kind}.{key}")
    reclaim = _table(values.pop("reclaim", {}), f"{name}: reclaim")
    given = _typed(Scenario, {k: v for k, v in values.items() if k != "parameters"}, name)
    called = given.setdefault("name", name)
    if not isinstance(called, str) or not called.strip() or not called.isprintable():
        raise UsageProblem(f"{name}: name = {called!r}: expected words on one line")
    scenario = Scenario(
        workload=plugin, parameters=workload, machine=machine, reclaim=reclaim,
        folder=folder, published=published, **chosen, **given,
    )  # fmt: skip
    if "hardware" not in given:
        return scenario
    profile = scenario.profile()
    whole = {f.name: getattr(profile, f.name) for f in fields(Machine)} | given_machine
    return replace(scenario, machine=Machine(**whole))


def set_keys(values: dict[str, Any], settings: Mapping[str, str], name: str) -> dict[str, Any]:
    """Apply ``--set a.b=value`` settings to the content of a scenario."""
    return set_values(values, {key: _value(text) for key, text in settings.items()}, name)


def set_values(values: dict[str, Any], settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Set dotted keys in the content of a scenario."""
    for key, value in settings.items():
        at = values
        *path, last = key.split(".")
        if path and path[0] in ("strategies", "shrinkers"):  # a name may hold dots
            path, last = [path[0], ".".join(key.split(".")[1:-1])], path and last
        for part in path:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise UsageProblem(f"{name}: {key}: {part!r} is not a table")
        at[last] = value
    return values


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def read_scenario(path: Path) -> dict[str, Any]:
    """The content of a scenario file.  Raises UsageProblem if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageProblem(f"{path}: no such scenario file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"{path}: cannot be read: {error}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageProblem(f"{path}: not TOML: {error}") from None


def load_scenario(path: str | Path, settings: Mapping[str, str] | None = None) -> Scenario:
    """Read a scenario file.  Raises UsageProblem naming the file, the field and what is wrong."""
    path = Path(path)
    values = set_keys(read_scenario(path), settings or {}, str(path))
    try:
        scenario = scenario_from(values, str(path), str(path.parent))
    except UsageProblem as problem:
        if str(problem).startswith(f"{path}: "):
            raise
        raise problem.within(str(path)) from None  # the fields know the scenario's name alone
    return replace(scenario, name=values.get("name", path.stem))
