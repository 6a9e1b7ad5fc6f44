"""Reclaim: who is scanned, how hard, and when it is given up.

Sources: Linux 3.5 and 6.18 mm/vmscan.c (balance_pgdat, try_to_free_pages,
try_to_free_mem_cgroup_pages), mm/page_alloc.c (__alloc_pages_slowpath, should_reclaim_retry,
__zone_watermark_ok, __setup_per_zone_wmarks), mm/oom_kill.c.

All memory is one zone.  kswapd is a timer in model time: each of its turns scans at one priority
and takes as long as the scanning costs.  An allocator that cannot wait for it reclaims itself; what
that costs is the stall of its task (``vm.cost``).
"""

from kmbench.core.access import look_ahead, look_nearer, other
from kmbench.core.alarm import arm, enter_reclaim, let_userland_run
from kmbench.core.cached import list_append_all, list_leave, put_object, release_object
from kmbench.core.charge import io_so_far, over_limit, reclaim_group, shrink_group
from kmbench.core.events import (
    CTX_MEMALLOC,
    FAIL_LIMIT,
    GFP_DIRECT_RECLAIM,
    GFP_FS,
    GFP_HIGH,
    GFP_KERNEL,
    GFP_KSWAPD_RECLAIM,
    GFP_NOFAIL,
    GFP_NORETRY,
)
from kmbench.core.fingerprint import plain
from kmbench.core.jit import inlined, outlined
from kmbench.core.objects import alloc_object, free_object
from kmbench.core.oom import oom_kill
from kmbench.core.pages import alloc_pages
from kmbench.core.shrink import shrink_slab
from kmbench.core.state import UNLIMITED
from kmbench.core.userpages import DEF_PRIORITY, SWAP_CLUSTER_MAX, shrink_pages, user_pages

COSTLY_ORDER = 3
MAX_RETRIES = 16  # rounds without progress (MAX_RECLAIM_RETRIES)
ROUNDS = 100  # after as many in all the allocation counts as stalled (F4) and fails
MIN_TURN = 10_000  # ns that a turn of kswapd takes at least


@outlined
def shrink_node(S, prio, target, gfp):
    """One round of global reclaim at a priority: pages freed."""
    vm = S.vm[0]
    vm.target = 0
    freed = 0
    all_scanned = 0
    all_pages = 0
    for memcg in range(1, S.k[0].nr_groups):
        pages = user_pages(S, memcg)
        scanned = vm.scanned_pages
        reclaimed = vm.reclaimed_pages
        freed += shrink_pages(S, memcg, prio, target, gfp)
        scanned = vm.scanned_pages - scanned
        if vm.global_by_group:
            freed += shrink_slab(S, memcg, prio, scanned, pages, gfp)
        S.R.pressure(S, S.U, 0, scanned, vm.reclaimed_pages - reclaimed)
        all_scanned += scanned
        all_pages += pages
    if vm.global_by_group == 0 and (vm.posted_2012 == 0 or gfp & CTX_MEMALLOC):
        freed += shrink_slab(S, 0, prio, all_scanned, all_pages, gfp)
    S.R.pressure_tree(S, S.U, 0, all_scanned, freed, gfp)
    return freed


@outlined
def direct_reclaim(S, nr, gfp):
    """try_to_free_pages: pages freed."""
    vm = S.vm[0]
    enter_reclaim(S)
    vm.direct_runs += 1
    began = vm.cost
    io = io_so_far(S)
    target = max(nr, SWAP_CLUSTER_MAX)
    freed = 0
    prio = DEF_PRIORITY
    while prio >= 0 and freed < target:
        S.R.pressure_prio(S, S.U, 0, prio, gfp)
        freed += shrink_node(S, prio, target, gfp)
        prio -= 1
    S.R.stalled(S, S.U, vm.cost - began, io_so_far(S) - io)
    return freed


@inlined
def wake_kswapd(S):
    """Have kswapd run soon, unless it does already (wakeup_kswapd)."""
    vm = S.vm[0]
    if vm.kswapd_due == UNLIMITED and vm.kswapd_failures < MAX_RETRIES:
        vm.kswapd_prio = DEF_PRIORITY
        vm.kswapd_due = S.k[0].now + vm.kswapd_delay
        arm(S)


@outlined
def timer(S):
    """Whoever is due has its turn: a userland listener, else kswapd."""
    vm = S.vm[0]
    S.k[0].cpu = 0
    vm.cost = 0
    if vm.notify_due == S.k[0].now:
        vm.notify_due = UNLIMITED
        S.R.notified(S, S.U)
    else:
        vm.kswapd_due = UNLIMITED
        kswapd_turn(S)
    arm(S)


@outlined
def kswapd_turn(S):
    """One priority, then the next one later if too little came free (balance_pgdat).

    Up to 3.10 it never stops scanning a group early, then at the high watermark's worth of pages
    (kswapd_shrink_node).
    """
    k = S.k[0]
    vm = S.vm[0]
    if k.nr_free_pages >= vm.wmark_high:
        return
    for cause in range(1, len(S.unbilled)):
        vm.unbilled_bytes += S.unbilled[cause].bytes
    vm.kswapd_turns += 1
    io = io_so_far(S)
    target = UNLIMITED if vm.no_bail else max(vm.wmark_high, SWAP_CLUSTER_MAX)
    freed = shrink_node(S, vm.kswapd_prio, target, GFP_KERNEL | CTX_MEMALLOC)
    took = vm.cost
    vm.cost = 0  # no task waits for it
    S.R.stalled(S, S.U, took, io_so_far(S) - io)
    if freed > 0:
        vm.kswapd_failures = 0
    if k.nr_free_pages >= vm.wmark_high:
        return
    if freed < SWAP_CLUSTER_MAX:
        vm.kswapd_prio -= 1
        if vm.kswapd_prio < 1:
            vm.kswapd_failures += 1
            return
    vm.kswapd_due = k.now + max(took, MIN_TURN)


@inlined
def above(S, nr, mark, gfp):
    """Whether `nr` pages leave the free pages above a watermark, lowered as gfp and context allow
    (__zone_watermark_ok)."""
    if gfp & CTX_MEMALLOC:
        mark = 0
    elif gfp & GFP_HIGH:
        mark -= mark // 2
        if (gfp & GFP_DIRECT_RECLAIM) == 0:
            mark -= mark // 4
    return S.k[0].nr_free_pages - nr >= mark


@inlined
def take_pages(S, cpu, order):
    """2**order pages off the buddy lists, whatever the watermarks."""
    k = S.k[0]
    return alloc_pages(S.pfn, S.area, S.path, k.nr_nodes, cpu % k.nr_nodes, order)


@outlined
def slow_pages(S, cpu, order, gfp):
    """__alloc_pages_slowpath: 2**order pages, or -1."""
    vm = S.vm[0]
    nr = 1 << order
    if gfp & GFP_KSWAPD_RECLAIM:
        wake_kswapd(S)
    if above(S, nr, vm.wmark_min, gfp):
        pfn = take_pages(S, cpu, order)
        if pfn >= 0:
            return pfn
    if gfp & (GFP_DIRECT_RECLAIM | GFP_NOFAIL) == 0 or gfp & CTX_MEMALLOC or vm.busy:
        return -1
    vm.busy = 1
    pfn = -1
    no_progress = 0
    for _ in range(ROUNDS):
        freed = direct_reclaim(S, nr, gfp)
        let_userland_run(S, False)
        if above(S, nr, vm.wmark_min, gfp):
            pfn = take_pages(S, cpu, order)
        if pfn >= 0 or gfp & GFP_NORETRY or order > COSTLY_ORDER:
            break
        no_progress = 0 if freed else no_progress + 1
        gave_up = no_progress > 0 if vm.oom_at_once else no_progress > MAX_RETRIES
        if not gave_up or let_userland_run(S, True):
            continue
        if gfp & GFP_FS:
            if oom_kill(S, 0):
                no_progress = 0
                continue
        elif (gfp & GFP_NOFAIL) == 0 and not vm.oom_at_once:
            no_progress = 0  # NOFS: nobody is killed, the allocation tries on
            continue
        if gfp & GFP_NOFAIL:
            pfn = take_pages(S, cpu, order)
        break
    else:
        vm.stalls += 1
    vm.busy = 0
    return pfn


@outlined
def get_pages(S, cpu, order, gfp):
    """2**order pages for `cpu`: their first page frame, or -1 (__alloc_pages)."""
    if S.k[0].nr_free_pages - (1 << order) >= S.vm[0].wmark_low:
        pfn = take_pages(S, cpu, order)
        if pfn >= 0:
            return pfn
    return slow_pages(S, cpu, order, gfp)


@outlined
def failed(S, memcg, cache, cause):
    """An operation failed over a limit: R4 when the group had unused objects of its own (ENOMEM
    with reclaimable memory)."""
    if cause == FAIL_LIMIT and S.user[memcg].unused > 0:
        S.vm[0].failed_with_reclaimable += 1


@inlined
def allocating(S, obj):
    """Nobody owns it yet: an OOM kill during its charge must not take it for the victim's."""
    S.obj[obj].owner = 0


@outlined
def remove_object(S, obj):
    """The stream frees a cached object (unlink): False while it is referenced.

    It leaves its list and lets go of its parent; its inode goes with it.
    """
    i = S.item[obj]
    if i.pins > 0:
        return False
    if i.on:
        list_leave(S, obj)
    i.known = 0
    i.evicted = 0
    S.user[S.obj[obj].owner].unused -= 1
    if i.parent:
        put_object(S, i.parent)
        i.parent = 0
    inode = obj + S.vm[0].inode_offset
    if S.vm[0].inode_cache and obj < S.vm[0].inode_offset and S.item[inode].known:
        S.item[inode].pins -= 1
        S.user[S.obj[inode].owner].unused += 1
        if S.item[inode].on:
            list_leave(S, inode)
        release_object(S, inode)
    return True


@inlined
def may_free(S, obj):
    """Whether the stream may free the object of a handle."""
    return remove_object(S, obj) if S.item[obj].known else True


@outlined
def group_gone(S, memcg):
    """A removed group's lists go to its nearest ancestor that is online (memcg_reparent_list_lrus);
    its user pages stay charged to it until they are reclaimed."""
    if S.vm[0].posted_2012:
        return
    heir = S.memcg[memcg].parent
    while heir > 1 and S.memcg[heir].state != 1:
        heir = S.memcg[heir].parent
    for kind in range(S.vm[0].lists):
        list_append_all(S, memcg * S.vm[0].lists + kind, max(heir, 1) * S.vm[0].lists + kind)
    S.owner[max(heir, 1)].deferred += S.owner[memcg].deferred
    S.owner[memcg].deferred = 0


RECLAIM = {
    "alloc_object": outlined(plain(alloc_object)),
    "free_object": outlined(plain(free_object)),
} | {
    function.__name__: function
    for function in (
        get_pages, over_limit, reclaim_group, shrink_group, timer, may_free, allocating, failed,
        group_gone, look_ahead, look_nearer, other,
    )
}  # fmt: skip
