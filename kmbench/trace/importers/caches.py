"""Which kmem_cache an allocation came from, and the geometry of every cache at the end.

kmalloc prints no cache: the size class follows from ``bytes_alloc``, the kind of kmalloc from the
flags (Linux 6.18 include/linux/slab.h:kmalloc_type; kmalloc-rcl since 4.20, kmalloc-cg since
5.14).  kmem_cache_alloc names its cache only in kernels after 6.18.  Without a name, allocations
of one size from one call site share a cache, and its name is, in this order: the one that
kmem_cache_free (late 5.x and 6.x) tells for one of its objects; that of the only cache of that size
in a slabinfo; ``size-N-unknown``.
"""

import re
from typing import NamedTuple

import numpy as np

from kmbench.core import events as ev
from kmbench.core.geometry import (
    ERAS,
    KMALLOC_SIZES,
    kmalloc_bucket,
    kmalloc_caches,
    kmalloc_name,
    make_cache,
)
from kmbench.core.setup import CacheSpec
from kmbench.errors import UsageProblem
from kmbench.trace.importers.gfp import GFP_DMA
from kmbench.trace.importers.names import Names
from kmbench.trace.importers.objects import LARGE_ROW, place
from kmbench.trace.importers.scan import CACHE_ALLOC, KMALLOC
from kmbench.trace.importers.snapshots import SlabRow
from kmbench.trace.importers.words import compiled

MAX_CACHES = np.iinfo(np.int16).max
_LARGEST = 1 << 22  # bytes of a slab of order 10
_KINDS = ("kmalloc", "dma-kmalloc", "kmalloc-rcl", "kmalloc-cg")
_NORMAL, _DMA, _RCL, _CG = range(4)
_KIND_FLAGS = (0, 0, ev.SLAB_RECLAIM_ACCOUNT, ev.SLAB_ACCOUNT)
_BY_CLASS, _BY_NAME, _BY_SITE = 1 << 56, 2 << 56, 3 << 56
_CLASS = np.array([0] + [KMALLOC_SIZES.index(kmalloc_bucket(n)) for n in range(1, 8193)], np.int64)
_COPY = re.compile(r"\(\d+:.*\)$")  # the copy of a group, 3.8 to 5.8: dentry(12:web)
# made with SLAB_ACCOUNT since 4.5, for the kernels whose trace does not tell (no accounted=)
_UNTOLD = ("4.5", "4.19", "5.3", "5.9", "5.16")
_ACCOUNTED = re.compile(
    r"dentry|filp|cred_jar|pid|vm_area_struct|mm_struct|task_struct|signal_cache|sighand_cache"
    r"|files_cache|fs_cache|anon_vma|anon_vma_chain|\w*inode_cache|eventpoll_\w+|fasync_cache"
)
_RECLAIMABLE = re.compile(r"dentry|buffer_head|radix_tree_node|\w*inode_cache")


@compiled
def _look_up(keys, values, wanted, out):  # pragma: no cover - compiled
    missing = 0
    for i in range(len(wanted)):
        if wanted[i] == 0:
            out[i] = LARGE_ROW
            continue
        at = place(keys, wanted[i])
        out[i] = values[at] if keys[at] != -1 else 0
        missing += out[i] == 0
    return missing


class _Seen(NamedTuple):
    name: str  # "" = not named
    size: int
    object_size: int
    flags: int


def plain_name(text: str) -> str:
    """Name of a cache as kmbench writes it: no group's suffix, kmalloc-1k for kmalloc-1024."""
    name = _COPY.sub("", text)
    found = re.fullmatch(r"((?:dma-)?kmalloc(?:-rcl|-cg)?)-(\d{1,9})", name)
    if found:
        return found.group(1) + kmalloc_name(int(found.group(2))).removeprefix("kmalloc")
    return name


class Caches:
    """Rows for caches as they appear; names and geometry when all is read."""

    def __init__(self, era: str, slabinfo: dict[str, SlabRow], page_size: int = 4096):
        self.era, self.page_size = era, page_size
        self.slabinfo = {plain_name(name): row for name, row in slabinfo.items()}
        self.seen: list[_Seen] = []
        self.accounted = np.zeros(MAX_CACHES + 1, bool)
        self._keys = np.full(1 << 10, -1, np.int64)
        self._values = np.zeros(1 << 10, np.int32)
        self._nr_keys = 0
        self._by_name: dict[tuple[str, int], int] = {}

    def _row(self, seen: _Seen) -> int:
        known = self._by_name.get((seen.name, seen.size)) if seen.name else None
        if known:
            return known
        if len(self.seen) >= MAX_CACHES - len(KMALLOC_SIZES):
            raise UsageProblem(f"more than {len(self.seen)} caches; expected kmem events")
        self.seen.append(seen)
        if seen.name:
            self._by_name[seen.name, seen.size] = len(self.seen)
        return len(self.seen)

    def _add(self, key: int, row: np.void, names: Names) -> None:
        kind = key >> 56 << 56
        if kind == _BY_CLASS:
            which, size = key - kind >> 8, KMALLOC_SIZES[key & 255]
            name = _KINDS[which] + kmalloc_name(size).removeprefix("kmalloc")
            seen = _Seen(name, size, size, ev.SLAB_KMALLOC | _KIND_FLAGS[which])
        else:
            name = plain_name(names.text(int(row["name"]))) if kind == _BY_NAME else ""
            size = max(8, int(row["size"]))
            seen = _Seen(name, size, min(max(1, int(row["req"])), size), 0)
        self._nr_keys += 1
        if 2 * self._nr_keys > len(self._keys):
            old = self._keys, self._values
            self._keys = np.full(4 * len(old[0]), -1, np.int64)
            self._values = np.zeros(len(self._keys), np.int32)
            for at in np.flatnonzero(old[0] != -1):
                self._put(int(old[0][at]), int(old[1][at]))
        self._put(key, self._row(seen))

    def _put(self, key: int, row: int) -> None:
        at = place(self._keys, np.int64(key))
        self._keys[at], self._values[at] = key, row

    def rows_of(self, rows: np.ndarray, gfp: np.ndarray, names: Names) -> np.ndarray:
        """Cache row (i4) of every allocation in `rows`; -1 where the page allocator serves it."""
        size = rows["size"].astype(np.int64)
        kind = np.zeros(len(rows), np.int64)
        rules = ERAS[self.era]
        if rules.present_cpus:  # 5.12+; the model's next era has kmalloc-cg
            kind[gfp & ev.GFP_ACCOUNT != 0] = _CG
        if self.era not in ("3.5", "3.8", "3.13", "4.5", "4.19"):
            kind[gfp & ev.GFP_RECLAIMABLE != 0] = _RCL
        kind[gfp & GFP_DMA != 0] = _DMA
        named = rows["name"] > 0
        wanted = np.where(
            named, _BY_NAME | rows["name"].astype(np.int64),
            _BY_SITE | rows["site"].astype(np.int64) << 23 | np.clip(size, 0, _LARGEST),
        )  # fmt: skip
        kmalloc = rows["op"] == KMALLOC
        wanted[kmalloc] = (_BY_CLASS | kind << 8 | _CLASS[np.clip(size, 0, 8192)])[kmalloc]
        wanted[kmalloc & (size > 8192) | (size > _LARGEST)] = 0
        wanted[~kmalloc & (rows["op"] != CACHE_ALLOC)] = 0
        out = np.empty(len(rows), np.int32)
        if _look_up(self._keys, self._values, wanted, out):
            where = np.flatnonzero(out == 0)
            keys, first = np.unique(wanted[where], return_index=True)
            for at in np.argsort(first, kind="stable"):
                self._add(int(keys[at]), rows[where[first[at]]], names)
            _look_up(self._keys, self._values, wanted, out)
        told = (rows["accounted"] == 1) & (gfp & ev.GFP_ACCOUNT == 0) & (out > 0)
        self.accounted[out[told]] = True
        return out

    @staticmethod
    def _final_name(seen: _Seen, learned: str, by_size: dict[int, list[str]]) -> str:
        if seen.name:
            return seen.name
        if learned:
            return learned
        names = by_size.get(seen.size, [])
        return names[0] if len(names) == 1 else f"size-{seen.size}-unknown"

    def _spec(self, name: str, seen: _Seen, account: bool, cpus: int) -> CacheSpec:
        flags = seen.flags
        if account or (self.era in _UNTOLD and _ACCOUNTED.fullmatch(name)):
            flags |= ev.SLAB_ACCOUNT
        if _RECLAIMABLE.fullmatch(name):
            flags |= ev.SLAB_RECLAIM_ACCOUNT
        spec = make_cache(
            name, seen.object_size, era=self.era, cpus=cpus, page_size=self.page_size,
            flags=flags, size=seen.size,
        )  # fmt: skip
        given = self.slabinfo.get(name)
        if not given or given.size != seen.size:
            return spec
        slabs = -(-2 * spec.cpu_partial // given.objects) if spec.cpu_partial_slabs else 0
        return spec._replace(
            order=given.order, objects=given.objects, cpu_partial_slabs=slabs,
            min_order=min(spec.min_order, given.order),
        )  # fmt: skip

    def finish(self, learned: list[str], cpus: int) -> tuple[tuple[CacheSpec, ...], np.ndarray]:
        """The caches of the trace, and the final row (i2) for every row given out.

        learned: per row given out, the name that a free told; "" = none.
        """
        by_size: dict[int, list[str]] = {}
        for name, given in self.slabinfo.items():
            if "kmalloc-" not in name:
                by_size.setdefault(given.size, []).append(name)
        final = np.zeros(len(self.seen) + 1, np.int16)
        rows: dict[tuple[str, int], int] = {}
        kept: list[tuple[str, _Seen]] = []
        account: list[bool] = []
        taken: dict[str, int] = {}
        for row, seen in enumerate(self.seen, 1):
            name = self._final_name(seen, plain_name(learned[row]), by_size)
            if taken.setdefault(name, seen.size) != seen.size:
                name = f"{name}:{seen.size}" if seen.name else f"size-{seen.size}-unknown"
                taken.setdefault(name, seen.size)
            if (name, seen.size) not in rows:
                kept.append((name, seen))
                account.append(False)
                rows[name, seen.size] = len(kept)
            final[row] = rows[name, seen.size]
            account[final[row] - 1] |= bool(self.accounted[row])
        specs = [
            self._spec(name, seen, told, cpus)
            for (name, seen), told in zip(kept, account, strict=True)
        ]
        # obj_cgroup vectors come from these, seen in the trace or not
        specs += [
            spec for spec in kmalloc_caches(self.era, cpus, self.page_size)
            if spec.name not in taken
        ]  # fmt: skip
        return tuple(specs), final
