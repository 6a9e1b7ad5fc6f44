"""The machine and the events that strategies are checked on: small, crowded and mixed.

Groups are nested, limited, made and removed; CPUs take turns; slabs come and go; there are
kernel pages, per-CPU memory, interrupts, tasks that die and allocations that may not fail.
"""

import random

import numpy as np

from kmbench.core import events as ev
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup

__all__ = ["SETUP", "events"]

ERA = "6.18"
CPUS = 2
HANDLES = 400
_FLAGS = ev.SLAB_ACCOUNT | ev.SLAB_RECLAIM_ACCOUNT
SETUP = Setup(
    Machine(cpus=CPUS, memory_pages=1024),
    ERA,
    (
        make_cache("dentry", 192, era=ERA, cpus=CPUS, flags=_FLAGS),
        make_cache("ext4_inode_cache", 1096, era=ERA, cpus=CPUS, flags=_FLAGS),
        make_cache("filp", 256, era=ERA, cpus=CPUS, flags=ev.SLAB_TYPESAFE_BY_RCU),
        *kmalloc_caches(ERA, CPUS, 4096),
    ),
    (
        GroupSpec("/", 0),
        GroupSpec("/a"),
        GroupSpec("/a/b", 2, kmem_limit=40),
        GroupSpec("/c", memory_limit=60),
        *(GroupSpec(f"/a/{i}", 2, online=False) for i in range(12)),  # one at a time
    ),
    HANDLES + 1,
)
_GFP = (
    *[ev.GFP_KERNEL_ACCOUNT] * 5,
    ev.GFP_KERNEL,
    ev.GFP_ATOMIC | ev.GFP_ACCOUNT,
    ev.GFP_KERNEL_ACCOUNT | ev.GFP_NOFAIL,
    ev.GFP_ATOMIC | ev.GFP_ACCOUNT | ev.CTX_SOFTIRQ,
    ev.GFP_KERNEL_ACCOUNT | ev.CTX_KTHREAD,
    ev.GFP_KERNEL_ACCOUNT | ev.CTX_DYING,
)
_COMES = (ev.ALLOC, ev.PAGE_ALLOC, ev.PERCPU_ALLOC)
_GOES = {ev.ALLOC: ev.FREE, ev.PAGE_ALLOC: ev.PAGE_FREE, ev.PERCPU_ALLOC: ev.PERCPU_FREE}


def events(count: int, seed: int = 0) -> np.ndarray:
    """`count` EVENT records; the same for the same arguments."""
    draw = random.Random(seed)
    live: dict[int, int] = {}  # handle -> op that made it
    spare = list(range(HANDLES, 0, -1))
    made = np.zeros(count, ev.EVENT)
    last, exists = 4, False  # the group that came last, and whether it is still there
    for e in made:
        e["cpu"] = draw.randrange(CPUS)
        e["task"] = 1 + draw.randrange(8)
        e["memcg"] = draw.choice((1, 2, 3, 3, 4, *[last] * exists))
        e["gfp"] = draw.choice(_GFP)
        what = draw.random()
        if what < 0.02 and (exists or last < len(SETUP.groups)):
            exists = not exists
            last += exists
            e["op"], e["memcg"], e["arg"] = ev.CG_CREATE if exists else ev.CG_OFFLINE, last, 2
        elif what < 0.03:
            e["op"], e["cache"] = ev.LIMIT_WRITE, draw.choice((ev.COUNTER_MEMORY, ev.COUNTER_KMEM))
            e["memcg"], e["arg"] = draw.choice((2, 3, 4)), draw.choice((-1, 10, 40, 200))
        elif what < 0.05:
            e["op"] = draw.choice((ev.SHRINK, ev.FLUSH, ev.SAMPLE))
        elif what < 0.06:
            e["op"], e["arg"], e["memcg"] = ev.ATTACH, 2, 4
        elif spare and (not live or what < 0.06 + 0.94 * (0.7 if len(live) < 250 else 0.35)):
            op = draw.choices(_COMES, (16, 2, 1))[0]
            e["op"], e["obj"] = op, spare.pop()
            live[int(e["obj"])] = op
            if op == ev.ALLOC:
                e["cache"] = draw.choice((1, 1, 2, 3, 4, 7))
            elif op == ev.PAGE_ALLOC:
                e["cache"], e["arg"] = draw.randrange(len(ev.PAGE_KINDS)), draw.randrange(3)
            else:
                e["arg"] = 8 * draw.randrange(1, 400)
        else:
            obj = draw.choice(list(live))
            e["op"], e["obj"] = _GOES[live.pop(obj)], obj
            spare.append(obj)
    made["t"] = np.arange(count) * 40_000
    return made
