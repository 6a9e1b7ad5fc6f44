"""Finds, loads and lists plugins.

Plugins are installed distributions with an entry point in the group ``kmbench``, or single local
files.  One that cannot be loaded is recorded and skipped; the others work.

``KMBENCH_PLUGINS`` loads only the entry points that match one of its comma-separated patterns,
``KMBENCH_PLUGINS_DISABLE`` leaves out those that match.
"""

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from zlib import crc32

import pluggy

from kmbench import hookspecs
from kmbench.errors import PluginProblem, UsageProblem, unknown
from kmbench.executor import ExecutorPlugin
from kmbench.shrinker import Shrinker
from kmbench.strategy import ABI, Strategy
from kmbench.workload import Workload

GROUP = "kmbench"
LOCAL = "local"  # version of what a file registers


@dataclass
class Loaded:
    """One plugin: where it came from, what it registered, or why it failed."""

    name: str
    distribution: str
    version: str
    module: str
    error: str = ""
    strategies: list[str] = field(default_factory=list)
    workloads: list[str] = field(default_factory=list)
    shrinkers: list[str] = field(default_factory=list)
    executors: list[str] = field(default_factory=list)
    compositions: list[str] = field(default_factory=list)

    @property
    def registered(self) -> list[str]:
        """The names of everything it registered."""
        everything = self.strategies + self.workloads + self.shrinkers
        return everything + self.executors + self.compositions


class Plugins:
    """All loaded plugins and what they registered, by name."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("kmbench")
        self.manager.add_hookspecs(hookspecs)
        self.loaded: list[Loaded] = []
        self.strategies: dict[str, Strategy] = {}
        self.workloads: dict[str, Workload] = {}
        self.shrinkers: dict[str, Shrinker] = {}
        self.compositions: dict[str, Strategy] = {}
        self.executors: dict[str, ExecutorPlugin] = {}
        self._origin: dict[tuple[type, str], Loaded] = {}
        self.files: tuple[str, ...] = ()  # local ones, as given

    def strategy(self, name: str) -> Strategy:
        """The strategy or composition of that name, else UsageProblem with a suggestion."""
        known = self.strategies | self.compositions
        if name not in known:
            raise unknown("strategy", name, known)
        return known[name]

    def workload(self, name: str) -> Workload:
        """The workload of that name, else UsageProblem with a suggestion."""
        if name not in self.workloads:
            raise unknown("workload", name, self.workloads)
        return self.workloads[name]

    def shrinker(self, name: str) -> Shrinker:
        """The shrinker of that name, else UsageProblem with a suggestion."""
        if name not in self.shrinkers:
            raise unknown("shrinker", name, self.shrinkers)
        return self.shrinkers[name]

    def executor(self, name: str) -> ExecutorPlugin:
        """The executor of that name, else UsageProblem with a suggestion."""
        if name not in self.executors:
            raise unknown("executor", name, self.executors)
        return self.executors[name]

    def origin(self, item: Strategy | Workload | Shrinker | ExecutorPlugin) -> Loaded:
        """The plugin that registered `item`."""
        return self._origin[type(item), item.name]

    @property
    def failed(self) -> list[Loaded]:
        """Plugins that could not be loaded."""
        return [plugin for plugin in self.loaded if plugin.error]

    def add(self, module: object, record: Loaded) -> None:
        """Register one imported plugin; whatever it raises is recorded, not passed on."""
        self.loaded.append(record)
        try:
            self.manager.register(module, name=record.module)
            hooks = {
                "kmbench_register_strategies": (Strategy, self.strategies, record.strategies),
                "kmbench_register_shrinkers": (Shrinker, self.shrinkers, record.shrinkers),
                "kmbench_register_workloads": (Workload, self.workloads, record.workloads),
                "kmbench_register_compositions": (
                    Strategy, self.compositions, record.compositions,
                ),
                "kmbench_register_executors": (ExecutorPlugin, self.executors, record.executors),
            }  # fmt: skip
            for hook, (kind, known, names) in hooks.items():
                if register_all := getattr(module, hook, None):
                    register_all(register=self._register(kind, known, names, record))
        except Exception as error:
            record.error = describe(error)

    def _register(self, kind: type, known: dict, names: list[str], record: Loaded):
        def register(item) -> None:
            if not isinstance(item, kind):
                raise PluginProblem(f"registered a {type(item).__name__}, not a {kind.__name__}")
            if item.abi != ABI:
                raise PluginProblem(f"{item.name!r} is written for abi {item.abi}, this is {ABI}")
            if (kind, item.name) in self._origin:
                owner = self._origin[kind, item.name].distribution
                raise PluginProblem(f"{item.name!r} is already registered by {owner}")
            known[item.name] = item
            names.append(item.name)
            self._origin[kind, item.name] = record

        return register


def describe(error: BaseException) -> str:
    """Type and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _wanted(name: str) -> bool:
    def matches(variable: str) -> bool:
        patterns = os.environ[variable].split(",")
        return any(fnmatchcase(name, pattern.strip()) for pattern in patterns)

    if "KMBENCH_PLUGINS" in os.environ and not matches("KMBENCH_PLUGINS"):
        return False
    return not ("KMBENCH_PLUGINS_DISABLE" in os.environ and matches("KMBENCH_PLUGINS_DISABLE"))


def _load_entry_point(plugins: Plugins, point: EntryPoint) -> None:
    name, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
    record = Loaded(point.name, name, version, point.value)
    try:
        module = point.load()
    except Exception as error:
        record.error = describe(error)
        plugins.loaded.append(record)
        return
    plugins.add(module, record)


def _load_file(plugins: Plugins, path: Path) -> None:
    if not path.is_file():
        raise UsageProblem(f"{path}: no such plugin file")
    # two files may have one name, and pickles and tracebacks look a module up by its own
    name = f"kmbench_local_{path.stem}_{crc32(os.fsencode(path.resolve())):08x}"
    record = Loaded(path.stem, str(path), LOCAL, name)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageProblem(f"{path}: expected a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        record.error = describe(error)
        plugins.loaded.append(record)
        return
    plugins.add(module, record)
    if not record.error and not record.registered:
        record.error = (
            "registers nothing; expected a function such as kmbench_register_strategies(register) "
            "that calls register(kmbench.Strategy(...))"
        )


def load_plugins(files: tuple[str | Path, ...] = ()) -> Plugins:
    """Load every installed plugin, in order of name, then the given local files."""
    plugins = Plugins()
    plugins.files = tuple(map(str, files))
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        if _wanted(point.name):
            _load_entry_point(plugins, point)
    for path in files:
        _load_file(plugins, Path(path))
    return plugins
