"""Allocate and free again and again: the loop behind published overhead numbers.

Christoph Lameter's slab_test (pairs), Waiman Long's and Roman Gushchin's kmalloc(64)/kfree loops
(2021, 2023).  With runs of one, every task holds at most one object, so each CPU that runs needs
exactly one slab of the cache (and one a copy, for designs that copy caches), whatever the number of
pairs.  Longer runs allocate so many objects before they free them, the last one first.  Or nothing
is freed: Roman Gushchin's loop (2023) times a million allocations alone.  What a system call
allocates is a run of which some objects (`lru`) are of a reclaimable cache, as dentries and inodes.
"""

from kmbench.core.events import (
    ALLOC,
    FREE,
    GFP_KERNEL,
    GFP_KERNEL_ACCOUNT,
    SLAB_ACCOUNT,
    SLAB_RECLAIM_ACCOUNT,
)
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.setup import MOST_GROUPS, GroupSpec, Machine, Setup
from kmbench.core.tables import table
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload, generated


def fill(S, W, batch):
    """Runs of allocs, then of frees, the tasks taking turns after every operation; task i runs on
    CPU i modulo CPUs."""
    w = W.at[0]
    n = 0
    while n < len(batch) and w.done < w.total:
        task = w.done % w.tasks
        step = w.done // w.tasks % (2 * w.run)
        frees = step >= w.run
        e = batch[n]
        e.t = w.done * w.interval
        nr = 2 * w.run - 1 - step if frees else step
        e.obj = task * w.run + nr + 1
        e.task = task + 1
        e.memcg = 1 if w.in_root else 2 + task % w.groups
        e.gfp = w.gfp
        e.arg = 0
        e.cache = w.lru_cache if nr < w.lru else 1
        e.op = FREE if frees else ALLOC
        e.cpu = task % w.cpus
        w.done += 1
        n += 1
    return n


def open_slab_pairs(parameters: dict, host: Host) -> OpenWorkload:
    """`pairs` allocs and frees of one cache by `tasks` tasks in `groups` groups."""
    account = SLAB_ACCOUNT if parameters["account"] else 0
    plain, reclaimable = (
        make_cache(
            name, parameters["size"], era=host.era, cpus=host.cpus, page_size=host.page_size,
            flags=flags,
        )
        for name, flags in (
            (parameters["cache"], account),
            (f"{parameters['cache']}_lru", account | SLAB_RECLAIM_ACCOUNT),
        )
    )  # fmt: skip
    caches = [plain, *kmalloc_caches(host.era, host.cpus, host.page_size)]
    if parameters["lru"]:
        caches.append(reclaimable)
    groups = parameters["groups"]
    each = -(-parameters["pairs"] // parameters["tasks"])
    run = parameters["run"] if parameters["free"] else each
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size),
        host.era,
        tuple(caches),
        (GroupSpec("/", 0), *(GroupSpec(f"/g{i}") for i in range(groups))),
        parameters["tasks"] * run + 1,
    )
    whole = run * parameters["tasks"]  # every task ends its last run
    pairs = -(-parameters["pairs"] // whole) * whole
    total = 2 * pairs if parameters["free"] else pairs

    def prepare(S, W):
        W.at["total"], W.at["run"] = total, run
        W.at["in_root"] = parameters["in_root"]
        W.at["tasks"], W.at["groups"] = parameters["tasks"], groups
        W.at["cpus"], W.at["interval"] = host.cpus, parameters["interval"]
        W.at["gfp"] = GFP_KERNEL_ACCOUNT if account else GFP_KERNEL
        W.at["lru"], W.at["lru_cache"] = parameters["lru"], len(caches)

    tables = {
        "at": table(
            1,
            done="i8",
            total="i8",
            run="i8",
            tasks="i8",
            groups="i8",
            in_root="i8",
            cpus="i8",
            interval="i8",
            gfp="i8",
            lru="i8",
            lru_cache="i8",
        )
    }
    opened = generated(setup, fill, tables, prepare, total)
    return opened._replace(
        running=min(parameters["tasks"], host.cpus), think_ns=parameters["think_ns"]
    )


slab_pairs = Workload(
    name="slab_pairs",
    description="pairs of an allocation and its free, round robin over tasks",
    source="slab_test (Christoph Lameter); kmalloc loops of Waiman Long 2021, Roman Gushchin 2023",
    open=open_slab_pairs,
    parameters=(
        Parameter("pairs", 100_000, "alloc and free pairs in all", "pairs", 1),
        Parameter("tasks", 1, "tasks, which take turns", "tasks", 1),
        Parameter("run", 1, "objects a task allocates before it frees them", "objects", 1),
        Parameter("lru", 0, "objects of a run that are of a reclaimable cache", "objects", 0),
        Parameter("free", True, "runs are freed again; else all objects stay, in one run"),
        Parameter(
            "groups",
            1,
            "groups that the tasks belong to in turn",
            "groups",
            1,
            maximum=MOST_GROUPS,
        ),  # fmt: skip
        Parameter("in_root", False, "the tasks belong to the root instead"),
        Parameter("size", 64, "object size", "bytes", 8),
        Parameter("cache", "dentry", "name of the cache"),
        Parameter("account", True, "SLAB_ACCOUNT and __GFP_ACCOUNT; else nobody accounts them"),
        Parameter("think_ns", 0, "what a pair costs besides its memory, for rates", "ns", 0),
        Parameter("interval", 50, "model time between operations", "ns", 1),
    ),
)
