"""Cache lines that several CPUs write: who wrote one last, and what fetching it takes.

A counter of a group and the list_lock of a node are lines of their own.  A CPU that writes one
which another CPU wrote last has to fetch it, from a CPU of its own node or of another; a lock that
another CPU took less than ``HELD_NS`` before has to be waited for.  Per-CPU stocks belong to their
CPU and never move.  What a fetch takes is the hardware profile's business.
"""

from kmbench.core.jit import inlined
from kmbench.core.paths import LINE_FAR, LINE_NEAR, LOCK_WAIT

HELD_NS = 1000


@inlined
def fetch_line(S, line, lock):
    """Count what it takes the current CPU to get a line that another one wrote last."""
    k = S.k[0]
    if line.writer > 0:
        if (line.writer - 1 - k.cpu) % k.nr_nodes == 0:
            line.near += 1
            S.path[LINE_NEAR].count += 1
        else:
            line.far += 1
            S.path[LINE_FAR].count += 1
        if lock and k.now - line.written < HELD_NS:
            S.path[LOCK_WAIT].count += 1
    line.writer = k.cpu + 1


@inlined
def write_line(S, line, lock):
    """The current CPU writes `line`, a record with the fields of ``state.LINE``.

    `lock`: it takes a lock there, for which it may have to wait.
    """
    k = S.k[0]
    if line.writer != k.cpu + 1:
        fetch_line(S, line, lock)
    line.written = k.now
    line.writes += 1
