"""Charging by the page: slabs of per-memcg copies, and kernel pages that are no slabs.

``counters`` says which counters a page is charged to, and in which order: kmem alone (independent
accounting), kmem then memory (3.8), memory then kmem (2012's joint accounting; 4.x).  A charge that
fails gives back what came before it.  What a slab's pages were charged to is the group that its
cache is billed to (``pays``).
"""

from kmbench.core.ops import (
    COUNTER_KMEM,
    COUNTER_MEMORY,
    CTX_DYING,
    GFP_NOFAIL,
    NOMEM,
    PAGES_KMALLOC,
    PAGES_STACK,
    PLUGIN_PATH,
    SMALLER,
    count,
    counter_charge,
    counter_force,
    counter_uncharge,
    css_get,
    css_put,
    inlined,
    outlined,
    try_charge,
)
from kmbench.design import Fact, limit_reclaim, words
from kmbench_policies.selection import exemption

KMEM_ONLY, KMEM_FIRST, MEMORY_FIRST = 0, 1, 2
SLAB_TEST = PLUGIN_PATH + 1


@outlined
def charge_memory(S, P, cpu, memcg, nr, gfp):
    """Charge the memory counter; False when over a limit.

    ``bypass``: a dying task's pages are charged to the root, that is to nobody, and remembered
    (Linux 3.5 mm/memcontrol.c:__mem_cgroup_try_charge, "bypass").
    """
    if P.par[0].bypass and gfp & CTX_DYING:
        P.group[memcg].bypassed += nr
        return True
    return try_charge(S, cpu, memcg, nr, gfp) == 0


@outlined
def uncharge_memory(S, P, memcg, nr, stop):
    """Take pages off the memory counter; those that bypassed it come first.

    An heir, `stop`, inherits what bypassed.
    """
    group = P.group[memcg]
    free = min(group.bypassed, nr)
    group.bypassed -= free
    if stop > 0:
        P.group[stop].bypassed += free
    if nr > free:
        counter_uncharge(S, COUNTER_MEMORY, memcg, nr - free, stop)


@outlined
def charge_pages(S, P, cpu, memcg, nr, gfp):
    """Charge `nr` pages to a group by the design's counters; False when over a limit."""
    par = P.par[0]
    if par.counters == MEMORY_FIRST and not charge_memory(S, P, cpu, memcg, nr, gfp):
        return False
    if counter_charge(S, COUNTER_KMEM, memcg, nr):
        if par.counters == MEMORY_FIRST and gfp & GFP_NOFAIL and par.kmem_nofail:
            counter_force(S, COUNTER_KMEM, memcg, nr)
            return True
        if par.counters == MEMORY_FIRST:
            uncharge_memory(S, P, memcg, nr, 0)
        return False
    if par.counters == KMEM_FIRST and not charge_memory(S, P, cpu, memcg, nr, gfp):
        counter_uncharge(S, COUNTER_KMEM, memcg, nr, 0)
        return False
    return True


@outlined
def uncharge_pages(S, P, memcg, nr, stop):
    """Take `nr` pages off a group and its ancestors below `stop` (0: all), past the stocks."""
    if P.par[0].counters != KMEM_ONLY:
        uncharge_memory(S, P, memcg, nr, stop)
    counter_uncharge(S, COUNTER_KMEM, memcg, nr, stop)


def page_facts(choices, accounting) -> dict[str, Fact]:
    """What is charged, when, to which counters, and what a full one means."""
    kinds = "".join(
        f", {name}"
        for kind, name in ((PAGES_STACK, "stacks"), (PAGES_KMALLOC, "large kmalloc"))
        if choices.page_kinds >> kind & 1
    )
    if choices.page_gfp:
        kinds = ", __GFP_ACCOUNT pages"
    forces = 0 if choices.counters == KMEM_ONLY else accounting.forces
    over = words(forces)
    limit = "NULL" if over == "none" else f"NULL; go over it: {over}"
    if choices.bypass:
        limit += "; dying task bypasses memory"
    return {
        "unit": Fact(f"slab pages{kinds}", page_alloc if kinds else slab_new),
        "charge_point": Fact(
            f"{'before' if choices.before_pages else 'after'} the slab's pages", slab_new
        ),
        "counters": Fact(
            {KMEM_ONLY: "kmem", KMEM_FIRST: "kmem, memory", MEMORY_FIRST: "memory, kmem"}[
                choices.counters
            ],
            charge_pages,
        ),
        **limit_reclaim(accounting, choices.counters != KMEM_ONLY),
        "limit": Fact(limit, charge_memory if choices.bypass or forces else charge_pages),
    }


@inlined
def slab_new(S, P, cpu, memcg, cache, order, gfp, slab):
    """Charge a copy's slab, before or after its pages are had.

    mm/slub.c:allocate_slab tries a large order without __GFP_NOFAIL, and the smallest when that
    failed for whatever reason.
    """
    pays = S.cache[cache].pays
    if pays == 0:
        return 1
    count(S, SLAB_TEST)
    if (slab == 0) == (P.par[0].before_pages != 0):
        if order != S.cache[cache].min_order:
            gfp &= 0xFFFFFFFF ^ GFP_NOFAIL
        if not charge_pages(S, P, cpu, pays, 1 << order, gfp):
            return SMALLER
    if slab > 0:
        P.copy[cache].pages += 1 << order
        if P.par[0].slabs_pin:
            css_get(S, pays, 1 << order)
    return 1


def page_alloc(S, P, cpu, memcg, kind, order, gfp, billed):
    """Charge kernel pages of the kinds, or with the gfp flags, that the design accounts."""
    par = P.par[0]
    if memcg <= 1 or ((par.page_kinds >> kind & 1) == 0 and (gfp & par.page_gfp) == 0):
        return billed
    cause = exemption(P, gfp)
    if cause:
        return -cause
    if P.group[memcg].active == 0:
        return billed
    if not charge_pages(S, P, cpu, memcg, 1 << order, gfp):
        return NOMEM
    css_get(S, memcg, 1 << order)
    return memcg


@inlined
def free_pages(S, P, billed, order):
    """Uncharge kernel pages; whether their removed group is gone with them."""
    if billed <= 0:
        return False
    uncharge_pages(S, P, billed, 1 << order, 0)
    return css_put(S, billed, 1 << order)
