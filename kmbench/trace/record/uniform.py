"""An approximate state of the slab lists, where they cannot be walked.

Totals come from /proc/slabinfo and sysfs; the free objects are spread evenly over the partial
slabs.
"""

import time
from pathlib import Path

import numpy as np

from kmbench.trace.record.slabs import LISTED, NODE_PARTIAL, UNKNOWN, Dump
from kmbench.trace.record.snapshots import first_number, read_slabinfo, slab_folders


def spread(free: int, slabs: int, objects: int) -> list[int]:
    """Objects in use of `slabs` slabs of `objects` each, with `free` free ones in all of them.

    Fewest free first, as after a shrink; each has at least one free and one in use if that fits.
    """
    if not slabs:
        return []
    free = min(max(free, 0), slabs * objects)
    share, rest = divmod(free, slabs)
    return [objects - share] * (slabs - rest) + [objects - share - 1] * rest


def from_totals(caches: list[dict], info: dict, partial: dict[str, int], t: int) -> Dump:
    """The Dump that fits the totals: `info` of slabinfo, `partial` slabs per cache; t: now, ns."""
    rows, totals = [], {}
    for cache in caches:
        name, size = cache["name"], cache["objs_per_slab"]
        active, objects, slabs = info.get(name, (0, 0, 0))
        count = min(partial.get(name, 0), slabs)
        for inuse in spread(objects - active, count, size):
            # no address is known: names that no page has
            rows.append((cache["id"], 0, -2 - len(rows), inuse, size, NODE_PARTIAL, 0, UNKNOWN))
        totals[name] = {"partial": count, "slabs": slabs, "total_objects": objects,
                        "sheaf_objs": 0, "rcu_sheaf_objs": 0, "live": active}  # fmt: skip
    return Dump(t, t, np.full(len(caches), t, np.int64), np.array(rows, LISTED), totals)


def uniform_dump(caches: list[dict]) -> Dump:
    """The state of this machine now."""
    info = read_slabinfo(Path("/proc/slabinfo").read_text())
    folders = slab_folders([cache["name"] for cache in caches])
    partial = {name: first_number((folder / "partial").read_bytes())
               for name, folder in folders.items()}  # fmt: skip
    return from_totals(caches, info, partial, time.monotonic_ns())
