"""What is counted: every path through the model, and the operations one passage costs.

The compiled code counts passages only (one add); operation counts are passages times these vectors,
and a hardware profile turns operations into time.  Vectors follow the named kernel functions, per
passage, not per event: an allocation that finds the cpu freelist empty passes ``alloc`` and
``alloc_cpu_partial``.  Calls are those of functions that a compiled Linux 6.18 has as symbols: what
the compiler inlined is not one.
"""

from typing import NamedTuple


class Ops(NamedTuple):
    """Operations of one passage."""

    br: int = 0  # data dependent branches
    ptr: int = 0  # dependent loads (pointer chases)
    pcpu: int = 0  # operations on this CPU's data
    cas: int = 0  # compare and exchange on this CPU's or an uncontended line
    rcu: int = 0  # read-side critical sections
    irq: int = 0  # interrupt disable + enable, local locks
    atom: int = 0  # atomic operations on lines that other CPUs write too
    spin: int = 0  # spin lock sections
    alloc: int = 0  # nested allocations
    work: int = 0  # work items queued
    near: int = 0  # shared lines fetched from another CPU of the node
    far: int = 0  # from a CPU of another node
    wait: int = 0  # locks that another CPU held
    call: int = 0  # function calls, with their returns; RCU sections and nested operations have own


class Path(NamedTuple):
    """A counted path: the phase it belongs to and what it costs."""

    name: str
    phase: str  # alloc | free | slab | page | charge | line | group | reclaim
    ops: Ops


PATHS = (
    # Linux 6.18 mm/slub.c:slab_alloc_node, ___slab_alloc
    Path("alloc", "alloc", Ops(br=2, ptr=1, pcpu=1, cas=1, call=1)),
    Path("alloc_remote_freed", "alloc", Ops(br=2, ptr=1, cas=1, irq=1, call=1)),
    Path("alloc_cpu_partial", "alloc", Ops(br=3, ptr=2, pcpu=2, cas=1, irq=1, call=1)),
    Path("alloc_node_partial", "alloc", Ops(br=4, ptr=3, pcpu=1, cas=1, spin=1, irq=1, call=4)),
    Path("node_partial_extra", "alloc", Ops(br=1, ptr=2, cas=1)),
    Path("alloc_new_slab", "alloc", Ops(br=4, ptr=2, pcpu=2, irq=1, call=1)),
    # mm/slub.c:do_slab_free, __slab_free, put_cpu_partial, __put_partials
    Path("free", "free", Ops(br=2, ptr=2, pcpu=1, cas=1, call=1)),
    Path("free_cpu_slab_remote", "free", Ops(br=2, ptr=1, atom=1, call=1)),
    Path("free_cpu_partial", "free", Ops(br=2, ptr=1, atom=1, call=1)),
    Path("free_node_partial", "free", Ops(br=3, ptr=2, atom=1, spin=1, call=3)),
    Path("free_to_cpu_partial", "free", Ops(br=3, ptr=2, pcpu=2, atom=1, irq=1, call=2)),
    Path("free_full_to_node", "free", Ops(br=3, ptr=2, atom=1, spin=1, call=3)),
    Path("drain_cpu_partial", "free", Ops(br=1, spin=1, call=3)),
    Path("drained_slab", "free", Ops(br=2, ptr=2)),
    # mm/slub.c:alloc_from_pcs, free_to_pcs
    Path("sheaf_alloc", "alloc", Ops(br=2, ptr=1, pcpu=1, irq=1, call=1)),
    Path("sheaf_free", "free", Ops(br=2, ptr=1, pcpu=1, irq=1, call=1)),
    Path("sheaf_swap", "slab", Ops(br=1, pcpu=2)),
    Path("barn_get", "slab", Ops(br=1, ptr=2, spin=1, call=3)),
    Path("barn_put", "slab", Ops(br=1, ptr=2, spin=1, call=3)),
    Path("sheaf_refill", "slab", Ops(br=1, pcpu=1, call=1)),
    Path("sheaf_flush", "slab", Ops(br=1, pcpu=1, call=1)),
    # mm/slub.c:allocate_slab, __free_slab ; mm/page_alloc.c:__rmqueue_smallest, __free_one_page
    Path("slab_made", "slab", Ops(br=6, ptr=4, atom=2, call=3)),
    Path("slab_gone", "slab", Ops(br=4, ptr=3, atom=2, call=2)),
    Path("page_alloc", "page", Ops(br=6, ptr=4, spin=1, irq=1, call=5)),
    Path("page_split", "page", Ops(br=1, ptr=1)),
    Path("page_free", "page", Ops(br=4, ptr=3, spin=1, irq=1, call=5)),
    Path("page_merge", "page", Ops(br=2, ptr=2)),
    # Linux 3.5 kernel/res_counter.c (one spin lock a level) ; 6.18 mm/page_counter.c (one atomic)
    Path("counter_charge_locked", "charge", Ops(br=1, ptr=1, spin=1, call=3)),
    Path("counter_charge_atomic", "charge", Ops(br=1, ptr=1, atom=1)),
    Path("counter_uncharge_locked", "charge", Ops(br=1, ptr=1, spin=1, call=3)),
    Path("counter_uncharge_atomic", "charge", Ops(br=1, ptr=1, atom=1)),
    Path("counter_fail", "charge", Ops(br=1, atom=1)),
    # mm/memcontrol.c:consume_stock, refill_stock, drain_stock
    Path("stock_hit", "charge", Ops(br=2, ptr=1, pcpu=1, irq=1, call=1)),
    Path("stock_miss", "charge", Ops(br=2, ptr=1, pcpu=1, irq=1, call=2)),
    Path("stock_refill", "charge", Ops(br=2, ptr=1, pcpu=1, irq=1, call=1)),
    Path("stock_drain", "charge", Ops(br=1, ptr=1, pcpu=1, call=3)),
    Path("group_made", "group", Ops(alloc=2)),
    Path("group_gone", "group", Ops(work=1)),
    # 3.8 mm/memcontrol.c:memcg_create_cache_enqueue, kmem_cache_dup ; kernel/workqueue.c
    Path("work_queued", "alloc", Ops(br=2, ptr=2, spin=1, alloc=1, work=1, call=3)),
    Path("work_run", "group", Ops(br=2, ptr=2, spin=1, call=3)),
    Path("copy_made", "group", Ops(br=4, ptr=4, spin=1, alloc=3, call=4)),
    Path("copy_gone", "group", Ops(br=2, ptr=2, spin=1, call=3)),
    # who wrote the line of a counter or of a node's list_lock last: kmbench.core.lines
    Path("line_near", "line", Ops(near=1)),
    Path("line_far", "line", Ops(far=1)),
    Path("lock_wait", "line", Ops(wait=1)),
    # Linux 3.5 mm/slab.c:____cache_alloc, cache_alloc_refill, __cache_free, cache_flusharray,
    # free_block, cache_free_alien, cache_reap
    Path("array_alloc", "alloc", Ops(br=2, ptr=1, pcpu=1, irq=1, call=1)),
    Path("array_free", "free", Ops(br=2, ptr=2, pcpu=1, irq=1, call=1)),
    Path("shared_refill", "alloc", Ops(br=3, ptr=2, spin=1, call=3)),
    Path("array_refill", "alloc", Ops(br=3, ptr=2, spin=1, call=3)),
    Path("slab_taken", "alloc", Ops(br=2, ptr=3)),
    Path("shared_flush", "free", Ops(br=2, ptr=2, spin=1, call=3)),
    Path("array_flush", "free", Ops(br=2, ptr=1, spin=1, call=3)),
    Path("block_freed", "free", Ops(br=2, ptr=3)),
    Path("alien_free", "free", Ops(br=2, ptr=2, spin=1, call=3)),
    Path("alien_drain", "free", Ops(br=1, ptr=2, spin=1, call=3)),
    Path("cache_reaped", "slab", Ops(br=4, ptr=3, spin=1, call=4)),
    # A superblock's shrinker that is asked for a group.  Linux 4.16 mm/vmscan.c:shrink_slab,
    # do_shrink_slab, fs/super.c:super_cache_count, mm/shmem.c:shmem_unused_huge_count, and for
    # dentries and inodes mm/list_lru.c:list_lru_count_one: the superblock, the file system's own
    # part, and of both lists the node (whose lock is taken), its array of groups and the list
    Path("shrinker_asked", "reclaim", Ops(br=16, ptr=8, spin=2, call=7)),
    # 6.18 mm/shrinker.c:shrink_slab_memcg with idr_find, do_shrink_slab, list_lru_count_one with
    # xa_load, xas_start and xas_load: the idr, the superblock, and of both lists two levels of
    # lru->xa and the list.  What was empty has its bit cleared and is asked again (SHRINK_EMPTY)
    Path("shrinker_bit", "reclaim", Ops(br=30, ptr=8, rcu=5, atom=2, call=12)),
    Path("shrinker_empty", "reclaim", Ops(br=24, rcu=4, atom=1, call=10)),
)
NR_PATHS = len(PATHS)
(
    ALLOC_PATH, ALLOC_REMOTE_FREED, ALLOC_CPU_PARTIAL, ALLOC_NODE_PARTIAL, NODE_PARTIAL_EXTRA,
    ALLOC_NEW_SLAB, FREE_PATH, FREE_CPU_SLAB_REMOTE, FREE_CPU_PARTIAL, FREE_NODE_PARTIAL,
    FREE_TO_CPU_PARTIAL, FREE_FULL_TO_NODE, DRAIN_CPU_PARTIAL, DRAINED_SLAB, SHEAF_ALLOC,
    SHEAF_FREE, SHEAF_SWAP, BARN_GET, BARN_PUT, SHEAF_REFILL, SHEAF_FLUSH, SLAB_MADE, SLAB_GONE,
    PAGE_ALLOCATED, PAGE_SPLIT, PAGE_FREED, PAGE_MERGE, COUNTER_CHARGE_LOCKED,
    COUNTER_CHARGE_ATOMIC, COUNTER_UNCHARGE_LOCKED, COUNTER_UNCHARGE_ATOMIC, COUNTER_FAIL,
    STOCK_HIT, STOCK_MISS, STOCK_REFILL, STOCK_DRAIN, GROUP_MADE, GROUP_GONE, WORK_QUEUED, WORK_RUN,
    COPY_MADE, COPY_GONE, LINE_NEAR, LINE_FAR, LOCK_WAIT, ARRAY_ALLOC, ARRAY_FREE, SHARED_REFILL,
    ARRAY_REFILL, SLAB_TAKEN, SHARED_FLUSH, ARRAY_FLUSH, BLOCK_FREED, ALIEN_FREE, ALIEN_DRAIN,
    CACHE_REAPED, SHRINKER_ASKED, SHRINKER_BIT, SHRINKER_EMPTY,
) = range(NR_PATHS)  # fmt: skip

PLUGIN_PATH = 80  # a strategy counts its own paths from here, in the order it declares them
MAX_PLUGIN_PATHS = 16
