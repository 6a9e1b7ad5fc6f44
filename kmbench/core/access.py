"""Events that only a run with reclaim processes: look-ups, references, user pages, marks.

An ACCESS looks a cached object up: a hit touches it, a miss allocates it, with its parent (a
smaller handle) if that is gone too, and with an inode of its own where the scenario names a cache
of inodes (its handle is the dentry's plus half of all handles).  Each takes model time, the stall
of direct reclaim included, which is booked to the group and the phase of the run (MARK events).
"""

from kmbench.core.cached import get_object, put_object, release_object
from kmbench.core.drop_caches import drop_caches
from kmbench.core.events import (
    ACCESS,
    DROP_CACHES,
    FAIL_NO_GROUP,
    MARK,
    PIN,
    TELL,
    UNPIN,
    USER_ALLOC,
    USER_FREE,
)
from kmbench.core.jit import inlined, outlined
from kmbench.core.rows import prefetch
from kmbench.core.state import OFFLINE, ONLINE
from kmbench.core.userpages import alloc_user_pages, free_user_pages

PHASES = 4  # of a run, for figures before and after: a MARK with arg n begins phase n % PHASES
BUCKETS = 48  # of latencies: bucket n counts those from 2**(n-1) to 2**n - 1 ns
USERS = 16  # groups that are told apart among those that use an object
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


@inlined
def note_user(S, memcg, obj):
    """A group's task found an object: it is one of those that use it (A3')."""
    S.item[obj].users |= 1 << min(max(memcg, 1), USERS) - 1


@inlined
def free_or_cached(S, obj):
    """Whether nothing but a cached object has this handle."""
    return S.item[obj].known != 0 or S.obj[obj].slab == 0


@inlined
def usable(S, obj):
    """Whether a handle may become a cached object, with its inode if those are modelled."""
    inode = S.vm[0].inode_offset
    if inode == 0:
        return free_or_cached(S, obj)
    return obj < inode and free_or_cached(S, obj) and free_or_cached(S, obj + inode)


@inlined
def create(S, cpu, memcg, obj, cache, gfp):
    """Bring an absent object, whose parent is there, into the cache; 0 or FAIL_*.

    The dentry first, then its inode, as d_alloc and iget do; each is pinned until all are there.
    """
    vm = S.vm[0]
    parent = S.item[obj].parent
    if not usable(S, obj):
        return FAIL_NO_GROUP
    note_return(S, memcg, obj)
    if parent:
        get_object(S, parent)
    failed = 0
    wanted = obj
    made = 0
    while wanted and failed == 0:
        i = S.item[wanted]
        if i.known:  # an inode that outlived its dentry
            get_object(S, wanted)
        else:
            failed = S.R.alloc_object(S, S.R, S.P, cpu, memcg, cache, gfp, 0, wanted)
            if failed == 0:
                i.known = 1
                i.users = 0
                i.referenced = 0
                i.pins = 1
                made += 1
        wanted = wanted + vm.inode_offset if wanted == obj and vm.inode_offset else 0
        cache = vm.inode_cache
    if failed and made:  # the dentry goes again, unhashed
        S.item[obj].pins = 0
        S.user[S.obj[obj].owner].unused += 1
        release_object(S, obj)
    if failed:
        if parent:
            put_object(S, parent)
        return failed
    put_object(S, obj)
    return 0


@inlined
def present(S, obj):
    """Whether a handle is a cached object."""
    return S.item[obj].known != 0


@inlined
def look_up(S, cpu, memcg, obj, cache, gfp, parent):
    """ACCESS of an object that is not there: 0 or FAIL_*."""
    stat = S.stat[memcg * PHASES + S.vm[0].phase]
    stat.misses += 1
    if not usable(S, obj):
        S.k[0].nr_skipped += 1
        return 0
    S.item[obj].parent = parent if parent < obj else 0
    failed = 0
    while failed == 0 and not present(S, obj):  # ancestors that are gone come first
        missing = obj
        while S.item[missing].parent and not present(S, S.item[missing].parent):
            missing = S.item[missing].parent
        failed = create(S, cpu, memcg, missing, cache, gfp)
        S.k[0].nr_allocs += 1
    if failed:
        stat.failed += 1
    elif present(S, obj):
        note_user(S, memcg, obj)
    return failed


@inlined
def look_ahead(S, op, obj):
    """Ask for the record of a coming event: of a cached object, of any other one."""
    if op == ACCESS:
        prefetch(S.item, obj)
    else:
        prefetch(S.obj, obj)


@inlined
def look_nearer(S, op, obj):
    """Some events later, ask for what it leads to: neighbours on the list, the object if it must be
    made, the slab."""
    if op == ACCESS:
        i = S.item[obj]
        prefetch(S.item, i.prev)
        prefetch(S.item, i.next)
        prefetch(S.obj, obj * (1 - i.known))  # no branch, which nobody could predict
    else:
        prefetch(S.slab, max(S.obj[obj].slab, 0))


@inlined
def bit_length(nr):
    """Bits of a number from 0 to 2**62, without a loop."""
    bits = 0
    for step in (32, 16, 8, 4, 2, 1):
        high = nr >> step
        if high > 0:
            bits += step
            nr = high
    return bits + nr


@inlined
def book(S, memcg, ns):
    """Book the time of an operation that is no hit."""
    stat = S.stat[memcg * PHASES + S.vm[0].phase]
    stat.spent += ns
    bucket = min(bit_length(ns), BUCKETS - 1)
    S.latency[(memcg * PHASES + S.vm[0].phase) * BUCKETS + bucket].nr += 1


@inlined
def busy(S, memcg):
    """Time that a group's operations took so far, ns."""
    ns = 0
    for phase in range(PHASES):
        stat = S.stat[memcg * PHASES + phase]
        ns += stat.spent + stat.hits * S.vm[0].hit_ns
    return ns


@inlined
def hit(S, memcg, obj):
    """ACCESS of an object that is there; touching it takes and drops a reference.

    All hits take the same time, so their count says it all.
    """
    S.stat[memcg * PHASES + S.vm[0].phase].hits += 1
    note_user(S, memcg, obj)
    i = S.item[obj]
    if i.pins == 0:
        if i.on:
            S.R.touch(S, S.Q, obj)
        else:
            S.R.lru_add(S, S.Q, obj)


@inlined
def exists(S, memcg):
    """Whether tasks can be in the group: it is online, or removed but not yet released."""
    state = S.memcg[memcg].state
    return memcg <= 1 or state == ONLINE or state == OFFLINE


@inlined
def other(S, op, cpu, memcg, obj, cache, gfp, arg):
    """Process an event that only a run with reclaim knows: 0 or FAIL_*.  Hits stay in the loop."""
    if op == ACCESS and present(S, obj) and exists(S, memcg):
        hit(S, memcg, obj)
        return 0
    return rare(S, op, cpu, memcg, obj, cache, gfp, arg)


@outlined
def rare(S, op, cpu, memcg, obj, cache, gfp, arg):
    """All others: 0 or FAIL_*."""
    vm = S.vm[0]
    if op == MARK:
        vm.phase = arg % PHASES
        return 0
    if not exists(S, memcg):
        return FAIL_NO_GROUP
    vm.cost = 0
    vm.cost_of = S.k[0].nr_events
    failed = 0
    if op == ACCESS:
        failed = look_up(S, cpu, memcg, obj, cache, gfp, arg)
        book(S, memcg, vm.miss_ns + vm.cost)
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
    elif op == TELL:
        S.R.told(S, S.U, memcg, arg)
    elif op == DROP_CACHES:
        drop_caches(S, arg)
    vm.stall_ns += vm.cost
    return failed
