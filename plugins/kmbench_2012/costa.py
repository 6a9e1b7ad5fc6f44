"""Glauber Costa, "[PATCH 0/7] memcg kernel memory tracking", 21 February 2012.

Opt-in caches (the posting registers only the dentry cache) are copied eagerly for every group when
it is created.  Slabs of a copy are charged after their pages were allocated; over the limit the
pages are freed and the allocation fails: nothing is reclaimed (Kamezawa objected; ``reclaim`` is
what was promised for the next version).  All other caches have no hook at all.

A group's dentries have an LRU of their own and a shrink function (patches 5 and 7), which reclaim
of user pages in a full group calls when kernel memory is charged to the same counter, and a write
of a lower kmem limit when it is not.  The shrinker ``costa-shrink-fn`` is theirs; with
``dentry-inode`` the group has one list, the superblock none.

With ``object_growth=24`` dentries are as large as posted: each remembers the cache it came from and
has a place on its group's list.  By default sizes are the machine's, as for every other design.

Deletion is patch 4, "slab chaining": partial slabs move to the parent's copy (the root cache if the
parent is the root), full ones at their first free, and the charge stays in the parent.  It was
posted for SLUB.  On SLAB, ours: full and free slabs, of which SLAB has lists, move at once, too.
"""

from kmbench.core.build import Accounting
from kmbench.core.ops import (
    CAUSE_KTHREAD,
    CAUSE_MM_OWNER,
    COUNTER_KMEM,
    COUNTER_MEMORY,
    CTX_KTHREAD,
    FULL,
    GFP_DIRECT_RECLAIM,
    PLUGIN_PATH,
    Ops,
    Path,
    attach_slab,
    copy_of,
    count,
    counter_charge,
    counter_uncharge,
    css_pin,
    css_unpin,
    destroy_copy,
    detach_slab,
    flush_cache,
    holder,
    inlined,
    is_below,
    make_copy,
    move_slab,
    online_ancestor,
    outlined,
    reclaim,
    shrink,
    table,
)
from kmbench.design import Fact
from kmbench.errors import unknown
from kmbench.parameters import Parameter
from kmbench.strategy import Strategy
from kmbench_policies import mm_owner

SELECT, SLAB_TEST = PLUGIN_PATH, PLUGIN_PATH + 1
PATHS = (
    Path("select_copy", "alloc", Ops(br=1, ptr=2, rcu=1, call=1)),
    Path("slab_owner_test", "slab", Ops(br=1, ptr=1)),
)
DEFAULT_CACHES = ["dentry"]
TABLES = {"selected": table("cache", on="i4")}


def cg_create(S, P, memcg):
    """Copy every registered cache for the new group (patch 2)."""
    if memcg > 1:
        for root in range(1, S.k[0].nr_root_caches + 1):
            if P.selected[root].on and make_copy(S, memcg, root):
                css_pin(S, memcg, 1)


@inlined
def end_copy(S, copy):
    """A dead copy has no slabs any more: it goes, and with it a reference to its group."""
    if S.cache[copy].state == 1:
        destroy_copy(S, copy)
        css_unpin(S, S.cache[copy].memcg, 1)


@inlined
def copy_for(S, memcg, root):
    """The group's copy of a root cache; the root cache for the root and where there is none."""
    copy = copy_of(S, memcg, root) if memcg > 1 else 0
    return copy if copy > 0 else root


def select(S, P, cpu, memcg, cache, gfp):
    """A registered cache's object comes from the copy of the task's group (patch 6)."""
    if P.selected[cache].on == 0:
        return cache
    if gfp & CTX_KTHREAD:
        return -CAUSE_KTHREAD
    count(S, SELECT)
    if memcg <= 1:
        return -CAUSE_MM_OWNER  # of a group's task; a task of the root has nobody to bill
    return copy_for(S, holder(S, memcg), cache)


@inlined
def counter(P):
    """The counter that kernel memory is charged to."""
    return COUNTER_KMEM if P.par[0].independent else COUNTER_MEMORY


@outlined
def charge_after_reclaim(S, P, memcg, nr, gfp):
    """What was promised for the next version: the group is reclaimed from, then charged; False
    if that freed nothing."""
    while gfp & GFP_DIRECT_RECLAIM:
        freed = reclaim(S, memcg, nr, gfp)
        if counter_charge(S, counter(P), memcg, nr) == 0:
            S.k[0].nr_absorbed += 1
            return True
        if freed == 0:
            break
    return False


def slab_new(S, P, cpu, memcg, cache, order, gfp, slab):
    """Charge a copy's slab once its pages are there."""
    if slab == 0:
        return True
    count(S, SLAB_TEST)
    owner = S.cache[cache].memcg
    if owner == 0:
        return True
    if counter_charge(S, counter(P), owner, 1 << order):
        if P.par[0].reclaim == 0 or not charge_after_reclaim(S, P, owner, 1 << order, gfp):
            return False
    S.slab[slab].memcg = owner
    return True


@outlined
def limit_write(S, P, memcg, which, pages):
    """mem_cgroup_resize_kmem_limit (patch 5): shrink until usage fits, or five times as often in
    vain as the group has descendants and itself.  Then the write fails there; here it stands."""
    if which != COUNTER_KMEM or P.par[0].independent == 0:
        return
    c = S.counter[memcg * 2 + COUNTER_KMEM]
    tries = 0
    for row in range(memcg, S.k[0].nr_groups):
        tries += 5 * is_below(S, row, memcg)
    usage = c.usage
    while usage > c.limit and tries > 0:
        shrink(S, memcg)
        tries -= c.usage >= usage
        usage = c.usage


@outlined
def leave_group(S, P, slab, target):
    """The slab's charge stays with `target`, an ancestor of the group that paid so far."""
    s = S.slab[slab]
    if s.memcg > 0:
        counter_uncharge(S, counter(P), s.memcg, 1 << s.order, target)
        s.memcg = target


def slab_gone(S, P, cpu, cache, order, slab):
    """Uncharge a slab; the last one takes a dead copy with it."""
    if slab > 0:
        count(S, SLAB_TEST)
        if S.slab[slab].memcg > 0:
            counter_uncharge(S, counter(P), S.slab[slab].memcg, 1 << order, 0)
        if S.cache[cache].state == 1 and S.cache[cache].nr_slabs == 0:
            end_copy(S, cache)


@outlined
def chain_full_slab(S, P, cache, slab):
    """A dead copy's full slab loses its first object: it moves to the heir."""
    group = S.cache[cache].memcg
    target = holder(S, group)
    leave_group(S, P, slab, target)
    move_slab(S, slab, copy_for(S, target, S.cache[cache].root))
    if S.cache[cache].nr_slabs == 0:
        end_copy(S, cache)


def obj_free(S, P, cpu, cache, billed, slab):
    """Chain full slabs of dead copies at their first free."""
    if S.cache[cache].state == 1 and S.slab[slab].where == FULL:
        chain_full_slab(S, P, cache, slab)


def cg_offline(S, P, cpu, memcg):
    """Hand the group's partial slabs, and their charge, to the parent (patch 4)."""
    target = online_ancestor(S, memcg)
    S.memcg[memcg].objcg_memcg = target
    for root in range(1, S.k[0].nr_root_caches + 1):
        copy = copy_of(S, memcg, root)
        if copy > 0:
            new_home = copy_for(S, target, root)
            S.cache[copy].state = 1
            move_charged_slabs(S, P, copy, new_home, target, cpu)
            if S.cache[copy].nr_slabs == 0:
                end_copy(S, copy)


@outlined
def move_charged_slabs(S, P, copy, new_home, target, cpu):
    """Move the slabs on a dying copy's lists, and hand over what each of them was charged."""
    flush_cache(S, copy, cpu)
    slab = detach_slab(S, copy)
    while slab > 0:
        leave_group(S, P, slab, target)
        move_slab(S, slab, new_home)
        attach_slab(S, slab, new_home)
        slab = detach_slab(S, copy)


def registered(setup, parameters) -> list[int]:
    """Rows of the registered caches; only the default list may name caches that are not there."""
    names = [cache.name for cache in setup.caches]
    rows = []
    for wanted in parameters["caches"]:
        if wanted in names:
            rows.append(names.index(wanted) + 1)
        elif parameters["caches"] != DEFAULT_CACHES:
            raise unknown("cache", wanted, names).within("strategy costa-2012: caches")
    return rows


def prepare(S, P, setup, parameters):
    """Mark the registered caches."""
    P.selected["on"][registered(setup, parameters)] = 1


def growth(setup, parameters):
    """An object of a registered cache remembers the cache it came from and is on its group's list:
    struct dentry grows by a pointer and a list_head."""
    return dict.fromkeys(registered(setup, parameters), parameters["object_growth"])


costa_2012 = Strategy(
    name="costa-2012",
    description="opt-in caches copied eagerly for each group, slabs charged, no reclaim",
    source='Glauber Costa, "[PATCH 0/7] memcg kernel memory tracking", 21 Feb 2012',
    hooks={
        "cg_create": cg_create,
        "select": select,
        "slab_new": slab_new,
        "slab_gone": slab_gone,
        "limit_write": limit_write,
        "obj_free": obj_free,
        "cg_offline": cg_offline,
        **mm_owner.HOOKS,
    },
    tables={**TABLES, **mm_owner.TABLES},
    paths=PATHS,
    parameters=(
        Parameter("caches", DEFAULT_CACHES, "registered caches"),
        Parameter("independent", True, "charge kmem, not the memory counter"),
        Parameter("object_growth", 0, "added to objects of registered caches; posted: 24", "B", 0),
        Parameter("reclaim", False, "a full group is reclaimed from (promised for v2), not failed"),
    ),
    accounting=lambda p: Accounting(
        copies=True, counter_locked=True, slab_reclaim=not p["independent"] or p["reclaim"]
    ),
    prepare=prepare,
    growth=growth,
    copy_name="{cache}-{row:x}",
    design={
        "selection": Fact("opt-in caches: dentry", prepare),
        "contexts": Fact("kthread", select),
        "unit": Fact("slab pages", slab_new),
        "caches": Fact("copy a group, made with the group", cg_create),
        "charge_point": Fact("after the slab's pages", slab_new),
        "counters": Fact("kmem, or memory instead (independent=false)", counter),
        "limit": Fact("NULL", slab_new),
        "limit_reclaim": Fact("nothing, at either counter (reclaim=false)", slab_new),
        "deletion": Fact("slabs and charge to the parent, SLUB's full slabs at a free", cg_offline),
        "root": Fact("not accounted", select),
    },
)
