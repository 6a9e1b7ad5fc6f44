"""SLUB: per-CPU active slabs, per-CPU partial lists, per-node partial lists.

Sources: Linux 3.5 and 6.18 mm/slub.c (slab_alloc_node, ___slab_alloc, get_partial_node,
do_slab_free, __slab_free, put_cpu_partial, __put_partials).  All objects of a slab are equal here,
so a freelist is a count; which slab an object sits in is exact.

How slabs get their pages and give them up is :mod:`kmbench.core.slab_pages`.
"""

from kmbench.core.jit import inlined
from kmbench.core.lines import write_line
from kmbench.core.paths import (
    ALLOC_CPU_PARTIAL,
    ALLOC_NODE_PARTIAL,
    ALLOC_REMOTE_FREED,
    DRAIN_CPU_PARTIAL,
    DRAINED_SLAB,
    FREE_CPU_PARTIAL,
    FREE_CPU_SLAB_REMOTE,
    FREE_FULL_TO_NODE,
    FREE_NODE_PARTIAL,
    FREE_TO_CPU_PARTIAL,
    NODE_PARTIAL_EXTRA,
)
from kmbench.core.slab_pages import discard, new_slab
from kmbench.core.state import CPU, CPU_PARTIAL, FULL, NODE_PARTIAL


@inlined
def node_add_tail(S, row, slab):
    """Append a slab to the node partial list ``S.node[row]``."""
    n = S.node[row]
    s = S.slab[slab]
    s.where = NODE_PARTIAL
    s.next = 0
    s.prev = n.tail
    if n.tail:
        S.slab[n.tail].next = slab
    else:
        n.head = slab
    n.tail = slab
    n.nr_partial += 1


@inlined
def node_add_head(S, row, slab):
    """Put a slab first on the node partial list ``S.node[row]``."""
    n = S.node[row]
    s = S.slab[slab]
    s.where = NODE_PARTIAL
    s.prev = 0
    s.next = n.head
    if n.head:
        S.slab[n.head].prev = slab
    else:
        n.tail = slab
    n.head = slab
    n.nr_partial += 1


@inlined
def node_remove(S, row, slab):
    """Unlink a slab from the node partial list ``S.node[row]``."""
    n = S.node[row]
    s = S.slab[slab]
    if s.prev:
        S.slab[s.prev].next = s.next
    else:
        n.head = s.next
    if s.next:
        S.slab[s.next].prev = s.prev
    else:
        n.tail = s.prev
    n.nr_partial -= 1


@inlined
def keeps_empty(k, nr_partial, min_partial):
    """Whether a node list of that length still takes an empty slab (`>` before 3.14, then `>=`)."""
    return nr_partial <= min_partial if k.discard_above else nr_partial < min_partial


@inlined
def put_on_node(S, cache, slab, cpu):
    """Unfreeze: a slab goes from a CPU to its node's list, or away if empty (__put_partials)."""
    k = S.k[0]
    row = cache * k.nr_nodes + S.slab[slab].node
    if S.slab[slab].inuse == 0 and not keeps_empty(
        k, S.node[row].nr_partial, S.cache[cache].min_partial
    ):
        discard(S, slab, cpu)
    else:
        node_add_tail(S, row, slab)


@inlined
def drain_cpu_partial(S, cache, cpu, on_cpu):
    """Move the whole partial list of `cpu` to the nodes, newest slab first; `on_cpu` does it."""
    pc = S.cpu[cache * S.k[0].nr_cpus + cpu]
    slab = pc.partial
    locked = -1
    while slab:
        following = S.slab[slab].next
        if S.slab[slab].node != locked:
            locked = S.slab[slab].node
            write_line(S, S.node[cache * S.k[0].nr_nodes + locked], 1)
        put_on_node(S, cache, slab, on_cpu)
        S.path[DRAINED_SLAB].count += 1
        slab = following
    pc.partial = 0
    pc.nr_partial = 0


@inlined
def push_cpu_partial(S, pc, slab):
    """Push a slab onto a cpu partial list; its `pobjects` counts the free objects up to it."""
    s = S.slab[slab]
    s.where = CPU_PARTIAL
    s.next = pc.partial
    s.pobjects = s.objects - s.inuse
    if pc.partial:
        s.pobjects += S.slab[pc.partial].pobjects
    pc.partial = slab
    pc.nr_partial += 1


@inlined
def put_cpu_partial(S, cache, pc, cpu, slab):
    """A slab that was full goes to this CPU's partial list; a list that is full moves on whole."""
    k = S.k[0]
    limit = S.cache[cache].cpu_partial
    if pc.partial:
        held = pc.nr_partial if k.partial_in_slabs else S.slab[pc.partial].pobjects
        if held >= limit + 1 - k.partial_in_slabs:  # slabs: >= limit ; objects: > limit
            S.path[DRAIN_CPU_PARTIAL].count += 1
            drain_cpu_partial(S, cache, cpu, cpu)
    push_cpu_partial(S, pc, slab)


@inlined
def free_slow(S, cache, pc, cpu, slab):
    """Return an object to a slab that is not this CPU's active slab (mm/slub.c:__slab_free).

    The caller has already lowered ``inuse``.
    """
    k = S.k[0]
    s = S.slab[slab]
    if s.where == CPU_PARTIAL:
        S.path[FREE_CPU_PARTIAL].count += 1
    elif s.where == NODE_PARTIAL:
        S.path[FREE_NODE_PARTIAL].count += 1
        if s.inuse == 0:
            row = cache * k.nr_nodes + s.node
            write_line(S, S.node[row], 1)
            # the slab itself is on the list while the kernel compares
            if not keeps_empty(k, S.node[row].nr_partial, S.cache[cache].min_partial):
                node_remove(S, row, slab)
                discard(S, slab, cpu)
    elif s.where == FULL:
        if S.cache[cache].cpu_partial:
            S.path[FREE_TO_CPU_PARTIAL].count += 1
            put_cpu_partial(S, cache, pc, cpu, slab)
        else:
            S.path[FREE_FULL_TO_NODE].count += 1
            write_line(S, S.node[cache * k.nr_nodes + s.node], 1)
            put_on_node(S, cache, slab, cpu)
    else:
        S.path[FREE_CPU_SLAB_REMOTE].count += 1


@inlined
def take_partial(S, cache, pc, node):
    """First slab of a node's partial list; some more move to the cpu partial list.

    Returns the slab, or 0 (mm/slub.c:get_partial_node).
    """
    k = S.k[0]
    row = cache * k.nr_nodes + node
    slab = S.node[row].head
    if slab == 0:
        return 0
    write_line(S, S.node[row], 1)
    node_remove(S, row, slab)
    S.path[ALLOC_NODE_PARTIAL].count += 1
    half = S.cache[cache].cpu_partial // 2
    if S.cache[cache].cpu_partial == 0:
        return slab
    got = 0 if k.partial_in_slabs else S.slab[slab].objects - S.slab[slab].inuse
    while got <= half:
        extra = S.node[row].head
        if extra == 0:
            break
        node_remove(S, row, extra)
        push_cpu_partial(S, pc, extra)
        S.path[NODE_PARTIAL_EXTRA].count += 1
        got += 1 if k.partial_in_slabs else S.slab[extra].objects - S.slab[extra].inuse
    return slab


@inlined
def alloc_slow(S, H, P, cache, pc, cpu, memcg, gfp):
    """Find a slab with a free object once the cpu freelist is empty (mm/slub.c:___slab_alloc).

    Makes it this CPU's active slab with all its free objects on the cpu freelist.  Returns its row,
    0 without pages, -1 if a charge failed.
    """
    k = S.k[0]
    slab = pc.slab
    if slab:
        s = S.slab[slab]
        if s.inuse < s.objects:  # freed by other CPUs meanwhile
            S.path[ALLOC_REMOTE_FREED].count += 1
            pc.free = s.objects - s.inuse
            return slab
        s.where = FULL
        pc.slab = 0
    slab = pc.partial
    if slab:
        S.path[ALLOC_CPU_PARTIAL].count += 1
        pc.partial = S.slab[slab].next
        pc.nr_partial -= 1
    else:
        home = cpu % k.nr_nodes
        slab = take_partial(S, cache, pc, home)
        if slab == 0 and k.nr_nodes > 1:
            for step in range(1, k.nr_nodes):
                node = (home + step) % k.nr_nodes
                if S.node[cache * k.nr_nodes + node].nr_partial > S.cache[cache].min_partial:
                    slab = take_partial(S, cache, pc, node)
                    break
        if slab == 0:
            slab = new_slab(S, H, P, cache, cpu, memcg, gfp)
            if slab <= 0:
                return slab
    s = S.slab[slab]
    s.where = CPU
    pc.slab = slab
    pc.free = s.objects - s.inuse
    return slab
