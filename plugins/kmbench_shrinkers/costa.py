"""A shrink function for each accounted cache: the reclaim that came with ``costa-2012``.

Source: Glauber Costa, 21 February 2012, "[PATCH 5/7] shrink support for memcg kmem controller" and
"[PATCH 7/7] example shrinker for memcg-aware dcache" (dcache_shrink_memcg).

A dentry is on two lists: the superblock's, which reclaim of the whole machine scans, and its
group's, which reclaim of a full group scans.  They share the REFERENCED bit, and leaving one is
leaving both.  ``dentry-inode`` gives each group one list, as list_lru does since 4.0.

``as_posted`` follows the patches where they fall short of what they were for:

- only the dentry cache has a shrink function; a group's inodes go with the machine's;
- a full group's shrinkers are asked for that group alone, not for those below it, and by the share
  of *all* of the machine's user pages that was scanned (do_try_to_free_pages adds up every zone);
- it does not look at __GFP_FS;
- what is deferred is one number for all groups (shrinker->nr_in_batch);
- global_slab_reclaim looks into the target group, and a task that reclaims from the whole machine
  has none: it would follow a null pointer, and reaches no shrinker here; kswapd does;
- a removed group's list stays where nobody scans it, while its charge has moved to the parent.

Otherwise each of these is completed: inodes too, the subtree, the group's own pages, deferred work
per group, direct reclaim, lists handed to the nearest ancestor online.  Dentries that come onto a
list after their slab moved to the parent are the parent's here; in the posting they stay their
first group's.  A dentry of no group is on the list of the root, which is never full.
"""

from kmbench.core.events import GFP_FS
from kmbench.core.ops import inlined, outlined, table
from kmbench.core.shrinker_ops import (
    STOP,
    charged_group,
    drop_object,
    list_add,
    list_leave,
)
from kmbench.parameters import Parameter
from kmbench.shrinker import Shrinker
from kmbench_shrinkers import dentry_inode
from kmbench_shrinkers.dentry_inode import (
    DENTRY,
    INODE,
    LISTS,
    kill_taken,
    prune_dentries,
    scan_lists,
    take_off,
)


@inlined
def kind_of(S, obj):
    """DENTRY or INODE."""
    return INODE if S.vm[0].inode_cache and obj >= S.vm[0].inode_offset else DENTRY


@inlined
def superblock_add(Q, kind, obj):
    """Make an object the newest of the superblock's list."""
    lst = Q.superblock[kind]
    link = Q.link[obj]
    link.on = 1
    link.next = 0
    link.prev = lst.newest
    if lst.newest:
        Q.link[lst.newest].next = obj
    else:
        lst.oldest = obj
    lst.newest = obj
    lst.nr += 1


@inlined
def superblock_del(Q, kind, obj):
    """Take an object off it."""
    lst = Q.superblock[kind]
    link = Q.link[obj]
    if link.prev:
        Q.link[link.prev].next = link.next
    else:
        lst.oldest = link.next
    if link.next:
        Q.link[link.next].prev = link.prev
    else:
        lst.newest = link.prev
    lst.nr -= 1
    link.on = 0


def lru_add(S, Q, obj):
    """dentry_lru_add: onto both lists."""
    kind = kind_of(S, obj)
    S.item[obj].referenced = 1 - S.vm[0].count_referenced
    list_add(S, charged_group(S, obj) * LISTS + kind, obj)
    superblock_add(Q, kind, obj)
    S.owner[0].bit = 1


def lru_del(S, Q, obj):
    """__dentry_lru_del: off both."""
    if Q.link[obj].on:
        superblock_del(Q, kind_of(S, obj), obj)


def count(S, Q, memcg):
    """nr_objects of the group's copies; memcg 0: of the superblock."""
    if memcg == 0:
        return Q.superblock[DENTRY].nr + Q.superblock[INODE].nr
    inodes = 0 if Q.par[0].as_posted else S.lru[memcg * LISTS + INODE].nr
    return S.lru[memcg * LISTS + DENTRY].nr + inodes


@outlined
def prune_superblock(S, Q, kind, nr):
    """prune_dcache_sb and prune_icache_sb: as for a group's list; how many were visited."""
    vm = S.vm[0]
    lst = Q.superblock[kind]
    spared_first = kind == DENTRY and vm.count_referenced == 0
    most = lst.nr if spared_first else nr  # those spared are met only once
    visited = 0
    obj = lst.oldest
    while obj and nr > 0 and visited < most:
        i = S.item[obj]
        following = Q.link[obj].next
        visited += 1
        nr -= 1
        if i.referenced and (i.pins == 0 or spared_first):
            i.referenced = 0
            superblock_del(Q, kind, obj)
            superblock_add(Q, kind, obj)
            nr += spared_first
        elif kind == DENTRY:
            take_off(S, obj)
        else:
            list_leave(S, obj)
            if i.pins == 0:
                drop_object(S, obj)
        obj = following
    kill_taken(S)
    return visited


def scan(S, Q, memcg, nr, gfp):
    """dcache_shrink_memcg for a group; memcg 0: prune_super."""
    if memcg > 0 and Q.par[0].as_posted:
        return prune_dentries(S, memcg * LISTS + DENTRY, nr)
    if memcg > 0:
        return scan_lists(S, memcg, nr, gfp)
    if (gfp & GFP_FS) == 0:
        return STOP
    dentries = Q.superblock[DENTRY].nr
    inodes = Q.superblock[INODE].nr
    total = dentries + inodes
    if total == 0:
        return 0
    extra = S.vm[0].count_referenced
    scanned = prune_superblock(S, Q, DENTRY, nr * dentries // total + extra)
    if S.vm[0].inode_cache:
        scanned += prune_superblock(S, Q, INODE, nr * inodes // total + 1)
    return scanned


def prepare(S, Q, setup, parameters):
    """The whole machine's reclaim scans the superblock's list, whatever groups can reach."""
    S.vm["global_by_group"] = 0
    S.vm["posted_2012"] = parameters["as_posted"]


costa_shrink_fn = Shrinker(
    name="costa-shrink-fn",
    description="a shrink function per cache: a list per group beside the superblock's",
    source='Glauber Costa, "[PATCH 5/7] shrink support for memcg kmem controller", 21 Feb 2012',
    hooks={
        "lru_add": lru_add,
        "lru_del": lru_del,
        "touch": dentry_inode.touch,
        "count": count,
        "scan": scan,
    },
    tables={
        "link": table("object", next="i4", prev="i4", on="i4"),
        "superblock": table(LISTS, oldest="i4", newest="i4", nr="i8"),
    },
    parameters=(Parameter("as_posted", True, "with the posting's shortcomings, not completed"),),
    lists=LISTS,
    batch=1024,
    prepare=prepare,
)
