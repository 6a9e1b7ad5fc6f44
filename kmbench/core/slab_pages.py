"""How a slab of either allocator gets its pages and gives them up.

A slab whose objects are all free may be *discarded*: it leaves the counts at once and its pages
after the event (:func:`kmbench.core.release.settle`), or after a grace period if its cache is
SLAB_TYPESAFE_BY_RCU.
"""

from kmbench.core.events import (
    GFP_DIRECT_RECLAIM,
    GFP_KSWAPD_RECLAIM,
    GFP_NOFAIL,
    SLAB_TYPESAFE_BY_RCU,
)
from kmbench.core.jit import inlined
from kmbench.core.pages import free_pages, node_of
from kmbench.core.paths import ALLOC_NEW_SLAB, SLAB_MADE
from kmbench.core.state import RCU_FREE

RETRY_GFP = 0xFFFFFFFF ^ (GFP_NOFAIL | GFP_DIRECT_RECLAIM | GFP_KSWAPD_RECLAIM)  # large orders
SMALLER = 2  # an answer of the hook slab_new: not at this order, but perhaps at the smallest


@inlined
def discard(S, slab, cpu):
    """Give up an empty slab that is on no list (mm/slub.c:discard_slab)."""
    k = S.k[0]
    s = S.slab[slab]
    c = S.cache[s.cache]
    c.nr_slabs -= 1
    c.num_objs -= s.objects
    c.slabs_gone += 1
    s.where = RCU_FREE
    s.next = 0
    if c.slab_flags & SLAB_TYPESAFE_BY_RCU:
        wait = S.rcu[k.rcu_tail & (len(S.rcu) - 1)]
        wait.due = k.now + k.rcu_delay
        wait.slab = slab
        wait.cpu = cpu
        if k.rcu_tail == k.rcu_head and wait.due < k.next_due:
            k.next_due = wait.due
        k.rcu_tail += 1
    else:
        if k.release:
            S.slab[k.release_tail].next = slab
        else:
            k.release = slab
        k.release_tail = slab


@inlined
def slab_row(S):
    """An unused slab row."""
    k = S.k[0]
    slab = k.free_slab
    if slab:
        k.free_slab = S.slab[slab].next
    else:
        k.nr_slab_rows += 1
        slab = k.nr_slab_rows
    return slab


@inlined
def new_slab(S, H, P, cache, cpu, memcg, gfp):
    """Make a slab: the full order first, then the smallest that holds an object.

    The strategy is asked before the pages are there (hook ``slab_new`` with slab 0) and after; if
    it answers ``SMALLER`` the full order counts as not available.
    Returns its row, 0 without pages, -1 if a charge failed (mm/slub.c:allocate_slab).
    """
    k = S.k[0]
    c = S.cache[cache]
    order = c.order
    while True:
        allowed = H.slab_new(S, P, cpu, memcg, cache, order, gfp, 0)
        if allowed and allowed != SMALLER:
            pages_gfp = gfp if order == c.min_order else gfp & RETRY_GFP
            pfn = S.R.get_pages(S, cpu, order, pages_gfp)
            if pfn < 0:
                H.slab_gone(S, P, cpu, cache, order, 0)
                if order == c.min_order:
                    return 0
                order = c.min_order
                continue
            slab = slab_row(S)
            s = S.slab[slab]
            s.cache = cache
            s.pfn = pfn
            s.objects = c.objects if order == c.order else (k.page_size << order) // c.slot
            s.inuse = 0
            s.order = order
            s.node = node_of(k, pfn, len(S.pfn))
            s.vector = 0
            s.memcg = 0
            allowed = H.slab_new(S, P, cpu, memcg, cache, order, gfp, slab)
            if allowed and allowed != SMALLER:
                break
            s.next = k.free_slab
            k.free_slab = slab
            free_pages(S.pfn, S.area, S.path, s.node, pfn, order)
        if allowed != SMALLER or order == c.min_order:
            return -1
        order = c.min_order
    c.nr_slabs += 1
    c.num_objs += s.objects
    c.slabs_made += 1
    k.nr_slab_pages += 1 << order
    k.nr_free_pages -= 1 << order
    S.path[SLAB_MADE].count += 1
    S.path[ALLOC_NEW_SLAB].count += 1
    return slab
