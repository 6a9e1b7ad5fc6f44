"""Which memory cgroup every task is in when a recording begins."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kmbench.trace.record.cgroups import Hierarchy, membership

_PF_KTHREAD = 0x0020_0000  # include/linux/sched.h


class Task(NamedTuple):
    """One thread."""

    tid: int
    path: str  # of its memory cgroup
    kthread: bool


def parse_flags(stat: str) -> int:
    """Flags of a task, from /proc/PID/stat."""
    return int(stat.rpartition(")")[2].split()[6])


def running_tasks(hierarchy: Hierarchy) -> list[Task]:
    """All threads; those that end meanwhile are left out."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        folder = Path("/proc", pid)
        with suppress(OSError, IndexError, ValueError):
            path = membership((folder / "cgroup").read_text(), hierarchy)
            kthread = bool(parse_flags((folder / "stat").read_text()) & _PF_KTHREAD)
            found += [Task(int(tid), path, kthread) for tid in os.listdir(folder / "task")]
    return found
