"""Figures that the state at the end of a run tells: what the engine only adds up."""

import numpy as np

from kmbench.core.state import BY_CACHE, OFFLINE, UNLIMITED, State
from kmbench.removed import dead_caches, left_behind

__all__ = ["final_figures"]


def final_figures(S: State) -> dict[str, float | None]:
    """Metrics A3, A6, F5, F6, F8, O6, Z2, Z4 and Z5 by name, of a state before its teardown."""
    k = S.k[0]
    page = int(k["page_size"])
    return {
        "misattributed_bytes": misattributed(S),
        "limit_overshoot_bytes": float(S.counter["overshoot"].max() * page),
        "limit_overshoot_share": overshoot_share(S),
        "forced_charge_bytes": float(k["forced_pages"] * page),
        "work_items_lost": float(k["nr_work_lost"]),
        "work_items_duplicate": float(k["nr_work_duplicates"]),
        "failed_groups": float(k["nr_no_id"]),
        "zombie_lifetime": zombie_lifetime(S),
        "dead_caches": dead_caches(S),
        **left_behind(S),
        "hot_line_writes": hottest_line(S),
    }


def hottest_line(S: State) -> float | None:
    """Writes of the line that moved most, per allocation of the stream; of several, the first."""
    allocs = int(S.k["nr_allocs"][0])
    if not allocs:
        return None
    lines = [table[["near", "far", "writes"]] for table in (S.counter, S.node)]
    moves = np.concatenate([part["near"].astype(np.int64) + part["far"] for part in lines])
    writes = np.concatenate([part["writes"] for part in lines])
    hot = int(np.argmax(moves))
    return float(writes[hot] / allocs) if moves[hot] else 0.0


def overshoot_share(S: State) -> float | None:
    """Largest overshoot of a counter over its limit; None if no counter has one."""
    limited = S.counter[(S.counter["limit"] > 0) & (S.counter["limit"] < UNLIMITED)]
    return float((limited["overshoot"] / limited["limit"]).max()) if len(limited) else None


def misattributed(S: State) -> float:
    """Slot bytes of live objects billed to a group that is not their owner's, nor above it."""
    objects = S.obj[: int(S.k["nr_objects"][0])]
    live = objects[(objects["slab"] > 0) & (objects["owner"] > 1) & (objects["billed"] > 0)]
    cache = S.slab["cache"][live["slab"]]
    payer = np.where(live["billed"] == BY_CACHE, S.cache["pays"][cache], 0)
    direct = live["billed"] != BY_CACHE
    payer[direct] = live["billed"][direct]
    owner = live["owner"].astype(np.int64)
    right = payer <= 0  # billed to nobody: unaccounted, not misattributed
    while owner.any():
        right |= owner == payer
        owner = S.memcg["parent"][owner]
    return float(S.cache["slot"][cache[~right]].sum())


def zombie_lifetime(S: State) -> float | None:
    """Mean seconds that removed groups lived on; those that still do count up to now."""
    removed = S.memcg[S.memcg["state"] >= OFFLINE]
    if not len(removed):
        return None
    alive = (removed["css_pages"] > 0) | (removed["css_refs"] > 0)
    end = np.where(alive, S.k["now"][0], removed["gone_at"])
    return float((end - removed["offline_since"]).mean() / 1e9)
