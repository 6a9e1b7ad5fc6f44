"""User pages: page cache and anonymous memory of each group, as pools of order-0 pages.

A pool, row ``memcg * 3 + USER_*``, is a queue of page frames, oldest first.  Scanning is a share of
it: of 1000 scanned pages `keep_less` come free (the rest is mapped, referenced or locked), carried
over between scans, so no random numbers are needed.  Dirty pages are written back when scanned and
are clean from then on; anonymous ones go to swap.  Pages are charged to the memory counter by every
design (Linux 3.5 and 6.18 mm/memcontrol.c:mem_cgroup_charge).  Since 3.19 (b2052564e66d, "mm:
memcontrol: continue cache reclaim from offlined groups") they keep a removed group alive; here with
the strategies that have global reclaim go group by group, from 4.0 on.
"""

from kmbench.core.events import (
    COUNTER_MEMORY,
    CTX_MEMALLOC,
    FAIL_LIMIT,
    FAIL_PAGES,
    GFP_IO,
    USER_ANON,
    USER_CLEAN,
    USER_DIRTY,
)
from kmbench.core.groups import css_pin, css_unpin
from kmbench.core.jit import inlined, outlined
from kmbench.core.memcg import counter_uncharge, try_charge
from kmbench.core.pages import free_pages, node_of
from kmbench.core.state import UNLIMITED

DEF_PRIORITY = 12
SWAP_CLUSTER_MAX = 32


@inlined
def pool_push(S, pool, pfn):
    """Queue a page frame as the newest of a pool."""
    p = S.pool[pool]
    S.pfn[pfn].next = 0
    if p.newest:
        S.pfn[p.newest - 1].next = pfn + 1
    else:
        p.oldest = pfn + 1
    p.newest = pfn + 1
    p.nr += 1


@inlined
def pool_pop(S, pool):
    """Take the oldest page frame off a pool that is not empty."""
    p = S.pool[pool]
    pfn = p.oldest - 1
    p.oldest = S.pfn[pfn].next
    if p.oldest == 0:
        p.newest = 0
    p.nr -= 1
    return pfn


@outlined
def free_user_pages(S, memcg, kind, nr):
    """Give back the `nr` oldest pages of a pool, which has as many."""
    k = S.k[0]
    for _ in range(nr):
        pfn = pool_pop(S, memcg * 3 + kind)
        free_pages(S.pfn, S.area, S.path, node_of(k, pfn, len(S.pfn)), pfn, 0)
    k.nr_free_pages += nr
    S.vm[0].nr_user_pages -= nr
    if memcg > 1 and nr > 0:
        counter_uncharge(S, COUNTER_MEMORY, memcg, nr, 0)
        if S.vm[0].global_by_group:
            css_unpin(S, memcg, nr)


@outlined
def alloc_user_pages(S, cpu, memcg, kind, nr, gfp):
    """Grow a pool page by page: 0, or why it stopped (FAIL_*)."""
    for _ in range(nr):
        if memcg > 1 and try_charge(S, cpu, memcg, 1, gfp):
            return FAIL_LIMIT
        pfn = S.R.get_pages(S, cpu, 0, gfp)
        if pfn < 0:
            if memcg > 1:
                counter_uncharge(S, COUNTER_MEMORY, memcg, 1, 0)
            return FAIL_PAGES
        pool_push(S, memcg * 3 + kind, pfn)
        if memcg > 1 and S.vm[0].global_by_group:
            css_pin(S, memcg, 1)
        S.k[0].nr_free_pages -= 1
        S.vm[0].nr_user_pages += 1
    return 0


@inlined
def scan_batch(S, memcg, kind, nr):
    """Scan `nr` pages of a pool: how many came free."""
    vm = S.vm[0]
    p = S.pool[memcg * 3 + kind]
    vm.scanned_pages += nr
    vm.cost += nr * vm.page_ns
    if kind == USER_DIRTY:
        for _ in range(nr):
            pool_push(S, memcg * 3 + USER_CLEAN, pool_pop(S, memcg * 3 + USER_DIRTY))
        vm.written_pages += nr
        vm.cost += nr * vm.io_ns
        return 0
    share = nr * vm.keep_less + p.carry
    freed = share // 1000
    p.carry = share % 1000
    if kind == USER_ANON:
        freed = min(freed, vm.swap_free)
        vm.swap_free -= freed
        vm.swapped_pages += freed
        vm.cost += freed * vm.io_ns
        S.user[memcg].swapped += freed
    free_user_pages(S, memcg, kind, freed)
    vm.reclaimed_pages += freed
    return freed


@outlined
def shrink_pages(S, memcg, prio, target, gfp):
    """Scan a group's pools at a priority until `target` pages came free: pages freed.

    (3.5 mm/vmscan.c:shrink_lruvec: ``size >> priority`` of each list in batches of 32.  At
    DEF_PRIORITY nobody stops early, later than 3.10 only direct reclaim of the whole machine.)
    """
    vm = S.vm[0]
    freed = 0
    if prio == DEF_PRIORITY and (vm.no_bail or (vm.target == 0 and (gfp & CTX_MEMALLOC) == 0)):
        target = UNLIMITED
    for kind in range(3):
        p = S.pool[memcg * 3 + kind]
        left = p.nr >> prio
        if kind != USER_CLEAN and (gfp & GFP_IO) == 0:
            left = 0
        while left > 0 and freed < target and (kind != USER_ANON or vm.swap_free > 0):
            nr = min(left, 32, p.nr)
            if nr == 0:
                break
            freed += scan_batch(S, memcg, kind, nr)
            left -= nr
    return freed


@inlined
def user_pages(S, memcg):
    """User pages of a group that reclaim could scan."""
    p = memcg * 3
    anon = S.pool[p + USER_ANON].nr if S.vm[0].swap_free > 0 else 0
    return S.pool[p + USER_CLEAN].nr + S.pool[p + USER_DIRTY].nr + anon
