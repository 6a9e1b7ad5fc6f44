"""Reclaim inside a group: what a charge does before it fails.

Sources: Linux 3.5 mm/memcontrol.c:__mem_cgroup_try_charge, mem_cgroup_do_charge; 4.19 and 6.18
mm/memcontrol.c:try_charge, try_charge_memcg.  Up to 3.18 a group's reclaim scans its user pages
only; since 4.0 its slab objects too (``Accounting.slab_reclaim``).
"""

from kmbench.core.events import (
    COUNTER_MEMORY,
    CTX_DYING,
    CTX_MEMALLOC,
    GFP_DIRECT_RECLAIM,
    GFP_FS,
    GFP_NORETRY,
)
from kmbench.core.jit import inlined, outlined
from kmbench.core.memcg import counter_charge, drain_slot
from kmbench.core.oom import is_below, oom_kill
from kmbench.core.shrink import shrink_slab
from kmbench.core.userpages import shrink_pages, user_pages

DEF_PRIORITY = 12
SWAP_CLUSTER_MAX = 32
ROUNDS = 100  # after as many the charge counts as stalled (F4) and fails
FEW_PAGES = 8  # requests up to here try again as long as anything came free


@outlined
def reclaim_group(S, memcg, nr, gfp):
    """try_to_free_mem_cgroup_pages: scan a group and its descendants; pages freed."""
    vm = S.vm[0]
    vm.group_runs += 1
    target = max(nr, SWAP_CLUSTER_MAX)
    freed = 0
    prio = DEF_PRIORITY
    while prio >= 0 and freed < target:
        S.R.pressure_prio(S, S.U, memcg, prio)
        for row in range(2, S.k[0].nr_groups):
            if is_below(S, row, memcg):
                vm.target = memcg
                pages = user_pages(S, row)
                scanned = vm.scanned_pages
                reclaimed = vm.reclaimed_pages
                freed += shrink_pages(S, row, prio, target, gfp)
                scanned = vm.scanned_pages - scanned
                S.R.pressure(S, S.U, memcg, scanned, vm.reclaimed_pages - reclaimed)
                if vm.memcg_aware:
                    freed += shrink_slab(S, row, prio, scanned, pages, gfp)
        prio -= 1
    vm.target = 0
    return freed


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
        if tries > 0:
            continue
        if (vm.oom_needs_fs and (gfp & GFP_FS) == 0) or not oom_kill(S, over):
            break
        tries = vm.charge_retries
    else:
        vm.stalls += 1
    vm.busy = 0
    return over
