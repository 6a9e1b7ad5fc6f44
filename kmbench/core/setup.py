"""What the engine needs besides the stream: machine, caches, groups, and the state at the start."""

from typing import NamedTuple

import numpy as np


class Machine(NamedTuple):
    """The simulated machine."""

    cpus: int = 2
    nodes: int = 1
    memory_pages: int = 6 << 18  # 6 GiB of 4 KiB pages
    page_size: int = 4096
    rcu_delay_ns: int = 20_000_000  # until pages of a TYPESAFE_BY_RCU slab come back
    memcg_ids: int = 65535  # groups that can have an id at a time (MEM_CGROUP_ID_MAX)


class CacheSpec(NamedTuple):
    """A kmem_cache with its geometry already computed (:mod:`kmbench.core.geometry`)."""

    name: str
    size: int  # slot, bytes
    object_size: int
    order: int  # 2**order pages a slab
    objects: int  # objs_per_slab at that order
    min_order: int  # what is tried when memory is short
    min_partial: int  # slabs kept on a node's partial list
    cpu_partial: int  # objects a CPU's partial list may hold (eras up to 5.15); 0 = none
    cpu_partial_slabs: int  # slabs it may hold (5.16 and later)
    sheaf_capacity: int = 0  # 6.18 per-CPU sheaves; 0 = none
    flags: int = 0  # SLAB_* of kmbench.core.events


class SlabSpec(NamedTuple):
    """A kmem_cache of SLAB, laid out (:mod:`kmbench.core.slab_geometry`)."""

    name: str
    size: int
    object_size: int
    order: int
    objects: int
    limit: int  # objects that a CPU's array may hold
    batchcount: int  # objects that move between arrays and slabs at a time
    shared_limit: int  # objects that a node's shared array may hold; 0 = none
    management: int = 0  # bytes of a slab's management where it lies outside the slab
    flags: int = 0

    @property
    def min_order(self) -> int:
        """SLAB does not try smaller slabs."""
        return self.order


class GroupSpec(NamedTuple):
    """A memory cgroup; the position in ``Setup.groups`` + 1 is its row."""

    name: str
    parent: int = 1  # row; 0 only for the root itself
    memory_limit: int = -1  # pages; -1 = unlimited
    kmem_limit: int = -1
    online: bool = True  # False: a CG_CREATE event brings it up


# a slab that exists at the start; rows of one list stand in list order
INITIAL_SLAB = np.dtype(
    [
        ("cache", "i4"),
        ("objects", "i4"),
        ("inuse", "i4"),
        ("cpu_free", "i4"),  # where=CPU: free objects on the cpu freelist
        ("where", "u1"),  # 1 cpu slab, 2 cpu partial (newest first), 3 node partial, 4 full
        ("cpu", "u1"),
        ("vector", "u1"),  # 1: it has its obj_cgroup vector already, where a strategy has those
    ]
)

# an object that exists at the start and appears in the stream; nobody is billed for it, whatever
# was charged before the start is not part of a run
INITIAL_OBJECT = np.dtype(
    [
        ("obj", "i4"),
        ("slab", "i4"),  # 1-based row of the initial slabs
        ("owner", "i4"),  # memcg row; 0 = unknown
        ("req", "i4"),  # bytes asked
    ]
)

# objects that sit in a CPU's sheaves at the start, taken from a slab but not handed out
INITIAL_SHEAF = np.dtype([("cache", "i4"), ("slab", "i4"), ("cpu", "u1"), ("spare", "u1")])


MOST_GROUPS = 1 << 20  # that a workload may ask for: a kernel has ids for 65,535 at a time


class Setup(NamedTuple):
    """Input of one run: rows are 1-based, ``caches[0]`` is cache row 1, ``groups[0]`` the root.

    `caches` are CacheSpec, or SlabSpec where `allocator` is "slab".
    """

    machine: Machine
    era: str
    caches: tuple[CacheSpec | SlabSpec, ...]
    groups: tuple[GroupSpec, ...]
    nr_objects: int  # handles are 1 .. nr_objects-1
    initial_slabs: np.ndarray = np.zeros(0, INITIAL_SLAB)
    initial_objects: np.ndarray = np.zeros(0, INITIAL_OBJECT)
    initial_sheaves: np.ndarray = np.zeros(0, INITIAL_SHEAF)
    allocator: str = "slub"  # or "slab"
