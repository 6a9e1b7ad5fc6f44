"""SLUB's kmem_cache_shrink, and what takes slabs away from CPUs.

Sources: Linux 6.18 mm/slub.c:__kmem_cache_do_shrink, flush_all; 3.5 mm/slub.c:kmem_cache_shrink,
deactivate_slab.
"""

from kmbench.core.jit import inlined, outlined
from kmbench.core.sheaf import barn_entry, sheaf_drain
from kmbench.core.slab_pages import discard
from kmbench.core.slub import (
    drain_cpu_partial,
    keeps_empty,
    node_add_head,
    node_add_tail,
    node_remove,
)
from kmbench.core.slub_front import give_plain
from kmbench.core.state import FULL

PROMOTE_MAX = 32  # SHRINK_PROMOTE_MAX of mm/slub.c


@inlined
def deactivate(S, cache, cpu, on_cpu):
    """Take a CPU's active slab away (mm/slub.c:deactivate_slab)."""
    k = S.k[0]
    pc = S.cpu[cache * k.nr_cpus + cpu]
    slab = pc.slab
    if slab:
        s = S.slab[slab]
        row = cache * k.nr_nodes + s.node
        pc.slab = 0
        pc.free = 0
        if s.inuse == s.objects:
            s.where = FULL
        elif s.inuse == 0 and not keeps_empty(
            k, S.node[row].nr_partial, S.cache[cache].min_partial
        ):
            discard(S, slab, on_cpu)
        else:
            node_add_head(S, row, slab)


@inlined
def sort_partial(S, row, by_free):
    """Reorder a node partial list as shrink does.

    `by_free`: slabs with at most 32 free objects come first, fewest free first, the others keep
    their order behind them (4.0+); else all slabs by objects in use, most first (3.5).  Slabs of
    one bucket come out in reverse: the kernel pushes each to the front of its bucket.
    """
    last = PROMOTE_MAX
    if not by_free:
        last = 0
        slab = S.node[row].head
        while slab:
            last = max(last, S.slab[slab].inuse)
            slab = S.slab[slab].next
    # a pass a bucket, backwards, moving its slabs behind the unsorted ones that end at `end`
    end = S.node[row].tail
    for rank in range(1, last + 1):
        slab = end
        while slab:
            before = S.slab[slab].prev
            inuse = S.slab[slab].inuse
            if (S.slab[slab].objects - inuse if by_free else last + 1 - inuse) == rank:
                if slab == end:
                    end = before
                node_remove(S, row, slab)
                node_add_tail(S, row, slab)
            slab = before
    # what no bucket took goes behind the sorted ones
    while end:
        slab = S.node[row].head
        node_remove(S, row, slab)
        node_add_tail(S, row, slab)
        if slab == end:
            break


@outlined
def return_object(S, cache, cpu, slab):
    """Free one object that a sheaf held to its slab."""
    give_plain(S, cache, S.cpu[cache * S.k[0].nr_cpus + cpu], cpu, slab)


@outlined
def flush_sheaves(S, cache, cpu):
    """Have a CPU free what its sheaves hold (mm/slub.c:pcs_flush_all)."""
    c = S.cache[cache]
    if c.sheaf:
        k = S.k[0]
        called_on = k.cpu
        k.cpu = cpu
        slab = sheaf_drain(S, c.sheaf, cpu)
        while slab:
            return_object(S, cache, cpu, slab)
            slab = sheaf_drain(S, c.sheaf, cpu)
        k.cpu = called_on


@outlined
def flush_barn(S, cache, node, cpu):
    """Free what a node's barn holds, on `cpu` (mm/slub.c:barn_shrink)."""
    c = S.cache[cache]
    if c.sheaf:
        barn = S.barn[c.sheaf * S.k[0].nr_nodes + node]
        left = barn.nr_full * c.sheaf_capacity
        while left > 0:
            left -= 1
            return_object(S, cache, cpu, barn_entry(S, c.sheaf, node, c.sheaf_capacity, left))
        barn.nr_full = 0


@outlined
def flush_slabs(S, cache, cpu, on_cpu):
    """Move a CPU's active and partial slabs of `cache` to the nodes (mm/slub.c:flush_all)."""
    deactivate(S, cache, cpu, on_cpu)
    drain_cpu_partial(S, cache, cpu, on_cpu)


@outlined
def shrink_cache(S, cache, on_cpu):
    """kmem_cache_shrink, called on `on_cpu`.

    Flushes every CPU, discards the empty slabs and reorders the partial lists.
    """
    k = S.k[0]
    for cpu in range(k.nr_cpus):
        flush_sheaves(S, cache, cpu)
        flush_slabs(S, cache, cpu, on_cpu)
    for node in range(k.nr_nodes):
        flush_barn(S, cache, node, on_cpu)
        row = cache * k.nr_nodes + node
        slab = S.node[row].head
        while slab:
            following = S.slab[slab].next
            if S.slab[slab].inuse == 0:
                node_remove(S, row, slab)
                discard(S, slab, on_cpu)
            slab = following
        sort_partial(S, row, k.shrink_promotes != 0)


@outlined
def flush_cache(S, cache, on_cpu):
    """Move everything that CPUs and barns hold of `cache` to the nodes."""
    k = S.k[0]
    for cpu in range(k.nr_cpus):
        flush_sheaves(S, cache, cpu)
    for node in range(k.nr_nodes):
        flush_barn(S, cache, node, on_cpu)
    for cpu in range(k.nr_cpus):
        flush_slabs(S, cache, cpu, on_cpu)


@outlined
def detach_slab(S, cache):
    """Take the first slab off the node partial lists of `cache`; 0 = none left."""
    nodes = S.k[0].nr_nodes
    for row in range(cache * nodes, (cache + 1) * nodes):
        slab = S.node[row].head
        if slab:
            node_remove(S, row, slab)
            return slab
    return 0


@outlined
def attach_slab(S, slab, cache):
    """Append a slab that is on no list to its node's partial list of `cache`."""
    node_add_tail(S, cache * S.k[0].nr_nodes + S.slab[slab].node, slab)
