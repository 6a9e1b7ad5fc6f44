"""Layout of SLAB caches by era, and a setup turned into one that runs on SLAB.

Source: mm/slab.c (kmem_cache_create, calculate_slab_order, cache_estimate, enable_cpucache).  What
a slab needs to know of its free objects has been four things:

3.5   struct slab and an index of 4 bytes an object in front of the objects, or outside them for
      objects from an eighth of a page on (slab_mgmt_size)
3.13  the indices alone ("slab: remove struct slab", Joonsoo Kim, October 2013)
3.15  indices of a byte, or two with large pages (freelist_idx_t, SLAB_OBJ_MAX_NUM), outside from a
      32nd of a page on (calculate_nr_objs, calculate_freelist_size)
4.6   the indices in a free object (set_objfreelist_slab_cache); for objects that may not be written
      while free, outside where that pays (set_off_slab_cache), else behind the objects
      (set_on_slab_cache)

With the last one comes what 4.7 changed, no era being between them: "mm/slab: don't keep free slabs
if free_objects exceeds free_limit", Joonsoo Kim, 12 April 2016.
Integer arithmetic only, as in the kernel; its boot, when caches keep all inside, is left out.
"""

from typing import NamedTuple

import numpy as np

from kmbench.core.events import (
    SLAB_HWCACHE_ALIGN,
    SLAB_KMALLOC,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_TYPESAFE_BY_RCU,
)
from kmbench.core.geometry import CACHELINE, ERAS, MAX_ORDER, align_up, get_order, kmalloc_bucket
from kmbench.core.setup import INITIAL_SHEAF, INITIAL_SLAB, CacheSpec, Setup, SlabSpec

ALIEN_LIMIT = 12  # objects of another node that a node holds (alloc_alien_cache)
LAST_ERA = [era.name for era in ERAS.values() if era.slab][-1]
LEAST_KMALLOC = 32  # SLAB's smallest size class on x86_64 (KMALLOC_SHIFT_LOW)
INSIDE, OUTSIDE, IN_OBJECT = 0, 1, 2  # where a slab's indices are


class Rules(NamedTuple):
    """What an era's slabs keep beside their objects."""

    head: int  # bytes of struct slab, x86_64
    index: int  # bytes an object; 0 = freelist_idx_t, by the size of a page
    outside_from: int  # objects from page_size >> this on have it outside the slab
    in_object: bool  # it may lie in a free object, else behind the objects, not in front of them
    trims_free: bool  # free_block gives back free slabs as long as there are too many free objects


RULES = {
    "3.5": Rules(48, 4, 3, False, False),
    "3.13": Rules(0, 4, 3, False, False),
    "3.15": Rules(0, 0, 5, False, False),
    "4.6": Rules(0, 0, 5, True, True),
}


class Layout(NamedTuple):
    """How a slab is filled."""

    objects: int
    order: int
    management: int  # bytes of what lies outside the slab: struct slab, indices; else 0
    colours: int  # start offsets that slabs take in turn; no effect on bytes


def index_bytes(rules: Rules, page_size: int) -> int:
    """Bytes of an object's index (FREELIST_BYTE_INDEX)."""
    return rules.index or (1 if page_size >> 8 <= 16 else 2)


def fill(
    rules: Rules, size: int, align: int, order: int, page_size: int, place: int
) -> tuple[int, int]:
    """(objects of a slab of that order, bytes left over) (cache_estimate)."""
    whole, index = page_size << order, index_bytes(rules, page_size)
    if place != INSIDE:
        return divmod(whole, size)
    if rules.in_object:
        return divmod(whole, size + index)
    objects = max(0, whole - rules.head) // (size + index)
    if align_up(rules.head + index * objects, align) + objects * size > whole:
        objects -= 1
    return objects, whole - objects * size - align_up(rules.head + index * objects, align)


def choose_order(
    rules: Rules,
    size: int,
    align: int,
    flags: int,
    page_size: int,
    memory_pages: int,
    place: int,
    object_size: int,
) -> tuple[int, int, int] | None:
    """(objects, order, bytes left over), or None if no slab can be (calculate_slab_order)."""
    max_order = 1 if memory_pages * page_size > 32 << 20 else 0
    index = index_bytes(rules, page_size)
    best = None
    for order in range(MAX_ORDER + 1):
        objects, left = fill(rules, size, align, order, page_size, place)
        if objects == 0:
            continue
        if rules.index == 0 and objects >= 1 << 8 * index:
            break
        if place == OUTSIDE and rules.in_object:
            if index_bucket(objects * index) > object_size // 2:
                continue  # the indices would take as much as they save
        elif place == OUTSIDE and objects > (size - rules.head) // index:
            break
        best = objects, order, left
        if flags & SLAB_RECLAIM_ACCOUNT or order >= max_order or left * 8 <= page_size << order:
            break
    return best


def index_bucket(nr_bytes: int) -> int:
    """Size class of SLAB's kmalloc that serves so many bytes."""
    return max(LEAST_KMALLOC, kmalloc_bucket(nr_bytes) or 1 << get_order(nr_bytes, 1))


def slab_layout(
    size: int,
    align: int = 8,
    flags: int = 0,
    page_size: int = 4096,
    memory_pages: int = 1 << 20,
    *,
    since: str = "3.5",
    object_size: int = 0,
    written_free: bool = True,
) -> Layout:
    """The layout of slabs of `size`-byte slots; ValueError if no slab can hold one.

    `since`: one of RULES.  For 4.6: `object_size` without padding (default `size`), and whether a
    free object may be written (`written_free`): not if it has a constructor or is TYPESAFE_BY_RCU.
    """
    rules, object_size = RULES[since], object_size or size
    index = index_bytes(rules, page_size)

    def chosen(place):
        return choose_order(rules, size, align, flags, page_size, memory_pages, place, object_size)

    if rules.in_object:
        found, place = chosen(IN_OBJECT) if written_free else None, IN_OBJECT
        if found is None or found[0] * index > object_size:
            found, place = chosen(OUTSIDE), OUTSIDE
            if found is None or found[2] >= found[0] * index:
                found, place = chosen(INSIDE), INSIDE
    else:
        place = OUTSIDE if size >= page_size >> rules.outside_from else INSIDE
        found = chosen(place)
    if found is None:
        raise ValueError(f"size {size}: no slab order up to {MAX_ORDER} holds one object")
    objects, order, left = found
    management = rules.head + index * objects  # not aligned where it is outside
    if place == OUTSIDE and not rules.in_object and left >= align_up(management, align):
        place = INSIDE
        left -= align_up(management, align)
    outside = management if place == OUTSIDE else 0
    return Layout(objects, order, outside, left // max(CACHELINE, align))


def slab_slot(cache: CacheSpec) -> tuple[int, int]:
    """(slot, alignment) that SLAB gives the objects of a SLUB cache.

    SLAB keeps no free pointer in or behind an object; padding that SLUB's slot has beyond that
    pointer comes from the alignment, which stays.
    """
    least = align_up(cache.object_size, 8)
    if cache.flags & SLAB_KMALLOC:
        return cache.size, min(CACHELINE, cache.size & -cache.size)
    align = 8
    if cache.flags & SLAB_HWCACHE_ALIGN:
        align = CACHELINE
        while cache.object_size <= align // 2:
            align //= 2
    elif cache.size > least + 8:
        align = min(CACHELINE, cache.size & -cache.size)
    align = max(8, align)
    return align_up(least, align), align


def array_limits(size: int, cpus: int, page_size: int = 4096) -> tuple[int, int, int]:
    """(limit of a CPU's array, batchcount, objects of a node's shared array) (enable_cpucache)."""
    limits = ((131072, 1), (page_size, 8), (1024, 24), (256, 54))
    limit = next((limit for above, limit in limits if size > above), 120)
    batchcount = (limit + 1) // 2
    return limit, batchcount, 8 * batchcount if size <= page_size and cpus > 1 else 0


def free_limit(batchcount: int, objects: int, cpus_of_node: int) -> int:
    """Free objects of a node above which empty slabs go (do_tune_cpucache, cpuup_prepare)."""
    return (1 + cpus_of_node) * batchcount + objects


def slab_cache(
    cache: CacheSpec, cpus: int, page_size: int, memory_pages: int, since: str = "3.5"
) -> SlabSpec:
    """A SLUB cache as SLAB would lay it out since the release `since`, one of RULES.

    Where SLUB keeps the free pointer behind the object, as the slot shows, the object may not be
    written while it is free; where padding hides that from sight it is taken to be writable.
    """
    size, align = slab_slot(cache)
    written_free = cache.size <= size and not cache.flags & SLAB_TYPESAFE_BY_RCU
    if RULES[since].index == 0 and page_size >> 8 <= 16:
        size = max(size, align_up(16, align))  # SLAB_OBJ_MIN_SIZE
    layout = slab_layout(
        size, align, cache.flags, page_size, memory_pages,
        since=since, object_size=cache.object_size, written_free=written_free,
    )  # fmt: skip
    return SlabSpec(
        cache.name, size, cache.object_size, layout.order, layout.objects,
        *array_limits(size, cpus, page_size), layout.management, cache.flags,
    )  # fmt: skip


def on_slab(setup: Setup, era: str = "") -> Setup:
    """The same machine, caches, groups and objects on SLAB, in `era` (default: the setup's, or the
    last that has SLAB).

    Caches that SLUB had merged stay merged.  Slabs at the start: the slots of each cache, used and
    free, in the order of the given slabs, are cut anew into slabs of SLAB's size, so that used and
    free space stay as mixed as they were; what sheaves held is free, and the arrays are empty.
    """
    machine = setup.machine
    era = era or (setup.era if ERAS[setup.era].slab else LAST_ERA)
    since = ERAS[era].slab
    caches = tuple(
        slab_cache(cache, machine.cpus, machine.page_size, machine.memory_pages, since)
        for cache in setup.caches
    )
    slabs, objects = cut_anew(setup, caches)
    return setup._replace(
        era=era, allocator="slab",
        caches=caches, initial_slabs=slabs, initial_objects=objects,
        initial_sheaves=np.zeros(0, INITIAL_SHEAF),
    )  # fmt: skip


def cut_anew(setup: Setup, caches: tuple[SlabSpec, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Initial slabs and objects of the setup for `caches`: of each old slab first the slots of
    known objects, then those of others in use, then the free ones.  A cache's have vectors where
    most of its old ones had."""
    old = setup.initial_slabs
    objects = setup.initial_objects.copy()
    used = old["inuse"] - np.bincount(setup.initial_sheaves["slab"], minlength=len(old) + 1)[1:]
    home = objects["slab"].astype(np.int64) - 1
    order = np.argsort(home, kind="stable")
    first_of_slab = np.searchsorted(home[order], np.arange(len(old)))
    rank = np.empty(len(objects), np.int64)
    rank[order] = np.arange(len(objects)) - first_of_slab[home[order]]
    made = []
    start = np.zeros(len(old), np.int64)  # first slot of an old slab among those of its cache
    first_row = np.ones(len(caches) + 1, np.int64)
    for row, cache in enumerate(caches, 1):
        mine = np.flatnonzero(old["cache"] == row)
        ends = np.cumsum(old["objects"][mine], dtype=np.int64)
        start[mine] = ends - old["objects"][mine]
        count = -(-int(ends[-1]) // cache.objects) if len(mine) else 0
        first_row[row] = sum(map(len, made)) + 1
        if count:
            slabs = _slabs(row, cache, count, start[mine], used[mine], old["cpu"][mine])
            slabs["vector"] = 2 * np.count_nonzero(old["vector"][mine]) > len(mine)
            made.append(slabs)
    slabs = np.concatenate(made) if made else np.zeros(0, INITIAL_SLAB)
    per_slab = np.array([0, *(cache.objects for cache in caches)])
    of_cache = old["cache"][home]
    objects["slab"] = first_row[of_cache] + (start[home] + rank) // per_slab[of_cache]
    return slabs, objects


def _slabs(
    row: int, cache: SlabSpec, count: int, start: np.ndarray, used: np.ndarray, cpu: np.ndarray
) -> np.ndarray:
    """`count` slabs of one cache: slots from ``start[i]`` on are used, ``used[i]`` of them."""
    cuts = np.arange(count + 1) * cache.objects
    total = np.concatenate([[0], np.cumsum(used)])
    which = np.searchsorted(start, cuts, side="right") - 1
    before = total[which] + np.minimum(cuts - start[which], used[which])
    slabs = np.zeros(count, INITIAL_SLAB)
    slabs["cache"], slabs["objects"] = row, cache.objects
    slabs["inuse"] = np.diff(before)
    slabs["where"] = 4  # not read: the list follows from `inuse`
    slabs["cpu"] = cpu[which[:-1]]
    return slabs
