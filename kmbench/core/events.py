"""The event format: one fixed 32-byte record per event, the same for generators and traces.

A stream is a C-contiguous array of :data:`EVENT`, ordered by ``t``.  Row numbers are 1-based: row 0
of every table of the model means "none", so that untouched memory is valid state.
"""

import numpy as np

EVENT = np.dtype(
    [
        ("t", "i8"),  # ns of model time, never decreasing
        ("obj", "i4"),  # object handle, dense, 1 .. nr_objects-1; 0 = none
        ("task", "i4"),  # thread id of the current task
        ("memcg", "i4"),  # memory cgroup of that task: row of the groups, 1 = root
        ("gfp", "u4"),  # gfp flags in bits 0-23 (values of Linux 6.18), context in bits 24-31
        ("arg", "i4"),  # bytes asked, page order, parent row, limit in pages: see the op
        ("cache", "i2"),  # kmem_cache row (alloc, free, shrink); page kind (page ops)
        ("op", "u1"),
        ("cpu", "u1"),
    ],
    align=False,
)

# ops.  Every op names the record fields that it reads besides t, cpu, task, memcg and gfp.
ALLOC = 0  # obj, cache; arg = bytes asked (0: the cache's object size)
FREE = 1  # obj
PAGE_ALLOC = 2  # obj, cache = page kind, arg = order: kernel pages that are not slabs
PAGE_FREE = 3  # obj
PERCPU_ALLOC = 4  # obj, arg = bytes over all CPUs
PERCPU_FREE = 5  # obj
CG_CREATE = 6  # arg = row of the parent; the new group is `memcg`
CG_OFFLINE = 7  # rmdir of `memcg`
CG_RELEASE = 8  # the last reference to the removed `memcg` is gone
LIMIT_WRITE = 9  # cache = counter (COUNTER_*), arg = limit in pages, -1 = unlimited
# task `task` moves to `memcg`; arg = row of the group it leaves; cache = 1: it is a thread whose mm
# belongs to a task that stays there
ATTACH = 10
SHRINK = 11  # kmem_cache_shrink of cache `cache`; 0 = every cache
SAMPLE = 12  # write one timeline sample now
MARK = 13  # a marker; arg = its number
FLUSH = 14  # empty every per-CPU stock
ACCESS = 15  # look up obj of `cache`, allocate it if absent; arg = handle of its parent, smaller
PIN = 16  # a reference to obj is taken (an open file, a working directory)
UNPIN = 17  # and dropped
USER_ALLOC = 18  # cache = USER_*, arg = pages: user memory of the task's group grows
USER_FREE = 19  # cache = USER_*, arg = pages: the group gives its oldest ones back
TELL = 20  # arg: userland of the task's group says so to the listener to memory pressure
DROP_CACHES = 21  # arg = DROP_*: a write to /proc/sys/vm/drop_caches
NR_OPS = 22

OP_NAMES = (
    "alloc", "free", "page_alloc", "page_free", "percpu_alloc", "percpu_free", "cg_create",
    "cg_offline", "cg_release", "limit_write", "attach", "shrink", "sample", "mark", "flush",
    "access", "pin", "unpin", "user_alloc", "user_free", "tell",
    "drop_caches",
)  # fmt: skip

# kinds of user pages (field `cache` of USER_ALLOC)
USER_CLEAN = 0  # page cache, as on disk
USER_DIRTY = 1  # page cache that must be written before it can go
USER_ANON = 2  # anonymous memory, goes to swap
USER_KINDS = ("file_clean", "file_dirty", "anon")

DROP_PAGECACHE, DROP_SLAB = 1, 2

# page kinds (field `cache` of PAGE_ALLOC)
PAGES_OTHER = 0  # __GFP_ACCOUNT pages: pipe buffers, vmalloc, ...
PAGES_STACK = 1  # kernel stack of a task
PAGES_TABLE = 2  # page table page
PAGES_KMALLOC = 3  # kmalloc above two pages, served by the page allocator
PAGE_KINDS = ("pages", "stack", "page_table", "kmalloc_large")

COUNTER_MEMORY = 0
COUNTER_KMEM = 1

# gfp flags, Linux 6.18 include/linux/gfp_types.h
GFP_RECLAIMABLE = 0x10
GFP_HIGH = 0x20
GFP_IO = 0x40
GFP_FS = 0x80
GFP_ZERO = 0x100
GFP_NOACCOUNT = 0x200  # Souhlal 2012, and 4.1 to 4.4; a bit that 6.18 does not use
GFP_DIRECT_RECLAIM = 0x400
GFP_KSWAPD_RECLAIM = 0x800
GFP_NOFAIL = 0x8000
GFP_NORETRY = 0x10000
GFP_MEMALLOC = 0x20000
GFP_ACCOUNT = 0x400000

GFP_ATOMIC = GFP_HIGH | GFP_KSWAPD_RECLAIM
GFP_NOWAIT = GFP_KSWAPD_RECLAIM
GFP_NOIO = GFP_DIRECT_RECLAIM | GFP_KSWAPD_RECLAIM
GFP_NOFS = GFP_NOIO | GFP_IO
GFP_KERNEL = GFP_NOFS | GFP_FS
GFP_KERNEL_ACCOUNT = GFP_KERNEL | GFP_ACCOUNT

# context of the event, beside the gfp flags
CTX_HARDIRQ = 1 << 24
CTX_SOFTIRQ = 1 << 25
CTX_NMI = 1 << 26
CTX_KTHREAD = 1 << 27  # no mm: kernel thread or idle
CTX_BH_OFF = 1 << 28
CTX_IRQ_OFF = 1 << 29
CTX_DYING = 1 << 30  # fatal signal pending, or exiting
CTX_MEMALLOC = 1 << 31  # PF_MEMALLOC: already reclaiming
CTX_INTERRUPT = CTX_HARDIRQ | CTX_SOFTIRQ | CTX_NMI

# slab cache flags (field `flags` of a cache)
SLAB_ACCOUNT = 1
SLAB_RECLAIM_ACCOUNT = 2
SLAB_TYPESAFE_BY_RCU = 4
SLAB_HWCACHE_ALIGN = 8
SLAB_KMALLOC = 16  # a kmalloc-N cache: kmalloc slack is counted

# why an object that belongs to a group is billed to nobody (metric A1), as -cause in `obj.billed`
CAUSE_NOT_SELECTED = 1
CAUSE_PENDING = 2  # the group's copy of the cache was still being made
CAUSE_INTERRUPT = 3
CAUSE_KTHREAD = 4
CAUSE_NOFAIL = 5
CAUSE_DYING = 6
CAUSE_VECTOR = 7  # the slab's obj_cgroup vector could not be allocated
CAUSE_CHARGE = 8  # the charge failed and the object was handed out all the same
CAUSE_REMOVED = 9  # the group was removed and its bill dropped
CAUSE_MM_OWNER = 10  # the owner of the task's mm is in the root group
CAUSE_NAMES = (
    "billed", "not_selected", "pending", "interrupt", "kthread", "nofail", "dying", "vector",
    "charge_failed", "removed", "mm_owner",
)  # fmt: skip
NR_CAUSES = 11

# why an operation failed (table `failures`)
FAIL_PAGES = 1  # no pages of that order
FAIL_LIMIT = 2  # a group on the way to the root was at its limit
FAIL_NO_GROUP = 3  # the group of the event does not exist yet, or any more
FAIL_NO_ID = 4  # a group could not be made: online and lingering groups hold all ids
FAIL_NAMES = ("ok", "no_pages", "limit", "no_group", "no_id")
