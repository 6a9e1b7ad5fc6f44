"""Figures that the state at the end of a run tells: what the engine only adds up."""

from typing import Any

import numpy as np

from kmbench.core.access import BUCKETS, PHASES, USERS
from kmbench.core.state import BY_CACHE, OFFLINE, UNLIMITED, State
from kmbench.removed import dead_caches, left_behind
from kmbench.shared_lines import shared_lines

__all__ = ["final_figures", "percentile"]


def final_figures(S: State, P: tuple) -> dict[str, Any]:
    """Metrics A3, A6, F2, F5, F6, F8, O6, Z2, Z4, Z5 and, with reclaim, more; before teardown.

    `P`: the strategy's own tables.
    """
    k = S.k[0]
    page = int(k["page_size"])
    return {
        "misattributed_bytes": misattributed(S),
        "limit_overshoot_bytes": float(S.counter["overshoot"].max() * page),
        "limit_overshoot_share": overshoot_share(S),
        "enomem_failures": float(k["nr_failed_limit"]),
        "absorbed_failures": float(k["nr_absorbed"]),
        "forced_charge_bytes": float(k["forced_pages"] * page),
        "work_items_lost": float(k["nr_work_lost"]),
        "work_items_duplicate": float(k["nr_work_duplicates"]),
        "failed_groups": float(k["nr_no_id"]),
        "zombie_lifetime": zombie_lifetime(S),
        "dead_caches": dead_caches(S),
        **left_behind(S),
        **shared_lines(S, P),
        **(reclaim_figures(S) if "vm" in S._fields else {}),
    }


def reclaim_figures(S: State) -> dict[str, float | None]:
    """Metrics R1 to R4, I1, I2, F3 and F4 of a run with reclaim."""
    vm = {name: int(S.vm[name][0]) for name in S.vm.dtype.names}
    page = int(S.k["page_size"][0])

    figures = S.U.figure.dtype.names if "figure" in S.U._fields else ()

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return {
        "reclaim_efficiency": share(vm["freed_objects"], vm["scanned_objects"]),
        "reclaim_returned": share(vm["freed_slab_pages"] * page, vm["freed_bytes"]),
        "reclaim_targeting": share(vm["own_bytes"], vm["target_bytes"]),
        "reclaim_damage": share(vm["damaged"] * 2**20, vm["freed_bytes"]),
        "enomem_reclaimable": float(vm["failed_with_reclaimable"]),
        "interference_bytes": share(vm["unbilled_bytes"], vm["kswapd_turns"]),
        "shrinker_visits": float(vm["visits"]),
        "swapped_bytes": float(vm["swapped_pages"] * page),
        "oom_kills": float(vm["oom_kills"]),
        "oom_wrong_kills": float(vm["wrong_kills"]),
        "reclaim_stalls": float(vm["stalls"]),
        "stall_time": vm["stall_ns"] / 1e9,
        "shared_bytes": shared_bytes(S),
        **{name: known(S.U.figure[0][name]) for name in figures},
        **isolation(S, vm["victim"]),
    }


def known(figure: float) -> float | None:
    """A listener's figure; what it does not know is not a number."""
    return None if np.isnan(figure) else float(figure)


LOOK_UPS = np.dtype([(name, "i8") for name in ("accesses", "hits", "failed", "returned", "busy")])


def look_ups(S: State) -> tuple[np.ndarray, np.ndarray]:
    """LOOK_UPS (groups, PHASES), and int64 (groups, PHASES, BUCKETS): operations by latency.

    The engine counts hits and no more of them, since all take the same time.
    """
    stat, hit_ns = S.stat, int(S.vm["hit_ns"][0])
    counts = np.zeros(len(stat), LOOK_UPS)
    for name in ("hits", "failed", "returned"):
        counts[name] = stat[name]
    counts["accesses"] = stat["hits"] + stat["misses"]
    counts["busy"] = stat["hits"] * hit_ns + stat["spent"]
    latency = S.latency["nr"].reshape(-1, BUCKETS).copy()
    latency[:, min(hit_ns.bit_length(), BUCKETS - 1)] += stat["hits"]
    shape = (len(stat) // PHASES, PHASES)
    return counts.reshape(shape), latency.reshape(*shape, BUCKETS)


def isolation(S: State, victim: int) -> dict[str, float | None]:
    """What a group kept of its hit ratio and of its rate once its neighbour came (phase 2 / 1)."""
    names = "victim_hit_ratio_kept", "victim_rate_kept", "victim_latency_growth"
    counts, latency = look_ups(S)
    alone, crowded = counts[victim, 1:3]
    if not victim or not alone["hits"] or not crowded["accesses"]:
        return dict.fromkeys(names)
    ratio = [row["hits"] / row["accesses"] for row in (alone, crowded)]
    rate = [(row["accesses"] - row["failed"]) / max(1, row["busy"]) for row in (alone, crowded)]
    p99 = percentile(latency[victim, 1:3], 0.99)
    return dict(
        zip(names, (ratio[1] / ratio[0], rate[1] / rate[0], p99[1] / max(1, p99[0])), strict=True)
    )


def percentile(buckets: np.ndarray, share: float) -> np.ndarray:
    """Upper ends, in ns, of the buckets in which `share` of each row's counts is reached."""
    totals = buckets.cumsum(axis=1)
    at = (totals >= np.ceil(share * totals[:, -1:])).argmax(axis=1)
    return (1 << at.astype(np.int64)) - 1


def overshoot_share(S: State) -> float | None:
    """Largest overshoot of a counter over its limit; None if no counter has one."""
    limited = S.counter[(S.counter["limit"] > 0) & (S.counter["limit"] < UNLIMITED)]
    return float((limited["overshoot"] / limited["limit"]).max()) if len(limited) else None


def billed_objects(S: State, handles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cache rows, groups billed, 0 for nobody) of live objects."""
    objects = S.obj[handles]
    cache = S.slab["cache"][objects["slab"]]
    by_cache = objects["billed"] == BY_CACHE
    payer = np.where(by_cache, S.cache["pays"][cache], np.maximum(objects["billed"], 0))
    return cache, payer


def shared_bytes(S: State) -> float:
    """Of cached objects that several groups use: what the one that pays does for the others.

    An inode's users are those of its dentry while that is there.
    """
    handles = np.flatnonzero((S.item["known"] > 0) & (S.obj["slab"][: len(S.item)] > 0))
    users = S.item["users"].astype(np.int64)
    offset = int(S.vm["inode_offset"][0])
    if offset:
        users[offset : 2 * offset] |= users[:offset]
    cache, payer = billed_objects(S, handles)
    owner = np.clip(S.obj["owner"][handles], 1, USERS).astype(np.int64)
    users = users[handles] | 1 << owner - 1
    count = np.zeros(len(handles), np.int64)
    for bit in range(USERS):
        count += users >> bit & 1
    spent = S.cache["slot"][cache] * (1 - 1 / count)
    return float(spent[payer > 0].sum())


def misattributed(S: State) -> float:
    """Slot bytes of live objects billed to a group that is not their owner's, nor above it."""
    objects = S.obj[: int(S.k["nr_objects"][0])]
    handles = np.flatnonzero(
        (objects["slab"] > 0) & (objects["owner"] > 1) & (objects["billed"] > 0)
    )
    cache, payer = billed_objects(S, handles)
    live = objects[handles]
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
