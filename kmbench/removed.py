"""What removed groups leave: metrics Z4 and Z5 of a state that was not torn down yet."""

import numpy as np

from kmbench.core.state import BY_CACHE, OFFLINE, PERCPU, State

__all__ = ["HEIRS", "dead_caches", "left_behind"]

HEIRS = ("zombies", "parent", "root", "nobody")


def dead_caches(S: State) -> float:
    """Copies of caches whose group was removed and that are still there."""
    return float((S.cache["state"][: int(S.k["nr_caches"][0])] == 1).sum())


def left_behind(S: State) -> dict[str, float | None]:
    """``left_to_HEIR_bytes``: live memory of removed groups' tasks, by who is billed for it now.

    None for each if no group was removed.
    """
    gone = S.memcg["state"] >= OFFLINE
    if not gone.any():
        return {f"left_to_{heir}_bytes": None for heir in HEIRS}
    live = S.obj[: int(S.k["nr_objects"][0])]
    live = live[(live["slab"] != 0) & (live["owner"] > 1) & gone[np.maximum(live["owner"], 0)]]
    heir = _payer(S, live)
    nr_bytes = _bytes(S, live)
    billed = {
        "zombies": (heir > 1) & gone[heir],
        "parent": (heir > 1) & ~gone[heir],
        "root": heir == 1,
        "nobody": heir == 0,
    }
    return {f"left_to_{name}_bytes": float(nr_bytes[billed[name]].sum()) for name in HEIRS}


def _payer(S: State, live: np.ndarray) -> np.ndarray:
    """Group that pays for each object now; 0 = nobody."""
    cache = S.slab["cache"][np.maximum(live["slab"], 0)]
    payer = np.where(live["billed"] == BY_CACHE, S.cache["pays"][cache], live["billed"])
    payer = np.maximum(payer, 0)
    while True:
        moved = S.memcg["objcg_memcg"][payer]  # itself unless it was reparented
        if (moved == payer).all():
            return payer
        payer = moved


def _bytes(S: State, live: np.ndarray) -> np.ndarray:
    """Bytes that each object occupies: its slot, its pages, its per-CPU memory."""
    slot = S.cache["slot"][S.slab["cache"][np.maximum(live["slab"], 0)]]
    asked = live["req"].astype(np.int64)
    pages = int(S.k["page_size"][0]) << (asked & 255)
    in_pages = (live["slab"] < 0) & (live["slab"] != PERCPU)
    return np.where(live["slab"] > 0, slot, np.where(in_pages, pages, asked))
