"""Epoll items, which the kernel frees untraced: kfree_rcu() in Linux 6.18 fs/eventpoll.c:ep_remove.

kfree_rcu() collects objects per CPU and gives them back in batches, every five seconds at most
(mm/slab_common.c:KFREE_DRAIN_JIFFIES).  They stay charged until then.  ep_remove() also frees, in
the open, the ep_head that ep_insert() made right after the item: that dates the kfree_rcu.
"""

import numpy as np

from kmbench.core import events as ev
from kmbench.core.events import EVENT

WAIT_NS = 2_500_000_000  # half of the five seconds: other objects have begun the batch
WITHIN_NS = 15_000  # from an item to its ep_head


def _queued(slab: np.ndarray, item_cache: int, head_cache: int) -> np.ndarray:
    """FREE rows of the items, dated when they were handed to kfree_rcu, in time order."""
    items = slab[(slab["cache"] == item_cache) & (slab["op"] == ev.ALLOC)]
    heads = slab[slab["cache"] == head_cache]
    rows = []
    for item in items:
        near = (heads["op"] == ev.ALLOC) & (heads["task"] == item["task"])
        near &= (heads["t"] > item["t"]) & (heads["t"] <= item["t"] + WITHIN_NS)
        if not np.any(near):
            continue
        head = heads[np.argmax(near)]
        gone = (heads["obj"] == head["obj"]) & (heads["op"] == ev.FREE) & (heads["t"] > head["t"])
        if np.any(gone):
            row = item.copy()
            row["op"], row["gfp"] = ev.FREE, 0
            row["t"], row["cpu"] = heads[np.argmax(gone)][["t", "cpu"]].item()
            rows.append(row)
    out = np.array(rows, EVENT) if rows else np.zeros(0, EVENT)
    return out[np.argsort(out["t"], kind="stable")]


def lost_epoll_frees(slab: np.ndarray, item_cache: int, head_cache: int) -> np.ndarray:
    """FREE events for the epoll items whose ep_head is seen freed, batch by batch.

    slab: EVENT array of the slab operations with keys in ``obj``.
    item_cache, head_cache: rows of the caches eventpoll_epi and ep_head.
    """
    out = _queued(slab, item_cache, head_cache)
    items = slab[slab["cache"] == item_cache]
    keep = np.ones(len(out), bool)
    drained = np.full(256, -1, np.int64)
    for index, row in enumerate(out):
        queued, cpu = int(row["t"]), row["cpu"]
        if queued > drained[cpu]:
            drained[cpu] = queued + WAIT_NS
        out["t"][index] = drained[cpu]
        # seen again before that: the pass over the handles puts the free in
        again = (items["obj"] == row["obj"]) & (items["t"] > queued)
        keep[index] = not np.any(again & (items["t"] <= drained[cpu]))
    return out[keep]
