"""The slab allocator as the rest of the core and the hooks see it: SLUB's or SLAB's operations.

Which one is meant is known while an engine is compiled (:func:`kmbench.core.jit.by_allocator`), so
none holds code of the other.  They meet in this module only; what both need of pages is
:mod:`kmbench.core.slab_pages`, and the tables in which they differ are named in
:mod:`kmbench.core.state`.
"""

from kmbench.core import slab, slab_reap, slub_front, slub_shrink
from kmbench.core.jit import by_allocator, inlined


@inlined
def _no_management(S, cpu, slab):
    """SLUB keeps what it knows of a slab in the struct page."""


@inlined
def _no_reap(S):
    """SLUB has no timers."""
    return 0


@inlined
def _never(S):
    return False


@inlined
def _always(S):
    return True


@inlined
def _slub_copy_lists(S, root, row):
    """A copy of a cache with sheaves gets sheaves of its own."""
    if S.cache[root].sheaf:
        S.cache[row].sheaf = S.k[0].nr_sheaves
        S.cache[row].sheaf_capacity = S.cache[root].sheaf_capacity
        S.k[0].nr_sheaves += 1


@inlined
def _slub_cache_bytes(S, cache):
    """struct kmem_cache 256 B, kmem_cache_node 128 B a node, per-CPU area 32 B a CPU: slots
    measured on Linux 6.18 x86_64."""
    return 256 + 128 * S.k[0].nr_nodes + 32 * S.k[0].nr_cpus


@inlined
def _slab_copy_lists(S, root, row):
    """A copy gets arrays of its own, of the root cache's sizes, and its first turn of reaping."""
    k = S.k[0]
    r = S.cache[root]
    c = S.cache[row]
    c.limit = r.limit
    c.batchcount = r.batchcount
    c.shared_limit = r.shared_limit
    c.alien_limit = r.alien_limit
    c.management = r.management
    c.management_cache = r.management_cache
    c.array = r.array + c.memcg * k.array_stride
    c.shared = r.shared + c.memcg * k.array_stride
    c.alien = r.alien + c.memcg * k.array_stride
    for node in range(k.nr_nodes):
        n = S.node[row * k.nr_nodes + node]
        n.free_limit = S.node[root * k.nr_nodes + node].free_limit
        n.next_reap = slab_reap.first_reap(k.now, row)


@inlined
def _slab_cache_bytes(S, cache):
    """Of Linux 3.5 x86_64: struct kmem_cache 128 B and a pointer a CPU and node (from memory),
    kmem_list3 128 B a node, arrays 24 B and a pointer an entry."""
    k = S.k[0]
    c = S.cache[cache]
    entries = k.nr_cpus * c.limit + k.nr_nodes * c.shared_limit
    heads = k.nr_cpus + k.nr_nodes * (c.shared_limit > 0)
    if k.nr_nodes > 1:
        entries += k.nr_nodes * (k.nr_nodes - 1) * c.alien_limit
        heads += k.nr_nodes * (k.nr_nodes - 1)
    return 128 + 8 * (k.nr_cpus + k.nr_nodes) + 128 * k.nr_nodes + 24 * heads + 8 * entries


# (S, H, P, cache, pc, cpu, memcg, gfp) -> slab of the object, 0 without pages, -1 uncharged
take_object = by_allocator(slub_front.take_object, slab.take_object)
# (S, cache, pc, cpu, slab, to_sheaves)
give_object = by_allocator(slub_front.give_object, slab.give_object)
# (S, cpu, slab): a slab's pages are about to go
drop_management = by_allocator(_no_management, slab.drop_management)
# (S, root, row): lists and arrays of a new copy
copy_lists = by_allocator(_slub_copy_lists, _slab_copy_lists)
# (S, cache) -> bytes that a copy of a cache costs besides its slabs
cache_bytes = by_allocator(_slub_cache_bytes, _slab_cache_bytes)
# (S) -> the CPU whose periodic pass this was
cache_reap = by_allocator(_no_reap, slab_reap.cache_reap)
# (S) -> whether idle caches are drained by a timer
reaps = by_allocator(_never, _always)
# (S, cache, on_cpu): kmem_cache_shrink
shrink_cache = by_allocator(slub_shrink.shrink_cache, slab_reap.shrink_cache)
# (S, cache, on_cpu): nothing of the cache stays with a CPU
flush_cache = by_allocator(slub_shrink.flush_cache, slab_reap.flush_cache)
# (S, cache) -> a slab taken off the lists of a flushed cache, 0 = none left.  SLUB's partial ones;
# of SLAB, which keeps lists of them, full and free ones too
detach_slab = by_allocator(slub_shrink.detach_slab, slab_reap.detach_slab)
# (S, slab, cache): the opposite
attach_slab = by_allocator(slub_shrink.attach_slab, slab_reap.attach_slab)
