"""The event loop: every event of a stream, in order, through one strategy.

:func:`engine` is compiled once for each strategy (:mod:`kmbench.core.specialise`).
"""

from kmbench.core.allocator import cache_reap
from kmbench.core.events import (
    ALLOC,
    ATTACH,
    CG_CREATE,
    CG_OFFLINE,
    CG_RELEASE,
    FAIL_LIMIT,
    FAIL_NO_GROUP,
    FAIL_NO_ID,
    FAIL_PAGES,
    FLUSH,
    FREE,
    LIMIT_WRITE,
    PAGE_ALLOC,
    PAGE_FREE,
    PERCPU_ALLOC,
    PERCPU_FREE,
    SAMPLE,
    SHRINK,
)
from kmbench.core.groups import css_gone
from kmbench.core.jit import inlined, outlined
from kmbench.core.latency import next_event
from kmbench.core.memcg import drain_slot
from kmbench.core.objects import (
    alloc_kernel_pages,
    alloc_percpu,
    free_kernel_pages,
    free_percpu,
)
from kmbench.core.paths import GROUP_GONE, GROUP_MADE
from kmbench.core.release import rcu_release, settle, shrink_caches
from kmbench.core.sample import write_sample
from kmbench.core.state import DONE, OFFLINE, ONLINE, PERCPU, RELEASED, ROWS_FULL, UNLIMITED
from kmbench.core.work import run_item

OBJECT_AHEAD = 24  # events that what a handle leads to first is asked for in advance
NEARER = 10  # and what that leads to


@outlined
def run_timer(S, H, P, timeline, caches, totals):
    """Do what is due first: end a grace period, run a work item, reap caches, or sample; False if a
    sample found no room."""
    k = S.k[0]
    k.now = k.next_due
    if k.rcu_head != k.rcu_tail and S.rcu[k.rcu_head & (len(S.rcu) - 1)].due == k.now:
        rcu_release(S, H, P)
    elif k.work_head != k.work_tail and S.work[k.work_head & (len(S.work) - 1)].due == k.now:
        run_item(S, H, P)
    elif k.next_reap == k.now:
        settle(S, H, P, cache_reap(S))
    elif k.timer_due == k.now:
        S.R.timer(S)
    else:
        if not write_sample(S, H, P, timeline, caches, totals, k.now):
            return False
        k.next_sample += k.sample_every
    k.next_due = min(k.next_sample, k.next_reap, k.timer_due)
    if k.rcu_head != k.rcu_tail:
        k.next_due = min(k.next_due, S.rcu[k.rcu_head & (len(S.rcu) - 1)].due)
    if k.work_head != k.work_tail:
        k.next_due = min(k.next_due, S.work[k.work_head & (len(S.work) - 1)].due)
    return True


@inlined
def log_failure(S, op, memcg, cache, gfp, arg, cause):
    """Record a failed operation; the log keeps the first ones, the count all."""
    k = S.k[0]
    k.nr_failed += 1
    k.nr_failed_pages += cause == FAIL_PAGES
    k.nr_failed_limit += cause == FAIL_LIMIT
    S.R.failed(S, memcg, cache, cause)
    if k.nr_fail_rows < len(S.fail):
        f = S.fail[k.nr_fail_rows]
        f.t = k.now
        f.op = op
        f.memcg = memcg
        f.cache = cache
        f.gfp = gfp
        f.arg = arg
        f.cause = cause
        k.nr_fail_rows += 1


@inlined
def exists(S, memcg):
    """Whether tasks can be in the group: it is online, or removed but not yet released."""
    state = S.memcg[memcg].state
    return memcg <= 1 or state == ONLINE or state == OFFLINE


@outlined
def flush_stocks(S, H, P):
    """Empty the strategy's stocks, then the page stock of every CPU."""
    H.flush(S, P)
    for row in range(S.k[0].nr_cpus * S.k[0].stock_slots):
        drain_slot(S, row)


@outlined
def group_event(S, H, P, op, cpu, memcg, task, which, arg):
    """Life cycle of groups and writes of their limits."""
    g = S.memcg[memcg]
    k = S.k[0]
    if CG_CREATE <= op <= CG_RELEASE and g.state != op - CG_CREATE:
        k.nr_skipped += 1  # each step of a group's life comes once, in order
    elif op == LIMIT_WRITE and g.state != ONLINE:
        k.nr_skipped += 1
    elif op == CG_CREATE:
        if k.nr_ids >= k.max_ids:
            k.nr_no_id += 1
            log_failure(S, op, memcg, 0, 0, arg, FAIL_NO_ID)
            return
        k.nr_ids += 1
        g.has_id = 1
        g.parent = arg
        g.state = ONLINE
        g.objcg_memcg = memcg
        S.path[GROUP_MADE].count += 1
        H.cg_create(S, P, memcg)
    elif op == CG_OFFLINE:
        g.state = OFFLINE
        g.offline_since = k.now
        S.path[GROUP_GONE].count += 1
        H.cg_offline(S, P, cpu, memcg)
        S.R.group_gone(S, memcg)
        if g.css_pages == 0:
            g.gone_at = S.k[0].now
        if k.zombies_hold_ids == 0:
            k.nr_ids -= g.has_id
            g.has_id = 0
        if g.css_pages == 0 and g.css_refs == 0:
            css_gone(S, memcg)
    elif op == CG_RELEASE:
        g.state = RELEASED
        H.cg_release(S, P, memcg)
    elif op == ATTACH:
        H.attach(S, P, task, arg, memcg, which)
    elif op == LIMIT_WRITE:
        c = S.counter[memcg * 2 + which]
        c.limit = UNLIMITED if arg < 0 else arg
        H.limit_write(S, P, memcg, which, arg)
        c.overshoot = max(c.overshoot, c.usage - c.limit)


def engine(S, H, P, events, start, stop, look_ahead, timeline, caches, totals):
    """Process ``events[start:stop]``; the index of the first event that was not processed.

    `events`: EVENT records ordered by time.  `look_ahead`: how far the object records of coming
    frees are prefetched (0 = not at all); results do not depend on it.  `timeline`, `caches`,
    `totals`: int64 matrices of :mod:`kmbench.core.sample`.  ``S.k[0].status`` tells why it
    returned: DONE, or ROWS_FULL when a sample found no room (empty them and call again).
    """
    k = S.k[0]
    k.status = DONE
    i = start
    cpu = 0
    while True:
        if k.internal_head != k.internal_tail or k.release:
            settle(S, H, P, cpu)
            if k.internal_head == k.internal_tail:
                continue
            e = S.internal[k.internal_head & (len(S.internal) - 1)]
            k.internal_head += 1
            k.nr_internal += 1
            internal = 1
        else:
            if i >= stop:
                break
            e = events[i]
            if e.t >= k.next_due:
                next_event(S, -1, 0)
                if not run_timer(S, H, P, timeline, caches, totals):
                    k.status = ROWS_FULL
                    break
                continue
            if look_ahead and i + OBJECT_AHEAD < stop:
                S.R.look_ahead(S, events[i + OBJECT_AHEAD].op, events[i + OBJECT_AHEAD].obj)
                S.R.look_nearer(S, events[i + NEARER].op, events[i + NEARER].obj)
            i += 1
            k.now = e.t
            internal = 0
            next_event(S, e.op, e.memcg)
        op = e.op
        cpu = e.cpu
        k.cpu = cpu
        k.task = e.task
        obj = e.obj
        if op == FREE:
            if S.obj[obj].slab > 0 and S.R.may_free(S, obj):
                S.R.free_object(S, H, P, cpu, obj, not (internal and e.cache))
                k.nr_frees += 1 - internal
            else:
                k.nr_skipped += 1 - internal
        elif op == ALLOC:
            if S.obj[obj].slab == 0:
                failed = FAIL_NO_GROUP
                if exists(S, e.memcg):
                    failed = S.R.alloc_object(S, H, P, cpu, e.memcg, e.cache, e.gfp, e.arg, obj)
                k.nr_allocs += 1 - internal
                if failed and not internal:
                    log_failure(S, op, e.memcg, e.cache, e.gfp, e.arg, failed)
            else:
                k.nr_skipped += 1 - internal
        elif op == PAGE_ALLOC:
            if S.obj[obj].slab == 0:
                failed = FAIL_NO_GROUP
                if exists(S, e.memcg):
                    failed = alloc_kernel_pages(S, H, P, cpu, e.memcg, e.cache, e.arg, e.gfp, obj)
                if failed:
                    log_failure(S, op, e.memcg, e.cache, e.gfp, e.arg, failed)
            else:
                k.nr_skipped += 1 - internal
        elif op == PAGE_FREE:
            if S.obj[obj].slab < 0 and S.obj[obj].slab != PERCPU:
                free_kernel_pages(S, H, P, cpu, obj)
            else:
                k.nr_skipped += 1 - internal
        elif op == PERCPU_ALLOC:
            if S.obj[obj].slab == 0:
                failed = FAIL_NO_GROUP
                if exists(S, e.memcg):
                    failed = alloc_percpu(S, H, P, cpu, e.memcg, e.arg, e.gfp, obj)
                if failed:
                    log_failure(S, op, e.memcg, e.cache, e.gfp, e.arg, failed)
            else:
                k.nr_skipped += 1 - internal
        elif op == PERCPU_FREE:
            if S.obj[obj].slab == PERCPU:
                free_percpu(S, H, P, cpu, obj)
            else:
                k.nr_skipped += 1 - internal
        elif op == SHRINK:
            shrink_caches(S, e.cache, cpu)
        elif op == SAMPLE:
            if not write_sample(S, H, P, timeline, caches, totals, k.now):
                i -= 1
                k.status = ROWS_FULL
                break
        elif op == FLUSH:
            flush_stocks(S, H, P)
        elif CG_CREATE <= op <= ATTACH:
            group_event(S, H, P, op, cpu, e.memcg, e.task, e.cache, e.arg)
        else:
            failed = S.R.other(S, op, cpu, e.memcg, obj, e.cache, e.gfp, e.arg)
            if failed:
                log_failure(S, op, e.memcg, e.cache, e.gfp, e.arg, failed)
        k.nr_events += 1 - internal
    next_event(S, -1, 0)
    return i
