"""Random machines and events in which memory runs out; the counterpart of ``streams``."""

import numpy as np
from hypothesis import strategies as st

from kmbench.core import events as ev
from kmbench.core.setup import CacheSpec, GroupSpec, Machine, Setup
from kmbench.core.vm import Reclaim
from streams import Chooser, seeded_chooser

ERAS = ("3.5", "3.13", "4.19", "5.9", "6.18")
STRATEGIES = (
    ("none", {}),
    ("costa-2012", {"caches": ["dentry", "inode"]}),
    ("costa-2012", {"caches": ["dentry", "inode"], "independent": False, "reclaim": True}),
    ("souhlal-2012-v2", {}),
    ("linux-3.8", {}),
    ("linux-4.5", {}),
    ("linux-5.9", {}),
    ("linux-6.18", {}),
)
GFPS = (
    ev.GFP_KERNEL_ACCOUNT, ev.GFP_KERNEL_ACCOUNT, ev.GFP_KERNEL_ACCOUNT, ev.GFP_KERNEL,
    ev.GFP_NOFS | ev.GFP_ACCOUNT, ev.GFP_NOFS, ev.GFP_ATOMIC | ev.GFP_ACCOUNT, ev.GFP_NOIO,
    ev.GFP_KERNEL_ACCOUNT | ev.GFP_NORETRY, ev.GFP_KERNEL_ACCOUNT | ev.GFP_NOFAIL,
    ev.GFP_KERNEL | ev.CTX_MEMALLOC, ev.GFP_KERNEL_ACCOUNT | ev.CTX_DYING,
)  # fmt: skip


def random_case(choose: Chooser, count: int):
    """(Setup, Reclaim, events): `count` events of a machine of one to six MiB."""
    era = choose.pick(ERAS)
    caches = tuple(
        CacheSpec(
            name, size, size, order, (4096 << order) // size, 0, choose.pick((0, 2)),
            choose.pick((0, 2, 6)), choose.pick((0, 1, 3)), 0,
            ev.SLAB_ACCOUNT | ev.SLAB_RECLAIM_ACCOUNT | choose.pick((0, ev.SLAB_TYPESAFE_BY_RCU)),
        )
        for name, size, order in (
            ("dentry", choose.pick((1024, 2048)), choose.pick((0, 1))),
            ("inode", choose.pick((2048, 1360)), choose.pick((0, 1))),
            ("filp", 1024, 0),
        )
    )  # fmt: skip
    groups = [GroupSpec("/", 0)]
    for row in range(2, 4 + choose.integer(0, 2)):
        limit = choose.pick((-1, 20, 60, 150))
        groups.append(
            GroupSpec(f"g{row}", choose.integer(1, row - 1), limit, choose.pick((-1, -1, 30)))
        )
    machine = Machine(choose.integer(1, 2), 1, choose.pick((150, 300, 700)))
    setup = Setup(machine, era, caches, tuple(groups), choose.pick((200, 800)))
    reclaim = Reclaim(
        swap_pages=choose.pick((0, 40, 200)), min_pages=choose.pick((8, 20)),
        superblocks=choose.pick((1, 3)), inode_cache=choose.pick(("inode", "")),
        keep_less=choose.pick((900, 300)),
    )  # fmt: skip
    return setup, reclaim, _events(choose, setup, reclaim, count)


def _events(choose, setup, reclaim, count):
    events = np.zeros(count, ev.EVENT)
    state = dict.fromkeys(range(1, len(setup.groups) + 1), True)
    names = setup.nr_objects // 2  # the rest are inodes, or kernel objects
    parents = {}
    t = 0
    for e in events:
        t += choose.pick((1000, 0, 50_000, 200_000, 3_000_000))
        e["t"], e["cpu"] = t, choose.integer(0, setup.machine.cpus - 1)
        e["memcg"], e["gfp"] = choose.pick(list(state)), choose.pick(GFPS)
        if choose.chance(55):
            e["op"], e["cache"] = ev.ACCESS, 1
            e["obj"] = choose.integer(1, names - 1)
            if int(e["obj"]) not in parents:
                older = [name for name in list(parents)[-5:] if name < int(e["obj"])]
                parents[int(e["obj"])] = choose.pick(older) if older and choose.chance(40) else 0
            e["arg"] = parents[int(e["obj"])]
        elif choose.chance(45):
            e["op"], e["cache"] = ev.USER_ALLOC, choose.integer(0, 2)
            e["arg"] = choose.pick((1, 1, 5, 30))
        else:
            _other(choose, setup, reclaim, e, state, names)
    return events


def _other(choose, setup, reclaim, e, state, names):
    e["op"] = choose.pick(
        (ev.FREE, ev.PIN, ev.UNPIN, ev.USER_FREE, ev.ALLOC, ev.PAGE_ALLOC, ev.PAGE_FREE, ev.SHRINK,
         ev.MARK, ev.SAMPLE, ev.CG_OFFLINE, ev.LIMIT_WRITE, ev.DROP_CACHES)
    )  # fmt: skip
    if e["op"] in (ev.ALLOC, ev.PAGE_ALLOC, ev.PAGE_FREE):
        e["obj"] = choose.integer(max(names, setup.nr_objects - 40), setup.nr_objects - 1)
        e["cache"] = 3 if e["op"] == ev.ALLOC else 0
        e["arg"] = choose.pick((0, 0, 1, 3)) if e["op"] == ev.PAGE_ALLOC else 0
        if reclaim.inode_cache and e["op"] == ev.ALLOC:
            e["op"] = ev.MARK  # the upper half is for inodes
    elif e["op"] == ev.USER_FREE:
        e["cache"], e["arg"] = choose.integer(0, 2), choose.pick((1, 10))
    elif e["op"] == ev.SHRINK:
        e["cache"] = choose.integer(0, len(setup.caches))
    elif e["op"] == ev.MARK:
        e["arg"] = choose.integer(0, 5)
    elif e["op"] == ev.DROP_CACHES:
        e["arg"] = choose.integer(0, 3)
    elif e["op"] in (ev.CG_OFFLINE, ev.LIMIT_WRITE):
        row = choose.integer(2, len(setup.groups))
        parents = [setup.groups[child - 1].parent for child in state if child != row]
        e["memcg"] = row
        if e["op"] == ev.LIMIT_WRITE and row in state:
            e["cache"] = choose.pick((ev.COUNTER_MEMORY, ev.COUNTER_MEMORY, ev.COUNTER_KMEM))
            e["arg"] = choose.pick((-1, 15, 60))
        elif row in state and row not in parents and choose.chance(20):
            del state[row]
        else:
            e["op"], e["memcg"] = ev.SAMPLE, 1
    else:
        e["obj"] = choose.integer(1, names - 1)


def seeded_case(seed: int, count: int):
    """A case that depends on `seed` alone."""
    return random_case(seeded_chooser(seed), count)


@st.composite
def cases(draw, most: int):
    """Hypothesis strategy of cases of up to `most` events."""
    choose = Chooser(lambda low, high: draw(st.integers(low, high)))
    return random_case(choose, draw(st.integers(1, most)))
