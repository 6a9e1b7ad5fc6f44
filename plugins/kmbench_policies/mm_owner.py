"""Whom a task's memory is charged to: to the group of its mm's owner up to 3.x, and in 2012.

Linux 3.5 and 3.8 mm/memcontrol.c:try_get_mem_cgroup_from_mm, mem_cgroup_from_task(mm->owner).  A
thread that was moved to another group without the owner of its mm goes on charging the owner's
group: metric A3; to nobody if that is the root: ``CAUSE_MM_OWNER`` of A1.  ``P.thread`` has such
threads, found by their task number.  A kernel thread has no mm: designs leave it out by context.
An owner that exits hands the mm to another thread that uses it (kernel/exit.c:
mm_update_next_owner); the stream says so with an ATTACH whose owner follows, or with the removal of
the owner's group, which the owner must have left.
"""

from kmbench.core.ops import ONLINE, inlined, outlined, table

THREADS = 1 << 10  # threads apart from their mm's owner that are kept track of
TABLES = {
    "thread": table(THREADS, task="i4", memcg="i4"),
    "threads": table(1, nr="i4"),
}


@outlined
def row_of(P, task):
    """Row of a thread, or of the free one where it would stand; -1 in a full table without it."""
    row = task & (THREADS - 1)
    for _ in range(THREADS):
        if P.thread[row].task == task or P.thread[row].task == 0:
            return row
        row = (row + 1) & (THREADS - 1)
    return -1


def attach(S, P, task, source, target, owner_stays):
    """A task moved; what it allocates is still its mm's owner's, if that one did not."""
    row = row_of(P, task)
    if row < 0 or (owner_stays == 0 and P.thread[row].task == 0):
        return
    P.thread[row].task = task
    P.thread[row].memcg = source if owner_stays else 0
    P.threads[0].nr = 1


@inlined
def charged(S, P, task, memcg):
    """Group that the task's memory is charged to, while that group is there."""
    if P.threads[0].nr == 0 or memcg == 0:
        return memcg
    row = row_of(P, task)
    if row < 0 or P.thread[row].memcg <= 0:
        return memcg
    owner = P.thread[row].memcg
    return owner if owner == 1 or S.memcg[owner].state == ONLINE else memcg


HOOKS = {"attach": attach, "charged": charged}
