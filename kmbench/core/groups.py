"""Life of groups and of their copies of caches: what strategies call when a group comes or goes.

Copies are per-memcg kmem_caches with geometry of their root cache and lists of their own; they are
never merged.
"""

from kmbench.core.allocator import cache_bytes, copy_lists
from kmbench.core.jit import inlined, outlined
from kmbench.core.objects import bill_object
from kmbench.core.paths import COPY_GONE, COPY_MADE
from kmbench.core.state import BY_CACHE, ONLINE


@inlined
def copy_of(S, memcg, root):
    """Row of the group's copy of the root cache, 0 if it has none."""
    return S.child[memcg * (S.k[0].nr_root_caches + 1) + root].cache


@outlined
def make_copy(S, memcg, root):
    """Create the group's copy of a root cache; its row, or 0 when the cache table is full."""
    k = S.k[0]
    if k.nr_caches >= len(S.cache):
        return 0
    row = k.nr_caches
    k.nr_caches += 1
    r = S.cache[root]
    c = S.cache[row]
    c.slot = r.slot
    c.object_size = r.object_size
    c.objects = r.objects
    c.slab_flags = r.slab_flags
    c.memcg = memcg
    c.pays = memcg
    c.root = root
    c.min_partial = r.min_partial
    c.cpu_partial = r.cpu_partial
    c.order = r.order
    c.min_order = r.min_order
    c.vector_cache = r.vector_cache
    c.vector_bytes = r.vector_bytes
    c.min_vector_cache = r.min_vector_cache
    c.min_vector_bytes = r.min_vector_bytes
    S.child[memcg * (k.nr_root_caches + 1) + root].cache = row
    copy_lists(S, root, row)
    k.metadata += cache_bytes(S, row)
    S.path[COPY_MADE].count += 1
    return row


@inlined
def move_slab(S, slab, target):
    """Hand a slab that is on no list, and the bill for its objects, over to another cache."""
    k = S.k[0]
    s = S.slab[slab]
    source = s.cache
    a = S.cache[source]
    b = S.cache[target]
    a.nr_slabs -= 1
    b.nr_slabs += 1
    a.num_objs -= s.objects
    b.num_objs += s.objects
    s.cache = target
    pa = S.cpu[source * k.nr_cpus]
    pb = S.cpu[target * k.nr_cpus]
    for _ in range(s.inuse):
        bill_object(S, source, BY_CACHE, -1)
        bill_object(S, target, BY_CACHE, 1)
    pa.live -= s.inuse
    pb.live += s.inuse
    pa.req -= s.inuse * a.object_size
    pb.req += s.inuse * a.object_size


@outlined
def rebill_copy(S, cache, target):
    """Bill all objects of a copy to group `target` from now on, or with 0 to nobody."""
    live = 0
    for row in range(cache * S.k[0].nr_cpus, (cache + 1) * S.k[0].nr_cpus):
        live += S.cpu[row].live
    bill_object(S, cache, BY_CACHE, -live)
    S.cache[cache].pays = target
    bill_object(S, cache, BY_CACHE, live)


@inlined
def css_gone(S, memcg):
    """Nothing keeps a removed group alive any more: its struct and its id are free."""
    g = S.memcg[memcg]
    g.gone_at = S.k[0].now
    S.k[0].nr_ids -= g.has_id
    g.has_id = 0


@inlined
def css_pin(S, memcg, nr):
    """`nr` things other than charged kernel pages keep the group alive, also once it is removed."""
    S.memcg[memcg].css_refs += nr


@inlined
def css_unpin(S, memcg, nr):
    """`nr` of what ``css_pin`` was called for are gone."""
    g = S.memcg[memcg]
    g.css_refs -= nr
    if g.css_refs == 0 and g.css_pages == 0 and g.state > ONLINE:
        css_gone(S, memcg)


@inlined
def css_get(S, memcg, nr):
    """`nr` charged kernel pages now keep the group alive, also once it is removed."""
    S.memcg[memcg].css_pages += nr


@inlined
def css_put(S, memcg, nr):
    """`nr` pages no longer keep the group alive; whether a removed group is gone with them."""
    g = S.memcg[memcg]
    g.css_pages -= nr
    if g.css_pages > 0 or g.css_refs > 0 or g.state <= ONLINE:
        return False
    css_gone(S, memcg)
    return True


@outlined
def destroy_copy(S, cache):
    """Destroy a copy whose last slab is gone."""
    c = S.cache[cache]
    if c.state != 2:
        c.state = 2
        S.k[0].metadata -= cache_bytes(S, cache)
        S.path[COPY_GONE].count += 1


@inlined
def online_ancestor(S, memcg):
    """Nearest ancestor of a group that is still online; the root always is."""
    g = S.memcg[memcg].parent
    while g > 1 and S.memcg[g].state != 1:
        g = S.memcg[g].parent
    return max(g, 1)


@outlined
def reparent(S, memcg):
    """What was billed to a group is its nearest online ancestor's from now on; that row."""
    g = S.memcg[memcg]
    target = online_ancestor(S, memcg)
    if memcg > 1 and g.objcg_memcg == memcg:
        g.objcg_memcg = target
        S.memcg[target].billed_slab += g.billed_slab
        S.memcg[target].billed_pages += g.billed_pages
        g.billed_slab = 0
        g.billed_pages = 0
    return target
