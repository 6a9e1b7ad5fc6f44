"""`kmbench run --watch`: the model's caches and groups while a run goes, as slabtop shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kmbench.analysis.metrics import format_bytes
from kmbench.core.events import COUNTER_KMEM, COUNTER_MEMORY
from kmbench.core.state import ONLINE, RELEASED, State
from kmbench.tabulate import cache_names

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from kmbench.runs import Plan

__all__ = ["CacheLine", "GroupLine", "Watch", "cache_lines", "group_lines", "watching"]

INTERVAL = 0.25  # seconds between two pictures
OTHER_LINES = 8  # of the picture: headline, heads of tables, gaps


class CacheLine(NamedTuple):
    """One cache, in slabtop's columns."""

    name: str
    objects: int
    live: int
    slot: int
    slabs: int
    bytes: int


class GroupLine(NamedTuple):
    """One group: what it is charged, what its own tasks use."""

    name: str
    charged: int
    used: int
    objects: int
    failcnt: int


def cache_lines(S: State, plan: Plan) -> list[CacheLine]:
    """Caches with slabs, copies included, the largest first."""
    setup = plan.workload.setup
    k = S.k[0]
    rows = S.cache[1 : int(k["nr_caches"])]
    live = S.cpu["live"].reshape(-1, int(k["nr_cpus"]))[1 : len(rows) + 1].sum(axis=1)
    held = rows["nr_slabs"] << rows["order"]
    lines = [
        CacheLine(name, int(c["num_objs"]), int(alive), int(c["slot"]), int(c["nr_slabs"]),
                  int(pages) * setup.machine.page_size)
        for name, c, alive, pages in zip(
            cache_names(S, setup, plan.strategy), rows, live, held, strict=True
        )
        if c["nr_slabs"]
    ]  # fmt: skip
    return sorted(lines, key=lambda line: (-line.bytes, line.name))


def kernel_pages(S: State) -> np.ndarray:
    """Pages that each row of groups is charged for kernel memory, whichever counter carries them.

    As samples have it (:func:`kmbench.core.sample.write_sample`): the memory counter also holds
    user pages and what CPUs have in stock.
    """
    usage = S.counter["usage"].reshape(-1, 2)
    other = np.bincount(S.stock["memcg"], S.stock["nr"], len(usage)).astype(np.int64)
    if "pool" in S._fields:
        other += S.pool["nr"].reshape(-1, 3).sum(axis=1)
    memory = usage[:, COUNTER_MEMORY].copy()
    for m in range(2, len(usage)):
        above = m
        while above > 0:
            memory[above] -= other[m]
            above = S.memcg["parent"][above]
    return np.maximum(usage[:, COUNTER_KMEM], memory)


def group_lines(S: State, plan: Plan) -> list[GroupLine]:
    """Groups that exist, the one that is charged most first."""
    setup, k = plan.workload.setup, S.k[0]
    charged = kernel_pages(S) * int(k["page_size"])
    state = S.memcg["state"][: int(k["nr_groups"])]
    lines = []
    for m in np.flatnonzero((state >= ONLINE) & (state < RELEASED)).tolist():
        group, kmem = S.memcg[m], S.counter[2 * m + COUNTER_KMEM]
        lines.append(
            GroupLine(
                setup.groups[m - 1].name, int(charged[m]),
                int(group["true_slab"] + group["true_pages"]), int(group["objects"]),
                int(kmem["failcnt"]),
            )
        )  # fmt: skip
    return sorted(lines, key=lambda line: (-max(line.charged, line.used), line.name))


class Watch:
    """Called after every batch of events; shows a picture now and then."""

    def __init__(self, console: Console, interval: float = INTERVAL) -> None:
        from rich.live import Live

        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.interval = interval
        self._next = 0.0
        self._began = 0.0
        self._before = 0  # events of the first batch, which had no beginning
        self._plan: Plan | None = None

    def __call__(self, plan: Plan, S: State) -> None:
        now = time.monotonic()
        if plan is not self._plan:
            self._plan, self._began, self._before = plan, now, int(S.k[0]["nr_events"])
        if now >= self._next:
            self._next = now + self.interval
            self.live.update(self.picture(plan, S, now - self._began), refresh=True)

    def picture(self, plan: Plan, S: State, seconds: float) -> RenderableType:
        """Headline, caches and groups."""
        from rich.console import Group
        from rich.table import Table

        k = S.k[0]
        done, total = int(k["nr_events"]), plan.workload.nr_events
        rate = (done - self._before) / seconds if seconds else 0.0
        words = f"{plan.scenario.name}, {plan.strategy.name}: {done:,} events"
        if total:
            words += f" of {total:,}"
        words += f", {k['now'] / 1e9:.3f} s of model time"
        if rate:
            words += f", {rate / 1e6:.1f} M events/s"
        if total and rate:
            words += f", {max(0.0, (total - done) / rate):.0f} s to go"
        slabs, groups = cache_lines(S, plan), group_lines(S, plan)
        used = sum(c.live * c.slot for c in slabs)
        held = sum(c.bytes for c in slabs)
        words += f"\nslabs {format_bytes(held)}, {used / held if held else 0:.1%} in use; "
        words += f"{len(slabs)} caches, {len(groups)} groups"

        room = max(6, self.live.console.height - OTHER_LINES)
        table = Table(box=None, header_style="reverse", pad_edge=False)
        for head in ("objs", "active", "use", "obj size", "slabs", "cache size"):
            table.add_column(head, justify="right")
        table.add_column("name")
        for c in slabs[: room * 3 // 5]:
            table.add_row(
                f"{c.objects:,}", f"{c.live:,}", f"{c.live / c.objects:.0%}", f"{c.slot:,}",
                f"{c.slabs:,}", format_bytes(c.bytes), c.name,
            )  # fmt: skip
        below = Table(box=None, header_style="reverse", pad_edge=False)
        for head in ("charged", "its tasks use", "objects", "failcnt"):
            below.add_column(head, justify="right")
        below.add_column("group")
        for g in groups[: room - room * 3 // 5]:
            below.add_row(
                format_bytes(g.charged), format_bytes(g.used), f"{g.objects:,}",
                f"{g.failcnt:,}", g.name,
            )  # fmt: skip
        return Group(words, "", table, "", below)


@contextmanager
def watching() -> Iterator[Watch]:
    """A watch on the terminal's stderr."""
    from rich.console import Console

    watch = Watch(Console(stderr=True))
    with watch.live:
        yield watch
