"""Slab geometry: sizes, orders and list limits of a cache, per kernel era.

Source: Linux 3.5 to 6.18 mm/slub.c (calculate_sizes, calculate_order, set_min_partial,
set_cpu_partial).  Integer arithmetic only, as in the kernel.
"""

from typing import NamedTuple

from kmbench.core.events import SLAB_HWCACHE_ALIGN, SLAB_KMALLOC, SLAB_TYPESAFE_BY_RCU
from kmbench.core.setup import CacheSpec

MAX_ORDER = 10
SLUB_MAX_ORDER = 3
CACHELINE = 64
KMALLOC_SIZES = (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)


class Era(NamedTuple):
    """What changed between releases: the rules of SLUB, and whether there is SLAB."""

    name: str
    discard_above: bool  # empty slabs go when nr_partial > min_partial (before 3.14), not >=
    partial_in_slabs: bool  # cpu partial lists are bounded in slabs (5.16+), not in objects
    cpu_partial: tuple[int, int, int, int]  # objects for sizes >= 4096, 1024, 256, below
    sheaves: bool
    shrink_promotes: bool  # kmem_cache_shrink moves only nearly full slabs to the front (4.0+)
    present_cpus: bool  # orders follow the CPUs present, not nr_cpu_ids (5.12+)
    slab: str  # since when mm/slab.c lays slabs out as it does; "" = removed (6.8)


_OLD, _NEW = (2, 6, 13, 30), (6, 24, 52, 120)
ERAS = {
    era.name: era
    for era in (
        Era("3.5", True, False, _OLD, False, False, False, "3.5"),
        Era("3.8", True, False, _OLD, False, False, False, "3.5"),
        Era("3.13", True, False, _OLD, False, False, False, "3.13"),
        Era("4.5", False, False, _OLD, False, True, False, "3.15"),
        Era("4.19", False, False, _OLD, False, True, False, "4.6"),
        Era("5.3", False, False, _OLD, False, True, False, "4.6"),
        Era("5.9", False, False, _OLD, False, True, False, "4.6"),
        Era("5.16", False, True, _NEW, False, True, True, "4.6"),
        Era("6.12", False, True, _NEW, False, True, True, ""),
        Era("6.18", False, True, _NEW, True, True, True, ""),
    )
}


def era_of(major: int, minor: int) -> str:
    """Name of the era that Linux major.minor belongs to: the last that is not newer."""
    names = [name for name in ERAS if tuple(map(int, name.split("."))) <= (major, minor)]
    return names[-1] if names else next(iter(ERAS))


def align_up(value: int, align: int) -> int:
    """`value` rounded up to a multiple of `align`."""
    return (value + align - 1) // align * align


def get_order(nr_bytes: int, page_size: int) -> int:
    """Smallest order whose block holds `nr_bytes` (include/asm-generic/getorder.h)."""
    return max(0, ((nr_bytes + page_size - 1) // page_size - 1).bit_length())


def slot_size(object_size: int, align: int = 8, flags: int = 0, ctor: bool = False) -> int:
    """Bytes from one object to the next (Linux 6.18 mm/slub.c:calculate_sizes)."""
    align = max(8, align)
    if flags & SLAB_HWCACHE_ALIGN:
        line = CACHELINE
        while object_size <= line // 2:
            line //= 2
        align = max(align, line)
    size = align_up(object_size, 8)
    if flags & SLAB_TYPESAFE_BY_RCU or ctor:
        size += 8  # the free pointer cannot lie inside the object
    return align_up(size, align)


def slab_order(size: int, cpus: int, page_size: int = 4096) -> int:
    """Page order of a slab of `size`-byte slots (Linux 6.18 mm/slub.c:calculate_order)."""
    max_objects = max((page_size << SLUB_MAX_ORDER) // size, 1)
    min_objects = min(4 * (cpus.bit_length() + 1), max_objects)
    min_order = get_order(min_objects * size, page_size)
    if (page_size << min_order) // size > 32767:
        return get_order(size * 32767, page_size) - 1
    for fraction in (16, 8, 4, 2):
        for order in range(min_order, SLUB_MAX_ORDER + 1):
            slab = page_size << order
            if slab % size <= slab // fraction:
                return order
    order = get_order(size, page_size)
    if order > MAX_ORDER:
        raise ValueError(f"size {size}: no slab order up to {MAX_ORDER} holds one object")
    return order


def cpu_partial_objects(size: int, era: Era) -> int:
    """Objects that a CPU's partial list may hold (mm/slub.c:set_cpu_partial)."""
    large, page, medium, small = era.cpu_partial
    return large if size >= 4096 else page if size >= 1024 else medium if size >= 256 else small


def min_partial(size: int) -> int:
    """Slabs kept on a node's partial list (mm/slub.c:set_min_partial)."""
    return min(max((size.bit_length() - 1) // 2, 5), 10)


def make_cache(
    name: str,
    object_size: int,
    *,
    era: str = "6.18",
    cpus: int = 2,
    page_size: int = 4096,
    align: int = 8,
    flags: int = 0,
    ctor: bool = False,
    size: int = 0,
    sheaf_capacity: int = 0,
) -> CacheSpec:
    """A cache as `era` would lay it out on a machine with `cpus` CPUs.

    `size` overrides the slot size where the kernel's rule is known to differ (vm_area_struct).
    """
    rules = ERAS[era]
    size = size or slot_size(object_size, align, flags, ctor)
    order = slab_order(size, cpus, page_size)
    objects = (page_size << order) // size
    partial = cpu_partial_objects(size, rules)
    return CacheSpec(
        name=name,
        size=size,
        object_size=object_size,
        order=order,
        objects=objects,
        min_order=get_order(size, page_size),
        min_partial=min_partial(size),
        cpu_partial=partial,
        cpu_partial_slabs=-(-2 * partial // objects) if rules.partial_in_slabs else 0,
        sheaf_capacity=sheaf_capacity if rules.sheaves else 0,
        flags=flags,
    )


def kmalloc_name(size: int) -> str:
    """``kmalloc-64``, ``kmalloc-1k``: the kernel's name of a size class."""
    return f"kmalloc-{size >> 10}k" if size >= 1024 else f"kmalloc-{size}"


def kmalloc_bucket(nr_bytes: int) -> int:
    """Size class that serves `nr_bytes`; 0 when it is above 8 KiB and served by pages."""
    for size in KMALLOC_SIZES:
        if nr_bytes <= size:
            return size
    return 0


def kmalloc_caches(
    era: str = "6.18", cpus: int = 2, page_size: int = 4096
) -> tuple[CacheSpec, ...]:
    """The kmalloc-normal caches, kmalloc-8 to kmalloc-8k."""
    return tuple(
        make_cache(
            kmalloc_name(size), size, era=era, cpus=cpus, page_size=page_size,
            align=size & -size, flags=SLAB_KMALLOC, size=size,
        )
        for size in KMALLOC_SIZES
    )  # fmt: skip
