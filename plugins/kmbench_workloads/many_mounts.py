"""Many groups and many mounts, then drop_caches again and again: what asking shrinkers costs.

Each group looks a few files up, once.  The first drop_caches frees them; the later ones find
nothing, so all that they do is to ask.  How many superblocks there are is ``reclaim.superblocks``;
an idle drop asks (groups + 2) * superblocks times where every shrinker is asked for every group,
the root and the parent of the groups included.
"""

from kmbench.core.events import (
    ACCESS,
    DROP_CACHES,
    DROP_PAGECACHE,
    DROP_SLAB,
    GFP_KERNEL_ACCOUNT,
    MARK,
    SLAB_ACCOUNT,
    SLAB_RECLAIM_ACCOUNT,
)
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.setup import MOST_GROUPS, GroupSpec, Machine, Setup
from kmbench.core.tables import table
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload, generated

PARENT = 2  # row of the group above all others
INTERVAL = 1_000_000  # ns between events; a drop takes its own time


def fill(S, W, batch):
    """Look-ups, group by group, a mark, then the drops; each begins when the one before is over."""
    w = W.at[0]
    lookups = w.groups * w.files
    n = 0
    while n < len(batch) and w.done < lookups + 1 + w.drops:
        e = batch[n]
        e.t = w.done * INTERVAL
        e.cpu = 0
        e.task = 1
        e.gfp = GFP_KERNEL_ACCOUNT
        e.memcg = PARENT
        e.obj = 0
        e.cache = 0
        if w.done < lookups:
            e.op = ACCESS
            e.memcg = PARENT + 1 + w.done // w.files
            e.obj = w.done + 1
            e.cache = 1
            e.arg = 0
        elif w.done == lookups:
            e.op = MARK
            e.arg = 1
        else:
            e.op = DROP_CACHES
            e.arg = DROP_PAGECACHE | DROP_SLAB
        w.done += 1
        n += 1
    return n


def open_many_mounts(parameters: dict, host: Host) -> OpenWorkload:
    """`groups` groups below one, `files` names each, `drops` writes to drop_caches."""
    groups, files, drops = (parameters[name] for name in ("groups", "files", "drops"))
    flags = SLAB_ACCOUNT | SLAB_RECLAIM_ACCOUNT
    dentry = make_cache(
        "dentry", 192, era=host.era, cpus=host.cpus, page_size=host.page_size, flags=flags
    )
    below = tuple(GroupSpec(f"/ct/{i}", PARENT) for i in range(groups))
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size), host.era,
        (dentry, *kmalloc_caches(host.era, host.cpus, host.page_size)),
        (GroupSpec("/", 0), GroupSpec("/ct"), *below), groups * files + 1,
    )  # fmt: skip

    def prepare(S, W):
        W.at["groups"], W.at["files"], W.at["drops"] = groups, files, drops

    tables = {"at": table(1, done="i8", groups="i8", files="i8", drops="i8")}
    nr_events = groups * files + 1 + drops
    return generated(setup, fill, tables, prepare, nr_events, reclaims=True)


many_mounts = Workload(
    name="many_mounts",
    description="many groups and mounts, then drop_caches: what asking shrinkers costs",
    source='Kirill Tkhai, "[PATCH 00/10] Improve shrink_slab() scalability", 21 Mar 2018',
    open=open_many_mounts,
    parameters=(
        Parameter("groups", 4001, "groups below one", "groups", 1, maximum=MOST_GROUPS),
        Parameter("files", 1, "files that each group looks up", "files", 0),
        Parameter("drops", 4, "writes to drop_caches", "", 1),
    ),
)
