"""Events that only a run with reclaim processes: look-ups, references, user pages, marks.

An ACCESS looks a cached object up: a hit touches it, a miss allocates it, with its parent if that
is gone too, and with an inode of its own where the setup has a cache for inodes (handle of the
dentry plus half of all handles).  Each takes model time, the stall of direct reclaim included,
which is booked to the group and the phase of the run (MARK events).
"""

from kmbench.core.cached import drop_object, get_object, put_object
from kmbench.core.events import (
    ACCESS,
    FAIL_NO_GROUP,
    MARK,
    PIN,
    UNPIN,
    USER_ALLOC,
    USER_FREE,
)
from kmbench.core.jit import inlined, separate
from kmbench.core.state import ONLINE
from kmbench.core.userpages import alloc_user_pages, free_user_pages

PHASES = 4  # of a run, for figures before and after: a MARK with arg n begins phase n % PHASES
BUCKETS = 48  # of latencies: bucket n counts those from 2**(n-1) to 2**n - 1 ns
DAMAGE_MS = 10_000  # an eviction that is taken back within this did damage (R3)


@inlined
def note_return(S, memcg, obj):
    """An absent object is wanted again: was evicting it a mistake of somebody else's reclaim?"""
    i = S.item[obj]
    if i.evicted:
        S.stat[memcg * PHASES + S.vm[0].phase].returned += 1
        if i.evicted > 0 and S.k[0].now // 1_000_000 + 1 - i.evicted <= DAMAGE_MS:
            S.vm[0].damaged += 1
        i.evicted = 0


@separate
def new_object(S, cpu, memcg, obj, cache, gfp):
    """Allocate a cached object with one reference; 0 or FAIL_*."""
    failed = S.R.alloc_object(S, S.R, S.P, cpu, memcg, cache, gfp, 0, obj)
    if failed == 0:
        i = S.item[obj]
        i.known = 1
        i.referenced = 0
        i.pins = 1
    return failed


@separate
def create(S, cpu, memcg, obj, cache, gfp):
    """Bring an absent object, whose parent is there, into the cache; 0 or FAIL_*.

    The dentry first, then its inode, as d_alloc and iget do.
    """
    vm = S.vm[0]
    i = S.item[obj]
    note_return(S, memcg, obj)
    if i.parent:
        get_object(S, i.parent)
    failed = new_object(S, cpu, memcg, obj, cache, gfp)
    if failed == 0 and vm.inode_cache and obj < vm.inode_offset:
        inode = obj + vm.inode_offset
        if S.item[inode].known and S.obj[inode].slab > 0:
            get_object(S, inode)
        else:
            failed = new_object(S, cpu, memcg, inode, vm.inode_cache, gfp)
        if failed:  # the dentry goes again, unhashed
            i.pins = 0
            S.user[S.obj[obj].owner].unused += 1
            drop_object(S, obj)
            i.evicted = 0
    if failed:
        if i.parent:
            put_object(S, i.parent)
        return failed
    put_object(S, obj)
    return 0


@inlined
def present(S, obj):
    """Whether a handle is a cached object."""
    return S.item[obj].known != 0 and S.obj[obj].slab > 0


@separate
def look_up(S, cpu, memcg, obj, cache, gfp, parent):
    """ACCESS: 0 or FAIL_*."""
    stat = S.stat[memcg * PHASES + S.vm[0].phase]
    stat.accesses += 1
    if present(S, obj):
        stat.hits += 1
        get_object(S, obj)
        put_object(S, obj)
        return 0
    if S.obj[obj].slab != 0:
        S.k[0].nr_skipped += 1
        return 0
    S.item[obj].parent = parent
    failed = 0
    while failed == 0 and not present(S, obj):  # ancestors that are gone come first
        missing = obj
        while S.item[missing].parent and not present(S, S.item[missing].parent):
            missing = S.item[missing].parent
        failed = create(S, cpu, memcg, missing, cache, gfp)
        S.k[0].nr_allocs += 1
    if failed:
        stat.failed += 1
    return failed


@inlined
def book(S, memcg, ns):
    """Book the time of an operation."""
    stat = S.stat[memcg * PHASES + S.vm[0].phase]
    stat.busy += ns
    bucket = 0
    while ns > 0 and bucket < BUCKETS - 1:
        ns >>= 1
        bucket += 1
    S.latency[(memcg * PHASES + S.vm[0].phase) * BUCKETS + bucket].nr += 1


@separate
def other(S, op, cpu, memcg, obj, cache, gfp, arg):
    """Process one such event: 0 or FAIL_*."""
    vm = S.vm[0]
    if op == MARK:
        vm.phase = arg % PHASES
        return 0
    state = S.memcg[memcg].state
    if memcg > 1 and state != ONLINE and state != ONLINE + 1:
        return FAIL_NO_GROUP
    vm.cost = 0
    failed = 0
    if op == ACCESS:
        hits = S.stat[memcg * PHASES + vm.phase].hits
        failed = look_up(S, cpu, memcg, obj, cache, gfp, arg)
        hit = S.stat[memcg * PHASES + vm.phase].hits > hits
        book(S, memcg, (vm.hit_ns if hit else vm.miss_ns) + vm.cost)
    elif op == PIN:
        if present(S, obj):
            get_object(S, obj)
            S.item[obj].held += 1
    elif op == UNPIN:
        if present(S, obj) and S.item[obj].held > 0:
            S.item[obj].held -= 1
            put_object(S, obj)
    elif op == USER_ALLOC:
        failed = alloc_user_pages(S, cpu, memcg, cache, arg, gfp)
        book(S, memcg, arg * vm.fault_ns + vm.cost)
    elif op == USER_FREE:
        free_user_pages(S, memcg, cache, min(arg, S.pool[memcg * 3 + cache].nr))
    vm.stall_ns += vm.cost
    return failed
