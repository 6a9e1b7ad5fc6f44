"""Reclaim inside a group: what a charge does before it fails.

Sources: Linux 3.5 mm/memcontrol.c:__mem_cgroup_try_charge, mem_cgroup_do_charge; 4.19 and 6.18
mm/memcontrol.c:try_charge, try_charge_memcg.  Up to 3.18 a group's reclaim scans its user pages
only; since 4.0 its slab objects too (``Accounting.slab_reclaim``).
"""

from kmbench.core.alarm import enter_reclaim, let_userland_run
from kmbench.core.events import (
    COUNTER_MEMORY,
    CTX_DYING,
    CTX_MEMALLOC,
    GFP_DIRECT_RECLAIM,
    GFP_FS,
    GFP_KERNEL,
    GFP_NORETRY,
)
from kmbench.core.jit import inlined, outlined
from kmbench.core.memcg import counter_charge, drain_slot, is_below
from kmbench.core.oom import oom_kill
from kmbench.core.shrink import shrink_slab
from kmbench.core.userpages import DEF_PRIORITY, SWAP_CLUSTER_MAX, shrink_pages, user_pages

ROUNDS = 100  # after as many the charge counts as stalled (F4) and fails
FEW_PAGES = 8  # requests up to here try again as long as anything came free


@outlined
def reclaim_group(S, memcg, nr, gfp):
    """try_to_free_mem_cgroup_pages: scan a group and its descendants; pages freed."""
    vm = S.vm[0]
    enter_reclaim(S)
    vm.group_runs += 1
    began = vm.cost
    io = io_so_far(S)
    target = max(nr, SWAP_CLUSTER_MAX)
    freed = 0
    prio = DEF_PRIORITY
    while prio >= 0 and freed < target:
        S.R.pressure_prio(S, S.U, memcg, prio, gfp)
        all_scanned = vm.scanned_pages
        all_reclaimed = vm.reclaimed_pages
        for row in range(2, S.k[0].nr_groups):
            if is_below(S, row, memcg):
                vm.target = memcg
                pages = user_pages(S, row)
                scanned = vm.scanned_pages
                reclaimed = vm.reclaimed_pages
                freed += shrink_pages(S, row, prio, target, gfp)
                scanned = vm.scanned_pages - scanned
                S.R.pressure(S, S.U, memcg, scanned, vm.reclaimed_pages - reclaimed)
                if vm.memcg_aware and vm.posted_2012 == 0:
                    freed += shrink_slab(S, row, prio, scanned, pages, gfp)
        all_scanned = vm.scanned_pages - all_scanned
        all_reclaimed = vm.reclaimed_pages - all_reclaimed
        if vm.memcg_aware and vm.posted_2012:
            freed += shrink_slab(S, memcg, prio, all_scanned, machine_pages(S), gfp)
        S.R.pressure_tree(S, S.U, memcg, all_scanned, all_reclaimed, gfp)
        prio -= 1
    vm.target = 0
    S.R.stalled(S, S.U, vm.cost - began, io_so_far(S) - io)
    return freed


@outlined
def shrink_group(S, memcg):
    """Have the shrinkers scan a group's own objects as hard as they ever do; pages freed.

    (shrink_slab without scanned pages, mem_cgroup_resize_kmem_limit of 21 Feb 2012.)
    """
    S.vm[0].target = memcg
    freed = shrink_slab(S, memcg, 0, 0, 0, GFP_KERNEL)
    S.vm[0].target = 0
    return freed


@inlined
def io_so_far(S):
    """Time that writing pages has taken in all, ns."""
    vm = S.vm[0]
    return (vm.written_pages + vm.swapped_pages) * vm.io_ns


@outlined
def machine_pages(S):
    """User pages of the whole machine that reclaim could scan (zone_reclaimable_pages)."""
    pages = 0
    for row in range(1, S.k[0].nr_groups):
        pages += user_pages(S, row)
    return pages


@inlined
def margin(S, memcg):
    """Pages that still fit below every limit on the way to the root."""
    room = 2**62
    while memcg > 0:
        c = S.counter[memcg * 2 + COUNTER_MEMORY]
        room = min(room, c.limit - c.usage)
        memcg = S.memcg[memcg].parent
    return room


@outlined
def drain_stocks(S, memcg):
    """drain_all_stock: what CPUs hold for a group's subtree goes back to the counters."""
    S.R.flush(S, S.P)
    for row in range(S.k[0].nr_cpus * S.k[0].stock_slots):
        if is_below(S, S.stock[row].memcg, memcg):
            drain_slot(S, row)


@outlined
def over_limit(S, cpu, memcg, nr, gfp, over):
    """Reclaim until `nr` pages can be charged to `memcg`: 0 then, else the row over its limit."""
    vm = S.vm[0]
    dying = gfp & CTX_DYING & S.k[0].forces
    if (gfp & GFP_DIRECT_RECLAIM) == 0 or gfp & CTX_MEMALLOC or dying or vm.busy:
        return over
    vm.busy = 1
    tries = vm.charge_retries
    drained = False
    for _ in range(ROUNDS):
        freed = reclaim_group(S, over, nr, gfp)
        let_userland_run(S, False)
        if margin(S, memcg) < nr:
            if not drained:
                drain_stocks(S, over)
                drained = True
        over = counter_charge(S, COUNTER_MEMORY, memcg, nr)
        if over == 0 or gfp & GFP_NORETRY:
            break
        if freed > 0 and nr <= FEW_PAGES:
            continue
        tries -= 1
        if tries > 0 or let_userland_run(S, True):
            continue
        if (vm.oom_needs_fs and (gfp & GFP_FS) == 0) or not oom_kill(S, over):
            break
        tries = vm.charge_retries
    else:
        vm.stalls += 1
    vm.busy = 0
    return over
