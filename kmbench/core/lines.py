"""Cache lines that several CPUs write: who had one last, and what fetching it takes.

A counter of a group, the list_lock of a node and an obj_cgroup are lines of their own.  A CPU that
writes one which another CPU wrote last has to fetch it, from a CPU of its own node or of another; a
lock that another CPU took less than ``HELD_NS`` before has to be waited for.  The first CPU that
reads what another one wrote fetches it as well and leaves it with both, so that the next write, by
whomever, has to tell the other one.  Reading what is shared already is free.  Per-CPU stocks belong
to their CPU and never move.  What a fetch takes is the hardware profile's business.

That is what happens in the order of events. Where CPUs crowd at a line they come between each
other's operations in other ways, so what tells of that is counted as well where a workload says how
many CPUs are at it at once; elsewhere nobody asks, and counting takes time. A *visit* is all that a
CPU does with a line in one operation without using another shared line meanwhile: it reads it first
(``looks``) or writes it (``takes``), or both, which are two fetches, the first without the right to
write. Visits that follow one of the same CPU to the same line directly (``_on``) may find it there.
"""

from kmbench.core.jit import inlined, outlined
from kmbench.core.paths import LINE_FAR, LINE_NEAR, LOCK_WAIT

HELD_NS = 1000


@inlined
def fetch_line(S, line, other):
    """Count what it takes the current CPU to get a line from `other`, a CPU + 1."""
    k = S.k[0]
    if (other - 1 - k.cpu) % k.nr_nodes == 0:
        line.near += 1
        S.path[LINE_NEAR].count += 1
    else:
        line.far += 1
        S.path[LINE_FAR].count += 1


@inlined
def begin_visit(S, line):
    """The current CPU comes to `line` from another one, or in another operation; whether it was at
    this one before."""
    k = S.k[0]
    at = S.visit[k.cpu]
    if line.id == 0:
        k.nr_lines += 1
        line.id = k.nr_lines
    at.when = k.now
    if at.line == line.id:
        at.had = at.took
        at.took = 0
        return True
    at.line = line.id
    at.had = 0
    at.took = 0
    return False


@outlined
def visit_to_write(S, line):
    """Count what the current CPU does at `line`, which it writes."""
    at = S.visit[S.k[0].cpu]
    if at.line != line.id or at.when != S.k[0].now:
        begin_visit(S, line)
        line.opens += 1
    if at.took == 0:
        at.took = 1
        line.takes += 1
        line.takes_on += at.had


@outlined
def visit_to_read(S, line):
    """Count what the current CPU does at `line`, which it reads."""
    at = S.visit[S.k[0].cpu]
    if at.line != line.id or at.when != S.k[0].now:
        line.looks += 1
        if begin_visit(S, line):
            line.looks_on += 1


@inlined
def write_line(S, line, lock):
    """The current CPU writes `line`, a record with the fields of ``state.LINE``.

    `lock`: it takes a lock there, for which it may have to wait.
    """
    k = S.k[0]
    if k.crowded:
        visit_to_write(S, line)
    if line.writer != k.cpu + 1:
        if line.writer > 0:
            fetch_line(S, line, line.writer)
            if lock and k.now - line.written < HELD_NS:
                S.path[LOCK_WAIT].count += 1
        line.writer = k.cpu + 1
    elif line.reader > 0:
        fetch_line(S, line, line.reader)
    line.reader = 0
    line.written = k.now
    line.writes += 1


@outlined
def share_line(S, line):
    """The current CPU reads a line that no other one has read since it was written."""
    if line.writer > 0 and line.reader == 0:
        fetch_line(S, line, line.writer)
        line.reader = S.k[0].cpu + 1


@inlined
def read_line(S, line):
    """The current CPU reads `line`."""
    if S.k[0].crowded:
        visit_to_read(S, line)
    if line.writer != S.k[0].cpu + 1:
        share_line(S, line)
