"""N groups hold k objects each, allocated over c CPUs; then a fraction is freed at random.

Closed forms, with n objects a slab: shared caches need ceil(N*k/n) slabs when one CPU allocates;
per-memcg caches need N * sum_i ceil(k_i/n), k_i being the objects a group allocates on CPU i.
"""

from kmbench.core.events import ALLOC, FREE, GFP_KERNEL_ACCOUNT, SLAB_ACCOUNT, SLAB_RECLAIM_ACCOUNT
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.rng import below, seed_stream
from kmbench.core.setup import MOST_GROUPS, GroupSpec, Machine, Setup
from kmbench.core.tables import table
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload, generated


def fill(S, W, batch):
    """All allocations, group by group, then the frees of a random choice, in random order."""
    w = W.at[0]
    total = w.groups * w.objects
    n = 0
    while n < len(batch) and w.done < total + w.frees:
        e = batch[n]
        e.t = w.done * w.interval
        e.task = 0
        e.arg = 0
        e.cache = 1
        e.gfp = w.gfp
        if w.done < total:
            group = w.done // w.objects
            e.obj = w.done + 1
            e.op = ALLOC
            e.memcg = 2 + group
            e.cpu = (group if w.cpus_used == 1 else w.done % w.objects % w.cpus_used) % w.cpus
        else:
            # Fisher-Yates: what is drawn leaves the pool
            left = total - (w.done - total)
            i = below(W.rng, left)
            chosen = W.pool[i].obj if W.pool[i].obj else i + 1
            W.pool[i].obj = W.pool[left - 1].obj if W.pool[left - 1].obj else left
            e.obj = chosen
            e.op = FREE
            e.memcg = 2 + (chosen - 1) // w.objects
            e.cpu = (chosen - 1) % w.objects % w.cpus_used % w.cpus
        w.done += 1
        n += 1
    return n


def open_spread(parameters: dict, host: Host) -> OpenWorkload:
    """`groups` groups times `objects` objects, `freed` of them given back."""
    groups, objects = parameters["groups"], parameters["objects"]
    cache = make_cache(
        parameters["cache"], parameters["size"], era=host.era, cpus=host.cpus,
        page_size=host.page_size, flags=SLAB_ACCOUNT | SLAB_RECLAIM_ACCOUNT,
    )  # fmt: skip
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size),
        host.era,
        (cache, *kmalloc_caches(host.era, host.cpus, host.page_size)),
        (GroupSpec("/", 0), *(GroupSpec(f"/g{i}") for i in range(groups))),
        groups * objects + 1,
    )
    frees = round(groups * objects * parameters["freed"])

    def prepare(S, W):
        W.at["groups"], W.at["objects"], W.at["frees"] = groups, objects, frees
        W.at["cpus"], W.at["cpus_used"] = host.cpus, parameters["cpus_used"]
        W.at["interval"], W.at["gfp"] = parameters["interval"], GFP_KERNEL_ACCOUNT
        seed_stream(W.rng, host.seed, "spread frees")

    tables = {
        "at": table(
            1, done="i8", groups="i8", objects="i8", frees="i8", cpus="i8", cpus_used="i8",
            interval="i8", gfp="i8",
        ),
        "rng": table(1, rng0="i8", rng1="i8", rng2="i8", rng3="i8"),
        "pool": table("object", obj="i4"),
    }  # fmt: skip
    return generated(setup, fill, tables, prepare, groups * objects + frees)


spread = Workload(
    name="spread",
    description="many groups each hold a few objects, then free some of them",
    source="the closed forms of slab counts for shared and per-memcg caches",
    open=open_spread,
    parameters=(
        Parameter("groups", 100, "groups", "groups", 1, maximum=MOST_GROUPS),
        Parameter("objects", 5, "objects a group holds", "objects", 1),
        Parameter("cpus_used", 1, "CPUs over which a group's objects are spread", "cpus", 1),
        Parameter("freed", 0.0, "share of all objects that is freed at the end", "", 0),
        Parameter("size", 192, "object size", "bytes", 8),
        Parameter("cache", "dentry", "name of the cache"),
        Parameter("interval", 1000, "model time between operations", "ns", 1),
    ),
)
