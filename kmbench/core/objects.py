"""What an event does: objects, kernel pages and per-CPU memory come and go, with their bill.

The order of an allocation is the kernel's: the strategy selects the cache and may charge before
the object, the allocator serves it, the strategy may charge after it (Linux 6.18
mm/slub.c:slab_alloc_node, slab_post_alloc_hook).  The truth, who really allocated, is kept beside.
"""

from kmbench.core.allocator import give_object, take_object
from kmbench.core.events import (
    ALLOC,
    CAUSE_NOT_SELECTED,
    CAUSE_REMOVED,
    FAIL_LIMIT,
    FAIL_PAGES,
    FREE,
)
from kmbench.core.internal import queue_internal
from kmbench.core.jit import inlined, outlined
from kmbench.core.pages import free_pages, node_of
from kmbench.core.state import BY_CACHE, PERCPU

PAST_SHEAVES = 1  # field `cache` of a queued FREE
NOMEM = -100  # a charging hook's answer: over the limit, the operation fails


@inlined
def ask_vector(S, cpu, slab):
    """Give a slab its obj_cgroup vector if it has none (mm/slub.c:alloc_slab_obj_exts).

    8 bytes an object from the kmalloc cache of that size, unaccounted; where the setup has no such
    cache its bytes are only counted.
    """
    s = S.slab[slab]
    if s.vector == 0:
        s.vector = 1
        c = S.cache[s.cache]
        full = s.order == c.order
        S.k[0].metadata += c.vector_bytes if full else c.min_vector_bytes
        cache = c.vector_cache if full else c.min_vector_cache
        if cache:
            queue_internal(S, ALLOC, cpu, cache, S.k[0].nr_objects + slab)


@inlined
def drop_vector(S, cpu, slab):
    """Free the obj_cgroup vector of a slab that is going (mm/slub.c:free_slab_obj_exts)."""
    s = S.slab[slab]
    if s.vector:
        s.vector = 0
        c = S.cache[s.cache]
        full = s.order == c.order
        S.k[0].metadata -= c.vector_bytes if full else c.min_vector_bytes
        if (c.vector_cache if full else c.min_vector_cache) > 0:
            queue_internal(S, FREE, cpu, 0, S.k[0].nr_objects + slab)


@inlined
def holder(S, memcg):
    """Group that now holds what was billed to `memcg`: itself, or an ancestor after reparenting."""
    while S.memcg[memcg].objcg_memcg != memcg:
        memcg = S.memcg[memcg].objcg_memcg
    return memcg


@inlined
def unbilled_as(memcg, cause):
    """`billed` of something that no group pays for: -cause, or 0 if no group owns it."""
    return -cause if memcg > 1 else 0


@inlined
def bill_object(S, cache, billed, nr):
    """Count `nr` (1 or -1) slots for whom they are billed to, or for the reason why to nobody."""
    size = S.cache[cache].slot * nr
    if billed == BY_CACHE:
        billed = S.cache[cache].pays  # whoever owns the copy, removed or not, or its heir
        if billed > 0:
            S.memcg[billed].billed_slab += size
            return
        billed = -CAUSE_REMOVED if S.cache[cache].memcg > 0 else -CAUSE_NOT_SELECTED
    if billed > 0:
        S.memcg[holder(S, billed)].billed_slab += size
    else:
        u = S.unbilled[-billed]
        u.bytes += size
        u.objects += nr


@outlined
def take_back(S, H, P, cpu, cache, billed):
    """Undo a charge that was made before an object that could not be had."""
    H.obj_free(S, P, cpu, cache, billed, 0)


@inlined
def alloc_object(S, H, P, cpu, memcg, root, gfp, req, obj):
    """Allocate handle `obj` from the root cache `root`; 0 or FAIL_*."""
    o = S.obj[obj]
    pays = H.charged(S, P, S.k[0].task, memcg)
    chosen = H.select(S, P, cpu, pays, root, gfp)
    cache = chosen if chosen > 0 else root
    c = S.cache[cache]
    billed = BY_CACHE
    if c.memcg == 0:
        billed = unbilled_as(memcg, -chosen if chosen < 0 else CAUSE_NOT_SELECTED)
    billed = H.pre_alloc(S, P, cpu, pays, cache, gfp, billed)
    if billed == NOMEM:
        return FAIL_LIMIT
    pc = S.cpu[cache * S.k[0].nr_cpus + cpu]
    slab = take_object(S, H, P, cache, pc, cpu, pays, gfp)
    if slab <= 0:
        if billed > 0 and billed != BY_CACHE:
            take_back(S, H, P, cpu, cache, billed)
        return FAIL_LIMIT if slab < 0 else FAIL_PAGES
    o.slab = slab
    o.req = req if req > 0 else c.object_size
    pc.live += 1
    pc.req += o.req
    S.R.allocating(S, obj)
    billed = H.post_alloc(S, P, cpu, pays, cache, gfp, slab, billed)
    failed = billed == NOMEM
    if failed:  # the object exists and goes straight back to its slab (memcg_alloc_abort_single)
        billed = 0
        memcg = 0
        queue_internal(S, FREE, cpu, PAST_SHEAVES, obj)
    o.owner = memcg
    o.billed = billed
    g = S.memcg[memcg]
    g.true_slab += c.slot
    g.objects += 1
    bill_object(S, cache, billed, 1)
    return FAIL_LIMIT if failed else 0


@inlined
def free_object(S, H, P, cpu, obj, to_sheaves):
    """Free handle `obj`, which must be live."""
    o = S.obj[obj]
    slab = o.slab
    cache = S.slab[slab].cache
    billed = o.billed
    H.obj_free(S, P, cpu, cache, billed, slab)
    cache = S.slab[slab].cache  # the hook may have moved the slab to another cache
    g = S.memcg[o.owner]
    g.true_slab -= S.cache[cache].slot
    g.objects -= 1
    bill_object(S, cache, billed, -1)
    pc = S.cpu[cache * S.k[0].nr_cpus + cpu]
    pc.live -= 1
    pc.req -= o.req
    o.slab = 0
    give_object(S, cache, pc, cpu, slab, to_sheaves)


@inlined
def bill_bytes(S, billed, nr_bytes):
    """Count memory that is not slab for the group that it is billed to."""
    if billed > 0:
        S.memcg[holder(S, billed)].billed_pages += nr_bytes


@outlined
def alloc_kernel_pages(S, H, P, cpu, memcg, kind, order, gfp, obj):
    """Allocate 2**order kernel pages that are not slabs; 0 or FAIL_*."""
    k = S.k[0]
    pfn = S.R.get_pages(S, cpu, order, gfp)
    if pfn < 0:
        return FAIL_PAGES
    billed = unbilled_as(memcg, CAUSE_NOT_SELECTED)
    pays = H.charged(S, P, k.task, memcg)
    billed = H.page_alloc(S, P, cpu, pays, kind, order, gfp, billed)
    if billed == NOMEM:
        free_pages(S.pfn, S.area, S.path, node_of(k, pfn, len(S.pfn)), pfn, order)
        return FAIL_LIMIT
    o = S.obj[obj]
    o.slab = -1 - pfn
    o.owner = memcg
    o.billed = max(billed, 0) if memcg <= 1 else billed
    o.req = kind << 8 | order
    k.nr_kernel_pages += 1 << order
    k.nr_free_pages -= 1 << order
    S.memcg[memcg].true_pages += k.page_size << order
    bill_bytes(S, billed, k.page_size << order)
    return 0


@outlined
def free_kernel_pages(S, H, P, cpu, obj):
    """Free the kernel pages of handle `obj`, which must be live pages."""
    k = S.k[0]
    o = S.obj[obj]
    pfn = -1 - o.slab
    order = o.req & 255
    S.memcg[o.owner].true_pages -= k.page_size << order
    bill_bytes(S, o.billed, -(k.page_size << order))
    H.page_free(S, P, cpu, o.billed, o.req >> 8, order)
    o.slab = 0
    k.nr_kernel_pages -= 1 << order
    k.nr_free_pages += 1 << order
    free_pages(S.pfn, S.area, S.path, node_of(k, pfn, len(S.pfn)), pfn, order)


@outlined
def alloc_percpu(S, H, P, cpu, memcg, nr_bytes, gfp, obj):
    """Allocate per-CPU memory of `nr_bytes` over all CPUs; 0 or FAIL_*."""
    billed = unbilled_as(memcg, CAUSE_NOT_SELECTED)
    billed = H.percpu_alloc(S, P, cpu, memcg, nr_bytes, gfp, billed)
    if billed == NOMEM:
        return FAIL_LIMIT
    o = S.obj[obj]
    o.slab = PERCPU
    o.owner = memcg
    o.billed = billed
    o.req = nr_bytes
    S.k[0].percpu_bytes += nr_bytes
    S.memcg[memcg].true_pages += nr_bytes
    bill_bytes(S, billed, nr_bytes)
    return 0


@outlined
def free_percpu(S, H, P, cpu, obj):
    """Free the per-CPU memory of handle `obj`, which must be live."""
    o = S.obj[obj]
    S.memcg[o.owner].true_pages -= o.req
    S.k[0].percpu_bytes -= o.req
    bill_bytes(S, o.billed, -o.req)
    H.percpu_free(S, P, cpu, o.billed, o.req)
    o.slab = 0
