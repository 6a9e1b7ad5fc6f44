"""Kernel memory of groups on cgroup v2, to the page, from every change of the kernel's counter.

Version 1 has a page counter to read (memory.kmem.usage_in_bytes).  On version 2 the only figure is
``kernel`` of memory.stat, MEMCG_KMEM in the kernel: a statistic that is summed up from per-CPU
parts when more than MEMCG_CHARGE_BATCH (64) updates a CPU are waiting, and every two seconds (Linux
6.18 mm/memcontrol.c: memcg_vmstats_needs_flush, FLUSH_TIME).  A reading may lack up to 127 pages a
CPU.  Since 6.13 the trace event memcg:mod_memcg_state tells each change, in pages, when it happens.
Before 6.16 reading cpu.stat flushes the statistics of all controllers, memory.stat's too
(kernel/cgroup/rstat.c: cgroup_base_stat_cputime_show).
"""

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kmbench.trace.record.tracefs import KMEM as EVENT

if TYPE_CHECKING:  # the recorder needs the names only
    from kmbench.trace.record.stream import Table

TRACED, FLUSHED = EVENT.replace("/", ":"), "memory.stat after cpu.stat"
STALE = "memory.stat, not flushed"
_PAGE = 4096


def cpu_stat_flushes(release: str) -> bool:
    """Whether reading cpu.stat flushes memory.stat in the kernel `release` (uname -r)."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return bool(found) and (int(found[1]), int(found[2])) < (6, 16)


class _Life(NamedTuple):
    """A group from its mkdir on: when its counter changed, and the bytes from then on."""

    begin: int
    t: np.ndarray
    level: np.ndarray


class KmemLevels:
    """How much kernel memory groups that the recording saw made are charged for, at any time."""

    def __init__(self, table: "Table", hierarchy_id: int):
        from kmbench.trace.record.stream import KMEM, MKDIR

        rows = np.flatnonzero(table.kind == KMEM)
        self._t, self._id = table.t[rows], table.ptr[rows]
        self._bytes = table.b[rows].astype(np.int32).astype(np.int64) * _PAGE
        made = np.flatnonzero((table.kind == MKDIR) & (table.b == hierarchy_id))
        # a path may be used again: its groups in the order in which they were made
        self._made = [(table.texts[int(row)], int(table.t[row]), int(table.ptr[row]))
                      for row in made]  # fmt: skip
        self._lives: dict[str, list[_Life]] = {}

    def at(self, path: str, t: int) -> int | None:
        """Bytes of the group `path` and those below it at the time `t` (trace clock, ns).

        None for a group that was there before the recording.
        """
        if path not in self._lives:
            self._lives[path] = self._follow(path)
        life = next((one for one in reversed(self._lives[path]) if one.begin <= t), None)
        if life is None:
            return None
        return int(life.level[np.searchsorted(life.t, t, "right")])

    def _follow(self, path: str) -> list[_Life]:
        begins = [t for name, t, _ in self._made if name == path]
        ends = [*begins[1:], np.iinfo(np.int64).max]
        lives = []
        for begin, end in zip(begins, ends, strict=False):
            mine = [number for name, t, number in self._made
                    if begin <= t < end and f"{name}/".startswith(f"{path}/")]  # fmt: skip
            rows = np.isin(self._id, mine)
            level = np.concatenate([[0], np.cumsum(self._bytes[rows])])
            lives.append(_Life(begin, self._t[rows], level))
        return lives
