"""Groups with short lives: each is made, works, frees what its tasks held, and is removed.

What the file system caches, dentries and inodes, outlives the group by a while; some of it is never
freed in the run.  The zombies of "mm: reparent slab memory on cgroup removal" (Roman Gushchin, June
2019) and of containers that come and go (kubernetes issue 61937) are made of this.

A group's life has a step for every object it allocates, then one for every object it frees, and a
group begins every ``stagger`` steps.  All groups are children of one that stays.
"""

from kmbench.core.events import (
    ALLOC,
    CG_CREATE,
    CG_OFFLINE,
    CTX_SOFTIRQ,
    FREE,
    GFP_ATOMIC,
    GFP_KERNEL_ACCOUNT,
    PAGE_ALLOC,
    PAGE_FREE,
    PAGES_STACK,
    SLAB_ACCOUNT,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_TYPESAFE_BY_RCU,
)
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.jit import inlined
from kmbench.core.rng import below, seed_stream
from kmbench.core.setup import MOST_GROUPS, GroupSpec, Machine, Setup
from kmbench.core.tables import table
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload, generated

PARENT = 2
FIRST = 3  # row of the first group that comes
CACHED = SLAB_ACCOUNT | SLAB_RECLAIM_ACCOUNT
CACHES = (  # sizes of Linux 6.18 x86_64
    ("dentry", 192, CACHED),
    ("ext4_inode_cache", 1120, CACHED),
    ("filp", 184, SLAB_ACCOUNT | SLAB_TYPESAFE_BY_RCU),
    ("cred_jar", 184, SLAB_ACCOUNT),
    ("task_struct", 5840, SLAB_ACCOUNT),
)
DENTRY, INODE, FILP, CRED, TASK = range(1, len(CACHES) + 1)
STACK, STACK_ORDER = -1, 2
# what a group allocates, over and over; every second buffer comes from an interrupt
CYCLE = (DENTRY, INODE, FILP, DENTRY, CRED, "kmalloc-256", TASK, STACK)
INTERRUPT_EVERY = 2 * len(CYCLE)


@inlined
def write(W, e, group, step):
    """Write what a group does in a step of its life; False if nothing."""
    w = W.at[0]
    e.memcg = FIRST + group
    e.task = 0
    e.obj = 0
    e.cache = 0
    e.arg = 0
    e.gfp = GFP_KERNEL_ACCOUNT
    e.cpu = (group + step) % w.cpus
    if step == 0 or step == 2 * w.objects + 1:
        e.op = CG_CREATE if step == 0 else CG_OFFLINE
        e.arg = PARENT if step == 0 else 0
        return True
    item = (step - 1) % w.objects
    if step > 2 * w.objects + 1:
        item = step - 2 * w.objects - 2 - w.lag
        if item < 0:
            return False
    obj = 1 + group * w.objects + item
    e.obj = obj
    what = W.cycle[item % len(CYCLE)].cache
    if step <= w.objects:
        e.op = ALLOC if what > 0 else PAGE_ALLOC
        e.cache = what if what > 0 else PAGES_STACK
        e.arg = 0 if what > 0 else STACK_ORDER
        if what == W.cycle[5].cache and item % INTERRUPT_EVERY > len(CYCLE):
            e.gfp = GFP_ATOMIC | CTX_SOFTIRQ
        return True
    e.op = FREE if what > 0 else PAGE_FREE
    if step <= 2 * w.objects:
        W.kept[obj].on = what > 0 and what <= INODE and below(W.rng, 100) < w.kept
        return W.kept[obj].on == 0
    return W.kept[obj].on != 0 and below(W.rng, 100) < w.reclaimed


def fill(S, W, batch):
    """Slot by slot, the next step of every group that lives, the eldest first."""
    w = W.at[0]
    life = 3 * w.objects + 2 + w.lag
    last = (w.groups - 1) * w.stagger + life
    n = 0
    while n < len(batch) and w.slot < last:
        step = w.slot - w.group * w.stagger
        if step < 0 or w.group == w.groups:
            w.slot += 1
            w.group = max(0, (w.slot - life) // w.stagger + 1)
            continue
        batch[n].t = w.slot * w.interval
        if step < life and write(W, batch[n], w.group, step):
            n += 1
        w.group += 1
    return n


def open_short_lives(parameters: dict, host: Host) -> OpenWorkload:
    """`groups` groups, one after another and overlapping."""
    groups, objects = parameters["groups"], parameters["objects"]
    geometry = {"era": host.era, "cpus": host.cpus, "page_size": host.page_size}
    caches = (
        *(make_cache(name, size, flags=flags, **geometry) for name, size, flags in CACHES),
        *kmalloc_caches(host.era, host.cpus, host.page_size),
    )
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size),
        host.era,
        caches,
        (
            GroupSpec("/", 0),
            GroupSpec("/pods"),
            *(GroupSpec(f"/pods/{i}", PARENT, online=False) for i in range(groups)),
        ),
        groups * objects + 1,
    )
    rows = {cache.name: row for row, cache in enumerate(caches, 1)}

    def prepare(S, W):
        for name in ("groups", "objects", "stagger", "lag", "kept", "reclaimed", "interval"):
            W.at[name] = parameters[name]
        W.at["cpus"] = host.cpus
        W.cycle["cache"] = [rows.get(what, what) for what in CYCLE]
        seed_stream(W.rng, host.seed, "short lives")

    names = ("groups", "objects", "stagger", "lag", "kept", "reclaimed", "interval", "cpus")
    tables = {
        "at": table(1, slot="i8", group="i8", **dict.fromkeys(names, "i8")),
        "cycle": table(len(CYCLE), cache="i4"),
        "kept": table("object", on="i4"),
        "rng": table(1, rng0="i8", rng1="i8", rng2="i8", rng3="i8"),
    }
    return generated(setup, fill, tables, prepare)


short_lives = Workload(
    name="short_lives",
    description="groups that are made, work a while and are removed, leaving what is cached",
    source="Roman Gushchin, reparenting v7, June 2019; kubernetes issue 61937",
    open=open_short_lives,
    parameters=(
        Parameter("groups", 200, "groups that come and go", "groups", 1, maximum=MOST_GROUPS),
        Parameter("objects", 64, "objects that a group allocates", "objects", 1),
        Parameter("stagger", 12, "steps from one group's creation to the next's", "steps", 1),
        Parameter("kept", 40, "dentries and inodes that outlive the group", "%", 0),
        Parameter("lag", 300, "steps until the cached ones are reclaimed", "steps", 0),
        Parameter("reclaimed", 90, "cached ones that are reclaimed at all", "%", 0),
        Parameter("interval", 4_000_000, "model time of a step", "ns", 1),
    ),
)
