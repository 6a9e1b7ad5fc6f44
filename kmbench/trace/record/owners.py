"""Which memory cgroup each event belongs to: its task's at that moment.

A task is in its parent's group from fork on, until it is attached to another (Linux 6.18
kernel/cgroup/cgroup.c).  Kernel threads and the idle task are in the root.
"""

from typing import NamedTuple

import numpy as np

from kmbench.core.specialise import cached
from kmbench.trace.record.cgroups import CONTROL, PREFIX
from kmbench.trace.record.stream import ATTACH, EXIT, FORK, MKDIR, Table
from kmbench.trace.record.tasks import Task

KTHREAD = 8  # ctx bit


class Groups:
    """Names of the groups, in the order of their indices, and their cgroup ids."""

    def __init__(self, hierarchy_id: int):
        self.hierarchy_id = hierarchy_id
        self.names = ["/"]
        self._index = {"/": 0}
        self._by_id: dict[int, int] = {}
        self._hosts = 0

    def add(self, path: str, cgroup_id: int | None = None) -> int:
        """Index of the group `path`: itself if it is the recording's own, else one /hostN."""
        if path not in self._index:
            name = path
            if not path.startswith(f"/{PREFIX}"):
                name, self._hosts = f"/host{self._hosts}", self._hosts + 1
            self._index[path] = len(self.names)
            self.names.append(name)
        if cgroup_id is not None:
            self._by_id[cgroup_id] = self._index[path]
        return self._index[path]

    def of_id(self, cgroup_id: int) -> int:
        """Index of a group by its cgroup id, -1 when never heard of."""
        return self._by_id.get(cgroup_id, -1)

    def index(self, path: str) -> int:
        """Index of the group `path`, -1 when never heard of."""
        return self._index.get(path, -1)


class Attribution(NamedTuple):
    """Per event."""

    memcg: np.ndarray  # i4, index of the group of the current task
    ctx: np.ndarray  # u1, now with the bit for kernel threads
    known: np.ndarray  # bool: the task was running at the start, or its fork was seen
    exiting: np.ndarray  # bool: the task's sched_process_exit has been
    orphan_forks: int  # forks by tasks never heard of


def groups_of(table: Table, tasks: list[Task], paths: dict[int, str], hierarchy_id: int) -> Groups:
    """All groups of a recording.

    paths: cgroup id -> path of the groups that were there at the start.
    """
    groups = Groups(hierarchy_id)
    by_path = {path: number for number, path in paths.items()}
    for path in sorted({task.path for task in tasks}, key=lambda path: (CONTROL in path, path)):
        groups.add(path, by_path.get(path))
    for row in np.flatnonzero((table.kind == MKDIR) & (table.b == hierarchy_id)):
        groups.add(table.texts[int(row)], int(table.ptr[row]))
    for row in np.flatnonzero((table.kind == ATTACH) & (table.b == hierarchy_id)):
        groups.add(table.texts[int(row)], int(table.ptr[row]))
    if "/" in by_path:
        groups.add("/", by_path["/"])
    return groups


@cached
def _follow(kind, pid, a, b, target, memcg_of, kthread, seen, out, ctx, known, exiting):
    # pragma: no cover - compiled
    gone = np.zeros(len(memcg_of), np.bool_)
    orphans = 0
    for i in range(len(kind)):
        task = pid[i]
        if kind[i] == ATTACH and target[i] >= 0:
            memcg_of[a[i]] = target[i]
            seen[a[i]] = True
        elif kind[i] == FORK:
            child = b[i]
            if not seen[a[i]]:
                orphans += 1
            memcg_of[child] = memcg_of[a[i]]
            kthread[child] = kthread[a[i]]
            seen[child] = True
            gone[child] = False
        elif kind[i] == EXIT:
            gone[task] = True
        out[i] = memcg_of[task]
        if kthread[task]:
            ctx[i] |= KTHREAD
            out[i] = 0
        known[i] = seen[task]
        exiting[i] = gone[task]
    return orphans


def attribute(table: Table, tasks: list[Task], groups: Groups) -> Attribution:
    """Follow every task through forks and moves."""
    top = max(int(table.pid.max(initial=0)), int(table.b[table.kind == FORK].max(initial=0)),
              int(table.a[table.kind == ATTACH].max(initial=0)),
              int(table.a[table.kind == FORK].max(initial=0)),
              max((task.tid for task in tasks), default=0)) + 1  # fmt: skip
    memcg_of, kthread = np.zeros(top, np.int32), np.zeros(top, np.bool_)
    seen = np.zeros(top, np.bool_)
    kthread[0] = seen[0] = True
    for task in tasks:
        memcg_of[task.tid] = max(groups.index(task.path), 0)
        kthread[task.tid], seen[task.tid] = task.kthread, True
    target = np.full(len(table.t), -1, np.int32)
    for row in np.flatnonzero((table.kind == ATTACH) & (table.b == groups.hierarchy_id)):
        target[row] = groups.of_id(int(table.ptr[row]))
    size = len(table.t)
    out, ctx = np.zeros(size, np.int32), table.ctx.copy()
    known, exiting = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    orphans = _follow(table.kind, table.pid, table.a, table.b, target, memcg_of, kthread, seen,
                      out, ctx, known, exiting)  # fmt: skip
    return Attribution(out, ctx, known, exiting, int(orphans))
