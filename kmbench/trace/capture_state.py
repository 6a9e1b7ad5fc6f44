"""The state of a recorded machine when tracing began: caches, groups, every slab and its list.

A capture's dump 0 lists the slabs of each cache that are on a list: node partial lists in order,
the CPUs' active slabs with the fill of their freelists, CPU partial lists.  Full slabs are on no
list in SLUB (Linux 6.18 mm/slub.c), so they are the rest of the cache's slab count.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from kmbench.core.events import (
    SLAB_ACCOUNT,
    SLAB_HWCACHE_ALIGN,
    SLAB_KMALLOC,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_TYPESAFE_BY_RCU,
)
from kmbench.core.geometry import get_order
from kmbench.core.setup import INITIAL_SHEAF, INITIAL_SLAB, CacheSpec, GroupSpec
from kmbench.errors import UsageProblem
from kmbench.trace.tables import read_arrays

PAGE = 4096
CPU_SLAB, CPU_PARTIAL, NODE_PARTIAL, FULL = 1, 2, 3, 4
# `where` of slabdump.parquet
_DUMP_NODE, _DUMP_CPU, _DUMP_PARTIAL, _DUMP_FREELIST = 0, 1, 2, 3
LARGE = "kmalloc-large"
SINGLES = 11  # of the 31 objects left in a fresh sheaf, about these came from slabs with one free
HANDLE_SHIFT = 9  # a capture's handle of an object that existed before: slab << 9 | slot


class InitialSlabs(NamedTuple):
    """Slabs at the start, and where a capture's slab rows are among them."""

    slabs: np.ndarray  # INITIAL_SLAB
    sheaves: np.ndarray  # INITIAL_SHEAF
    row_of_slab: np.ndarray  # i4 per row of slabs.parquet: 1-based row of `slabs`, 0 = newer


def field(path: Path, document: dict, name: str, kind: type) -> object:
    """Value `name` of a JSON object.  Raises UsageProblem when absent or of another type."""
    value = document.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UsageProblem(f"{path}: field {name} is {value!r:.40}; expected {kind.__name__}")
    return value


def items(path: Path, document: dict, name: str, kind: type, least: int = 0) -> list:
    """List `name` of a JSON object: at least `least` values of one type.  Raises UsageProblem."""
    values = field(path, document, name, list)
    wrong = [value for value in values if not isinstance(value, kind) or isinstance(value, bool)]
    if wrong or len(values) < least:
        what = f"holds {wrong[0]!r:.40}" if wrong else f"has {len(values)} values"
        raise UsageProblem(f"{path}: field {name} {what}; expected {least} or more {kind.__name__}")
    return values


def slab_caches(path: Path, manifest: dict) -> list[dict]:
    """Cache entries of a manifest without the pseudo cache of allocations above 8 KiB."""
    rows = items(path, manifest, "caches", dict)
    names = [field(path, row, "name", str) for row in rows]
    if LARGE in names[:-1]:
        raise UsageProblem(f"{path}: field caches lists {LARGE} in the middle; expected it last")
    return rows[:-1] if LARGE in names else rows


def read_caches(path: Path, manifest: dict, accounted: np.ndarray) -> tuple[CacheSpec, ...]:
    """Caches of a manifest, in its order (cache row = id + 1).

    accounted: bool per cache; objects of it were charged although the caller did not pass
        __GFP_ACCOUNT, so the cache was made with SLAB_ACCOUNT (Linux 6.18 mm/slub.c
        slab_post_alloc_hook).  kmalloc-cg caches always are (mm/slab_common.c).
    """
    specs = []
    for index, row in enumerate(slab_caches(path, manifest)):
        name = field(path, row, "name", str)
        size = field(path, row, "size", int)
        objects = field(path, row, "objs_per_slab", int)
        order = field(path, row, "order", int)
        where = f"{path}: cache {name}"
        if row.get("id") != index:
            raise UsageProblem(f"{where}: field id is {row.get('id')!r}; expected {index}")
        fits = 0 < size <= PAGE << order <= PAGE << 10 and 0 < objects * size <= PAGE << order
        if not fits:
            raise UsageProblem(f"{where}: {objects} objects of {size} B do not fit order {order}")
        cpu_partial = field(path, row, "cpu_partial", int)
        is_kmalloc = name.startswith(("kmalloc-", "dma-kmalloc-"))
        flags = SLAB_KMALLOC if is_kmalloc else 0
        if name.startswith("kmalloc-cg-") or (index < len(accounted) and accounted[index]):
            flags |= SLAB_ACCOUNT
        flags |= SLAB_RECLAIM_ACCOUNT if row.get("reclaim_account") else 0
        flags |= SLAB_TYPESAFE_BY_RCU if row.get("typesafe_rcu") else 0
        flags |= SLAB_HWCACHE_ALIGN if row.get("hwcache_align") else 0
        specs.append(
            CacheSpec(
                name=name,
                size=size,
                object_size=field(path, row, "object_size", int) or size,
                order=order,
                objects=objects,
                min_order=min(order, get_order(size, PAGE)),
                min_partial=field(path, row, "min_partial", int),
                cpu_partial=cpu_partial,
                cpu_partial_slabs=-(-2 * cpu_partial // objects),
                sheaf_capacity=field(path, row, "sheaf_capacity", int),
                flags=flags,
            )
        )
    return tuple(specs)


def read_groups(path: Path, manifest: dict, created: set[str]) -> tuple[GroupSpec, ...]:
    """Memory groups of a manifest (row = index + 1); those in `created` start offline."""
    names = items(path, manifest, "memcgs", str)
    if not names or names[0] != "/":
        raise UsageProblem(f"{path}: field memcgs starts with {names[:1]}; expected the root '/'")
    rows = {name: row for row, name in enumerate(names, 1)}
    groups = [GroupSpec("/", 0)]
    for name in names[1:]:
        parent = name.rsplit("/", 1)[0] or "/"
        groups.append(GroupSpec(name, rows.get(parent, 1), online=name not in created))
    return tuple(groups)


def _totals(path: Path, manifest: dict, name: str) -> dict:
    dumps = field(path, manifest, "dumps", dict).get(name)
    first = dumps[0] if isinstance(dumps, list) and dumps else None
    if not isinstance(first, dict):
        raise UsageProblem(f"{path}: field dumps has no entry for cache {name}; expected dump 0")
    return first


def read_initial_slabs(folder: Path, manifest: dict, caches: tuple[CacheSpec, ...]) -> InitialSlabs:
    """Every slab of dump 0, list by list, then the full ones, cache by cache."""
    path = folder / "manifest.json"
    dump = read_arrays(
        folder / "slabdump.parquet",
        {
            "dump": "i",
            "cache": "i",
            "pfn": "i",
            "inuse": "i",
            "objects": "i",
            "where": "i",
            "cpu": "i",
        },
    )
    seen = read_arrays(
        folder / "slabs.parquet", {"slab": "i", "cache": "i", "pfn": "i", "t_alloc": "i"}
    )
    if len(seen["slab"]) and not np.array_equal(seen["slab"], np.arange(len(seen["slab"]))):
        raise UsageProblem(f"{folder / 'slabs.parquet'}: column slab is not 0, 1, 2, ...")
    first = dump["dump"] == 0
    freelist = {
        (int(pfn), int(cpu)): int(free)
        for pfn, cpu, free in zip(
            *(dump[name][first & (dump["where"] == _DUMP_FREELIST)]
              for name in ("pfn", "cpu", "inuse")),
            strict=True,
        )
    }  # fmt: skip
    old = np.flatnonzero(seen["t_alloc"] < 0)
    # a page that comes twice was given to its second slab by an untraced task: that one is newer
    old = old[np.sort(np.unique(seen["pfn"][old], return_index=True)[1])]
    # by page alone: where slabs.parquet names another cache than the dump, the page has changed
    # hands since and its first events, frees, are still those of the dump's cache
    old_of_page = {int(seen["pfn"][row]): int(row) for row in old}
    cache_of_old = seen["cache"][old]
    row_of_slab = np.zeros(len(seen["slab"]), np.int32)
    rows: list[tuple] = []
    sheaves: list[tuple] = []
    listed_rows = first & (dump["where"] != _DUMP_FREELIST)
    order = np.flatnonzero(listed_rows)
    for cache_row, spec in enumerate(caches, 1):
        totals = _totals(path, manifest, spec.name)
        mine = order[dump["cache"][order] == cache_row - 1]
        for where, place in ((_DUMP_CPU, CPU_SLAB), (_DUMP_PARTIAL, CPU_PARTIAL),
                             (_DUMP_NODE, NODE_PARTIAL)):  # fmt: skip
            for index in mine[dump["where"][mine] == where]:
                pfn, cpu = int(dump["pfn"][index]), int(dump["cpu"][index])
                inuse, objects = int(dump["inuse"][index]), int(dump["objects"][index])
                free = 0
                if place == CPU_SLAB:
                    # SLUB counts the CPU's freelist as used
                    free = freelist.get((pfn, cpu), 0)
                    inuse -= free
                rows.append((cache_row, objects, inuse, free, place, cpu))
                row = old_of_page.get(pfn)
                if row is not None:
                    row_of_slab[row] = len(rows)
        full = field(path, totals, "slabs", int) - len(mine)
        if full < 0:
            raise UsageProblem(
                f"{path}: dump 0 of cache {spec.name} has {totals['slabs']} slabs;"
                f" expected at least the {len(mine)} of slabdump.parquet"
            )
        first_full = len(rows) + 1
        rows.extend([(cache_row, spec.objects, spec.objects, 0, FULL, 0)] * full)
        sheaves.extend(_sheaf_entries(cache_row, totals, rows, len(mine), first_full, full))
        unlisted = old[cache_of_old == cache_row - 1]
        unlisted = unlisted[row_of_slab[unlisted] == 0]
        known = min(full, len(unlisted))
        row_of_slab[unlisted[:known]] = np.arange(first_full, first_full + known)
    return InitialSlabs(np.array(rows, INITIAL_SLAB), np.array(sheaves, INITIAL_SHEAF), row_of_slab)


def _sheaf_entries(
    cache_row: int, totals: dict, rows: list[tuple], listed: int, first_full: int, full: int
) -> list[tuple]:
    """Objects in the sheaves of dump 0, with a likely slab each, bottom of the sheaf first.

    The recorder shrinks every cache just before dump 0, which empties the sheaves and sorts the
    node's list by free objects, fewest first (mm/slub.c:__kmem_cache_do_shrink).  What is in them
    was bulk allocated since, on the CPU that has an active slab: from slabs with one free object,
    then two, now all full, and last from the active slab.
    """
    count = int(totals.get("sheaf_objs", 0)) + int(totals.get("rcu_sheaf_objs", 0))
    if not count:
        return []
    mine = range(len(rows) - full - listed, len(rows) - full)
    active = [at for at in mine if rows[at][4] == CPU_SLAB]
    cpu = rows[active[0]][5] if active else 0
    slabs = [active[0] + 1] * min(3, rows[active[0]][2]) if active else []
    for slab in range(first_full, first_full + full):
        slabs += [slab] * (2 if len(slabs) < count - SINGLES else 1)
    # too few full slabs: the objects are in listed ones
    slabs += [at + 1 for at in mine for _ in range(rows[at][2]) if rows[at][4] != CPU_SLAB]
    return [(cache_row, slab, cpu, 0) for slab in reversed(slabs[:count])]


def initial_objects(first_frees: np.ndarray, initial: InitialSlabs) -> np.ndarray:
    """Which of the objects whose first event is a free existed at the start.

    first_frees: capture handles, in the order of those frees.
    Returns the 1-based slab row per entry, 0 for the others: those in slabs made later, and what
    a slab cannot have held because fewer of its objects were in use at the start.  They were
    allocated by something the kernel does not trace.
    """
    rows = initial.row_of_slab[first_frees >> HANDLE_SHIFT].copy()
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.searchsorted(ordered, ordered)
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - starts
    sheaf = np.bincount(initial.sheaves["slab"], minlength=len(initial.slabs) + 1)
    held = np.concatenate([[0], initial.slabs["inuse"]]) - sheaf
    rows[rank >= held[rows]] = 0
    return rows
