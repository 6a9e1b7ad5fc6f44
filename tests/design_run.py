"""A small machine fed by calls, for tests of what designs do."""

import numpy as np
import pytest

import kmbench
from kmbench.core import events as ev
from kmbench.core.paths import PATHS, PLUGIN_PATH
from kmbench.core.setup import CacheSpec, GroupSpec, Machine, Setup, SlabSpec

MS = 1_000_000
PLUGINS = kmbench.load_plugins()
ACCOUNT = ev.GFP_KERNEL_ACCOUNT
ALLOCATOR = "slub"  # tests that run on both set it
COPIES_LATE = (
    "souhlal-2012-v1", "souhlal-2012-v2", "kamezawa-2012", "linux-3.8", "linux-4.5", "linux-5.3",
)  # fmt: skip
COPIES = ("costa-2012", *COPIES_LATE)
BYTES = ("ubc-2006", "tcp-memcontrol", "linux-5.9", "linux-6.18")
DESIGNS = (*COPIES, *BYTES)
OBJCG = ("linux-5.9", "linux-6.18")
WHITELIST = ("ubc-2006", "linux-4.5", "linux-5.3", *OBJCG)
of_every_design = pytest.mark.parametrize("name", DESIGNS)


def per_design(**expected):
    """Parametrisation of (name, expectation); ``others`` stands for designs not named."""
    known = {name.replace("_", "-").replace("--", "."): value for name, value in expected.items()}
    return {name: known.get(name, expected.get("others")) for name in DESIGNS}


def slabs_of(objects=4, name="dentry", order=0, flags=ev.SLAB_ACCOUNT):
    """A cache whose slabs hold so many objects and which keeps no empty slabs."""
    size = (4096 << order) // objects
    return CacheSpec(
        name, size, size, order, objects, min_order=0, min_partial=0, cpu_partial=0,
        cpu_partial_slabs=0, flags=flags,
    )  # fmt: skip


def on_slab(spec):
    """The cache on SLAB, with per-CPU arrays of a single object."""
    limits = {"limit": 1, "batchcount": 1, "shared_limit": 0}
    kept = {name: getattr(spec, name) for name in ("name", "size", "object_size", "order")}
    return SlabSpec(**kept, objects=spec.objects, flags=spec.flags, **limits)


class Run:
    """A Simulation fed by calls; groups p (row 2) and its children c (3) and d (4).

    ``offline``: names of further groups, rows 5 and up, that are not there yet.
    """

    def __init__(
        self, name, caches=None, parameters=None, memory_pages=4096, offline=(), nodes=1,
        memcg_ids=65535, **limits,
    ):  # fmt: skip
        rows = [("p", 1), ("c", 2), ("d", 2)]
        groups = [GroupSpec(n, up, *limits.get(n, (-1, -1))) for n, up in rows]
        groups += [GroupSpec(n, online=False) for n in offline]
        setup = self.setup(caches or (slabs_of(),), groups, memory_pages, nodes, memcg_ids)
        if name == "tcp-memcontrol" and parameters is None:
            parameters = {"caches": ["dentry"]}
        self.strategy = PLUGINS.strategy(name)
        self.sim = kmbench.Simulation(setup, self.strategy, parameters)
        self.S, self.P, self.handle, self.t = self.sim.S, self.sim.P, 0, 0

    @staticmethod
    def setup(caches, groups, memory_pages=4096, nodes=1, memcg_ids=65535):
        """Two CPUs, the given caches, and the groups below the root."""
        machine = Machine(cpus=2, nodes=nodes, memory_pages=memory_pages, memcg_ids=memcg_ids)
        groups = (GroupSpec("/", 0), *groups)
        caches = tuple(map(on_slab, caches)) if ALLOCATOR == "slab" else tuple(caches)
        nr_objects = max(4096, len(groups) + 1)
        return Setup(machine, "4.19", caches, groups, nr_objects, allocator=ALLOCATOR)

    def event(self, op, **fields):
        event = np.zeros(1, ev.EVENT)
        event["op"], event["t"], event["memcg"] = op, self.t, 1
        for name, value in fields.items():
            event[name] = value
        self.sim.feed(event)

    def alloc(self, count=1, memcg=3, gfp=ACCOUNT, cpu=0, cache=1, op=ev.ALLOC, arg=0, task=0):
        for _ in range(count):
            self.handle += 1
            who = {"memcg": memcg, "task": task, "cpu": cpu}
            self.event(op, obj=self.handle, gfp=gfp, cache=cache, arg=arg, **who)
        return list(range(self.handle - count + 1, self.handle + 1))

    def free(self, handles, op=ev.FREE, cpu=0, memcg=1):
        for handle in handles:
            self.event(op, obj=handle, cpu=cpu, memcg=memcg)

    def wait(self, ns=10 * MS):
        self.t += ns
        self.event(ev.MARK)

    def warm(self, memcg=3, cache=1):
        """Have the group's copy made; nothing stays behind."""
        self.free(self.alloc(memcg=memcg, cache=cache))
        self.wait()
        self.event(ev.SHRINK)

    def pages(self, row, which=ev.COUNTER_KMEM):
        return int(self.S.counter["usage"][2 * row + which])

    def unaccounted(self, cause):
        return int(self.S.unbilled["objects"][cause])

    @property
    def failed(self):
        return int(self.S.k["nr_failed"][0])

    def empty_stocks(self):
        """Have every CPU give back what it holds for groups."""
        self.event(ev.FLUSH)

    def copies(self):
        """Copies of caches made so far."""
        return int(self.S.k["nr_caches"][0] - self.S.k["nr_root_caches"][0]) - 1

    def waiting(self):
        """Work items that have not run yet."""
        return int(self.S.k["work_tail"][0] - self.S.k["work_head"][0])

    def passed(self, path):
        """Passages of a path, the core's or the strategy's own."""
        names = {p.name: row for row, p in enumerate(PATHS)}
        names |= {p.name: row for row, p in enumerate(self.strategy.paths, PLUGIN_PATH)}
        return int(self.S.path["count"][names[path]])
