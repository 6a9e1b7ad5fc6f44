"""Keys of a scenario that its run would pass over: told, not ignored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kmbench.errors import UsageProblem
from kmbench.parameters import parse_parameters
from kmbench.plugins import Plugins
from kmbench.scenario import Scenario
from kmbench.workload import Host

__all__ = ["refuse_unused"]

ASKED_AS = {
    "machine.cpus": ("cpus",),
    "machine.nodes": ("nodes",),
    "machine.memory": ("memory_pages",),
    "machine.page_size": ("page_size", "memory_pages"),
    "era": ("era",),
}
"""Keys that reach a run through its workload alone, as fields of Host; any of them will do."""


class Asked(Host):
    """A Host that remembers which of its fields were looked at."""

    def __getattribute__(self, name: str) -> Any:
        if name in Host._fields:
            self.__dict__[name] = True
        return super().__getattribute__(name)

    def __iter__(self) -> Iterator[Any]:
        return iter([getattr(self, name) for name in Host._fields])

    def __getitem__(self, which: Any) -> Any:
        return tuple(self)[which]


def refuse_unused(scenario: Scenario, keys: Iterable[str], plugins: Plugins) -> None:
    """Raise UsageProblem for the first of `keys` that no run of `scenario` would look at.

    `keys` are dotted, as ``--set`` takes them.  A replay, for one, has the recorded machine.
    """
    through = [key for key in keys if key in ASKED_AS]
    if scenario.allocator == "slab":  # the host itself makes the caches of that era
        through = [key for key in through if key != "era"]
    if not through:
        return
    source = plugins.workload(scenario.workload)
    where = f"{scenario.name}: workload {source.name}"
    host = Asked(*scenario.host()._replace(workloads=plugins.workloads))
    source.open(parse_parameters(source.parameters, scenario.parameters, where), host)
    for key in through:
        if not vars(host).keys() & set(ASKED_AS[key]):
            what = "era" if key == "era" else "machine"
            raise UsageProblem(f"{where}: {key} is not used: it brings its own {what}")
