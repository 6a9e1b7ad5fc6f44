"""Checks that a strategy declares by the hooks that it has: what each of them promises.

A strategy without any of the hooks is told so instead: a design that leaves kernel pages alone need
not give them back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from kmbench.core import events as ev
from kmbench.core.state import UNLIMITED
from kmbench.simulate import Simulation
from kmbench.strategy import Strategy
from kmbench.testing.stream import SETUP

__all__ = ["CAPABILITIES", "Limits", "promised", "undeclared"]


class Capability(NamedTuple):
    """What hooks promise; a strategy that has any of `hooks` declares it."""

    hooks: tuple[str, ...]
    words: str


CAPABILITIES = {
    "limits": Capability(
        ("pre_alloc", "post_alloc", "slab_new", "page_alloc", "percpu_alloc"),
        "no charge goes over a limit unless it was forced",
    ),
    "refunds": Capability(
        ("obj_free", "slab_gone"), "what objects were charged comes back while their group lives"
    ),
    "copies": Capability(("select",), "a copy serves its own group, or one below"),
    "pages": Capability(("page_alloc",), "kernel pages are charged whole, and come back"),
    "percpu": Capability(("percpu_alloc",), "per-CPU memory is charged once, and comes back"),
    "work": Capability(("run_work",), "work that was queued comes to an end"),
}
GROUP = 2  # without a limit
STEP = 50_000_000  # ns: longer than a grace period and than work waits
ROUNDS = 6


def undeclared(strategy: Strategy, check: str) -> str:
    """Why a check does not apply to `strategy`; empty when it does."""
    known = CAPABILITIES.get(check)
    if known is None or strategy.hooks.keys() & set(known.hooks):
        return ""
    return f"not declared: it has no {' or '.join(known.hooks)}"


class Limits:
    """Looks at every event for a counter that it takes over its limit, though none was forced.

    Of the memory and the kmem counter a design may limit one alone (since 5.16 the kernel has no
    kmem limit): that is the one that ever refuses a charge.
    """

    def __init__(self) -> None:
        self.overruns: dict[int, str] = {}

    def before(self, S) -> None:
        """Remember how things stand before an event."""
        self.usage, self.forced = S.counter["usage"].copy(), int(S.k["forced_pages"][0])

    def after(self, S, places: str) -> None:
        """Look at what the hooks at `places` have done."""
        now, limit = S.counter["usage"], S.counter["limit"]
        over = (now > self.usage) & (now > limit) & (limit < UNLIMITED)
        if int(S.k["forced_pages"][0]) == self.forced:
            for row in np.flatnonzero(over).tolist():
                which = ("memory", "kmem")[row % 2]
                self.overruns.setdefault(
                    row % 2,
                    f"{places}: takes the {which} counter of group {row // 2} to {now[row]} pages, "
                    f"over its limit of {limit[row]}, and none were charged by force",
                )

    def verdict(self, S) -> str:
        """What is wrong, or nothing."""
        refuses = [int(S.counter["failcnt"][which::2].sum()) > 0 for which in (0, 1)]
        for which, text in self.overruns.items():
            if refuses[which] or not any(refuses):
                return text
        return ""


def promised(strategy: Strategy, watched) -> list[dict[str, str]]:
    """The findings about what its hooks promise, each on a small stream of its own.

    `watched(strategy)` makes a Simulation whose hooks are watched, and the Watch.
    """
    problems = []
    for check, trial in (("refunds", _objects), ("pages", _pages), ("percpu", _percpu)):
        if undeclared(strategy, check):
            continue
        simulation, watch = watched(strategy)
        if wrong := trial(simulation):
            hooks = {"refunds": ("pre_alloc", "post_alloc", "slab_new", "obj_free", "slab_gone"),
                     "pages": ("page_alloc", "page_free"),
                     "percpu": ("percpu_alloc", "percpu_free")}[check]  # fmt: skip
            places = [
                f"{watch.places[hook]} charged {watch.charged[hook]:+,} pages in all"
                for hook in hooks
                if hook in watch.places
            ]
            problems.append({"check": check, "message": f"{'; '.join(places)}: {wrong}"})
        problems += [problem for problem in watch.problems if problem["check"] == check]
    return problems


class Feeder:
    """Feeds events to a simulation, one at a time, each later than the last."""

    def __init__(self, simulation: Simulation):
        self.simulation = simulation
        self.t = 0

    def feed(self, op: int, step: int = 1000, **fields: int) -> None:
        """One event of GROUP, `step` ns after the last one."""
        self.t += step
        event = np.zeros(1, ev.EVENT)
        event["t"], event["op"], event["task"] = self.t, op, 1
        event["memcg"], event["gfp"] = GROUP, ev.GFP_KERNEL_ACCOUNT
        for name, value in fields.items():
            event[name] = value
        self.simulation.feed(event)

    def settle(self, shrink: bool = True) -> None:
        """Let work run, grace periods end and stocks be emptied."""
        for _ in range(ROUNDS if shrink else 1):
            if shrink:
                self.feed(ev.SHRINK, STEP)
            self.feed(ev.FLUSH, STEP)

    def usage(self) -> tuple[int, int]:
        """Pages on the memory and the kmem counter of GROUP."""
        memory, kmem = self.simulation.S.counter["usage"][2 * GROUP : 2 * GROUP + 2]
        return int(memory), int(kmem)

    def left(self, what: str) -> str:
        """What stays charged, in words; or nothing.  Bytes that are left over keep one page."""
        pages = max(self.usage())
        return f"{pages} pages stay charged to a group {what}" if pages > 1 else ""


def _objects(simulation: Simulation) -> str:
    """A group's objects come and go, twice: copies that are made late serve the second time."""
    feeder = Feeder(simulation)
    for _ in range(2):
        live: Iterable[int] = range(1, 181)
        for obj in live:
            feeder.feed(ev.ALLOC, obj=obj, cache=(1, 2, 3, 4, 7)[obj % 5], cpu=obj % 2)
        feeder.settle(shrink=False)
        for obj in live:
            feeder.feed(ev.FREE, obj=obj, cpu=obj % 2)
        feeder.settle()
    return feeder.left("whose objects are all freed")


def _pages(simulation: Simulation) -> str:
    feeder = Feeder(simulation)
    for kind, name in enumerate(ev.PAGE_KINDS):
        for order in range(3):
            feeder.feed(ev.PAGE_ALLOC, obj=1, cache=kind, arg=order)
            feeder.settle(shrink=False)
            for pages in feeder.usage():
                if pages not in (0, 1 << order):
                    return f"{1 << order} pages ({name}) are charged as {pages}"
            feeder.feed(ev.PAGE_FREE, obj=1)
            feeder.settle(shrink=False)
            if wrong := feeder.left(f"whose pages ({name}) are freed"):
                return wrong
    return ""


def _percpu(simulation: Simulation) -> str:
    feeder = Feeder(simulation)
    page = SETUP.machine.page_size
    for nr_bytes in (8, page // 2, page, 3 * page + 8):
        feeder.feed(ev.PERCPU_ALLOC, obj=1, arg=nr_bytes)
        feeder.settle(shrink=False)
        most = -(-nr_bytes // page) + 1  # a page of left-over bytes
        if max(feeder.usage()) > most:
            return f"{nr_bytes} bytes are charged as {max(feeder.usage())} pages"
        feeder.feed(ev.PERCPU_FREE, obj=1)
        feeder.settle(shrink=False)
    feeder.settle()
    return feeder.left("whose per-CPU memory is freed")
