"""What untraced tasks took from the slab lists between their listing and the first reading.

A recorder may list the slabs a moment before its events count, and meanwhile others are at work: in
all seven recordings of one recorder somebody wrote a file then.  The first reading of sysfs finds
the node lists of a few caches shorter than they were listed, although no operation on these caches
was traced.  SLUB takes slabs off a node list only to allocate, and the CPU keeps what it took
(Linux 6.18 mm/slub.c:get_partial_node): so many objects were allocated as leave the CPU the slabs
that it has.  It was not the recorder's CPU: that was busy recording.
"""

from pathlib import Path

import numpy as np

from kmbench.core.events import ALLOC, EVENT, FREE
from kmbench.core.setup import CacheSpec
from kmbench.trace.capture_state import CPU_SLAB, NODE_PARTIAL
from kmbench.trace.tables import open_parquet, read_arrays


def needed(free: list[int], spec: CacheSpec, taken: int, held: int) -> int:
    """Fewest allocations on an idle CPU that leave it `held` slabs, `taken` off the node list.

    free: free objects of the slabs on the list, head first.  0 when no number does.
    """
    also = spec.cpu_partial_slabs // 2 + 1 if spec.cpu_partial else 0
    waiting: list[int] = []
    gone = active = count = 0
    if taken <= 0:
        return 0
    while gone < taken or gone == taken and len(waiting) + 1 > held:
        if active == 0:
            if not waiting:
                waiting = free[gone : gone + 1 + also]
                gone += len(waiting)
                if not waiting:
                    return 0
                # the first becomes active, of the others the last taken is on top
                waiting = [*waiting[1:], waiting[0]]
            active = waiting.pop()
        active -= 1
        count += 1
        if gone == taken and len(waiting) + 1 == held:
            return count
    return 0


def untraced_allocations(
    folder: Path, slabs: np.ndarray, caches: tuple[CacheSpec, ...], events: np.ndarray,
    cpus: int, key: int, end: int,
) -> np.ndarray:  # fmt: skip
    """ALLOC events at time 0, owned by the root, and their FREE events at the time `end` (ns).

    slabs: INITIAL_SLAB.  events: EVENT array of what was traced, in time order.  cpus: of the
    machine.  Keys are `key`, `key` + 1, ...  When such objects are freed is not known; by the end
    most are: the kernel counts as many live ones as the traced operations leave.
    """
    columns = ("t_sysfs", "cache", "partial_slabs", "cpu_slabs")
    path = folder / "snapshots.parquet"
    with open_parquet(path) as file:
        if not set(columns) <= set(file.schema_arrow.names):
            return np.zeros(0, EVENT)
    snaps = read_arrays(path, dict.fromkeys(columns, "i"))
    times = snaps["t_sysfs"][snaps["t_sysfs"] >= 0]
    if not len(times):
        return np.zeros(0, EVENT)
    first = times.min()
    events = events[: np.searchsorted(events["t"], first, "right")]
    events = events[events["op"] <= FREE]
    if not len(events):
        return np.zeros(0, EVENT)
    busy = int(events["cpu"][0])
    traced = set(events["cache"].tolist())
    rows = []
    for at in np.flatnonzero(snaps["t_sysfs"] == first):
        row = int(snaps["cache"][at]) + 1
        mine = slabs[slabs["cache"] == row]
        if row > len(caches) or row in traced or np.any(mine["where"] == CPU_SLAB):
            continue
        listed = mine[mine["where"] == NODE_PARTIAL]
        taken = len(listed) - int(snaps["partial_slabs"][at])
        free = (listed["objects"] - listed["inuse"]).tolist()
        rows += [row] * needed(free, caches[row - 1], taken, int(snaps["cpu_slabs"][at]))
    out = np.zeros(2 * len(rows), EVENT)
    out["cache"], out["obj"] = rows * 2, key + np.tile(np.arange(len(rows)), 2)
    out["op"], out["t"] = np.repeat([ALLOC, FREE], len(rows)), np.repeat([0, end], len(rows))
    out["memcg"] = 1
    out["cpu"] = next((cpu for cpu in range(cpus) if cpu != busy), busy)
    return out
