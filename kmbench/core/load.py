"""Puts the slabs and objects that exist at the start of a recording into a fresh state."""

from kmbench.core.events import CAUSE_NOT_SELECTED
from kmbench.core.jit import by_allocator, inlined
from kmbench.core.objects import bill_object, unbilled_as
from kmbench.core.pages import alloc_pages, node_of
from kmbench.core.sheaf import half_base
from kmbench.core.slab_reap import attach_slab
from kmbench.core.slub import node_add_tail, push_cpu_partial
from kmbench.core.state import CPU, CPU_PARTIAL, NODE_PARTIAL


@inlined
def _slub_link(S, row, given):
    k = S.k[0]
    S.slab[row].where = given.where % 4
    if given.where == CPU:
        pc = S.cpu[given.cache * k.nr_cpus + given.cpu]
        pc.slab = row
        pc.free = given.cpu_free
    elif given.where == NODE_PARTIAL:
        node_add_tail(S, given.cache * k.nr_nodes + S.slab[row].node, row)


@inlined
def _slub_fronts(S, slabs, sheaves):
    """Cpu partial lists, which come newest first and so are pushed backwards, and sheaves."""
    k = S.k[0]
    for i in range(len(slabs) - 1, -1, -1):
        if slabs[i].where == CPU_PARTIAL:
            push_cpu_partial(S, S.cpu[slabs[i].cache * k.nr_cpus + slabs[i].cpu], i + 1)
    for i in range(len(sheaves)):
        p = S.sheaf[S.cache[sheaves[i].cache].sheaf * k.nr_cpus + sheaves[i].cpu]
        row = S.cache[sheaves[i].cache].sheaf * k.nr_cpus + sheaves[i].cpu
        if sheaves[i].spare:
            S.sheaf_slot[half_base(S, row, 1 - p.main) + p.nr_spare].slab = sheaves[i].slab
            p.nr_spare += 1
        else:
            S.sheaf_slot[half_base(S, row, p.main) + p.nr_main].slab = sheaves[i].slab
            p.nr_main += 1
        pc = S.cpu[sheaves[i].cache * k.nr_cpus]
        pc.live -= 1  # parked, not handed out
        pc.req -= S.cache[sheaves[i].cache].object_size


@inlined
def _slab_link(S, row, given):
    attach_slab(S, row, given.cache)
    S.k[0].metadata += S.cache[given.cache].management  # counted; its object is of the start


@inlined
def _slab_fronts(S, slabs, sheaves):
    """The arrays of SLAB are empty at the start."""


_link = by_allocator(_slub_link, _slab_link)
_load_fronts = by_allocator(_slub_fronts, _slab_fronts)


def load_initial(S, H, slabs, objects, sheaves):
    """Take INITIAL_SLAB, INITIAL_OBJECT and INITIAL_SHEAF rows over; 0, or the row of the first
    slab for which there were no pages.

    Slab rows keep their numbers.
    """
    k = S.k[0]
    for i in range(len(slabs)):
        given = slabs[i]
        c = S.cache[given.cache]
        order = c.order if given.objects == c.objects else c.min_order
        pfn = alloc_pages(S.pfn, S.area, S.path, k.nr_nodes, given.cpu % k.nr_nodes, order)
        if pfn < 0:
            return i + 1
        row = i + 1
        s = S.slab[row]
        s.cache = given.cache
        s.pfn = pfn
        s.objects = given.objects
        s.inuse = given.inuse
        s.order = order
        s.node = node_of(k, pfn, len(S.pfn))
        if k.vectors and given.vector:
            s.vector = 1
            k.metadata += c.vector_bytes if order == c.order else c.min_vector_bytes
        c.nr_slabs += 1
        c.num_objs += given.objects
        k.nr_slab_pages += 1 << order
        k.nr_free_pages -= 1 << order
        S.cpu[given.cache * k.nr_cpus].live += given.inuse
        S.cpu[given.cache * k.nr_cpus].req += given.inuse * c.object_size
        _link(S, row, given)
    k.nr_slab_rows = len(slabs)
    _load_fronts(S, slabs, sheaves)
    for i in range(len(objects)):
        given = objects[i]
        o = S.obj[given.obj]
        cache = S.slab[given.slab].cache
        o.slab = given.slab
        o.owner = given.owner
        o.billed = unbilled_as(given.owner, CAUSE_NOT_SELECTED)
        o.req = given.req if given.req > 0 else S.cache[cache].object_size
        S.cpu[cache * k.nr_cpus].req += o.req - S.cache[cache].object_size
        S.memcg[given.owner].true_slab += S.cache[cache].slot
        S.memcg[given.owner].objects += 1
        bill_object(S, cache, o.billed, 1)
    return 0
