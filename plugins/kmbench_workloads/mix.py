"""Several workloads at once, each from its own time on, at its own share of its speed.

A part is a table ``[workload.parts.NAME]``: the workload's name as ``plugin``, its parameters, and

- ``start`` and ``stop``: when it begins, and from when on nothing of it is done ("1 s"; what it
  holds then, it keeps); without ``stop`` it runs to its own end;
- ``share``: how fast it runs, 1 = as alone, 0.5 = everything takes twice as long.

A part has groups of its own (``/NAME/...``) beside those of the others, caches of the same name are
one cache, and its random streams are its own: another part changes nothing in its events.  Events
are in the order of time, of the same time in the order of the parts.  A closed loop sees what
became of its own objects and groups.  A replay begins with a state of its own and cannot be part.
"""

from collections.abc import Iterator
from fractions import Fraction
from hashlib import sha256
from typing import NamedTuple

import numpy as np

from kmbench.core.access import PHASES
from kmbench.core.events import ACCESS, ALLOC, ATTACH, CG_CREATE, NR_OPS, SHRINK
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.state import State
from kmbench.errors import UsageProblem, unknown
from kmbench.parameters import Parameter, parse_parameters
from kmbench.scenario import TIME, parse_quantity
from kmbench.workload import Host, OpenWorkload, Workload

TASKS = 1 << 20  # numbers of tasks that a part has to itself
NEVER = np.iinfo(np.int64).max
OF_CACHE = np.isin(np.arange(NR_OPS), (ALLOC, ACCESS, SHRINK))  # ops whose field `cache` is a row
OF_PARENT = np.isin(np.arange(NR_OPS), (CG_CREATE, ATTACH))  # whose `arg` is a group


class Part(NamedTuple):
    """A workload in a mix, and where its rows and handles are there."""

    name: str
    source: OpenWorkload
    start: int
    stop: int
    share: Fraction
    handles: int  # its own: 1 .. handles - 1
    objects: int  # added to a handle
    groups: int  # added to the row of a group, but for the root
    caches: np.ndarray  # its row of a cache -> the mix's

    def moved(self, batch: np.ndarray, number: int) -> np.ndarray:
        """A copy of its events, as events of the mix; those after its end are left out."""
        events = batch.copy()
        events["t"] = self.start + events["t"] * self.share.denominator // self.share.numerator
        events = events[: np.searchsorted(events["t"], self.stop)]
        op = events["op"]
        events["obj"] += np.where(events["obj"] > 0, self.objects, 0).astype(np.int32)
        events["task"] += np.where(events["task"] > 0, number * TASKS, 0).astype(np.int32)
        events["memcg"] += np.where(events["memcg"] > 1, self.groups, 0).astype(np.int32)
        events["cache"] = np.where(
            OF_CACHE[op], self.caches[np.where(OF_CACHE[op], events["cache"], 0)], events["cache"]
        )
        above, arg = OF_PARENT[op] & (events["arg"] > 1), events["arg"]
        events["arg"] += np.where(above, self.groups, 0).astype(np.int32)
        events["arg"] += np.where((op == ACCESS) & (arg > 0), self.objects, 0).astype(np.int32)
        return events

    def seen(self, S: State) -> State:
        """The state as the part numbers it: its handles and groups."""
        sizes = {"memcg": 1, "user": 1, "counter": 2, "pool": 3, "stat": PHASES}
        views = {name: self.groups * rows for name, rows in sizes.items()}
        views |= {"obj": self.objects, "item": self.objects}
        return S._replace(
            **{name: getattr(S, name)[first:] for name, first in views.items() if hasattr(S, name)}
        )

    def batches(self, S: State, number: int) -> Iterator[np.ndarray]:
        """Its events, as events of the mix."""
        source = self.source.batches(self.seen(S))
        batch = self._first(source, S)
        while batch is not None:
            events = self.moved(batch, number)
            if len(events):
                yield events
            if len(events) < len(batch):
                return
            batch = next(source, None)

    def _first(self, source: Iterator[np.ndarray], S: State) -> np.ndarray | None:
        """Its first batch; a victim that it names is the group's row in the mix."""
        if not hasattr(S, "vm"):
            return next(source, None)
        victim = S.vm["victim"]
        before, victim[0] = int(victim[0]), 0
        batch = next(source, None)
        victim[0] = victim[0] + self.groups if victim[0] else before
        return batch


def in_order(sources: list[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """The events of all, by time; a source is asked for more when all that it gave is out."""
    waiting = [next(source, None) for source in sources]
    while any(batch is not None for batch in waiting):
        ready = min(int(batch["t"][-1]) for batch in waiting if batch is not None)
        out = []
        for i, batch in enumerate(waiting):
            if batch is not None:
                cut = int(np.searchsorted(batch["t"], ready, side="right"))
                out.append(batch[:cut])
                waiting[i] = batch[cut:]
        events = np.concatenate(out)
        yield events[np.argsort(events["t"], kind="stable")]
        for i, batch in enumerate(waiting):
            if batch is not None and not len(batch):
                waiting[i] = next(sources[i], None)


def _part_of(host: Host, name: str, given: object) -> tuple:
    """The workload of a part, opened, with start, stop and share."""
    where = f"workload mix: parts.{name}"
    if not isinstance(given, dict) or not isinstance(given.get("plugin"), str):
        raise UsageProblem(f"{where}: expected a table with plugin, the name of a workload")
    given = dict(given)
    plugin = given.pop("plugin")
    if plugin not in host.workloads:
        raise unknown("workload", plugin, host.workloads).within(where)
    if not name or "/" in name:
        raise UsageProblem(f"{where}: expected a name without /")
    start = parse_quantity(given.pop("start", "0 ns"), TIME, f"{where}: start")
    stop = given.pop("stop", None)
    stop = NEVER if stop is None else parse_quantity(stop, TIME, f"{where}: stop")
    if stop <= start:
        raise UsageProblem(f"{where}: stop: expected a time after start")
    share = Parameter("share", 1.0, "").parse(given.pop("share", 1.0), where)
    if not 0.001 <= share <= 1000:
        raise UsageProblem(f"{where}: share = {share}: expected 0.001 to 1000")
    workload = host.workloads[plugin]
    values = parse_parameters(workload.parameters, given, where)
    seed = int.from_bytes(sha256(f"{host.seed} {name}".encode()).digest()[:7], "little")
    source = workload.open(values, host._replace(seed=seed))
    if len(source.setup.initial_slabs) or source.trace_hash:
        raise UsageProblem(f"{where}: {plugin} begins with a state of its own: it cannot be a part")
    return source, start, stop, Fraction(share).limit_denominator(1000)


def open_mix(parameters: dict, host: Host) -> OpenWorkload:
    """All parts on one machine."""
    if not parameters["parts"]:
        raise UsageProblem("workload mix: parts: expected tables [workload.parts.NAME]")
    caches: dict[str, object] = {}
    groups = [GroupSpec("/", 0)]
    parts: list[Part] = []
    objects = 0
    for name, given in parameters["parts"].items():
        source, start, stop, share = _part_of(host, name, given)
        setup = source.setup
        for cache in setup.caches:
            if caches.setdefault(cache.name, cache) != cache:
                raise UsageProblem(
                    f"workload mix: parts.{name}: its cache {cache.name} has another size or other "
                    "flags than that of a part before"
                )
        rows = list(caches)
        moved = len(groups) - 1
        handles = setup.nr_objects // (2 if source.reclaims else 1)
        parts.append(
            Part(
                name,
                source,
                start,
                stop,
                share,
                handles,
                objects,
                moved,
                np.array([0, *(rows.index(c.name) + 1 for c in setup.caches)], np.int16),
            )
        )
        groups += [
            g._replace(
                name=f"/{name}{g.name}", parent=g.parent + moved if g.parent > 1 else g.parent
            )
            for g in setup.groups[1:]
        ]
        objects += handles
    reclaims = any(part.source.reclaims for part in parts)
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size), host.era,
        tuple(caches.values()), tuple(groups), max(objects + 1, 2) * (2 if reclaims else 1),
    )  # fmt: skip

    def batches(S: State) -> Iterator[np.ndarray]:
        return in_order([part.batches(S, number) for number, part in enumerate(parts)])

    return OpenWorkload(setup, batches, reclaims=reclaims)


mix = Workload(
    name="mix",
    description="several workloads at once, each from its own time on and at its own speed",
    source="machines that do more than one thing",
    open=open_mix,
    parameters=(Parameter("parts", {}, "tables, by name: plugin, start, stop, share, parameters"),),
)
