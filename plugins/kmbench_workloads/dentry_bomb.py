"""A group that fills memory with dentries, beside a web server that lives on its own.

The bomb makes names that nobody asks for again: many files in one place, or a chain of directories
(``mkdir x; cd x``), whose tip its working directory pins.  The victim looks up the files of a fixed
working set, 80 % of the time in a fifth of them, one after the other: it waits for every look-up,
so that misses and stalls slow it down.  Phases: 0 warm-up, 1 the victim alone, 2 with the bomb.
"""

from kmbench.core.access import busy
from kmbench.core.events import (
    ACCESS,
    GFP_KERNEL_ACCOUNT,
    MARK,
    PIN,
    SLAB_ACCOUNT,
    SLAB_RECLAIM_ACCOUNT,
    UNPIN,
    USER_ALLOC,
    USER_CLEAN,
)
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.jit import inlined
from kmbench.core.rng import below, seed_stream
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.tables import table
from kmbench.errors import UsageProblem
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload, generated

BOMB, VICTIM = 2, 3  # rows of the groups
FEEDBACK = 2048  # events written before the generator looks at what became of them
FLAGS = SLAB_ACCOUNT | SLAB_RECLAIM_ACCOUNT


@inlined
def put(e, t, op, memcg, obj, cache, arg, cpu):
    """Fill one event in."""
    e.t = t
    e.op = op
    e.memcg = memcg
    e.obj = obj
    e.task = memcg
    e.cache = cache
    e.arg = arg
    e.cpu = cpu
    e.gfp = GFP_KERNEL_ACCOUNT


def fill(S, W, batch):
    """The next events of both groups by time; each event takes as long as the last ones did."""
    w = W.at[0]
    spent = busy(S, VICTIM)
    if w.looked_up > 0:
        w.service = (spent - w.spent) // w.looked_up
    w.spent = spent
    w.looked_up = 0
    n = 0
    while n < FEEDBACK and w.phase < 3:
        e = batch[n]
        n += 1
        t = w.victim_t
        if w.phase == 2 and w.bomb_t < t:
            t = w.bomb_t
        if t >= w.ends:  # the next phase
            w.phase += 1
            w.ends += w.alone if w.phase == 1 else w.crowded
            put(e, t, MARK, 1, 0, 0, w.phase, 0)
            w.bomb_t = t
        elif w.phase == 2 and w.bomb_t <= w.victim_t:
            cpu = w.cpus - 1
            if w.todo == 1:  # chdir into what was made
                put(e, t, PIN, BOMB, w.made, 1, 0, cpu)
                w.todo = 2
            elif w.todo == 2:
                put(e, t, UNPIN, BOMB, max(w.made - 1, w.files), 1, 0, cpu)
                w.todo = 0
            elif w.fault_every and (w.made - w.files + 1) % w.fault_every == 0 and w.todo == 0:
                put(e, t, USER_ALLOC, BOMB, 0, USER_CLEAN, 1, cpu)
                w.todo = -1
            else:
                w.todo = 0
                if w.made + 1 < w.last:
                    w.made += 1
                    parent = w.made - 1 if w.chain and w.made > w.files + 1 else 0
                    put(e, t, ACCESS, BOMB, w.made, 1, parent, cpu)
                    w.todo = w.chain
                else:
                    put(e, t, MARK, 1, 0, 0, 2, cpu)
                w.bomb_t = t + w.bomb_every
        else:
            hot = max(w.files // 5, 1)
            file = below(W.rng, hot)
            if below(W.rng, 100) >= 80:
                file = hot + below(W.rng, w.files - hot)
            put(e, t, ACCESS, VICTIM, 1 + file, 1, 0, 0)
            w.looked_up += 1
            w.victim_t = t + w.think + w.service
    return n if w.phase < 3 or n > 1 else 0


def open_dentry_bomb(parameters: dict, host: Host) -> OpenWorkload:
    """`files` names of the victim, at most `names` of the bomb."""
    files, names = parameters["files"], parameters["names"]
    if files < 2:
        raise UsageProblem("workload dentry_bomb: files: expected at least 2")
    geometry = {"era": host.era, "cpus": host.cpus, "page_size": host.page_size}
    caches = (
        make_cache("dentry", 192, flags=FLAGS, **geometry),
        make_cache("ext4_inode_cache", 1120, flags=FLAGS, ctor=True, **geometry),
        *kmalloc_caches(host.era, host.cpus, host.page_size),
    )
    limit = parameters["limit_pages"] or -1
    groups = (
        GroupSpec("/", 0),
        GroupSpec("/bomb", memory_limit=limit, kmem_limit=limit if parameters["kmem"] else -1),
        GroupSpec("/web"),
    )
    setup = Setup(
        Machine(host.cpus, host.nodes, host.memory_pages, host.page_size),
        host.era, caches, groups, 2 * (files + names + 2),
    )  # fmt: skip

    def prepare(S, W):
        w = W.at
        w["files"], w["made"], w["last"] = files, files, files + names + 1
        w["cpus"], w["think"] = host.cpus, parameters["think"]
        w["bomb_every"], w["chain"] = parameters["bomb_every"], parameters["chain"]
        w["fault_every"] = parameters["fault_every"]
        w["ends"], w["alone"] = parameters["warm_ms"] * 10**6, parameters["alone_ms"] * 10**6
        w["crowded"] = parameters["crowded_ms"] * 10**6
        S.vm["victim"] = VICTIM
        seed_stream(W.rng, host.seed, "dentry_bomb files")

    fields = (
        "files", "made", "last", "cpus", "think", "bomb_every", "chain", "fault_every", "ends",
        "alone", "crowded", "victim_t", "bomb_t", "service", "spent", "looked_up", "phase", "todo",
    )  # fmt: skip
    tables = {
        "at": table(1, **dict.fromkeys(fields, "i8")),
        "rng": table(1, rng0="i8", rng1="i8", rng2="i8", rng3="i8"),
    }
    return generated(setup, fill, tables, prepare, reclaims=True)


dentry_bomb = Workload(
    name="dentry_bomb",
    description="one group makes dentries without end beside a web server",
    source="the dentry bomb of the kmem controller threads, 2012 to 2015",
    open=open_dentry_bomb,
    parameters=(
        Parameter("files", 20_000, "names that the victim looks up", "names", 2),
        Parameter("names", 200_000, "names that the bomb makes at most", "names", 1),
        Parameter("chain", False, "each name is a directory in the last one"),
        Parameter("limit_pages", 2048, "limit of the bomb's group; 0 = none", "pages", 0),
        Parameter("kmem", False, "the same limit for kernel memory alone"),
        Parameter("think", 5000, "victim's time between look-ups", "ns", 0),
        Parameter("bomb_every", 5000, "bomb's time between names", "ns", 1),
        Parameter("fault_every", 64, "names between two page faults of the bomb; 0 = none", "", 0),
        Parameter("warm_ms", 4000, "warm-up", "ms", 1),
        Parameter("alone_ms", 500, "the victim alone", "ms", 1),
        Parameter("crowded_ms", 1000, "with the bomb", "ms", 1),
    ),
)
