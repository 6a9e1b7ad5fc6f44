"""Layout of SLAB caches, and a setup turned into one that runs on SLAB.

Source: Linux 3.5 mm/slab.c (kmem_cache_create, calculate_slab_order, cache_estimate,
slab_mgmt_size, enable_cpucache).  Integer arithmetic only, as in the kernel.  All eras that have
SLAB use the layout of 3.5; later ones (without struct slab from 3.13 on, with the free list inside
a free object from 4.6 on) fit a few more objects into some slabs.
"""

from typing import NamedTuple

import numpy as np

from kmbench.core.events import SLAB_HWCACHE_ALIGN, SLAB_KMALLOC, SLAB_RECLAIM_ACCOUNT
from kmbench.core.geometry import CACHELINE, ERAS, MAX_ORDER, align_up
from kmbench.core.setup import INITIAL_SHEAF, INITIAL_SLAB, CacheSpec, Setup, SlabSpec

STRUCT_SLAB = 48  # bytes, x86_64
BUFCTL = 4  # kmem_bufctl_t, one an object
ALIEN_LIMIT = 12  # objects of another node that a node holds (alloc_alien_cache)
LAST_ERA = [era.name for era in ERAS.values() if era.slab][-1]


class Layout(NamedTuple):
    """How a slab is filled."""

    objects: int
    order: int
    management: int  # bytes of struct slab and the bufctls where they lie outside the slab, else 0
    colours: int  # start offsets that slabs take in turn; no effect on bytes


def slab_layout(
    size: int, align: int = 8, flags: int = 0, page_size: int = 4096, memory_pages: int = 1 << 20
) -> Layout:
    """The layout of slabs of `size`-byte slots; ValueError if no slab can hold one."""
    off_slab = size >= page_size >> 3
    max_order = 1 if memory_pages * page_size > 32 << 20 else 0
    best = None
    for order in range(MAX_ORDER + 1):
        whole = page_size << order
        if off_slab:
            objects = whole // size
            left = whole - objects * size
        else:
            objects = max(0, whole - STRUCT_SLAB) // (size + BUFCTL)
            head = align_up(STRUCT_SLAB + BUFCTL * objects, align)
            if head + objects * size > whole:
                objects -= 1
                head = align_up(STRUCT_SLAB + BUFCTL * objects, align)
            left = whole - objects * size - head
        if objects == 0:
            continue
        if off_slab and objects > (size - STRUCT_SLAB) // BUFCTL:
            break
        best = objects, order, left
        if flags & SLAB_RECLAIM_ACCOUNT or order >= max_order or left * 8 <= whole:
            break
    if best is None:
        raise ValueError(f"size {size}: no slab order up to {MAX_ORDER} holds one object")
    objects, order, left = best
    management = align_up(STRUCT_SLAB + BUFCTL * objects, align)
    if off_slab and left >= management:
        off_slab = False
        left -= management
    inside = STRUCT_SLAB + BUFCTL * objects  # off slab it is not aligned
    return Layout(objects, order, inside if off_slab else 0, left // max(CACHELINE, align))


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


def slab_cache(cache: CacheSpec, cpus: int, page_size: int, memory_pages: int) -> SlabSpec:
    """A SLUB cache as SLAB would lay it out."""
    size, align = slab_slot(cache)
    layout = slab_layout(size, align, cache.flags, page_size, memory_pages)
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
    caches = tuple(
        slab_cache(cache, machine.cpus, machine.page_size, machine.memory_pages)
        for cache in setup.caches
    )
    slabs, objects = _cut_anew(setup, caches)
    return setup._replace(
        era=era or (setup.era if ERAS[setup.era].slab else LAST_ERA), allocator="slab",
        caches=caches, initial_slabs=slabs, initial_objects=objects,
        initial_sheaves=np.zeros(0, INITIAL_SHEAF),
    )  # fmt: skip


def _cut_anew(setup: Setup, caches: tuple[SlabSpec, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Initial slabs and objects of the setup for `caches`: of each old slab first the slots of
    known objects, then those of others in use, then the free ones."""
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
            made.append(_slabs(row, cache, count, start[mine], used[mine], old["cpu"][mine]))
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
