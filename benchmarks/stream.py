"""The stream of events that throughput is measured on, and the simulated machine it is for.

First `live` objects are allocated (the fill), then allocs and frees alternate at random around that
number: victims are random, seven of eight are freed on the CPU that allocated them, and a CPU works
for one group for sixteen events on average.  Handles are dense and reused last in, first out.
"""

from typing import NamedTuple

import numba
import numpy as np

from kmbench.core.events import (
    ALLOC,
    EVENT,
    FREE,
    GFP_KERNEL,
    SLAB_ACCOUNT,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_TYPESAFE_BY_RCU,
)
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup

ERA = "6.18"
CPUS = 2
INTERVAL = 50  # ns of model time between events
_A, _R, _U = SLAB_ACCOUNT, SLAB_RECLAIM_ACCOUNT, SLAB_TYPESAFE_BY_RCU

# name, object size, slot size, flags: as found on Linux 6.18 x86_64 with 2 CPUs
CACHES = (
    ("dentry", 192, 192, _A | _R),
    ("inode_cache", 616, 624, _A | _R),
    ("ext4_inode_cache", 1120, 1128, _A | _R),
    ("radix_tree_node", 576, 584, _A | _R),
    ("filp", 184, 192, _A | _U),
    ("vm_area_struct", 192, 192, _A | _U),
    ("anon_vma", 96, 104, _A | _U),
    ("anon_vma_chain", 64, 64, _A),
    ("maple_node", 256, 256, 0),
    ("skbuff_head_cache", 224, 256, 0),
    ("kernfs_node_cache", 136, 136, 0),
    ("lsm_file_cache", 24, 24, 0),
    ("lsm_inode_cache", 32, 32, 0),
    ("vmap_area", 72, 72, 0),
    ("ext4_extent_status", 40, 40, 0),
    ("jbd2_journal_head", 112, 120, 0),
)


class Stream(NamedTuple):
    """A setup and its events; ``events[:fill]`` bring the live objects up to their number."""

    setup: Setup
    events: np.ndarray
    fill: int


@numba.njit(nogil=True, cache=True)
def _draw(state):
    """Next 32 random bits (a 64-bit LCG's high half)."""
    state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return np.int64(state[0] >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def _write(events, fill, live, slack, nr_caches, nr_groups, nr_cpus, seed):
    """Write the whole stream; handles are 1 .. live + slack."""
    state = np.full(1, seed, np.uint64)
    pool = np.zeros(live + slack, np.int32)  # live handles, in no order
    unused = np.zeros(live + slack, np.int32)  # handles not in use; the last one is next
    for i in range(live + slack):
        unused[i] = live + slack - i
    nr_unused = live + slack
    alloc_cpu = np.zeros(live + slack + 1, np.uint8)
    group = np.full(nr_cpus, 2, np.int32)
    nr = 0
    for i in range(len(events)):
        bits = _draw(state)
        cpu = (bits & 0xFFFF) * nr_cpus >> 16
        if bits >> 16 & 15 == 0:
            group[cpu] = 2 + (_draw(state) * nr_groups >> 32)
        e = events[i]
        e["t"] = (i + 1) * INTERVAL
        if i < fill or nr <= live - slack or (nr < live + slack and bits >> 20 & 1):
            nr_unused -= 1
            obj = unused[nr_unused]
            pool[nr] = obj
            nr += 1
            alloc_cpu[obj] = cpu
            e["op"] = ALLOC
            e["cache"] = 1 + (_draw(state) * nr_caches >> 32)
            e["gfp"] = GFP_KERNEL
        else:
            at = _draw(state) * nr >> 32
            obj = pool[at]
            nr -= 1
            pool[at] = pool[nr]
            unused[nr_unused] = obj
            nr_unused += 1
            if bits >> 21 & 7:
                cpu = np.int64(alloc_cpu[obj])
            e["op"] = FREE
        e["obj"] = obj
        e["cpu"] = cpu
        e["memcg"] = group[cpu]
        e["task"] = group[cpu]
    return nr


def make_setup(live: int, groups: int = 64) -> Setup:
    """The machine: 16 caches and kmalloc, `groups` below the root, memory for `live` and more."""
    caches = [
        make_cache(name, object_size, era=ERA, cpus=CPUS, flags=flags, size=size)
        for name, object_size, size, flags in CACHES
    ]
    used = live * sum(c.size for c in caches) // len(caches)
    pages = max(1 << 14, 3 * used // 2 // 4096 + 16 * groups)
    return Setup(
        Machine(cpus=CPUS, memory_pages=-(-pages // 1024) * 1024),
        ERA,
        (*caches, *kmalloc_caches(ERA, CPUS)),
        (GroupSpec("/", 0), *(GroupSpec(f"/g{i}") for i in range(groups))),
        live + _slack(live) + 1,
    )


def _slack(live: int) -> int:
    return max(live // 64, 8)


def make_stream(live: int, nr_events: int, groups: int = 64, seed: int = 1) -> Stream:
    """`nr_events` of the steady state at `live` objects, after the fill; always the same ones."""
    events = np.zeros(live + nr_events, EVENT)
    _write(events, live, live, _slack(live), len(CACHES), groups, CPUS, seed)
    return Stream(make_setup(live, groups), events, live)
