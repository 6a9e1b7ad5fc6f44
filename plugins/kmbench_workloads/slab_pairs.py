"""Allocate and free one object again and again: the loop behind published overhead numbers.

Christoph Lameter's slab_test (pairs), Waiman Long's and Roman Gushchin's kmalloc(64)/kfree loops
(2021, 2023).  Every task holds at most one object, so each CPU that runs needs exactly one slab of
the cache (and one a copy, for designs that copy caches), whatever the number of pairs.
"""

from kmbench.core.events import ALLOC, FREE, GFP_KERNEL_ACCOUNT, SLAB_ACCOUNT
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.tables import table
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload, generated


def fill(S, W, batch):
    """Alternate alloc and free, the tasks taking turns; task i runs on CPU i modulo CPUs."""
    w = W.at[0]
    n = 0
    while n < len(batch) and w.done < w.total:
        turn = w.done // 2
        task = turn % w.tasks
        e = batch[n]
        e.t = w.done * w.interval
        e.obj = task + 1
        e.task = task + 1
        e.memcg = 2 + task % w.groups
        e.gfp = w.gfp
        e.arg = 0
        e.cache = 1
        e.op = ALLOC + (w.done & 1) * (FREE - ALLOC)
        e.cpu = task % w.cpus
        w.done += 1
        n += 1
    return n


def open_slab_pairs(parameters: dict, host: Host) -> OpenWorkload:
    """`pairs` allocs and frees of one cache by `tasks` tasks in `groups` groups."""
    cache = make_cache(
        parameters["cache"], parameters["size"], era=host.era, cpus=host.cpus,
        page_size=host.page_size, flags=SLAB_ACCOUNT if parameters["account"] else 0,
    )  # fmt: skip
    groups = parameters["groups"]
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size),
        host.era,
        (cache, *kmalloc_caches(host.era, host.cpus, host.page_size)),
        (GroupSpec("/", 0), *(GroupSpec(f"/g{i}") for i in range(groups))),
        parameters["tasks"] + 1,
    )

    def prepare(S, W):
        W.at["total"] = 2 * parameters["pairs"]
        W.at["tasks"], W.at["groups"] = parameters["tasks"], groups
        W.at["cpus"], W.at["interval"] = host.cpus, parameters["interval"]
        W.at["gfp"] = GFP_KERNEL_ACCOUNT

    tables = {
        "at": table(
            1, done="i8", total="i8", tasks="i8", groups="i8", cpus="i8", interval="i8", gfp="i8"
        )
    }
    return generated(setup, fill, tables, prepare, 2 * parameters["pairs"])


slab_pairs = Workload(
    name="slab_pairs",
    description="pairs of one allocation and its free, round robin over tasks",
    source="slab_test (Christoph Lameter); kmalloc loops of Waiman Long 2021, Roman Gushchin 2023",
    open=open_slab_pairs,
    parameters=(
        Parameter("pairs", 100_000, "alloc and free pairs in all", "pairs", 1),
        Parameter("tasks", 1, "tasks, each with one object at a time", "tasks", 1),
        Parameter("groups", 1, "groups that the tasks belong to in turn", "groups", 1),
        Parameter("size", 64, "object size", "bytes", 8),
        Parameter("cache", "dentry", "name of the cache"),
        Parameter("account", True, "the cache is SLAB_ACCOUNT"),
        Parameter("interval", 50, "model time between operations", "ns", 1),
    ),
)
