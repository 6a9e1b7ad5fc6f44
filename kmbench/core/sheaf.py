"""Sheaves: per-CPU arrays of objects in front of the slabs (Linux 6.18).

Source: Linux 6.18 mm/slub.c:alloc_from_pcs, __pcs_replace_empty_main, free_to_pcs,
__pcs_replace_full_main, barn_replace_full_sheaf.  An entry names the slab that its object came
from; the object counts as in use there.  The two arrays of a CPU swap roles by number.
"""

from kmbench.core.events import GFP_DIRECT_RECLAIM
from kmbench.core.jit import inlined
from kmbench.core.paths import (
    BARN_GET,
    BARN_PUT,
    SHEAF_ALLOC,
    SHEAF_FLUSH,
    SHEAF_FREE,
    SHEAF_REFILL,
    SHEAF_SWAP,
)
from kmbench.core.state import BARN_FULL, SHEAF_MAX


@inlined
def half_base(S, row, half):
    """First slot of one of the two arrays of ``S.sheaf[row]``."""
    return (row * 2 + half) * SHEAF_MAX


@inlined
def sheaf_pop(S, sheaf, cpu, capacity):
    """Take an object from this CPU's sheaves or the node's barn; its slab, 0 if all are empty."""
    k = S.k[0]
    row = sheaf * k.nr_cpus + cpu
    p = S.sheaf[row]
    if p.nr_main == 0:
        if p.nr_spare > 0:
            S.path[SHEAF_SWAP].count += 1
            p.main = 1 - p.main
            p.nr_main = p.nr_spare
            p.nr_spare = 0
        else:
            barn_row = sheaf * k.nr_nodes + cpu % k.nr_nodes
            barn = S.barn[barn_row]
            if barn.nr_full == 0:
                return 0
            S.path[BARN_GET].count += 1
            barn.nr_full -= 1
            source = (barn_row * BARN_FULL + barn.nr_full) * SHEAF_MAX
            target = half_base(S, row, p.main)
            for i in range(capacity):
                S.sheaf_slot[target + i].slab = S.barn_slot[source + i].slab
            p.nr_main = capacity
    S.path[SHEAF_ALLOC].count += 1
    p.nr_main -= 1
    return S.sheaf_slot[half_base(S, row, p.main) + p.nr_main].slab


@inlined
def sheaf_refills(S, gfp):
    """Whether an allocation that found every sheaf empty may fill one: if it can sleep."""
    return gfp & GFP_DIRECT_RECLAIM != 0


@inlined
def sheaf_fill(S, sheaf, cpu, slab):
    """Add one object to the main array while it is refilled."""
    row = sheaf * S.k[0].nr_cpus + cpu
    p = S.sheaf[row]
    if p.nr_main == 0:
        S.path[SHEAF_REFILL].count += 1
    S.sheaf_slot[half_base(S, row, p.main) + p.nr_main].slab = slab
    p.nr_main += 1


@inlined
def sheaf_push(S, sheaf, cpu, capacity, slab):
    """Put a freed object into this CPU's sheaves.

    Returns how many objects of the spare array must be freed to their slabs first (0 or
    `capacity`): the caller takes them with :func:`sheaf_spill` and pushes again.
    """
    k = S.k[0]
    row = sheaf * k.nr_cpus + cpu
    p = S.sheaf[row]
    if p.nr_main == capacity:
        if p.nr_spare < capacity:
            S.path[SHEAF_SWAP].count += 1
            nr = p.nr_spare
            p.nr_spare = p.nr_main
            p.nr_main = nr
            p.main = 1 - p.main
        else:
            barn_row = sheaf * k.nr_nodes + cpu % k.nr_nodes
            barn = S.barn[barn_row]
            if barn.nr_full == BARN_FULL:
                S.path[SHEAF_FLUSH].count += 1
                return capacity
            S.path[BARN_PUT].count += 1
            target = (barn_row * BARN_FULL + barn.nr_full) * SHEAF_MAX
            source = half_base(S, row, p.main)
            for i in range(capacity):
                S.barn_slot[target + i].slab = S.sheaf_slot[source + i].slab
            barn.nr_full += 1
            p.nr_main = 0
    S.path[SHEAF_FREE].count += 1
    S.sheaf_slot[half_base(S, row, p.main) + p.nr_main].slab = slab
    p.nr_main += 1
    return 0


@inlined
def sheaf_spill(S, sheaf, cpu):
    """Take the newest object off the spare array; its slab, or 0 when it is empty."""
    row = sheaf * S.k[0].nr_cpus + cpu
    p = S.sheaf[row]
    if p.nr_spare == 0:
        return 0
    p.nr_spare -= 1
    return S.sheaf_slot[half_base(S, row, 1 - p.main) + p.nr_spare].slab


@inlined
def sheaf_drain(S, sheaf, cpu):
    """Take any object of this CPU, main array first; its slab, or 0 when both are empty."""
    k = S.k[0]
    row = sheaf * k.nr_cpus + cpu
    p = S.sheaf[row]
    if p.nr_main:
        p.nr_main -= 1
        return S.sheaf_slot[half_base(S, row, p.main) + p.nr_main].slab
    return sheaf_spill(S, sheaf, cpu)


@inlined
def barn_entry(S, sheaf, node, capacity, left):
    """Slab of entry number `left` among the full sheaves of a node's barn."""
    base = (sheaf * S.k[0].nr_nodes + node) * BARN_FULL
    return S.barn_slot[(base + left // capacity) * SHEAF_MAX + left % capacity].slab
