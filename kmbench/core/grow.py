"""A setup in which the objects of some caches are larger: what a design adds to a struct."""

from collections.abc import Mapping

import numpy as np

from kmbench.core.events import SLAB_HWCACHE_ALIGN
from kmbench.core.geometry import CACHELINE, ERAS, align_up, make_cache
from kmbench.core.setup import CacheSpec, Setup, SlabSpec
from kmbench.core.slab_geometry import cut_anew, slab_layout, slab_slot

NODE_PARTIAL, FULL = 3, 4  # field `where` of the initial slabs


def grow(setup: Setup, growth: Mapping[int, int]) -> Setup:
    """`setup` with objects of cache row r larger by ``growth[r]`` bytes, their slabs laid out anew.

    Slabs that such a cache has at the start are cut anew in order, as on the way from SLUB to SLAB;
    no CPU has an active one then, and what sheaves held is free.
    """
    rows = sorted(row for row, nr_bytes in growth.items() if nr_bytes)
    if not rows:
        return setup
    caches = list(setup.caches)
    for row in rows:
        larger = _larger_slab if setup.allocator == "slab" else _larger_slub
        caches[row - 1] = larger(setup, caches[row - 1], growth[row])
    setup = setup._replace(caches=tuple(caches))
    return _with_slabs_cut(setup, rows) if len(setup.initial_slabs) else setup


def _larger_slub(setup: Setup, cache: CacheSpec, nr_bytes: int) -> CacheSpec:
    behind = cache.size - cache.object_size  # a free pointer, padding
    size = align_up(cache.object_size + nr_bytes + behind, slab_slot(cache)[1])
    return make_cache(
        cache.name, cache.object_size + nr_bytes, era=setup.era, cpus=setup.machine.cpus,
        page_size=setup.machine.page_size, flags=cache.flags, size=size,
        sheaf_capacity=cache.sheaf_capacity,
    )  # fmt: skip


def _larger_slab(setup: Setup, cache: SlabSpec, nr_bytes: int) -> SlabSpec:
    """Its arrays keep their limits."""
    align = CACHELINE if cache.flags & SLAB_HWCACHE_ALIGN else 8
    object_size = cache.object_size + nr_bytes
    size = align_up(max(cache.size, cache.object_size) + nr_bytes, align)
    layout = slab_layout(
        size, align, cache.flags, setup.machine.page_size, setup.machine.memory_pages,
        since=ERAS[setup.era].slab, object_size=object_size,
    )  # fmt: skip
    return cache._replace(
        size=size, object_size=object_size, order=layout.order, objects=layout.objects,
        management=layout.management,
    )  # fmt: skip


def _with_slabs_cut(setup: Setup, rows: list[int]) -> Setup:
    """The initial slabs of `rows` cut into slabs of the caches as they are now."""
    slabs, objects, sheaves = setup.initial_slabs, setup.initial_objects, setup.initial_sheaves
    changed = np.isin(slabs["cache"], rows)
    number = np.zeros(len(slabs) + 1, np.int64)  # of a slab among those that stay, or that change
    number[1:][~changed] = np.arange(1, np.count_nonzero(~changed) + 1)
    number[1:][changed] = np.arange(1, np.count_nonzero(changed) + 1)
    objects, sheaves = objects.copy(), sheaves.copy()
    of_changed = np.isin(slabs["cache"][objects["slab"] - 1], rows)
    sheaf_of_changed = np.isin(sheaves["cache"], rows)
    objects["slab"], sheaves["slab"] = number[objects["slab"]], number[sheaves["slab"]]
    part = setup._replace(
        initial_slabs=slabs[changed], initial_objects=objects[of_changed],
        initial_sheaves=sheaves[sheaf_of_changed],
    )  # fmt: skip
    cut, moved = cut_anew(part, setup.caches)
    cut["where"] = np.where(cut["inuse"] == cut["objects"], FULL, NODE_PARTIAL)
    moved["slab"] += np.count_nonzero(~changed)
    objects[of_changed] = moved
    return setup._replace(
        initial_slabs=np.concatenate([slabs[~changed], cut]), initial_objects=objects,
        initial_sheaves=sheaves[~sheaf_of_changed],
    )  # fmt: skip
