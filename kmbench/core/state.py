"""Every record of the simulated kernel's state, field by field.

Row 0 of a table is "none", so all-zero memory is a valid empty state and large tables cost only the
pages that are touched.  No field is named like an attribute of numpy's records, which plain Python
would meet instead.  Row numbers are int32: up to 2**31-1 objects, slabs, caches; a page frame
number fits too (8 TiB of 4 KiB pages).  Sizes in bytes are int64.
"""

import numpy as np

from kmbench.core.events import EVENT
from kmbench.core.tables import tables_class

NR_ORDERS = 11

# Scalars: one record, S.k[0].
KERNEL = np.dtype(
    [
        # configuration
        ("nr_cpus", "i4"),
        ("nr_nodes", "i4"),
        ("page_size", "i4"),
        ("page_shift", "i4"),
        ("nr_root_caches", "i4"),
        ("nr_objects", "i4"),  # handles below belong to the stream; vectors follow
        ("nr_groups", "i4"),  # rows of groups in use, including row 0
        ("discard_above", "i4"),  # era: empties go when nr_partial > min_partial, not >=
        ("partial_in_slabs", "i4"),  # era: cpu partial lists are counted in slabs
        ("trims_free", "i4"),  # era, SLAB: free slabs go until a node is below its limit
        ("shrink_promotes", "i4"),  # era: shrink moves only nearly full slabs to the front
        ("stock_slots", "i4"),  # page stock: slots per CPU (0 = none), pages a slot may hold
        ("stock_batch", "i4"),
        ("stock_single", "i4"),  # only requests of one page are served from it (to 3.x)
        ("counter_locked", "i4"),  # res_counter era: a spin lock a level, not an atomic
        ("forces", "i8"),  # gfp and context bits whose charges go over the limit
        ("vectors", "i4"),  # slabs have obj_cgroup vectors
        ("rcu_delay", "i8"),  # ns
        ("work_items", "i4"),  # work items that may wait
        ("work_delay", "i8"),  # ns from queueing a work item to its run
        ("max_ids", "i4"),  # ids of groups there are
        ("zombies_hold_ids", "i4"),  # era: a removed group keeps its id while it is alive
        ("sample_every", "i8"),  # ns; 0 = only SAMPLE events
        ("array_stride", "i8"),  # SLAB: entries that the arrays of all caches of a group need
        # time
        ("now", "i8"),
        ("cpu", "i4"),  # on which the current event, or deferred work, runs
        ("task", "i4"),  # of the current event
        ("next_due", "i8"),  # earliest of next_sample, next_reap, oldest RCU slab, oldest work
        ("next_sample", "i8"),
        ("timer_due", "i8"),  # next turn of kswapd and of other timers of reclaim
        ("next_reap", "i8"),  # SLAB: when a CPU passes over all caches next, which, and its number
        ("reap_cpu", "i4"),
        ("reap_round", "i8"),
        ("nr_samples", "i8"),
        ("nr_timeline", "i8"),  # rows used in the tables of the current call
        ("nr_cache_rows", "i8"),
        ("nr_total_rows", "i8"),
        # lists and queues
        ("nr_sheaves", "i4"),  # rows of sheaves in use, including row 0
        ("nr_caches", "i4"),  # rows of caches in use, including row 0
        ("nr_slab_rows", "i4"),  # slab rows ever used
        ("free_slab", "i4"),  # head of unused slab rows
        ("release", "i4"),  # head and tail of slabs whose pages go back after this event
        ("release_tail", "i4"),
        ("internal_head", "i4"),  # ring of operations that events caused
        ("internal_tail", "i4"),
        ("rcu_head", "i4"),  # ring of slabs that wait for a grace period
        ("rcu_tail", "i4"),
        ("work_head", "i4"),  # ring of work items
        ("work_tail", "i4"),
        ("status", "i4"),  # why the engine returned
        # counts
        ("nr_events", "i8"),
        ("nr_allocs", "i8"),
        ("nr_frees", "i8"),
        ("nr_skipped", "i8"),  # frees of objects that are not live, allocs of live ones
        ("nr_failed", "i8"),  # failed operations
        ("nr_failed_pages", "i8"),  # of these for want of pages, and over a limit
        ("nr_failed_limit", "i8"),
        ("nr_absorbed", "i8"),  # charges that met a limit and went through after all (F2)
        ("nr_fail_rows", "i8"),
        ("nr_internal", "i8"),
        ("nr_lines", "i8"),  # shared lines that somebody used
        ("crowded", "i8"),  # CPUs are at it at once: visits to shared lines are counted
        ("nr_work_lost", "i8"),  # items that could not be queued
        ("nr_work_duplicates", "i8"),  # items that asked for what another one already had
        ("nr_ids", "i8"),  # ids of groups in use
        ("nr_no_id", "i8"),  # groups that could not be made for want of an id (F8)
        ("forced_pages", "i8"),  # charged although a limit was hit (F5)
        ("metadata", "i8"),  # bytes of vectors and of copies of caches (W5)
        ("nr_slab_pages", "i8"),
        ("nr_kernel_pages", "i8"),
        ("percpu_bytes", "i8"),
        ("nr_free_pages", "i8"),
        ("rng0", "i8"),  # random stream of the page stock's eviction
        ("rng1", "i8"),
        ("rng2", "i8"),
        ("rng3", "i8"),
    ],
    align=True,
)

# 16 bytes per object.
OBJECT = np.dtype(
    [
        ("slab", "i4"),  # > 0 row of its slab; -1 - pfn of kernel pages; PERCPU; 0 not live
        ("owner", "i4"),  # memcg of the task that allocated it: the ground truth
        ("billed", "i4"),  # > 0 memcg billed; 0 rightly nobody; -CAUSE_* nobody; BY_CACHE
        ("req", "i4"),  # bytes asked; kernel pages: kind << 8 | order
    ]
)
PERCPU = -(2**31)
BY_CACHE = 2**30  # billed to whoever owns the copy that the slab now belongs to

# 32 bytes per slab.  `inuse` counts objects handed out (or parked in a sheaf).  Free objects of a
# CPU's active slab that are not on the cpu freelist were freed remotely: derived, not stored.
SLAB = np.dtype(
    [
        ("cache", "i4"),
        ("next", "i4"),  # list links: node partial, cpu partial, released, unused rows
        ("prev", "i4"),
        ("pfn", "i4"),
        ("objects", "i2"),
        ("inuse", "i2"),
        ("where", "u1"),
        ("order", "u1"),
        ("node", "u1"),
        ("vector", "u1"),  # 0 none, 1 asked for or allocated
        ("pobjects", "i4"),  # free objects of the cpu partial list up to here (eras to 5.15)
        ("memcg", "i4"),  # page-granular designs: group that pays for the slab
    ]
)
FULL, CPU, CPU_PARTIAL, NODE_PARTIAL, RCU_FREE = 0, 1, 2, 3, 4

# 32 bytes per CPU and cache; row cache * nr_cpus + cpu.
CPU_CACHE = np.dtype(
    [
        ("slab", "i4"),  # active slab
        ("free", "i4"),  # objects on the cpu freelist
        ("partial", "i4"),  # head of the cpu partial list
        ("nr_partial", "i4"),  # slabs on it
        ("live", "i8"),  # objects allocated less objects freed on this CPU
        ("req", "i8"),  # bytes asked for, likewise
    ]
)

# Fields of a record that stands for a cache line which several CPUs write (kmbench.core.lines).
LINE = (
    ("writer", "i2"),  # CPU + 1 that wrote it last; 0 = nobody yet
    ("reader", "i2"),  # another one + 1 that read it since, the first; 0 = none
    ("near", "i4"),  # times it came from another CPU of the node,
    ("far", "i4"),  # and of another node
    ("writes", "i4"),  # times it was written
    ("id", "i4"),  # 1, 2, ... in the order of first use; 0 = nobody used it yet
    # visits (kmbench.core.lines) that
    ("opens", "i4"),  # began with a write,
    ("takes", "i4"),  # wrote it,
    ("takes_on", "i4"),  # did so right after a visit of the same CPU to it that did, too,
    ("looks", "i4"),  # began with a read,
    ("looks_on", "i4"),  # did so right after a visit of the same CPU to it
    ("written", "i8"),  # when it was written last
)

# Row: CPU.  The shared line that it used last.
VISIT = np.dtype(
    [
        ("line", "i4"),  # its id; -1 = none yet
        ("took", "i2"),  # it wrote it in this visit
        ("had", "i2"),  # the visit before was to the same line and wrote it
        ("when", "i8"),
    ]
)

# Row cache * nr_nodes + node.  The line is that of the list_lock.
NODE_CACHE = np.dtype([("head", "i4"), ("tail", "i4"), ("nr_partial", "i4"), *LINE], align=True)

CACHE = np.dtype(
    [
        ("slot", "i4"),  # bytes from one object to the next (its `size`)
        ("object_size", "i4"),
        ("objects", "i4"),  # objs_per_slab at the full order
        ("slab_flags", "i4"),
        ("memcg", "i4"),  # owner of this copy; 0 = the root cache
        ("pays", "i4"),  # group billed for objects of this copy: its owner, an heir, or nobody
        ("root", "i4"),  # cache that this one is a copy of, else itself
        ("min_partial", "i4"),
        ("cpu_partial", "i4"),  # objects (to 5.15) or slabs (5.16+), by era; 0 = no list
        ("order", "i4"),
        ("min_order", "i4"),
        ("sheaf", "i4"),  # row of its sheaves; 0 = none
        ("sheaf_capacity", "i4"),
        ("vector_cache", "i4"),  # kmalloc cache of its vectors; 0 = only counted
        ("vector_bytes", "i4"),
        ("min_vector_cache", "i4"),  # the same for a slab of the smallest order
        ("min_vector_bytes", "i4"),
        ("state", "i4"),  # 0 alive, 1 dead: its group is gone, no new objects
        ("nr_slabs", "i8"),
        ("num_objs", "i8"),
        ("slabs_made", "i8"),
        ("slabs_gone", "i8"),
    ],
    align=True,
)

# 128 bytes per group.
MEMCG = np.dtype(
    [
        ("parent", "i4"),
        ("state", "i4"),
        ("objcg_memcg", "i4"),  # where charges and objects of this group go: itself while online
        ("objcg_refs", "i4"),  # what holds this group's obj_cgroup; kept by strategies
        ("objcg_pages", "i8"),  # pages that obj_cgroups charged to this group; kept by strategies
        ("nr_charged_bytes", "i8"),  # left-over bytes of its obj_cgroup, on no CPU's stock
        ("true_slab", "i8"),  # slots of live objects that its tasks allocated
        ("true_pages", "i8"),  # kernel pages and per-cpu bytes that its tasks allocated
        ("billed_slab", "i8"),  # slots of live objects billed to it
        ("billed_pages", "i8"),  # kernel pages and per-cpu bytes billed to it
        ("objects", "i8"),  # live objects its tasks allocated
        ("stock", "i8"),  # scratch of sampling: bytes in page stocks
        ("byte_stock", "i8"),  # scratch of sampling: bytes in byte stocks and left over
        ("offline_since", "i8"),
        ("css_pages", "i8"),  # charged pages that keep a removed group alive; kept by strategies
        ("gone_at", "i8"),  # when nothing kept it alive any more
        ("css_refs", "i4"),  # what else does: copies of caches (by strategies), user pages
        ("has_id", "i4"),
    ]
)
ABSENT, ONLINE, OFFLINE, RELEASED = 0, 1, 2, 3

# Row memcg * 2 + COUNTER_*; pages.
COUNTER = np.dtype(
    [("usage", "i8"), ("limit", "i8"), ("watermark", "i8"), ("failcnt", "i8"), ("overshoot", "i8"),
     *LINE], align=True,
)  # fmt: skip
UNLIMITED = 2**62

STOCK = np.dtype([("memcg", "i4"), ("nr", "i4")])  # row cpu * stock_slots + slot
# row memcg * (nr_root_caches + 1) + root cache; `pending`: work items that will make the copy
CHILD = np.dtype([("cache", "i4"), ("pending", "i4")])
PATH = np.dtype([("count", "i8")])
UNBILLED = np.dtype([("bytes", "i8"), ("objects", "i8")])  # row CAUSE_*
PFN = np.dtype([("next", "i4"), ("prev", "i4"), ("free_order", "i4")])  # free_order: order + 1
AREA = np.dtype(  # row node * NR_ORDERS + order
    [
        ("head", "i4"),  # pfn + 1 of the first free block
        ("nr", "i4"),  # free blocks, fresh ones included
        ("fresh", "i4"),  # largest order: never used blocks from here on stand behind all others
    ]
)
INTERNAL = EVENT
RCU = np.dtype([("due", "i8"), ("slab", "i4"), ("cpu", "i4")])
WORK = np.dtype([("due", "i8"), ("kind", "i4"), ("a", "i4"), ("b", "i4"), ("_pad", "i4")])
FAILURE = np.dtype(
    [("t", "i8"), ("op", "i4"), ("memcg", "i4"), ("cache", "i4"), ("gfp", "i8"), ("arg", "i4"),
     ("cause", "i4")], align=True,
)  # fmt: skip

# Sheaves (6.18): row sheaf * nr_cpus + cpu; entries name the slab an object came from.
SHEAF = np.dtype([("main", "i4"), ("nr_main", "i4"), ("nr_spare", "i4"), ("_pad", "i4")])
SHEAF_SLOT = np.dtype([("slab", "i4")])  # ((sheaf * nr_cpus + cpu) * 2 + half) * capacity + i
BARN = np.dtype([("nr_full", "i4")])  # row sheaf * nr_nodes + node
BARN_FULL = 10  # full sheaves a barn holds (MAX_FULL_SHEAVES)
SHEAF_MAX = 64  # objects a sheaf may hold

# SLAB has other records per CPU, node and cache.  Lists that its slabs are on, `where`:
PARTIAL_LIST, FREE_LIST = 1, 2  # beside FULL
NR_LISTS = 3
SLAB_CPU = np.dtype(  # array_cache; row cache * nr_cpus + cpu
    [
        ("avail", "i4"),  # objects in it
        ("touched", "i4"),  # used since the last reaping
        ("live", "i8"),  # as in CPU_CACHE
        ("req", "i8"),
    ]
)
SLAB_NODE = np.dtype(  # kmem_list3; row cache * nr_nodes + node
    [
        ("free_objects", "i4"),  # on its lists
        ("free_limit", "i4"),  # above it empty slabs go
        ("free_touched", "i4"),  # slabs_free was used since the last reaping
        ("shared_avail", "i4"),
        ("shared_touched", "i4"),
        ("next_reap", "i8"),
        *LINE,  # that of its list_lock
    ],
    align=True,
)
SLAB_CACHE = np.dtype(
    [
        *((name, CACHE[name]) for name in CACHE.names),
        ("limit", "i4"),  # objects that a CPU's array may hold
        ("batchcount", "i4"),
        ("shared_limit", "i4"),  # objects that a node's shared array may hold; 0 = none
        ("alien_limit", "i4"),
        ("management", "i4"),  # bytes of a slab's management outside it; 0 = inside
        ("management_cache", "i4"),  # kmalloc cache of those; 0 = only counted
        ("array", "i8"),  # first entries of its arrays in the table `array`
        ("shared", "i8"),
        ("alien", "i8"),
    ],
    align=True,
)
LIST = np.dtype([("head", "i4"), ("tail", "i4"), ("nr", "i4"), ("_pad", "i4")])
ALIEN = np.dtype([("avail", "i4")])  # row (cache * nr_nodes + node) * nr_nodes + remote node
ARRAY = np.dtype([("slab", "i4")])  # an object in an array: the slab it lies in

FIELDS = {
    "k": KERNEL,
    "obj": OBJECT,
    "slab": SLAB,
    "cpu": CPU_CACHE,
    "node": NODE_CACHE,
    "cache": CACHE,
    "memcg": MEMCG,
    "counter": COUNTER,
    "stock": STOCK,
    "visit": VISIT,
    "child": CHILD,
    "path": PATH,
    "unbilled": UNBILLED,
    "pfn": PFN,
    "area": AREA,
    "internal": INTERNAL,
    "rcu": RCU,
    "work": WORK,
    "fail": FAILURE,
    "sheaf": SHEAF,
    "sheaf_slot": SHEAF_SLOT,
    "barn": BARN,
    "barn_slot": SHEAF_SLOT,
}
State = tables_class((*FIELDS, "R"))  # R: what :mod:`kmbench.core.joints` names

_SLUB_ONLY = ("sheaf", "sheaf_slot", "barn", "barn_slot")
SLAB_FIELDS = {
    **{name: dtype for name, dtype in FIELDS.items() if name not in _SLUB_ONLY},
    "cpu": SLAB_CPU,
    "node": SLAB_NODE,
    "cache": SLAB_CACHE,
    "list": LIST,  # row (cache * nr_nodes + node) * NR_LISTS + where
    "alien": ALIEN,
    "array": ARRAY,
}

# why the engine returned (S.k[0].status)
DONE, ROWS_FULL = 0, 1
