"""SLAB: arrays of free objects per CPU and node in front of three lists of slabs per node.

Source: Linux 3.5 mm/slab.c (____cache_alloc, cache_alloc_refill, cache_grow, fallback_alloc,
__cache_free, cache_flusharray, free_block, cache_free_alien).  All objects of a slab are equal
here, so an array's entry is the slab that its object lies in; ``inuse`` of a slab counts the
objects that are handed out or parked in an array, as the kernel's does.

All arrays of a cache lie one behind the other in ``S.array``: those of the CPUs from ``array`` of
its record on, the nodes' shared ones from ``shared`` on, those for objects of other nodes from
``alien`` on.  Where a new slab lies outside its pages' node the object is handed out directly, and
other nodes' free objects are used before other nodes' pages.
"""

from kmbench.core.events import ALLOC, FREE
from kmbench.core.internal import queue_internal
from kmbench.core.jit import inlined, outlined
from kmbench.core.lines import write_line
from kmbench.core.paths import (
    ALIEN_DRAIN,
    ALIEN_FREE,
    ARRAY_FLUSH,
    ARRAY_REFILL,
    BLOCK_FREED,
    SHARED_FLUSH,
    SHARED_REFILL,
    SLAB_TAKEN,
)
from kmbench.core.slab_pages import discard, new_slab
from kmbench.core.state import FREE_LIST, FULL, NR_LISTS, NR_ORDERS, PARTIAL_LIST

BATCHREFILL_LIMIT = 16


@inlined
def list_add_tail(S, row, slab, where):
    """Append a slab to the list `where` (FULL, PARTIAL_LIST, FREE_LIST) of ``S.node[row]``."""
    ends = S.list[row * NR_LISTS + where]
    s = S.slab[slab]
    s.where = where
    s.next = 0
    s.prev = ends.tail
    if ends.tail:
        S.slab[ends.tail].next = slab
    else:
        ends.head = slab
    ends.tail = slab
    ends.nr += 1


@inlined
def list_add_head(S, row, slab, where):
    """Put a slab first on the list `where` of ``S.node[row]``."""
    ends = S.list[row * NR_LISTS + where]
    s = S.slab[slab]
    s.where = where
    s.prev = 0
    s.next = ends.head
    if ends.head:
        S.slab[ends.head].prev = slab
    else:
        ends.tail = slab
    ends.head = slab
    ends.nr += 1


@inlined
def list_remove(S, row, slab):
    """Unlink a slab from the list of ``S.node[row]`` that it is on."""
    s = S.slab[slab]
    ends = S.list[row * NR_LISTS + s.where]
    if s.prev:
        S.slab[s.prev].next = s.next
    else:
        ends.head = s.next
    if s.next:
        S.slab[s.next].prev = s.prev
    else:
        ends.tail = s.prev
    ends.nr -= 1


@inlined
def list_of(s):
    """The list that a slab belongs on by its objects in use."""
    if s.inuse == 0:
        return FREE_LIST
    return FULL if s.inuse == s.objects else PARTIAL_LIST


@inlined
def copy_entries(S, source, target, nr):
    """Copy `nr` entries of arrays, lowest first (also to overlapping places further down)."""
    for i in range(nr):
        S.array[target + i].slab = S.array[source + i].slab


@inlined
def take_from_lists(S, row, target, batch):
    """Move up to `batch` free objects of a node's slabs, partial ones first, to an array's place.

    Returns how many there were.
    """
    taken = 0
    while taken < batch:
        slab = S.list[row * NR_LISTS + PARTIAL_LIST].head
        if slab == 0:
            S.node[row].free_touched = 1
            slab = S.list[row * NR_LISTS + FREE_LIST].head
            if slab == 0:
                break
        s = S.slab[slab]
        list_remove(S, row, slab)
        S.path[SLAB_TAKEN].count += 1
        nr = min(batch - taken, s.objects - s.inuse)
        for i in range(taken, taken + nr):
            S.array[target + i].slab = slab
        taken += nr
        s.inuse += nr
        list_add_head(S, row, slab, list_of(s))
    S.node[row].free_objects -= taken
    return taken


@inlined
def take_one(S, row):
    """One free object straight off a node's lists; its slab, 0 if there is none."""
    slab = S.list[row * NR_LISTS + PARTIAL_LIST].head
    if slab == 0:
        S.node[row].free_touched = 1
        slab = S.list[row * NR_LISTS + FREE_LIST].head
    if slab:
        s = S.slab[slab]
        list_remove(S, row, slab)
        S.path[SLAB_TAKEN].count += 1
        s.inuse += 1
        S.node[row].free_objects -= 1
        list_add_head(S, row, slab, list_of(s))
    return slab


@inlined
def has_pages(S, node, order):
    """Whether a node can give a block of that order."""
    blocks = 0
    for k in range(order, NR_ORDERS):
        blocks += S.area[node * NR_ORDERS + k].nr
    return blocks > 0


@outlined
def take_remote(S, cache, cpu):
    """One free object of another node, in zonelist order (fallback_alloc); its slab or 0."""
    nodes = S.k[0].nr_nodes
    for step in range(1, nodes):
        slab = take_one(S, cache * nodes + (cpu + step) % nodes)
        if slab:
            return slab
    return 0


@inlined
def ask_management(S, cpu, slab):
    """A slab with its management outside gets that from a kmalloc cache (alloc_slabmgmt)."""
    c = S.cache[S.slab[slab].cache]
    S.k[0].metadata += c.management
    if c.management_cache:
        handle = S.k[0].nr_objects + len(S.slab) + slab
        queue_internal(S, ALLOC, cpu, c.management_cache, handle)


@inlined
def drop_management(S, cpu, slab):
    """Free the management object of a slab that is going (slab_destroy)."""
    c = S.cache[S.slab[slab].cache]
    S.k[0].metadata -= c.management
    if c.management_cache:
        queue_internal(S, FREE, cpu, 0, S.k[0].nr_objects + len(S.slab) + slab)


@outlined
def refill(S, H, P, cache, cpu, memcg, gfp):
    """Fill a CPU's empty array: from the shared array, the node's lists, or a new slab.

    If the array is still empty the answer is final: the slab of one object that another node gave,
    0 without pages, -1 if a charge failed (mm/slab.c:cache_alloc_refill, cache_grow).
    """
    k = S.k[0]
    c = S.cache[cache]
    pc = S.cpu[cache * k.nr_cpus + cpu]
    home = cpu % k.nr_nodes
    row = cache * k.nr_nodes + home
    n = S.node[row]
    target = c.array + cpu * c.limit
    batch = c.batchcount
    if pc.touched == 0 and batch > BATCHREFILL_LIMIT:
        batch = BATCHREFILL_LIMIT
    write_line(S, n, 1)
    if n.shared_avail > 0:
        nr = min(batch, n.shared_avail)
        n.shared_avail -= nr
        copy_entries(S, c.shared + home * c.shared_limit + n.shared_avail, target, nr)
        n.shared_touched = 1
        pc.avail = nr
        S.path[SHARED_REFILL].count += 1
        return 0
    S.path[ARRAY_REFILL].count += 1
    while True:
        pc.avail = take_from_lists(S, row, target, batch)
        if pc.avail:
            return 0
        if k.nr_nodes > 1 and not has_pages(S, home, c.order):
            slab = take_remote(S, cache, cpu)
            if slab:
                return slab
        slab = new_slab(S, H, P, cache, cpu, memcg, gfp)
        if slab <= 0:  # reclaim for it may have left objects in the array all the same
            return 0 if pc.avail else slab
        s = S.slab[slab]
        there = cache * k.nr_nodes + s.node
        list_add_tail(S, there, slab, FREE_LIST)
        S.node[there].free_objects += s.objects
        ask_management(S, cpu, slab)
        if pc.avail:
            return 0
        if s.node != home:
            return take_one(S, there)


@inlined
def take_object(S, H, P, cache, pc, cpu, memcg, gfp):
    """One object of `cache` for `cpu`: the slab it sits in, 0 without pages, -1 if not charged."""
    if pc.avail == 0:
        slab = refill(S, H, P, cache, cpu, memcg, gfp)
        if pc.avail == 0:
            return slab
    pc.touched = 1
    pc.avail -= 1
    c = S.cache[cache]
    return S.array[c.array + cpu * c.limit + pc.avail].slab


@inlined
def drop_free_slab(S, row, cpu):
    """Give the last slab of a node's free list back."""
    slab = S.list[row * NR_LISTS + FREE_LIST].tail
    list_remove(S, row, slab)
    S.node[row].free_objects -= S.slab[slab].objects
    discard(S, slab, cpu)


@outlined
def free_block(S, row, first, nr, cpu):
    """Return the objects of `nr` entries of arrays, from `first` on, to their slabs.

    All lie on the node of ``S.node[row]``.  An empty slab goes if the node has more free objects
    than its limit; since 4.7 free slabs go, the last of the list first, until it has not.
    """
    n = S.node[row]
    trims = S.k[0].trims_free
    for i in range(first, first + nr):
        slab = S.array[i].slab
        s = S.slab[slab]
        list_remove(S, row, slab)
        s.inuse -= 1
        n.free_objects += 1
        S.path[BLOCK_FREED].count += 1
        if s.inuse:
            list_add_tail(S, row, slab, PARTIAL_LIST)
        elif trims == 0 and n.free_objects > n.free_limit:
            n.free_objects -= s.objects
            discard(S, slab, cpu)
        else:
            list_add_head(S, row, slab, FREE_LIST)
    if trims:
        ends = S.list[row * NR_LISTS + FREE_LIST]
        while n.free_objects > n.free_limit and ends.tail:
            drop_free_slab(S, row, cpu)


@outlined
def flush_array(S, cache, cpu):
    """Make room in a CPU's full array: its oldest objects go to the shared array, or to their slabs
    if that is full, too (mm/slab.c:cache_flusharray)."""
    k = S.k[0]
    c = S.cache[cache]
    pc = S.cpu[cache * k.nr_cpus + cpu]
    home = cpu % k.nr_nodes
    row = cache * k.nr_nodes + home
    n = S.node[row]
    first = c.array + cpu * c.limit
    nr = c.batchcount
    room = c.shared_limit - n.shared_avail
    write_line(S, n, 1)
    if room > 0:
        nr = min(nr, room)
        copy_entries(S, first, c.shared + home * c.shared_limit + n.shared_avail, nr)
        n.shared_avail += nr
        S.path[SHARED_FLUSH].count += 1
    else:
        S.path[ARRAY_FLUSH].count += 1
        free_block(S, row, first, nr, cpu)
    pc.avail -= nr
    copy_entries(S, first + nr, first, pc.avail)


@outlined
def drain_alien(S, cache, node, remote, on_cpu):
    """Send what `node` holds for node `remote` home: to its shared array as far as that has room,
    the others to their slabs (mm/slab.c:__drain_alien_cache)."""
    k = S.k[0]
    c = S.cache[cache]
    a = S.alien[(cache * k.nr_nodes + node) * k.nr_nodes + remote]
    if a.avail:
        S.path[ALIEN_DRAIN].count += 1
        row = cache * k.nr_nodes + remote
        n = S.node[row]
        write_line(S, n, 1)
        first = c.alien + (node * k.nr_nodes + remote) * c.alien_limit
        nr = min(a.avail, c.shared_limit - n.shared_avail)
        shared = c.shared + remote * c.shared_limit + n.shared_avail
        copy_entries(S, first + a.avail - nr, shared, nr)
        n.shared_avail += nr
        free_block(S, row, first, a.avail - nr, on_cpu)
        a.avail = 0


@outlined
def free_alien(S, cache, cpu, slab):
    """Put an object of another node into this node's array for such (cache_free_alien)."""
    k = S.k[0]
    c = S.cache[cache]
    home = cpu % k.nr_nodes
    remote = S.slab[slab].node
    a = S.alien[(cache * k.nr_nodes + home) * k.nr_nodes + remote]
    S.path[ALIEN_FREE].count += 1
    if a.avail == c.alien_limit:
        drain_alien(S, cache, home, remote, cpu)
    first = c.alien + (home * k.nr_nodes + remote) * c.alien_limit
    S.array[first + a.avail].slab = slab
    a.avail += 1


@inlined
def give_object(S, cache, pc, cpu, slab, to_sheaves):
    """Return an object of `slab` to this CPU's array; SLAB has no sheaves."""
    k = S.k[0]
    if k.nr_nodes > 1 and S.slab[slab].node != cpu % k.nr_nodes:
        free_alien(S, cache, cpu, slab)
        return
    c = S.cache[cache]
    if pc.avail == c.limit:
        flush_array(S, cache, cpu)
    S.array[c.array + cpu * c.limit + pc.avail].slab = slab
    pc.avail += 1
