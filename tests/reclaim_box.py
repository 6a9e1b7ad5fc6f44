"""A small machine with dentries in two groups, fed event by event: for closed forms of reclaim."""

import numpy as np

import kmbench
from kmbench.core import events as ev
from kmbench.core.geometry import make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.vm import Reclaim
from kmbench.memory import Memory

A, B = 2, 3  # rows of /a and, below it, /a/b
NORETRY = ev.GFP_KERNEL | ev.GFP_NORETRY


def memory(as_posted: bool) -> Memory:
    """The shrinker of ``costa-2012``, on the machine of a Box."""
    shrinker = kmbench.load_plugins().shrinker("costa-shrink-fn")
    return Memory(Reclaim(min_pages=20), shrinker, {"as_posted": as_posted})


class Box:
    """``costa-2012`` with its shrinker, by default on Linux 3.5: 21 dentries to a page, each starts
    out REFERENCED."""

    def __init__(self, as_posted, pages=4000, independent=False, era="3.5"):
        flags = ev.SLAB_ACCOUNT | ev.SLAB_RECLAIM_ACCOUNT
        dentry = make_cache("dentry", 192, era=era, cpus=1, page_size=4096, flags=flags)
        groups = (GroupSpec("/", 0), GroupSpec("/a"), GroupSpec("/a/b", A))
        setup = Setup(Machine(1, 1, pages), era, (dentry,), groups, 5000)
        given = {"independent": independent}
        strategy = kmbench.load_plugins().strategy("costa-2012")
        self.sim = kmbench.Simulation(setup, strategy, given, 1, memory=memory(as_posted))
        self.t = self.names = 0

    def event(self, op, count=1, step=1000, **fields):
        events = np.zeros(count, ev.EVENT)
        events["op"] = op
        for name, value in ({"gfp": ev.GFP_KERNEL, "memcg": 1} | fields).items():
            events[name] = value
        events["t"] = self.t + step * np.arange(1, count + 1)
        self.t = int(events["t"][-1])
        self.sim.feed(events)
        return self

    def dentries(self, memcg, count):
        first = self.names + 1
        self.names += count
        return self.event(
            ev.ACCESS, count, memcg=memcg, cache=1, obj=np.arange(first, first + count)
        )

    def limit(self, memcg, counter, pages):
        return self.event(ev.LIMIT_WRITE, memcg=memcg, cache=counter, arg=pages)

    def usage(self, memcg, counter):
        return int(self.sim.S.counter["usage"][memcg * 2 + counter])

    @property
    def vm(self):
        return self.sim.S.vm[0]


def fill(box, limit, gfp=NORETRY):
    """Anonymous memory that cannot be swapped meets the limit of /a."""
    box.limit(A, ev.COUNTER_MEMORY, limit)
    return box.event(ev.USER_ALLOC, memcg=A, cache=ev.USER_ANON, arg=50, gfp=gfp)
