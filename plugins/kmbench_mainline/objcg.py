"""The obj_cgroup controllers: Linux 5.9, which charges before the object, and 6.18, after it.

Sources: Linux 5.9.1 mm/slab.h:memcg_slab_pre_alloc_hook, memcg_slab_post_alloc_hook; 6.18
mm/memcontrol.c:__memcg_slab_post_alloc_hook, __memcg_kmem_charge_page; mm/percpu.c of both.
Proposals of 2026 (Shakeel Butt, Roman Gushchin, May; after 6.18), as parameters: ``per_node``, an
obj_cgroup for every node, and ``obj_slots`` 5, a byte stock for as many obj_cgroups.  That a random
slot is evicted is ours.

Caches are shared; what is billed is an object's slot and the 8 bytes of its place in the slab's
obj_cgroup vector.
"""

from kmbench.core.build import Accounting
from kmbench.core.ops import (
    CAUSE_CHARGE,
    CAUSE_DYING,
    CAUSE_INTERRUPT,
    CAUSE_KTHREAD,
    CTX_DYING,
    CTX_INTERRUPT,
    CTX_KTHREAD,
    CTX_MEMALLOC,
    GFP_ACCOUNT,
    GFP_HIGH,
    GFP_NOFAIL,
    NOMEM,
    ONLINE,
    SLAB_ACCOUNT,
    SLAB_RECLAIM_ACCOUNT,
    ask_vector,
    count,
    css_get,
    css_put,
    drain_all_stock,
    inlined,
    online_ancestor,
    read_line,
    reparent,
)
from kmbench.design import Fact, limit_reclaim, words
from kmbench.parameters import Parameter
from kmbench.strategy import Strategy
from kmbench_mainline.byte_stock import (
    FREE_TEST,
    LIST_LRU,
    MAX_SLOTS,
    NO_OWNER,
    OBJCG_ROOT,
    PAGE_BACK,
    PAGE_CHARGED,
    PATHS,
    TABLES,
    cg_create,
    charge_bytes,
    charge_pages,
    charge_plain,
    flush,
    give_back,
    hand_over,
    key_of,
    prepare,
    release_if_last,
    sample,
    several,
    uncharge_bytes,
    uncharge_objcg,
    uncharge_pages,
    uncharge_plain,
    vmstat_later,
)
from kmbench_mainline.objcg_ops import ops_of_5_9, ops_of_6_18

FORCES = GFP_NOFAIL | CTX_MEMALLOC  # charges that go over the limit in both eras
VECTOR_BYTES = 8  # an object's pointer in the vector


@inlined
def payer(S, P, memcg, gfp, billed):
    """Group whose obj_cgroup pays for the current context, or -CAUSE_*, or `billed` at the root.

    A task that outlives its group is charged to the nearest ancestor that is online; the root pays
    nothing (current_obj_cgroup).
    """
    if memcg <= 1:
        S.path[OBJCG_ROOT].count += P.mode[0].on
        return billed
    if gfp & CTX_INTERRUPT:
        return -CAUSE_INTERRUPT
    if gfp & CTX_KTHREAD:
        return -CAUSE_KTHREAD
    if S.memcg[memcg].state == ONLINE:
        return memcg
    target = online_ancestor(S, memcg)
    return target if target > 1 else -CAUSE_DYING


@inlined
def accounted(S, cache, gfp):
    """Whether an object is billed at all: a SLAB_ACCOUNT cache or __GFP_ACCOUNT."""
    return (S.cache[cache].slab_flags & SLAB_ACCOUNT) != 0 or (gfp & GFP_ACCOUNT) != 0


@inlined
def find_list_lru(S, flags):
    """Objects that an LRU will hold (kmem_cache_alloc_lru: dentries and inodes, whose caches are
    reclaimable) have its list for the group looked up (memcg_list_lru_alloc)."""
    if flags & SLAB_RECLAIM_ACCOUNT:
        count(S, LIST_LRU)


def pre_alloc(S, P, cpu, memcg, cache, gfp, billed):
    """5.9: charge before the object exists."""
    if not accounted(S, cache, gfp):
        return billed
    pays = payer(S, P, memcg, gfp, billed)
    nr = S.cache[cache].slot + VECTOR_BYTES
    if pays > 0 and not charge_plain(S, P, cpu, pays, nr, gfp):
        return -CAUSE_CHARGE if P.par[0].as_posted else NOMEM
    return pays


def post_alloc_vector(S, P, cpu, memcg, cache, gfp, slab, billed):
    """5.9: record the obj_cgroup in the slab's vector, made at the first accounted object."""
    if billed > 0:
        ask_vector(S, cpu, slab)
        S.memcg[billed].objcg_refs += 1
        c = S.cache[cache]
        find_list_lru(S, c.slab_flags)
        vmstat_later(S, P, cpu, billed, S.slab[slab].node, c.slab_flags, c.slot + VECTOR_BYTES)
    return billed


def post_alloc(S, P, cpu, memcg, cache, gfp, slab, billed):
    """6.10 and later: charge the object that was allocated."""
    if not accounted(S, cache, gfp):
        return billed
    pays = payer(S, P, memcg, gfp, billed)
    if pays > 0:
        ask_vector(S, cpu, slab)
        c = S.cache[cache]
        find_list_lru(S, c.slab_flags)
        nr = c.slot + VECTOR_BYTES
        if not charge_bytes(S, P, cpu, pays, nr, gfp, S.slab[slab].node, c.slab_flags, nr):
            return NOMEM
        S.memcg[pays].objcg_refs += 1
    return pays


def slab_new(S, P, cpu, memcg, cache, order, gfp, slab):
    """6.x: a SLAB_ACCOUNT cache's slab gets its vector at once (account_slab)."""
    if slab > 0 and S.cache[cache].slab_flags & SLAB_ACCOUNT:
        ask_vector(S, cpu, slab)
    return True


def obj_free(S, P, cpu, cache, billed, slab):
    """Give an object's bytes back, from whatever context."""
    if billed > 0:
        c = S.cache[cache]
        nr = c.slot + VECTOR_BYTES
        acct = 0
        if slab > 0:
            S.memcg[billed].objcg_refs -= 1
            acct = -nr
        uncharge_bytes(S, P, cpu, billed, nr, S.slab[slab].node, c.slab_flags, acct)
    else:
        path = NO_OWNER if S.slab[slab].vector else FREE_TEST
        S.path[path].count += P.mode[0].on


def page_alloc(S, P, cpu, memcg, kind, order, gfp, billed):
    """__GFP_ACCOUNT pages, stacks and page tables are charged as whole pages."""
    if (gfp & GFP_ACCOUNT) == 0:
        return billed
    pays = payer(S, P, memcg, gfp, billed)
    if pays > 0:
        count(S, PAGE_CHARGED)
        read_line(S, P.left[key_of(P, pays, 0)])
        if not charge_pages(S, P, cpu, pays, 1 << order, gfp):
            return NOMEM
        S.memcg[pays].objcg_pages += 1 << order
        S.memcg[pays].objcg_refs += 1
    return pays


def page_free(S, P, cpu, billed, kind, order):
    """6.18: pages hold the obj_cgroup and go back through the page stock."""
    if billed > 0:
        count(S, PAGE_BACK)
        read_line(S, P.left[key_of(P, billed, 0)])
        uncharge_objcg(S, P, cpu, billed, 1 << order, True)
        S.memcg[billed].objcg_refs -= 1
        if S.memcg[billed].state != ONLINE:
            release_if_last(S, P, billed)


def page_alloc_direct(S, P, cpu, memcg, kind, order, gfp, billed):
    """5.9: pages are charged to the task's group itself, also when it was removed already."""
    if (gfp & GFP_ACCOUNT) == 0 or memcg <= 1:
        return billed
    if gfp & CTX_INTERRUPT:
        return -CAUSE_INTERRUPT
    if gfp & CTX_KTHREAD:
        return -CAUSE_KTHREAD
    if not charge_pages(S, P, cpu, memcg, 1 << order, gfp):
        return NOMEM
    css_get(S, memcg, 1 << order)
    return memcg


def page_free_direct(S, P, cpu, billed, kind, order):
    """5.9: pages hold the group itself and go straight back to its counters, or to the stock."""
    if billed > 0:
        uncharge_pages(S, P, cpu, billed, 1 << order, P.par[0].uncharge_to_stock)
        css_put(S, billed, 1 << order)


def percpu_alloc(S, P, cpu, memcg, nr_bytes, gfp, billed):
    """Accounted per-CPU memory is charged by the byte."""
    if (gfp & GFP_ACCOUNT) == 0:
        return billed
    pays = payer(S, P, memcg, gfp, billed)
    if pays > 0:
        if not charge_plain(S, P, cpu, pays, nr_bytes, gfp):
            return NOMEM
        S.memcg[pays].objcg_refs += 1
    return pays


def percpu_free(S, P, cpu, billed, nr_bytes):
    """Give per-CPU memory's bytes back."""
    if billed > 0:
        S.memcg[billed].objcg_refs -= 1
        uncharge_plain(S, P, cpu, billed, nr_bytes)


def cg_offline(S, P, cpu, memcg):
    """The group's obj_cgroup is handed to the nearest online ancestor (memcg_reparent_objcgs)."""
    hand_over(S, memcg, reparent(S, memcg))
    drain_all_stock(S, memcg)
    release_if_last(S, P, memcg)


_SHARED = {
    "cg_create": cg_create,
    "obj_free": obj_free,
    "page_alloc": page_alloc,
    "percpu_alloc": percpu_alloc,
    "percpu_free": percpu_free,
    "cg_offline": cg_offline,
    "flush": flush,
    "sample": sample,
}

_OBJ_STOCK = (
    Parameter(
        "obj_slots", 1, "obj_cgroups a CPU's byte stock holds; 5 proposed in 2026", "slots",
        choices=tuple(range(1, MAX_SLOTS + 1)),
    ),
    Parameter("per_node", False, "an obj_cgroup for every node, proposed in 2026"),
)  # fmt: skip

_TO_STOCK = Parameter(
    "uncharge_to_stock", False, "pages given back go to the page stock (5.11 to 6.15)"
)

_DESIGN = {
    "selection": Fact("opt-in: SLAB_ACCOUNT caches, __GFP_ACCOUNT", accounted),
    "contexts": Fact(words(CTX_INTERRUPT | CTX_KTHREAD), payer),
    "caches": Fact("shared, owners in the slab", ask_vector),
    "byte_stock": Fact("1 obj_cgroup a CPU, trimmed above a page", give_back),
    "deletion": Fact("obj_cgroup goes to the parent", cg_offline),
    "root": Fact("not accounted", payer),
}

linux_5_9 = Strategy(
    name="linux-5.9",
    description="obj_cgroup: shared caches, objects billed by the byte, charged before allocation",
    source="Linux 5.9.1 mm/slab.h, mm/memcontrol.c (Roman Gushchin, v7, June 2020)",
    hooks={
        **_SHARED,
        "pre_alloc": pre_alloc,
        "post_alloc": post_alloc_vector,
        "page_alloc": page_alloc_direct,
        "page_free": page_free_direct,
    },
    tables=TABLES,
    tables_for=several,
    prepare=prepare,
    design={
        **_DESIGN,
        "unit": Fact("object bytes + 8, __GFP_ACCOUNT pages", page_alloc_direct),
        "charge_point": Fact("before the object", pre_alloc),
        "counters": Fact("memory, kmem", charge_pages),
        **limit_reclaim(Accounting(slab_reclaim=True), by_memory=True),
        "limit": Fact(f"NULL; go over it: {words(FORCES | CTX_DYING)}", charge_pages),
        "byte_stock": Fact("1 obj_cgroup a CPU, emptied above a page", give_back),
        "deletion": Fact("obj_cgroup goes to the parent; kernel pages: zombie", cg_offline),
    },
    paths=PATHS,
    path_ops=ops_of_5_9,
    parameters=(
        Parameter("trim", False, "keep the rest of a page when a stock exceeds one (5.14+)"),
        Parameter("vmstat_batch", False, "slab bytes reach the statistics by the page (5.14+)"),
        *_OBJ_STOCK,
        Parameter("task_objcg", False, "the task knows its obj_cgroup (6.7+)"),
        Parameter("stock_irq", True, "interrupts are off while a stock is used (up to 6.14)"),
        Parameter("cgroup_v2", False, "there is no kmem counter of its own"),
        Parameter("kmem_limit", True, "memory.kmem.limit_in_bytes is enforced (up to 5.15)"),
        Parameter("as_posted", False, "a failed charge hands the object out unbilled (5.9.x bug)"),
        _TO_STOCK,
        Parameter("stock_batch", 32, "pages a page stock slot is charged by", "pages", 1),
    ),
    accounting=lambda p: Accounting(
        stock_slots=1,
        stock_batch=p["stock_batch"],
        forces=FORCES | CTX_DYING,
        vectors=True,
        zombies_hold_ids=False,
        slab_reclaim=True,
    ),
)

linux_6_18 = Strategy(
    name="linux-6.18",
    description="obj_cgroup: charged after allocation, page stock of 7 slots, ATOMIC forces",
    source="Linux 6.18 mm/memcontrol.c, mm/slub.c",
    hooks={"post_alloc": post_alloc, "slab_new": slab_new, "page_free": page_free, **_SHARED},
    tables=TABLES,
    tables_for=several,
    prepare=prepare,
    design={
        **_DESIGN,
        "unit": Fact("object bytes + 8, __GFP_ACCOUNT pages", page_alloc),
        "charge_point": Fact("after the object", post_alloc),
        "counters": Fact("memory; kmem is a statistic", charge_pages),
        **limit_reclaim(Accounting(slab_reclaim=True), by_memory=True, kmem_limit=False),
        "limit": Fact(f"NULL; go over it: {words(FORCES | GFP_HIGH)}", charge_pages),
    },
    paths=PATHS,
    path_ops=ops_of_6_18,
    parameters=(
        Parameter("trim", True, "keep the rest of a page when a stock exceeds one (5.14+)"),
        Parameter("vmstat_batch", True, "slab bytes reach the statistics by the page (5.14+)"),
        *_OBJ_STOCK,
        Parameter("cgroup_v2", False, "there is no kmem counter of its own"),
        Parameter("kmem_limit", False, "memory.kmem.limit_in_bytes is enforced (up to 5.15)"),
        _TO_STOCK,
        Parameter("stock_slots", 7, "groups a CPU's page stock holds", "slots", 1),
        Parameter("stock_batch", 64, "pages a page stock slot is charged by", "pages", 1),
    ),
    accounting=lambda p: Accounting(
        stock_slots=p["stock_slots"],
        stock_batch=p["stock_batch"],
        forces=FORCES | GFP_HIGH,
        vectors=True,
        slab_reclaim=True,
        charge_retries=16,
        oom_needs_fs=False,
        zombies_hold_ids=False,
    ),
)
