"""Slab geometry from sizes: order, objects and list limits of a SLUB cache.

Linux 6.18 mm/slub.c: calculate_order, calc_slab_order, set_min_partial, set_cpu_partial.  Integer
arithmetic only.
"""

from kmbench.core.setup import CacheSpec

MAX_OBJECTS = 32767
SLUB_MAX_ORDER = 3
SLABS_ERAS = ("5.16", "6.12", "6.18")  # cpu_partial counts slabs, and is larger


def fls(value: int) -> int:
    """Number of the highest set bit, 1-based; fls(0) == 0."""
    return value.bit_length()


def get_order(nbytes: int, page_size: int = 4096) -> int:
    """The smallest order whose block holds ``nbytes``."""
    pages = -(-nbytes // page_size)
    return (pages - 1).bit_length()


def slab_order(size: int, cpus: int, page_size: int = 4096) -> int:
    """The order SLUB prefers for slots of ``size`` bytes on a machine of ``cpus`` CPUs."""
    min_objects = 4 * (fls(cpus) + 1)
    max_objects = max((page_size << SLUB_MAX_ORDER) // size, 1)
    min_objects = min(min_objects, max_objects)
    min_order = get_order(min_objects * size, page_size)
    if (page_size << min_order) // size > MAX_OBJECTS:
        return get_order(size * MAX_OBJECTS, page_size) - 1
    for fraction in (16, 8, 4, 2):
        for order in range(min_order, SLUB_MAX_ORDER + 1):
            slab_bytes = page_size << order
            if slab_bytes % size <= slab_bytes // fraction:
                return order
    return get_order(size, page_size)


def min_partial(size: int) -> int:
    """Slabs that discarding leaves on a node's partial list."""
    return min(max((fls(size) - 1) // 2, 5), 10)


def cpu_partial(size: int, era: str) -> int:
    """Objects that the partial list of one CPU may hold."""
    limits = (6, 24, 52, 120) if era in SLABS_ERAS else (2, 6, 13, 30)
    for bound, limit in zip((4096, 1024, 256), limits, strict=False):
        if size >= bound:
            return limit
    return limits[3]


def cpu_partial_slabs(limit: int, objects: int) -> int:
    """The same limit in slabs, taking them as half full (Linux 5.16 and later)."""
    return -(-2 * limit // objects)


def cache_spec(name, size, cpus, era, *, sheaf_capacity=0, flags=0, page_size=4096) -> CacheSpec:
    """A CacheSpec for slots of ``size`` bytes, the object filling its slot."""
    order = slab_order(size, cpus, page_size)
    objects = (page_size << order) // size
    limit = cpu_partial(size, era)
    return CacheSpec(
        name=name,
        size=size,
        object_size=size,
        order=order,
        objects=objects,
        min_order=get_order(size, page_size),
        min_partial=min_partial(size),
        cpu_partial=limit,
        cpu_partial_slabs=cpu_partial_slabs(limit, objects) if era in SLABS_ERAS else 0,
        sheaf_capacity=sheaf_capacity,
        flags=flags,
    )
