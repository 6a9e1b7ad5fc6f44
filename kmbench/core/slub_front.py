"""One object of a SLUB cache: from this CPU's sheaves, from its freelist, or from a slab.

Source: Linux 6.18 mm/slub.c:slab_alloc_node, alloc_from_pcs, do_slab_free, free_to_pcs.
"""

from kmbench.core.jit import inlined, outlined
from kmbench.core.sheaf import sheaf_fill, sheaf_pop, sheaf_push, sheaf_refills, sheaf_spill
from kmbench.core.slub import alloc_slow, free_slow


@inlined
def take_plain(S, H, P, cache, pc, cpu, memcg, gfp):
    """One object of `cache` off the slabs: the slab it sits in, 0 without pages, -1 uncharged."""
    slab = pc.slab
    if pc.free <= 0:
        slab = alloc_slow(S, H, P, cache, pc, cpu, memcg, gfp)
        if slab <= 0:
            return slab
    pc.free -= 1
    S.slab[slab].inuse += 1
    return slab


@outlined
def take_sheafed(S, H, P, cache, pc, cpu, memcg, gfp):
    """One object of a cache with sheaves; a refill takes a sheaf's worth off the slabs."""
    c = S.cache[cache]
    slab = sheaf_pop(S, c.sheaf, cpu, c.sheaf_capacity)
    if slab:
        return slab
    left = c.sheaf_capacity if sheaf_refills(S, gfp) else 0
    filled = 0
    while filled < left:
        slab = take_plain(S, H, P, cache, pc, cpu, memcg, gfp)
        if slab <= 0:
            break
        sheaf_fill(S, c.sheaf, cpu, slab)
        filled += 1
    if filled:
        return sheaf_pop(S, c.sheaf, cpu, c.sheaf_capacity)
    # nothing to fill the sheaf with: the plain path tries again
    return take_plain(S, H, P, cache, pc, cpu, memcg, gfp)


@inlined
def take_object(S, H, P, cache, pc, cpu, memcg, gfp):
    """One object of `cache` for `cpu`: the slab it sits in, 0 without pages, -1 if not charged."""
    if S.cache[cache].sheaf:
        return take_sheafed(S, H, P, cache, pc, cpu, memcg, gfp)
    return take_plain(S, H, P, cache, pc, cpu, memcg, gfp)


@inlined
def give_plain(S, cache, pc, cpu, slab):
    """Return an object of `slab` to it."""
    S.slab[slab].inuse -= 1
    if pc.slab == slab:
        pc.free += 1
    else:
        free_slow(S, cache, pc, cpu, slab)


@outlined
def give_sheafed(S, cache, pc, cpu, slab):
    """Put an object into this CPU's sheaves; when all are full, the spare one goes back."""
    c = S.cache[cache]
    if sheaf_push(S, c.sheaf, cpu, c.sheaf_capacity, slab):
        item = sheaf_spill(S, c.sheaf, cpu)
        while item:
            give_plain(S, cache, pc, cpu, item)
            item = sheaf_spill(S, c.sheaf, cpu)
        sheaf_push(S, c.sheaf, cpu, c.sheaf_capacity, slab)


@inlined
def give_object(S, cache, pc, cpu, slab, to_sheaves):
    """Return an object of `slab` to the allocator; sheaves take only objects of their node."""
    if S.cache[cache].sheaf and to_sheaves and S.slab[slab].node == cpu % S.k[0].nr_nodes:
        give_sheafed(S, cache, pc, cpu, slab)
    else:
        give_plain(S, cache, pc, cpu, slab)
