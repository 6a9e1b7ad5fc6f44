"""Slabs whose pages go back.

Sources: Linux 6.18 mm/slub.c:__free_slab, rcu_free_slab; 3.5 mm/slab.c:slab_destroy.
"""

from kmbench.core.allocator import drop_management, shrink_cache
from kmbench.core.jit import inlined, outlined
from kmbench.core.objects import drop_vector
from kmbench.core.pages import free_pages
from kmbench.core.paths import SLAB_GONE


@inlined
def release_slab(S, H, P, cpu, slab):
    """Give a discarded slab's pages, charge and what belongs to it back and free its row."""
    k = S.k[0]
    s = S.slab[slab]
    H.slab_gone(S, P, cpu, s.cache, s.order, slab)
    drop_vector(S, cpu, slab)
    drop_management(S, cpu, slab)
    k.nr_slab_pages -= 1 << s.order
    k.nr_free_pages += 1 << s.order
    S.path[SLAB_GONE].count += 1
    free_pages(S.pfn, S.area, S.path, s.node, s.pfn, s.order)
    s.next = k.free_slab
    s.cache = 0
    k.free_slab = slab


@outlined
def settle(S, H, P, cpu):
    """Release the slabs that the last event discarded, in that order."""
    k = S.k[0]
    slab = k.release
    while slab:
        following = S.slab[slab].next
        release_slab(S, H, P, cpu, slab)
        slab = following
    k.release = 0


@outlined
def rcu_release(S, H, P):
    """Release the slab whose grace period ends first, on the CPU that discarded it."""
    k = S.k[0]
    wait = S.rcu[k.rcu_head & (len(S.rcu) - 1)]
    k.rcu_head += 1
    k.cpu = wait.cpu
    k.release = wait.slab
    S.slab[wait.slab].next = 0
    settle(S, H, P, wait.cpu)


@outlined
def shrink_caches(S, cache, on_cpu):
    """Shrink one cache, or with row 0 every cache."""
    if cache > 0:
        shrink_cache(S, cache, on_cpu)
    else:
        for row in range(1, S.k[0].nr_caches):
            shrink_cache(S, row, on_cpu)
