"""truth.json: what the recording says about every cache and group, and which may judge a model.

A cache may when it was busy and hardly any of its operations went untraced: what is not in the
stream cannot be predicted.  A group may when it was read more than once and hardly any of its
objects ended untraced in a batch (kfree_rcu), which keeps them charged for an unknown time: objects
found freed when their slot came back, and those left over in caches whose count does not add up.
No group may that was there before, as what it had been charged for is not in the stream, and none
whose kernel memory was read from a memory.stat that nothing had flushed.
"""

from typing import Any, NamedTuple

import numpy as np

from kmbench.trace.record.assemble import Tables
from kmbench.trace.record.kmem import STALE
from kmbench.trace.record.lifetimes import FIRST_FREE, LOST_ALLOC, LOST_FREE

MIN_EVENTS = 200
MAX_UNTRACED = 0.005  # of a cache's operations
MAX_OFF = 0.01  # of its live objects at the end, or two
MAX_BATCHED = 0.01  # of a group's charged objects
_CHARGED = 2
_OFF = "live count from events is off by"


def judge_cache(events: int, untraced: int, live: int, off: int) -> str:
    """Why a cache may not judge a model; empty when it may."""
    if events < MIN_EVENTS:
        return f"fewer than {MIN_EVENTS} events"
    if off > max(2, MAX_OFF * live):
        return f"{_OFF} {off}"
    if untraced > MAX_UNTRACED * events:
        return f"{untraced} untraced operations"
    return ""


def truth(tables: Tables) -> dict[str, Any]:
    """The document truth.json."""
    manifest, table = tables.manifest, tables.tables
    end = manifest["dump_t"][1]
    event = {name: table["events"].column(name).to_numpy()
             for name in ("t", "op", "cache", "obj", "flags", "memcg")}  # fmt: skip
    slab = {name: table["slabs"].column(name).to_numpy()
            for name in ("cache", "t_alloc", "t_free")}  # fmt: skip
    snap = {name: table["snapshots"].column(name).to_numpy()
            for name in ("t", "cache", "num_slabs")}  # fmt: skip
    caches = {}
    real = manifest["caches"][:-1]
    by_cache = _by_cache(event, len(real))
    for row in real:
        rows = by_cache[row["id"]]
        if len(rows):
            caches[row["name"]] = _cache(row, manifest, event, rows, slab, snap, end)
    dumps = manifest["dumps"]
    pages = {row["name"]: 1 << row["order"] for row in real}
    per_slab = {row["name"]: row["objs_per_slab"] for row in real}
    totals = {
        "slab_pages_end": sum(dumps[name][1]["slabs"] * pages[name] for name in pages),
        "ideal_pages_end": sum(
            -(-dumps[name][1]["live"] // per_slab[name]) * pages[name] for name in pages
        ),
        "pages_after_final_shrink": sum(dumps[name][2]["slabs"] * pages[name] for name in pages),
    }
    vanished = {
        name
        for name, row in caches.items()
        if row["why_not"].startswith(_OFF) and row["live_end_from_events"] > row["live_end"]
    }
    return {"caches": caches, "memcgs": _groups(tables, event, vanished), "totals": totals}


def _by_cache(event: dict[str, np.ndarray], caches: int) -> list[np.ndarray]:
    order = np.argsort(event["cache"], kind="stable")
    edges = np.searchsorted(event["cache"][order], np.arange(caches + 1))
    return [order[edges[at] : edges[at + 1]] for at in range(caches)]


def _cache(row, manifest, event, rows, slab, snap, end) -> dict[str, Any]:
    rows = rows[event["t"][rows] <= end]
    flags, free = event["flags"][rows], event["op"][rows] & 1 == 1
    dumps = manifest["dumps"][row["name"]]
    slab_born = slab["t_alloc"][np.minimum(event["obj"][rows] >> 9, len(slab["t_alloc"]) - 1)]
    lost_frees = ~free & (flags & LOST_FREE != 0)
    lost_allocs = flags & LOST_ALLOC != 0
    lost_allocs |= free & (flags & FIRST_FREE != 0) & (slab_born >= 0)
    step = np.where(free, -1, 1) * ~(lost_frees | lost_allocs)
    level = dumps[0]["live"] + np.cumsum(step)
    live = dumps[1]["live"]
    counted = int(level[-1]) if len(level) else dumps[0]["live"]
    mine, shots = slab["cache"] == row["id"], snap["cache"] == row["id"]
    seen = snap["num_slabs"][shots & (snap["t"] <= end)]
    untraced = int(np.count_nonzero(lost_frees)), int(np.count_nonzero(lost_allocs))
    why = judge_cache(len(rows), sum(untraced), live, abs(counted - live))
    return {
        "events": len(rows), "untraced_frees": untraced[0], "untraced_allocs": untraced[1],
        "live_start": dumps[0]["live"], "live_end": live, "live_end_from_events": counted,
        "live_peak": int(level.max(initial=dumps[0]["live"])),
        "slabs_start": dumps[0]["slabs"], "slabs_end": dumps[1]["slabs"],
        "slabs_peak": int(seen.max(initial=dumps[0]["slabs"])),
        "slabs_after_final_shrink": dumps[2]["slabs"],
        "slabs_made": int(np.count_nonzero(mine & (slab["t_alloc"] >= 0)
                                           & (slab["t_alloc"] <= end))),
        "slabs_gone": int(np.count_nonzero(mine & (slab["t_free"] >= 0)
                                           & (slab["t_free"] <= end))),
        "ideal_slabs_end": -(-live // row["objs_per_slab"]),
        "order": row["order"], "objs_per_slab": row["objs_per_slab"], "size": row["size"],
        "scoreable": not why, "why_not": why,
    }  # fmt: skip


def _groups(tables: Tables, event: dict[str, np.ndarray], vanished: set[str]) -> dict[str, Any]:
    """Per group of the workload: readings, kmem, and whether its objects' ends were traced.

    vanished: caches of which clearly fewer objects are left than the events say.
    """
    manifest, table = tables.manifest, tables.tables["memcgs"]
    memcg, kmem = table.column("memcg").to_numpy(), table.column("kmem_usage").to_numpy()
    # objects given back untraced to a sheaf (maple_node) are soon free: not those in batches
    batched = np.array([row.get("sheaf_capacity", 0) == 0 for row in manifest["caches"]] + [False])
    doubtful = np.array([row["name"] in vanished for row in manifest["caches"]] + [False])
    doubtful &= batched
    alloc = event["op"] & 1 == 0
    charged = alloc & (event["flags"] & _CHARGED != 0)
    last = _follows(event["obj"])
    # untraced ends: of the event before in the same slot, and of those that nothing follows
    ends = np.zeros(len(alloc), bool)
    after = np.flatnonzero(alloc & (event["flags"] & LOST_FREE != 0) & batched[event["cache"]])
    ends[last.before[after]] = True
    ends |= last.is_last & doubtful[event["cache"]]
    ends &= charged
    stale = manifest.get("kmem_source") == STALE
    aux = tables.tables["aux"]
    made = {
        name for kind, name in zip(aux["ev"].to_pylist(), aux["s"].to_pylist(), strict=True)
        if kind == "cgroup_mkdir"
    }  # fmt: skip
    out = {}
    for index, name in enumerate(manifest["memcgs"]):
        rows = kmem[memcg == index]
        if not name.startswith("/kmb_") or name == "/kmb_ctl" or not len(rows):
            continue
        mine = event["memcg"] == index
        lost, total = int(np.count_nonzero(ends & mine)), int(np.count_nonzero(charged & mine))
        out[name] = {
            "readings": len(rows), "kmem_peak": int(rows.max()), "kmem_mean": int(rows.mean()),
            "kmem_end": int(rows[-1]), "charged_objects": total, "untraced_frees": lost,
            "scoreable": len(rows) > 1 and name in made and not stale
            and lost <= MAX_BATCHED * max(total, 1),
        }  # fmt: skip
    return out


class _Order(NamedTuple):
    before: np.ndarray  # i8: the event before on the same object; the event itself without
    is_last: np.ndarray  # bool: nothing follows on the same object


def _follows(obj: np.ndarray) -> _Order:
    """The order of the events on each object."""
    order = np.argsort(obj, kind="stable")
    same = obj[order][1:] == obj[order][:-1]
    before, is_last = np.arange(len(obj)), np.ones(len(obj), bool)
    before[order[1:][same]] = order[:-1][same]
    is_last[order[:-1][same]] = False
    return _Order(before, is_last)
