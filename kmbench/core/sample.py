"""Timeline samples: one row a group and one a cache, into preallocated columns.

Columns are rows of a C-contiguous int64 matrix, so that each leaves as an Arrow array uncopied.
"""

from kmbench.core.events import COUNTER_KMEM, COUNTER_MEMORY
from kmbench.core.jit import by_allocator, by_table, inlined, outlined
from kmbench.core.state import FREE_LIST, NR_LISTS, OFFLINE, ONLINE, PARTIAL_LIST

TIMELINE_COLUMNS = (
    "t", "sample", "memcg", "parent", "state", "kmem_usage", "kmem_max_usage", "kmem_failcnt",
    "memory_usage", "memory_failcnt", "stock", "byte_stock", "true_slab", "true_pages",
    "billed_slab", "billed_pages", "objects", "memory_kernel",
)  # fmt: skip
CACHE_COLUMNS = (
    "t", "sample", "cache", "root", "memcg", "object_size", "size", "objs_per_slab",
    "pages_per_slab", "active_objs", "num_objs", "num_slabs", "live_objs", "node_partial",
    "cpu_partial", "cpu_slabs", "idle", "requested", "slabs_made", "slabs_gone", "state",
    "free_slabs", "limit", "batchcount", "shared_factor", "shared_avail",
    "partial_nodes",
)  # fmt: skip
TOTAL_COLUMNS = (
    "t", "sample", "slab_pages", "kernel_pages", "free_pages", "percpu_bytes", "metadata", "owned",
    "unbilled_not_selected", "unbilled_pending", "unbilled_interrupt",
    "unbilled_kthread", "unbilled_nofail", "unbilled_dying", "unbilled_vector",
    "unbilled_charge_failed", "unbilled_removed", "unbilled_mm_owner", "zombies", "zombie_pages",
)  # fmt: skip


@inlined
def _counts(g):
    return g.objects > 0 or g.true_pages > 0 or g.css_pages > 0 or g.css_refs > 0


@inlined
def _no_user_pages(S, memcg):
    return 0


@inlined
def _user_pages(S, memcg):
    pool = memcg * 3
    return S.pool[pool].nr + S.pool[pool + 1].nr + S.pool[pool + 2].nr


_user_pages_of = by_table("pool", _no_user_pages, _user_pages)


@inlined
def _memory_kernel(S, timeline, first):
    """Kernel memory in the memory counters, in the rows from `first` on: what is neither user pages
    nor charged in advance, of the group and all below it.  Removed groups without a row may still
    have user pages."""
    k = S.k[0]
    for m in range(k.nr_groups):
        S.memcg[m].byte_stock = 0  # of what was written: from here on the sum of the rest
    for m in range(2, k.nr_groups):
        other = _user_pages_of(S, m) * k.page_size + S.memcg[m].stock
        above = m
        while other and above > 0:
            S.memcg[above].byte_stock += other
            above = S.memcg[above].parent
    for row in range(first, k.nr_timeline):
        timeline[17, row] = timeline[8, row] - S.memcg[timeline[2, row]].byte_stock


@inlined
def _groups(S, timeline, t):
    k = S.k[0]
    page = k.page_size
    first = k.nr_timeline
    for row in range(k.nr_cpus * k.stock_slots):
        S.memcg[S.stock[row].memcg].stock += S.stock[row].nr * page
    for m in range(1, k.nr_groups):
        g = S.memcg[m]
        if g.state == ONLINE or g.state == OFFLINE or _counts(g):
            row = k.nr_timeline
            kmem = S.counter[m * 2 + COUNTER_KMEM]
            memory = S.counter[m * 2 + COUNTER_MEMORY]
            timeline[0, row] = t
            timeline[1, row] = k.nr_samples
            timeline[2, row] = m
            timeline[3, row] = g.parent
            timeline[4, row] = g.state - ONLINE
            timeline[5, row] = kmem.usage * page
            timeline[6, row] = kmem.watermark * page
            timeline[7, row] = kmem.failcnt
            timeline[8, row] = memory.usage * page
            timeline[9, row] = memory.failcnt
            timeline[10, row] = g.stock
            timeline[11, row] = g.byte_stock + g.nr_charged_bytes
            timeline[12, row] = g.true_slab
            timeline[13, row] = g.true_pages
            timeline[14, row] = g.billed_slab
            timeline[15, row] = g.billed_pages
            timeline[16, row] = g.objects
            k.nr_timeline += 1
    _memory_kernel(S, timeline, first)
    for m in range(k.nr_groups):
        S.memcg[m].stock = 0
        S.memcg[m].byte_stock = 0


@inlined
def _common(S, caches, t, cache):
    """What is the same for both allocators of one cache's row, which is not finished yet."""
    k = S.k[0]
    c = S.cache[cache]
    live = 0
    requested = 0
    for cpu in range(k.nr_cpus):
        pc = S.cpu[cache * k.nr_cpus + cpu]
        live += pc.live
        requested += pc.req
    row = k.nr_cache_rows
    caches[0, row] = t
    caches[1, row] = k.nr_samples
    caches[2, row] = cache
    caches[3, row] = c.root if c.memcg else 0
    caches[4, row] = c.memcg
    caches[5, row] = c.object_size
    caches[6, row] = c.slot
    caches[7, row] = c.objects
    caches[8, row] = 1 << c.order
    caches[10, row] = c.num_objs
    caches[11, row] = c.nr_slabs
    caches[12, row] = live
    caches[17, row] = requested
    caches[18, row] = c.slabs_made
    caches[19, row] = c.slabs_gone
    caches[20, row] = c.state


@inlined
def _slub_lists(S, caches, cache, row):
    k = S.k[0]
    c = S.cache[cache]
    cpu_partial = 0
    cpu_slabs = 0
    sheaved = 0
    idle_pages = 0
    for cpu in range(k.nr_cpus):
        pc = S.cpu[cache * k.nr_cpus + cpu]
        if pc.slab:
            cpu_slabs += 1
            idle_pages += 1 << S.slab[pc.slab].order
        slab = pc.partial
        while slab:
            cpu_partial += 1
            idle_pages += 1 << S.slab[slab].order
            slab = S.slab[slab].next
        if c.sheaf:
            p = S.sheaf[c.sheaf * k.nr_cpus + cpu]
            sheaved += p.nr_main + p.nr_spare
    node_partial = 0
    free_on_nodes = 0
    partial_nodes = 0
    for node in range(k.nr_nodes):
        partial_nodes |= (S.node[cache * k.nr_nodes + node].head > 0) << node
        slab = S.node[cache * k.nr_nodes + node].head
        while slab:
            s = S.slab[slab]
            node_partial += 1
            free_on_nodes += s.objects - s.inuse
            if s.inuse == 0:
                idle_pages += 1 << s.order
            slab = s.next
        if c.sheaf:
            sheaved += S.barn[c.sheaf * k.nr_nodes + node].nr_full * c.sheaf_capacity
    caches[9, row] = c.num_objs - free_on_nodes
    caches[13, row] = node_partial
    caches[14, row] = cpu_partial
    caches[15, row] = cpu_slabs
    caches[16, row] = idle_pages * k.page_size + sheaved * c.slot
    for column in range(21, 26):
        caches[column, row] = 0
    caches[26, row] = partial_nodes


@inlined
def _slab_lists(S, caches, cache, row):
    """As /proc/slabinfo counts: what arrays hold is active (3.5 mm/slab.c:s_show)."""
    k = S.k[0]
    c = S.cache[cache]
    partial = 0
    free_slabs = 0
    free_objects = 0
    shared = 0
    partial_nodes = 0
    for node in range(cache * k.nr_nodes, (cache + 1) * k.nr_nodes):
        on_node = S.list[node * NR_LISTS + PARTIAL_LIST].nr
        partial += on_node
        partial_nodes |= (on_node > 0) << (node - cache * k.nr_nodes)
        free_slabs += S.list[node * NR_LISTS + FREE_LIST].nr
        free_objects += S.node[node].free_objects
        shared += S.node[node].shared_avail
    parked = shared
    for cpu in range(cache * k.nr_cpus, (cache + 1) * k.nr_cpus):
        parked += S.cpu[cpu].avail
    if k.nr_nodes > 1:
        for a in range(cache * k.nr_nodes * k.nr_nodes, (cache + 1) * k.nr_nodes * k.nr_nodes):
            parked += S.alien[a].avail
    caches[9, row] = c.num_objs - free_objects
    caches[13, row] = partial
    caches[14, row] = 0
    caches[15, row] = 0
    caches[16, row] = (free_slabs * k.page_size << c.order) + parked * c.slot
    caches[21, row] = free_slabs
    caches[22, row] = c.limit
    caches[23, row] = c.batchcount
    caches[24, row] = c.shared_limit // c.batchcount
    caches[25, row] = shared
    caches[26, row] = partial_nodes


_lists = by_allocator(_slub_lists, _slab_lists)


@outlined
def write_sample(S, H, P, timeline, caches, totals, t):
    """Write one sample; False, with nothing written, if a table has no room for it."""
    k = S.k[0]
    if (
        k.nr_timeline + k.nr_groups > timeline.shape[1]
        or k.nr_cache_rows + k.nr_caches > caches.shape[1]
        or k.nr_total_rows + 1 > totals.shape[1]
    ):
        return False
    H.sample(S, P)
    _groups(S, timeline, t)
    for cache in range(1, k.nr_caches):
        if S.cache[cache].nr_slabs:
            _common(S, caches, t, cache)
            _lists(S, caches, cache, k.nr_cache_rows)
            k.nr_cache_rows += 1
    row = k.nr_total_rows
    totals[0, row] = t
    totals[1, row] = k.nr_samples
    totals[2, row] = k.nr_slab_pages
    totals[3, row] = k.nr_kernel_pages
    totals[4, row] = k.nr_free_pages
    totals[5, row] = k.percpu_bytes
    totals[6, row] = k.metadata
    last = len(S.unbilled)
    totals[7, row] = 0
    totals[7 + last, row] = 0
    totals[8 + last, row] = 0
    for memcg in range(2, k.nr_groups):
        g = S.memcg[memcg]
        totals[7, row] += g.true_slab
        if g.state > ONLINE and (g.css_pages > 0 or g.css_refs > 0):
            totals[7 + last, row] += 1
            totals[8 + last, row] += g.css_pages
    for cause in range(1, len(S.unbilled)):
        totals[7 + cause, row] = S.unbilled[cause].bytes
    k.nr_total_rows += 1
    k.nr_samples += 1
    return True
