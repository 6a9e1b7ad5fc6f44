"""Dentries and inodes: the superblock's shrinker.

Sources: Linux 3.5 fs/dcache.c (dput, prune_dcache_sb, shrink_dentry_list, try_prune_one_dentry),
fs/inode.c (iput_final, prune_icache_sb), fs/super.c:prune_super; 6.18 fs/dcache.c
(retain_dentry, dentry_lru_isolate, shrink_dentry_list), fs/inode.c:inode_lru_isolate,
fs/super.c:super_cache_scan.

Up to 3.11 every unused dentry is referenced, so that it survives one scan, and those that a scan
spares do not count; since list_lru (3.12) every visited one counts, and a dentry that was used once
only goes at its first scan.  Killing a dentry lets go of its parent; one that nobody else refers to
dies with it, whatever its REFERENCED bit.  Page cache does not pin inodes here.
"""

from kmbench.core.events import GFP_FS
from kmbench.core.ops import inlined, outlined
from kmbench.core.shrinker_ops import (
    STOP,
    charged_group,
    drop_object,
    list_add,
    list_leave,
    list_rotate,
    prune_list,
    put_object,
)
from kmbench.shrinker import Shrinker

DENTRY, INODE, LISTS = 0, 1, 2


@inlined
def home(S, obj):
    """Row of the list that an object belongs on."""
    vm = S.vm[0]
    kind = INODE if vm.inode_cache and obj >= vm.inode_offset else DENTRY
    return (charged_group(S, obj) if vm.memcg_aware else 0) * LISTS + kind


def lru_add(S, Q, obj):
    """dput, iput: an unused object goes to the list, up to 3.11 with the bit set."""
    S.item[obj].referenced = 1 - S.vm[0].count_referenced
    list_add(S, home(S, obj), obj)


def touch(S, Q, obj):
    """It is on the list already: it was used again."""
    S.item[obj].referenced = 1


def count(S, Q, memcg):
    """super_cache_count with vfs_cache_pressure 100."""
    return S.lru[memcg * LISTS + DENTRY].nr + S.lru[memcg * LISTS + INODE].nr


@outlined
def kill_dentry(S, obj):
    """Free a dentry that nobody refers to, its inode's reference and, upward, parents that lose
    their last one (dentry_kill, try_prune_one_dentry)."""
    vm = S.vm[0]
    while obj:
        if S.item[obj].on:
            list_leave(S, obj)
        parent = S.item[obj].parent
        drop_object(S, obj)
        if vm.inode_cache:
            put_object(S, obj + vm.inode_offset)
        obj = 0
        if parent:
            S.item[parent].pins -= 1
            if S.item[parent].pins == 0:
                S.user[S.obj[parent].owner].unused += 1
                obj = parent


@inlined
def take_off(S, obj):
    """A dentry leaves its list, to be killed if nobody refers to it."""
    list_leave(S, obj)
    if S.item[obj].pins == 0:
        list_add(S, len(S.lru) - 1, obj)


@inlined
def kill_taken(S):
    """Kill the dentries that were taken off (shrink_dentry_list)."""
    dispose = len(S.lru) - 1
    while S.lru[dispose].oldest:
        kill_dentry(S, S.lru[dispose].oldest)


@outlined
def prune_dentries(S, row, nr):
    """Take up to `nr` off the list, oldest first, then kill them; how many were visited."""
    vm = S.vm[0]
    most = S.lru[row].nr if vm.count_referenced == 0 else nr  # those spared are met only once
    visited = 0
    obj = S.lru[row].oldest
    while obj and nr > 0 and visited < most:
        i = S.item[obj]
        following = i.next
        visited += 1
        nr -= 1
        if i.referenced and (i.pins == 0 or vm.count_referenced == 0):
            i.referenced = 0
            list_rotate(S, obj)
            nr += 1 - vm.count_referenced
        else:
            take_off(S, obj)
        obj = following
    kill_taken(S)
    return visited


@outlined
def prune_inodes(S, row, nr):
    """Visit `nr` inodes (up to 3.11 one more), oldest first; how many were visited."""
    return prune_list(S, row, nr + 1 - S.vm[0].count_referenced)


@outlined
def scan_lists(S, memcg, nr, gfp):
    """Divide `nr` between dentries and inodes by their number; dentries first, they pin inodes.

    Without __GFP_FS the caller may hold locks of the file system: nothing is freed.
    """
    if (gfp & GFP_FS) == 0:
        return STOP
    dentries = S.lru[memcg * LISTS + DENTRY].nr
    inodes = S.lru[memcg * LISTS + INODE].nr
    total = dentries + inodes
    if total == 0:
        return 0
    extra = S.vm[0].count_referenced
    scanned = prune_dentries(S, memcg * LISTS + DENTRY, nr * dentries // total + extra)
    if S.vm[0].inode_cache:
        scanned += prune_inodes(S, memcg * LISTS + INODE, nr * inodes // total + extra)
    return scanned


def scan(S, Q, memcg, nr, gfp):
    """super_cache_scan."""
    return scan_lists(S, memcg, nr, gfp)


dentry_inode = Shrinker(
    name="dentry-inode",
    description="the superblock's LRU lists of dentries and inodes; children pin their parents",
    source="Linux 3.5 and 6.18 fs/dcache.c, fs/inode.c, fs/super.c",
    hooks={"lru_add": lru_add, "touch": touch, "count": count, "scan": scan},
    lists=LISTS,
    batch=1024,
)
