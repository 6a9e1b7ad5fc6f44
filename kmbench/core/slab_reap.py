"""What takes free objects and slabs back from a SLAB cache: its timers, shrinking, a dying group.

Source: Linux 3.5 mm/slab.c (cache_reap, drain_array, drain_freelist, drain_cpu_caches,
__cache_shrink).  A CPU reaps every 2 s, in the kernel 3 jiffies after the CPU before it
(start_cpu_timer, __round_jiffies_relative); a node's shared array and free slabs have their turn
every 4 s, shifted by cache.  Ours: jiffies are 4 ms long, the shift follows the cache's row where
the kernel takes its address, and caches are gone through in the order they were made.
"""

import numpy as np

from kmbench.core.jit import inlined, outlined
from kmbench.core.lines import write_line
from kmbench.core.paths import CACHE_REAPED
from kmbench.core.slab import (
    copy_entries,
    drain_alien,
    drop_free_slab,
    free_block,
    list_add_tail,
    list_of,
    list_remove,
)
from kmbench.core.state import FREE_LIST, NR_LISTS

REAP_CPU = 2_000_000_000  # REAPTIMEOUT_CPUC, ns
REAP_NODE = 4_000_000_000  # REAPTIMEOUT_LIST3
SKEW = 12_000_000  # from one CPU's pass to the next one's
JIFFY = 4_000_000


@inlined
def first_reap(now, cache):
    """When the nodes of a cache that is made now have their first turn."""
    return now + REAP_NODE + np.int64(cache) * JIFFY % REAP_NODE


@inlined
def share_of(limit, avail):
    """How many objects of an array that was not used since go at a time."""
    nr = (limit + 4) // 5
    return (avail + 1) // 2 if nr > avail else nr


@outlined
def drain_freelist(S, row, nr, on_cpu):
    """Give up to `nr` free slabs of a node up, the last of the list first."""
    while nr > 0 and S.list[row * NR_LISTS + FREE_LIST].tail:
        drop_free_slab(S, row, on_cpu)
        nr -= 1


@outlined
def reap(S, cache, cpu):
    """One CPU's pass over one cache."""
    k = S.k[0]
    c = S.cache[cache]
    pc = S.cpu[cache * k.nr_cpus + cpu]
    node = cpu % k.nr_nodes
    row = cache * k.nr_nodes + node
    n = S.node[row]
    S.path[CACHE_REAPED].count += 1
    if k.nr_nodes > 1:
        drain_alien(S, cache, node, (node + 1 + k.reap_round) % k.nr_nodes, cpu)
    if pc.avail:
        if pc.touched:
            pc.touched = 0
        else:
            nr = share_of(c.limit, pc.avail)
            write_line(S, n, 1)
            first = c.array + cpu * c.limit
            free_block(S, row, first, nr, cpu)
            pc.avail -= nr
            copy_entries(S, first + nr, first, pc.avail)
    if n.next_reap > k.now:
        return
    n.next_reap = k.now + REAP_NODE
    if n.shared_avail:
        if n.shared_touched:
            n.shared_touched = 0
        else:
            nr = share_of(c.shared_limit, n.shared_avail)
            write_line(S, n, 1)
            first = c.shared + node * c.shared_limit
            free_block(S, row, first, nr, cpu)
            n.shared_avail -= nr
            copy_entries(S, first + nr, first, n.shared_avail)
    if n.free_touched:
        n.free_touched = 0
    else:
        drain_freelist(S, row, -(-n.free_limit // (5 * c.objects)), cpu)


@outlined
def cache_reap(S):
    """The pass of the CPU whose timer is due, over all caches; sets the next one's; that CPU."""
    k = S.k[0]
    cpu = k.reap_cpu
    k.cpu = cpu
    for cache in range(1, k.nr_caches):
        if S.cache[cache].state < 2:
            reap(S, cache, cpu)
    k.reap_cpu += 1
    if k.reap_cpu == k.nr_cpus:
        k.reap_cpu = 0
        k.reap_round += 1
    k.next_reap = (k.reap_round + 1) * REAP_CPU + k.reap_cpu * min(SKEW, REAP_CPU // k.nr_cpus)
    return cpu


@outlined
def flush_cache(S, cache, on_cpu):
    """Return everything that the arrays of a cache hold to its slabs (drain_cpu_caches)."""
    k = S.k[0]
    c = S.cache[cache]
    for cpu in range(k.nr_cpus):
        pc = S.cpu[cache * k.nr_cpus + cpu]
        row = cache * k.nr_nodes + cpu % k.nr_nodes
        free_block(S, row, c.array + cpu * c.limit, pc.avail, on_cpu)
        pc.avail = 0
    if k.nr_nodes > 1:
        for node in range(k.nr_nodes):
            for remote in range(k.nr_nodes):
                drain_alien(S, cache, node, remote, on_cpu)
    for node in range(k.nr_nodes):
        row = cache * k.nr_nodes + node
        n = S.node[row]
        free_block(S, row, c.shared + node * c.shared_limit, n.shared_avail, on_cpu)
        n.shared_avail = 0


@outlined
def shrink_cache(S, cache, on_cpu):
    """kmem_cache_shrink, called on `on_cpu`: empty the arrays, give all free slabs up."""
    flush_cache(S, cache, on_cpu)
    for row in range(cache * S.k[0].nr_nodes, (cache + 1) * S.k[0].nr_nodes):
        drain_freelist(S, row, S.list[row * NR_LISTS + FREE_LIST].nr, on_cpu)


@outlined
def detach_slab(S, cache):
    """Take the first slab off the lists of a flushed cache: full, partial, free; 0 = none left."""
    nodes = S.k[0].nr_nodes
    for row in range(cache * nodes, (cache + 1) * nodes):
        for where in range(NR_LISTS):
            slab = S.list[row * NR_LISTS + where].head
            if slab:
                list_remove(S, row, slab)
                S.node[row].free_objects -= S.slab[slab].objects - S.slab[slab].inuse
                return slab
    return 0


@outlined
def attach_slab(S, slab, cache):
    """Append a slab that is on no list to the list of `cache` that it belongs on."""
    s = S.slab[slab]
    row = cache * S.k[0].nr_nodes + s.node
    list_add_tail(S, row, slab, list_of(s))
    S.node[row].free_objects += s.objects - s.inuse
