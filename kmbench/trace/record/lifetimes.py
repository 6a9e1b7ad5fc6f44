"""From addresses to identities: slabs from page allocation to page free, objects as slots of them.

An object's page frame tells its slab.  A slab begins with the page allocation that the first of
its objects follows and ends with the free of its pages; slabs from before are known from a list of
all slab pages, taken while tracing was on already.
"""

from typing import NamedTuple

import numpy as np

from kmbench.core.specialise import cached
from kmbench.trace.record.stream import (
    CACHE_ALLOC,
    CACHE_FREE,
    KMALLOC,
    PAGE_ALLOC,
    PAGE_FREE,
    Table,
)

SHIFT = 9
ACCOUNT = 0x40_0000  # __GFP_ACCOUNT
FIRST_FREE, LOST_FREE, LOST_ALLOC, UNKNOWN = 4, 8, 16, 32  # flags of events.parquet
_MAX_ORDER = 10
_PAGE, _PUD = 4096, 1 << 30


def vote_direct_map(table: Table) -> int:
    """Where physical memory begins in the kernel's addresses, from the events alone; 0 unknown.

    A page allocation is often followed, on its CPU, by the first object in it.  The base is a
    multiple of 1 GiB on x86-64 (mm/kaslr.c).
    """
    order = np.argsort(table.cpu, kind="stable")
    first, second = order[:-1], order[1:]
    pair = (table.kind[first] == PAGE_ALLOC) & (table.pid[first] == table.pid[second])
    pair &= (table.kind[second] == CACHE_ALLOC) | (table.kind[second] == KMALLOC)
    first, second = first[pair], second[pair]
    guess = table.ptr[second] - table.ptr[first] * _PAGE
    inside = guess & (_PUD - 1) < _PAGE << table.size[first]
    values, counts = np.unique(guess[inside] & -_PUD, return_counts=True)
    return int(values[np.argmax(counts)]) % (1 << 64) if len(values) else 0


class Slabs(NamedTuple):
    """One row per slab lifetime."""

    cache: np.ndarray  # i4
    pfn: np.ndarray  # i8, first page
    t_alloc: np.ndarray  # i8, -1: before
    t_free: np.ndarray  # i8, -1: never
    cpu: np.ndarray  # i4, of the page allocation; -1
    memcg: np.ndarray  # i4


class Lifetimes(NamedTuple):
    """What became of the events."""

    slabs: Slabs
    row: np.ndarray  # i4 per event: slab; -1 none, -2 - n: large or unknown object n
    slot: np.ndarray  # i4 per event
    pages: np.ndarray  # i8 (n, 4): event row, op (0 alloc, 1 free, 2 lost free), handle, order
    counts: dict[str, int]


@cached
def _cover(array, pfn, order, value):  # pragma: no cover - compiled
    for page in range(pfn, min(pfn + (1 << order), len(array))):
        array[page] = value


@cached
def _track(
    t, kind, cpu, memcg, phys, order, accounted, cache, sizes, orders, first_large, start_cache,
    start_head, slab, row, slot, pages,
):  # fmt: skip  # pragma: no cover - compiled
    top = len(start_cache)
    page_row = np.zeros(top, np.int32)
    pending = np.full(top, -1, np.int64)
    pending_order = np.zeros(top, np.int8)
    pending_cpu = np.zeros(top, np.int32)
    pending_memcg = np.zeros(top, np.int32)
    held = np.zeros(top, np.int32)
    large = np.zeros(top, np.int32)
    sure = np.zeros(len(slab), np.bool_)
    slab_order = np.zeros(len(slab), np.int8)
    nr = others = nr_pages = handles = 0
    conflicts = misaligned = unresolved = reused = 0
    for i in range(len(t)):
        what = kind[i]
        if what > PAGE_FREE:
            continue
        if what == PAGE_ALLOC or what == PAGE_FREE:
            pfn = phys[i]
            if pfn < 0 or pfn >= top:
                continue
            if held[pfn]:
                pages[nr_pages] = i, 1 if what == PAGE_FREE else 2, held[pfn] - 1, order[i]
                nr_pages += 1
                held[pfn] = 0
            old = page_row[pfn] - 1
            if old >= 0:
                slab[old, 3] = t[i]
                reused += what == PAGE_ALLOC
                _cover(page_row, slab[old, 1], slab_order[old], 0)
            _cover(page_row, pfn, order[i], 0)
            _cover(start_cache, pfn, order[i], -1)
            _cover(large, pfn, order[i], 0)
            pending[pfn] = -1
            if what == PAGE_ALLOC:
                if accounted[i]:
                    handles += 1
                    held[pfn] = handles
                    pages[nr_pages] = i, 0, handles - 1, order[i]
                    nr_pages += 1
                pending[pfn], pending_order[pfn] = t[i], order[i]
                pending_cpu[pfn], pending_memcg[pfn] = cpu[i], memcg[i]
            continue
        pfn = phys[i] >> 12
        if pfn < 0 or pfn >= top:
            unresolved += 1
            continue
        guess = cache[i]
        certain = what == CACHE_ALLOC or what == CACHE_FREE
        if guess == first_large:
            others += 1
            large[pfn] = others
            row[i] = -1 - others
            continue
        at = page_row[pfn] - 1
        if at >= 0 and guess >= 0 and slab[at, 0] != guess:
            if not certain and sizes[slab[at, 0]] == sizes[guess]:
                pass  # a cache of its own for this kind of kmalloc
            elif certain and not sure[at] and sizes[slab[at, 0]] == sizes[guess]:
                slab[at, 0], sure[at] = guess, True
            else:
                conflicts += 1
                slab[at, 3] = t[i]
                _cover(page_row, slab[at, 1], slab_order[at], 0)
                at = -1
        if at < 0:
            found, head, size_order = guess, pfn, 0
            from_start = start_cache[pfn] >= 0
            if from_start and (guess < 0 or sizes[start_cache[pfn]] == sizes[guess]):
                head = start_head[pfn]
                if not certain:
                    found = start_cache[pfn]
            else:
                from_start = False
            if found < 0:
                if large[pfn]:
                    row[i] = -1 - large[pfn]
                    large[pfn] = 0
                else:
                    unresolved += 1
                    others += 1
                    row[i] = -1 - others
                continue
            size_order = orders[found]
            if not from_start:
                head = pfn & ~((1 << size_order) - 1)
                for smaller in range(size_order, -1, -1):
                    other = pfn & ~((1 << smaller) - 1)
                    if pending[other] >= 0 and pending_order[other] == smaller:
                        head, size_order = other, smaller
                        break
            at = nr
            nr += 1
            slab[at, 0], slab[at, 1], slab[at, 2], slab[at, 3] = found, head, -1, -1
            slab[at, 4], slab[at, 5] = -1, -1
            if pending[head] >= 0 and not from_start:
                slab[at, 2] = pending[head]
                slab[at, 4], slab[at, 5] = pending_cpu[head], pending_memcg[head]
            sure[at] = certain or from_start
            slab_order[at] = size_order
            _cover(page_row, head, size_order, at + 1)
        offset = phys[i] - (slab[at, 1] << 12)
        size = sizes[slab[at, 0]]
        misaligned += offset % size != 0
        row[i], slot[i] = at, offset // size
    return nr, nr_pages, conflicts, misaligned, unresolved, reused


def track(
    columns: dict[str, np.ndarray], sizes: np.ndarray, orders: np.ndarray,
    census: tuple[np.ndarray, np.ndarray],
) -> Lifetimes:  # fmt: skip
    """Slabs and slots of all events.

    columns, per event in time order: t, kind, cpu, memcg; phys (i8: physical address of an object,
        page frame of a page event), order (of a page event), accounted (bool, page events), cache
        (i4: by name or size; -1 unknown, len(sizes) a kmalloc above 8 KiB).
    sizes, orders: of the caches.
    census: first pages and caches of the slabs at the beginning; cache -1 is left out.
    """
    kind, phys = columns["kind"], columns["phys"]
    of_pages = (kind == PAGE_ALLOC) | (kind == PAGE_FREE)
    frames = np.where(of_pages, phys, phys >> 12)[kind <= PAGE_FREE]
    limit = 1 << 32
    frames = frames[(frames >= 0) & (frames < limit)]
    top = int(max(frames.max(initial=0), census[0].max(initial=0))) + (1 << _MAX_ORDER)
    start_cache, start_head = np.full(top, -1, np.int32), np.zeros(top, np.int32)
    known = census[1] >= 0
    for pfn, cache in zip(census[0][known], census[1][known], strict=True):
        stop = pfn + (1 << orders[cache])
        start_cache[pfn:stop], start_head[pfn:stop] = cache, pfn
    count = len(kind)
    objects = int(np.count_nonzero(kind < PAGE_ALLOC))
    slab = np.zeros((objects + 1, 6), np.int64)
    row, slot = np.full(count, -1, np.int32), np.zeros(count, np.int32)
    pages = np.zeros((2 * int(np.count_nonzero(of_pages)) + 1, 4), np.int64)
    nr, nr_pages, conflicts, misaligned, unresolved, reused = _track(
        columns["t"], kind, columns["cpu"], columns["memcg"], phys, columns["order"],
        columns["accounted"], columns["cache"], np.append(sizes, 1), np.append(orders, 0),
        len(sizes), start_cache, start_head, slab, row, slot, pages,
    )  # fmt: skip
    counts = {
        "cache_conflicts_in_slab": conflicts, "misaligned_objects": misaligned,
        "kfree_unresolved": unresolved, "slab_realloc_without_free": reused,
        "slab_lifetimes": nr,
        "slab_lifetimes_seen_allocated": int(np.count_nonzero(slab[:nr, 2] >= 0)),
    }  # fmt: skip
    small = [slab[:nr, column].astype(np.int32) for column in (0, 4, 5)]
    slabs = Slabs(small[0], slab[:nr, 1], slab[:nr, 2], slab[:nr, 3], small[1], small[2])
    return Lifetimes(slabs, row, slot, pages[:nr_pages], counts)


@cached
def object_flags(obj, is_free, keys):  # pragma: no cover - compiled
    """FIRST_FREE, LOST_FREE and LOST_ALLOC (u1) of events on objects `obj` (i8, below `keys`)."""
    state = np.zeros(keys, np.uint8)  # 0 never seen, 1 live, 2 free
    out = np.zeros(len(obj), np.uint8)
    for i in range(len(obj)):
        before = state[obj[i]]
        if is_free[i]:
            if before == 0:
                out[i] = FIRST_FREE
            elif before == 2:
                out[i] = LOST_ALLOC
            state[obj[i]] = 2
        else:
            if before == 1:
                out[i] = LOST_FREE
            state[obj[i]] = 1
    return out


def kmalloc_names(size: np.ndarray, gfp: np.ndarray) -> np.ndarray:
    """Names of the caches that serve kmallocs: by bytes_alloc and the class of the gfp flags.

    Linux 6.18 include/linux/slab.h:kmalloc_type: DMA before reclaimable before accounted.
    """
    prefix = np.select(
        [gfp & 0x01 != 0, gfp & 0x10 != 0, gfp & ACCOUNT != 0],
        ["dma-kmalloc-", "kmalloc-rcl-", "kmalloc-cg-"], "kmalloc-",
    )  # fmt: skip
    labels = np.array([f"{n >> 10}k" if n >= 1024 else str(n) for n in size.tolist()], object)
    return prefix.astype(object) + labels
