"""Deferred work: items that a strategy queues and that run later, in model time.

A workqueue of the kernel (schedule_work) runs an item when a worker thread gets to it; here it runs
a fixed delay after it was queued (``Accounting.work_delay_ns``), on CPU 0, in the order queued.
"""

from kmbench.core.jit import outlined
from kmbench.core.paths import WORK_QUEUED, WORK_RUN
from kmbench.core.release import settle


@outlined
def schedule_work(S, kind, a, b):
    """Have the hook ``run_work(S, P, kind, a, b)`` called later.

    For items that are part of what they work on, as a work_struct in a kmem_cache: never lost.
    """
    k = S.k[0]
    item = S.work[k.work_tail & (len(S.work) - 1)]
    item.due = k.now + k.work_delay
    item.kind = kind
    item.a = a
    item.b = b
    k.work_tail += 1
    k.next_due = min(k.next_due, item.due)
    S.path[WORK_QUEUED].count += 1


@outlined
def defer_work(S, kind, a, b):
    """Schedule an item that has to be allocated first; False if it is lost.

    It is allocated without waiting (3.8 mm/memcontrol.c:memcg_create_cache_enqueue, kmalloc with
    GFP_NOWAIT): lost when no page is free, or when ``Accounting.work_items`` wait already.
    """
    k = S.k[0]
    if k.work_tail - k.work_head >= k.work_items or k.nr_free_pages == 0:
        k.nr_work_lost += 1
        return False
    schedule_work(S, kind, a, b)
    return True


@outlined
def run_item(S, H, P):
    """Run the oldest work item; slabs that it discards give their pages back."""
    k = S.k[0]
    item = S.work[k.work_head & (len(S.work) - 1)]
    k.work_head += 1
    k.cpu = 0
    S.path[WORK_RUN].count += 1
    H.run_work(S, P, item.kind, item.a, item.b)
    settle(S, H, P, 0)
