"""What lives in the reference model: objects, pages, per-CPU areas, and vectors of slabs."""

from typing import NamedTuple

from kmbench.core import events as ev

KMALLOC_BUCKETS = (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)


class Call(NamedTuple):
    """Who allocates: the fields of an event that matter to a strategy."""

    cpu: int
    memcg: int
    gfp: int


class Obj:
    """Something live: a slab object, kernel pages (``block``) or a per-CPU area (``nbytes``)."""

    def __init__(self, owner, billed, slab=None, block=None, nbytes=0):
        self.owner = owner
        self.billed = billed
        self.slab = slab
        self.block = block
        self.nbytes = nbytes


class Vector:
    """The obj_cgroup vector of a slab; ``obj`` is its kmalloc object, if a cache serves it.

    Also the management of a slab of SLAB outside it, which only caches serve that keep their own
    inside (``self_contained``).
    """

    def __init__(self, nbytes: int, self_contained: bool = False):
        self.self_contained = self_contained
        self.bucket = next((size for size in KMALLOC_BUCKETS if size >= nbytes), nbytes)
        self.obj = None

    @property
    def cache_name(self) -> str:
        kib = self.bucket >= 1024
        return f"kmalloc-{self.bucket // 1024}k" if kib else f"kmalloc-{self.bucket}"


def freed_by(obj) -> int:
    """The op that frees a live handle."""
    return ev.FREE if obj.slab else ev.PAGE_FREE if obj.block else ev.PERCPU_FREE
