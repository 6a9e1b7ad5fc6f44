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
from kmbench.trace.tables import open_parquet, read_arrays

PAGE = 4096
CPU_SLAB, CPU_PARTIAL, NODE_PARTIAL, FULL = 1, 2, 3, 4
# by `where` of slabdump.parquet; the one after these is a CPU's freelist
_PLACES = np.array([NODE_PARTIAL, CPU_SLAB, CPU_PARTIAL], np.uint8)
_DUMP_FREELIST = len(_PLACES)
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


def _ranks(values: np.ndarray) -> np.ndarray:
    """How many of those before it are equal, for each."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return ranks


def _full_slabs(path: Path, spec: CacheSpec, totals: dict, listed: int) -> int:
    full = field(path, totals, "slabs", int) - listed
    if full < 0:
        raise UsageProblem(
            f"{path}: dump 0 of cache {spec.name} has {totals['slabs']} slabs;"
            f" expected at least the {listed} of slabdump.parquet"
        )
    return full


def _rows_of_slabs(
    seen: dict[str, np.ndarray], pages: np.ndarray, rows: np.ndarray, first_full: np.ndarray,
    full: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """1-based row (i4) of each slab in `seen`, the columns of slabs.parquet; 0: it is newer.

    pages, rows: page and row of every slab on a list.  first_full, full: per cache, the row of the
    first slab on none, and how many those are.
    """
    out = np.zeros(len(seen["slab"]), np.int32)
    old = np.flatnonzero(seen["t_alloc"] < 0)
    # a page that comes twice was given to its second slab by an untraced task: that one is newer
    pages_of_old, index = np.unique(seen["pfn"][old], return_index=True)
    # by page alone: where slabs.parquet names another cache than the dump, the page has changed
    # hands since and its first events, frees, are still those of the dump's cache
    known = np.isin(pages, pages_of_old)
    out[old[index[np.searchsorted(pages_of_old, pages[known])]]] = rows[known] + 1
    old = old[np.sort(index)]
    cache = seen["cache"][old]
    unlisted = (out[old] == 0) & (cache >= 0) & (cache < len(full))
    old, cache = old[unlisted], cache[unlisted]
    rank = _ranks(cache)
    held = rank < full[cache]
    out[old[held]] = first_full[cache[held]] + rank[held] + 1
    return out


def _vectors(path: Path, column: str, count: int) -> np.ndarray:
    """`column` of a table: 1 the slab has a vector of obj_cgroups, 0 none, -1 not known."""
    with open_parquet(path) as file:
        if column not in file.schema_arrow.names:
            return np.full(count, -1)
    return read_arrays(path, {column: "i"})[column]


def _set_vectors(
    slabs: np.ndarray, charged: np.ndarray, totals: list[dict], known: dict[str, np.ndarray]
) -> None:
    """Fill in which `slabs` (INITIAL_SLAB) have a vector.

    charged: bool per cache, whether its slabs have one where the recording does not tell.
    totals: per cache; of slabs that nothing is seen of, only how many have one is known.
    known: "row" and "vector" (1, 0, -1 not known) of those that are listed or seen.
    """
    told = np.full(len(slabs), -1, np.int8)
    told[known["row"]] = known["vector"]
    slabs["vector"] = np.where(told < 0, charged[slabs["cache"] - 1], told)
    for at, counts in enumerate(totals):
        if "vectors" in counts:
            mine = np.flatnonzero(slabs["cache"] == at + 1)
            rest = mine[told[mine] < 0]
            left = counts["vectors"] - np.count_nonzero(told[mine] == 1)
            slabs["vector"][rest] = np.arange(len(rest)) < left


def read_initial_slabs(
    folder: Path, manifest: dict, caches: tuple[CacheSpec, ...], charged: np.ndarray
) -> InitialSlabs:
    """Every slab of dump 0, list by list, then the full ones, cache by cache.

    charged: bool per cache, whether its slabs have vectors where the recording does not tell.
    """
    path = folder / "manifest.json"
    names = ("dump", "cache", "pfn", "inuse", "objects", "where", "cpu")
    dump = read_arrays(folder / "slabdump.parquet", dict.fromkeys(names, "i"))
    names = ("slab", "cache", "pfn", "t_alloc")
    seen = read_arrays(folder / "slabs.parquet", dict.fromkeys(names, "i"))
    if len(seen["slab"]) and not np.array_equal(seen["slab"], np.arange(len(seen["slab"]))):
        raise UsageProblem(f"{folder / 'slabs.parquet'}: column slab is not 0, 1, 2, ...")
    first = (dump["dump"] == 0) & (dump["cache"] >= 0) & (dump["cache"] < len(caches))
    lists = np.flatnonzero(first & (dump["where"] >= 0) & (dump["where"] < len(_PLACES)))
    lists = lists[np.lexsort((_PLACES[dump["where"][lists]], dump["cache"][lists]))]
    place = _PLACES[dump["where"][lists]]
    cache = dump["cache"][lists]
    totals = [_totals(path, manifest, spec.name) for spec in caches]
    listed = np.bincount(cache, minlength=len(caches))
    full = np.array(
        [_full_slabs(path, *row) for row in zip(caches, totals, listed.tolist(), strict=True)],
        np.int64,
    )
    starts = np.cumsum(listed + full) - listed - full
    of = np.repeat(np.arange(len(caches)), listed + full)
    slabs = np.zeros(len(of), INITIAL_SLAB)
    slabs["cache"], slabs["where"] = of + 1, FULL
    slabs["objects"] = slabs["inuse"] = np.array([spec.objects for spec in caches])[of]
    rows = starts[cache] + _ranks(cache)
    slabs["where"][rows] = place
    for name in ("objects", "inuse", "cpu"):
        slabs[name][rows] = dump[name][lists]
    freelists = np.flatnonzero(first & (dump["where"] == _DUMP_FREELIST))
    free = {(dump["pfn"][at], dump["cpu"][at]): dump["inuse"][at] for at in freelists}
    for row, at in zip(rows[place == CPU_SLAB], lists[place == CPU_SLAB], strict=True):
        # SLUB counts the CPU's freelist as used
        slabs["cpu_free"][row] = free.get((dump["pfn"][at], dump["cpu"][at]), 0)
        slabs["inuse"][row] -= slabs["cpu_free"][row]
    row_of_slab = _rows_of_slabs(seen, dump["pfn"][lists], rows, starts + listed, full)
    of_list = _vectors(folder / "slabdump.parquet", "vector", len(dump["dump"]))[lists]
    of_seen = _vectors(folder / "slabs.parquet", "vector0", len(row_of_slab))
    held = row_of_slab > 0
    # of the listed ones the list tells, which is read later
    known = {"row": np.concatenate([row_of_slab[held] - 1, rows]),
             "vector": np.concatenate([of_seen[held], of_list])}  # fmt: skip
    _set_vectors(slabs, charged, totals, known)
    sheaves: list[tuple] = []
    for at, counts in enumerate(totals):
        mine = slabs[starts[at] : starts[at] + listed[at] + full[at]]
        sheaves += _sheaf_entries(at + 1, counts, mine, int(listed[at]), int(starts[at]))
    return InitialSlabs(slabs, np.array(sheaves, INITIAL_SHEAF), row_of_slab)


def _sheaf_entries(
    cache_row: int, totals: dict, slabs: np.ndarray, listed: int, before: int
) -> list[tuple]:
    """Objects in the sheaves of dump 0, with a likely slab each, bottom of the sheaf first.

    The recorder shrinks every cache just before dump 0, which empties the sheaves and sorts the
    node's list by free objects, fewest first (mm/slub.c:__kmem_cache_do_shrink).  What is in them
    was bulk allocated since, on the CPU that has an active slab: from slabs with one free object,
    then two, now all full, and last from the active slab.

    slabs: INITIAL_SLAB of this cache, the `listed` ones first, after `before` of other caches.
    """
    count = int(totals.get("sheaf_objs", 0)) + int(totals.get("rcu_sheaf_objs", 0))
    if not count:
        return []
    where, inuse = slabs["where"].tolist(), slabs["inuse"].tolist()
    active = where.index(CPU_SLAB) if CPU_SLAB in where else None
    cpu = 0 if active is None else int(slabs["cpu"][active])
    chosen = [] if active is None else [active] * min(3, inuse[active])
    for slab in range(listed, len(slabs)):
        chosen += [slab] * (2 if len(chosen) < count - SINGLES else 1)
    # too few full slabs: the objects are in listed ones
    for slab in range(listed):
        chosen += [slab] * (inuse[slab] if where[slab] != CPU_SLAB else 0)
    return [(cache_row, before + slab + 1, cpu, 0) for slab in reversed(chosen[:count])]


def initial_objects(first_frees: np.ndarray, initial: InitialSlabs) -> np.ndarray:
    """Which of the objects whose first event is a free existed at the start.

    first_frees: capture handles, in the order of those frees.
    Returns the 1-based slab row per entry, 0 for the others: those in slabs made later, and what
    a slab cannot have held because fewer of its objects were in use at the start.  They were
    allocated by something the kernel does not trace.
    """
    rows = initial.row_of_slab[first_frees >> HANDLE_SHIFT].copy()
    sheaf = np.bincount(initial.sheaves["slab"], minlength=len(initial.slabs) + 1)
    held = np.concatenate([[0], initial.slabs["inuse"]]) - sheaf
    rows[_ranks(rows) >= held[rows]] = 0
    return rows
