"""Per-memcg copies of caches that are made when a group first needs them.

The copy is made inside the allocation where that may sleep (``sync``), or by a work item; until
then the root cache serves the group and nobody is billed.  ``dedup``: an item is queued only if
none is waiting for the same copy (Souhlal's list of caches to create); without it every allocation
until then queues one (3.8 to 5.8 mm/memcontrol.c:memcg_create_cache_enqueue and its successors).
"""

from kmbench.core.ops import (
    CAUSE_DYING,
    CAUSE_MM_OWNER,
    CAUSE_PENDING,
    GFP_KERNEL,
    ONLINE,
    PLUGIN_PATH,
    SLAB_KMALLOC,
    copy_of,
    count,
    defer_work,
    inlined,
    make_copy,
    online_ancestor,
    outlined,
    table,
)
from kmbench.design import Fact
from kmbench_policies.selection import exemption, selected

CREATE_COPY = 1  # kind of work item: a = memcg, b = root cache
SELECT, SELECT_ROOT, FREE_COPY = PLUGIN_PATH, PLUGIN_PATH + 2, PLUGIN_PATH + 3
OWN, PARENT = 0, 1  # whose copies serve tasks that outlive their group

TABLES = {
    # first, last: of the copies that the group pays for, in the order in which it came to
    "group": table("memcg", active="i4", first="i4", last="i4", bypassed="i8"),
    "copy": table("cache", pages="i8", queued="i4", next="i4"),
}


@inlined
def pay_for(P, memcg, cache):
    """A group pays for a copy from now on: its removal will look at it."""
    group = P.group[memcg]
    if group.last > 0:
        P.copy[group.last].next = cache
    else:
        group.first = cache
    group.last = cache
    P.copy[cache].next = 0


@inlined
def new_copy(S, P, memcg, root):
    """Create a group's copy of a root cache; its row, or 0 when the cache table is full."""
    cache = make_copy(S, memcg, root)
    if cache > 0:
        pay_for(P, memcg, cache)
    return cache


@outlined
def missing_copy(S, P, memcg, root, gfp):
    """A group has no copy yet: a row if it is made now, else -CAUSE_*."""
    if S.memcg[memcg].state != ONLINE:
        return -CAUSE_DYING
    if P.group[memcg].active == 0:
        return root
    par = P.par[0]
    if par.sync and gfp & GFP_KERNEL == GFP_KERNEL:
        return new_copy(S, P, memcg, root)
    child = S.child[memcg * (S.k[0].nr_root_caches + 1) + root]
    if child.pending == 0 or par.dedup == 0:
        if defer_work(S, CREATE_COPY, memcg, root):
            child.pending += 1
    return -CAUSE_PENDING


def select(S, P, cpu, memcg, cache, gfp):
    """The copy of the task's group serves the allocation, if it is accounted and there is one."""
    if not selected(P, cache, gfp):
        return cache
    if memcg <= 1 and P.par[0].acct_root == 0:
        S.path[SELECT_ROOT].count += P.par[0].on
        return -CAUSE_MM_OWNER  # of a group's task; a task of the root has nobody to bill
    cause = exemption(P, gfp)
    if cause:
        return -cause
    count(S, SELECT)
    if S.memcg[memcg].state != ONLINE and P.par[0].late == PARENT:
        memcg = online_ancestor(S, memcg)
        if memcg <= 1:
            return -CAUSE_DYING
    copy = copy_of(S, memcg, cache)
    return copy if copy > 0 else missing_copy(S, P, memcg, cache, gfp)


def copy_facts(choices, max_types: int) -> dict[str, Fact]:
    """When copies are made, and by whom; of how many root caches at most (0: any number)."""
    once = "one work item each" if choices.dedup else "a work item an allocation till then"
    how = f"in an allocation that may sleep, else {once}" if choices.sync else f"late, {once}"
    if max_types:
        how += f"; of {max_types} caches, one more is a BUG"
    return {
        "caches": Fact(f"copy a group: {how}", missing_copy),
        "meanwhile": Fact("root cache, billed to nobody", select),
    }


def obj_free(S, P, cpu, cache, billed, slab):
    """A freed object's cache is the one of its page, not the one that the caller names; where
    `tests_frees`, that is looked at for objects of root caches too (but kfree names none)."""
    c = S.cache[cache]
    if c.memcg > 0:
        count(S, FREE_COPY)
    elif c.slab_flags & SLAB_KMALLOC == 0:
        S.path[FREE_COPY].count += P.par[0].tests_frees & P.par[0].on


@inlined
def create_copy(S, P, memcg, root):
    """A work item's turn: make the copy, unless another item was first or the group is gone."""
    S.child[memcg * (S.k[0].nr_root_caches + 1) + root].pending -= 1
    if copy_of(S, memcg, root) > 0:
        S.k[0].nr_work_duplicates += 1
    elif S.memcg[memcg].state == ONLINE:
        new_copy(S, P, memcg, root)
