"""Cached objects: what may be freed when memory is short, and the lists that shrinkers keep of it.

A handle that an ACCESS event allocated is a *cached object*: a dentry, an inode, a block of any
cache.  It is pinned while somebody holds a reference (an open file, a working directory, a child
dentry) and may sit on one list, newest last (Linux 6.18 mm/list_lru.c: list_lru_add, walks begin at
the oldest).  Membership is lazy: an object that is pinned again stays on its list until a shrinker
meets it.
"""

from kmbench.core.jit import inlined, outlined
from kmbench.core.state import BY_CACHE, ONLINE


@inlined
def owner_of(S, row):
    """Owner of a list; most shrinkers have one list an owner, and a division is slow."""
    return row if S.vm[0].lists == 1 else row // S.vm[0].lists


@inlined
def list_add(S, row, obj):
    """Put an object on list `row` as its newest."""
    lst = S.lru[row]
    i = S.item[obj]
    i.on = row + 1
    S.owner[owner_of(S, row)].bit = 1
    i.next = 0
    i.prev = lst.newest
    if lst.newest:
        S.item[lst.newest].next = obj
    else:
        lst.oldest = obj
    lst.newest = obj
    lst.nr += 1


@inlined
def list_del(S, obj):
    """Take an object off the list that it is on."""
    i = S.item[obj]
    lst = S.lru[i.on - 1]
    if i.prev:
        S.item[i.prev].next = i.next
    else:
        lst.oldest = i.next
    if i.next:
        S.item[i.next].prev = i.prev
    else:
        lst.newest = i.prev
    lst.nr -= 1
    i.on = 0


@inlined
def list_leave(S, obj):
    """The same for good, and the shrinker hears of it."""
    list_del(S, obj)
    S.R.lru_del(S, S.Q, obj)


@inlined
def list_rotate(S, obj):
    """Make an object the newest of its list."""
    i = S.item[obj]
    row = i.on - 1
    lst = S.lru[row]
    S.owner[owner_of(S, row)].bit = 1
    if lst.newest == obj:
        return
    S.item[i.next].prev = i.prev
    if i.prev:
        S.item[i.prev].next = i.next
    else:
        lst.oldest = i.next
    S.item[lst.newest].next = obj
    i.prev = lst.newest
    i.next = 0
    lst.newest = obj


@inlined
def list_append_all(S, source, target):
    """Move list `source` to the new end of list `target`, in order."""
    obj = S.lru[source].oldest
    while obj:
        following = S.item[obj].next
        list_del(S, obj)
        list_add(S, target, obj)
        obj = following


@inlined
def charged_group(S, obj):
    """Group that an object is billed to, whose per-memcg lists it belongs on; the root if nobody's.

    (6.18 mm/list_lru.c:list_lru_add_obj asks the slab's obj_cgroup or the cache's memcg.)
    """
    billed = S.obj[obj].billed
    if billed == BY_CACHE:
        billed = S.cache[S.slab[S.obj[obj].slab].cache].pays
    while billed > 1 and S.memcg[billed].state != ONLINE:  # list_lrus of removed groups moved up
        billed = S.memcg[billed].parent
    return max(billed, 1)


@outlined
def release_object(S, obj):
    """Free a cached object that is on no list and has no references, past the sheaves."""
    S.user[S.obj[obj].owner].unused -= 1
    S.item[obj].known = 0
    S.R.free_object(S, S.R, S.P, S.k[0].cpu, obj, 0)


@inlined
def drop_object(S, obj):
    """The same in a shrinker, which is what metrics count."""
    vm = S.vm[0]
    o = S.obj[obj]
    size = S.cache[S.slab[o.slab].cache].slot
    own = 0
    vm.freed_objects += 1
    vm.freed_bytes += size
    if vm.target > 0:
        vm.target_bytes += size
        owner = o.owner
        while owner > 0 and owner != vm.target:
            owner = S.memcg[owner].parent
        if owner > 0:
            own = 1
            vm.own_bytes += size
    S.item[obj].evicted = (S.k[0].now // 1_000_000 + 1) * (-1 if own else 1)
    release_object(S, obj)


@inlined
def get_object(S, obj):
    """Take a reference to a cached object."""
    i = S.item[obj]
    if i.pins == 0:
        S.user[S.obj[obj].owner].unused -= 1
    i.pins += 1


@inlined
def put_object(S, obj):
    """Drop a reference; the shrinker hears of the last one (dput, iput)."""
    i = S.item[obj]
    i.pins -= 1
    if i.pins == 0:
        S.user[S.obj[obj].owner].unused += 1
        if i.on:
            S.R.touch(S, S.Q, obj)
        else:
            S.R.lru_add(S, S.Q, obj)


@outlined
def prune_list(S, row, nr):
    """Visit `nr` objects of a list, oldest first, and drop those that may go; how many it visited.

    Referenced ones are spared once, pinned ones leave the list.
    """
    visited = 0
    obj = S.lru[row].oldest
    while obj and visited < nr:
        i = S.item[obj]
        following = i.next
        visited += 1
        if i.pins > 0:
            list_leave(S, obj)
        elif i.referenced:
            i.referenced = 0
            list_rotate(S, obj)
        else:
            list_leave(S, obj)
            drop_object(S, obj)
        obj = following
    return visited
