"""What a group pays for one system call: predicted by the engine, measured on Linux 6.18.

The object mixes are those that the kernel's own counters show per call; the bytes are the growth
of memory.kmem.usage_in_bytes over 600 to 8000 calls, divided by their number.
"""

from typing import NamedTuple

import numpy as np

from kmbench.core.events import (
    ALLOC,
    CTX_SOFTIRQ,
    EVENT,
    GFP_ATOMIC,
    GFP_KERNEL,
    GFP_KERNEL_ACCOUNT,
    MARK,
    SAMPLE,
    SLAB_ACCOUNT,
)
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.sample import TIMELINE_COLUMNS
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.plugins import Plugins, load_plugins
from kmbench.simulate import Simulation

CALLS = 8000
TOLERANCE = 0.002
_PAGES = 4 << 18

# cache -> slot size of Linux 6.18; all of them SLAB_ACCOUNT except those in _FREE_OF_CHARGE
_SLOTS = {
    "dentry": 192, "filp": 192, "sock_inode_cache": 832, "inode_cache": 624, "TCP": 2368,
    "UDP": 1344, "UNIX": 1152, "shmem_inode_cache": 752, "ext4_inode_cache": 1128,
    "buffer_head": 104, "vm_area_struct": 192, "kmalloc-cg-1k": 1024, "kmalloc-cg-192": 192,
    "tcp_bind_bucket": 128, "lsm_file_cache": 24, "lsm_inode_cache": 32, "maple_node": 256,
}  # fmt: skip
_FREE_OF_CHARGE = ("lsm_file_cache", "lsm_inode_cache", "maple_node")


class Operation(NamedTuple):
    """A system call: objects it leaves behind, and what they were charged as."""

    name: str
    objects: dict[str, float]  # cache -> objects a call; less than 1: one in so many calls
    measured: float  # bytes a call
    softirq: tuple[str, ...] = ()  # of these caches one object a call is made in softirq


OPERATIONS = (
    Operation("eventfd", {"dentry": 1, "filp": 1, "kmalloc-64": 1, "lsm_file_cache": 1}, 399.9),
    Operation("epoll_create", {"dentry": 1, "filp": 1, "kmalloc-256": 1, "lsm_file_cache": 1},
              399.9),
    Operation("open, existing file", {"filp": 1, "lsm_file_cache": 1}, 200.2),
    Operation("stat, missing name", {"dentry": 1}, 200.1),
    Operation("mmap, not merged", {"vm_area_struct": 1, "maple_node": 0.8}, 200.2),
    Operation("tmpfs file", {"shmem_inode_cache": 1, "dentry": 1, "lsm_inode_cache": 1}, 960.0),
    Operation("ext4 file, empty",
              {"ext4_inode_cache": 1, "dentry": 1, "lsm_inode_cache": 1, "buffer_head": 1 / 16},
              1344.0),
    Operation("pipe", {"inode_cache": 1, "dentry": 1, "filp": 2, "kmalloc-cg-1k": 1,
                       "kmalloc-cg-192": 1, "lsm_file_cache": 2, "lsm_inode_cache": 1}, 2463.7),
    Operation("udp socket", {"UDP": 1, "sock_inode_cache": 1, "dentry": 1, "filp": 1,
                             "lsm_inode_cache": 1, "lsm_file_cache": 1, "kmalloc-64": 1}, 2592.3),
    Operation("tcp socket", {"TCP": 1, "sock_inode_cache": 1, "dentry": 1, "filp": 1,
                             "lsm_inode_cache": 1, "lsm_file_cache": 1}, 3616.3),
    Operation("unix socketpair", {"UNIX": 2, "sock_inode_cache": 2, "dentry": 2, "filp": 2},
              4799.5),
    # the accepted socket is made in softirq, which charges nobody
    Operation("tcp connection", {"TCP": 2, "sock_inode_cache": 2, "dentry": 2, "filp": 2,
                                 "tcp_bind_bucket": 2, "lsm_inode_cache": 2, "lsm_file_cache": 2},
              5126.8, softirq=("TCP",)),
)  # fmt: skip


class Bill(NamedTuple):
    """Bytes that one call is charged."""

    name: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative error."""
        return self.predicted / self.measured - 1

    @property
    def passed(self) -> bool:
        """Whether the error is within TOLERANCE."""
        return abs(self.error) <= TOLERANCE


def _setup() -> Setup:
    caches = [
        make_cache(name, size, size=size, flags=0 if name in _FREE_OF_CHARGE else SLAB_ACCOUNT)
        for name, size in _SLOTS.items()
    ]
    groups = (GroupSpec("/", 0), *(GroupSpec(f"/{op.name}") for op in OPERATIONS))
    objects = CALLS * sum(
        sum(-int(-count // 1) for count in op.objects.values()) for op in OPERATIONS
    )
    return Setup(
        Machine(memory_pages=_PAGES), "6.18", (*caches, *kmalloc_caches()), groups, objects + 1
    )


def _events(setup: Setup, op: Operation, memcg: int, first: int) -> np.ndarray:
    """CALLS calls of `op` on CPU 0 by a task of `memcg`; handles from `first` on."""
    row = {cache.name: i for i, cache in enumerate(setup.caches, 1)}
    parts = []
    for name, count in op.objects.items():
        made = int(np.ceil(count))
        events = np.zeros((CALLS, made), EVENT)
        events["cache"] = row[name]
        accounted = name in _SLOTS and name not in _FREE_OF_CHARGE
        events["gfp"] = GFP_KERNEL_ACCOUNT if accounted else GFP_KERNEL
        if name in op.softirq:
            events["gfp"][:, 0] = GFP_ATOMIC | CTX_SOFTIRQ
        events["op"] = ALLOC
        if count < 1:  # at call i when the whole number below i * count goes up
            steps = np.floor(np.arange(CALLS + 1) * count + 1e-9)
            events["op"][steps[1:] == steps[:-1]] = MARK
        parts.append(events)
    out = np.concatenate(parts, axis=1).ravel()
    out["memcg"] = memcg
    out["obj"] = np.arange(first, first + len(out))
    return out


def billing(plugins: Plugins | None = None, strategy: str = "linux-6.18") -> list[Bill]:
    """Bytes charged per call, by the engine and on the machine, for every operation."""
    setup = _setup()
    simulation = Simulation(setup, (plugins or load_plugins()).strategy(strategy))
    handle = 1
    for memcg, op in enumerate(OPERATIONS, 2):
        events = _events(setup, op, memcg, handle)
        handle += len(events)
        simulation.feed(events)
    sample = np.zeros(1, EVENT)
    sample["op"] = SAMPLE
    simulation.feed(sample)
    t = dict(zip(TIMELINE_COLUMNS, simulation.tables()[0], strict=True))
    charged = dict(zip(t["memcg"].tolist(), t["kmem_usage"].tolist(), strict=True))
    return [
        Bill(op.name, op.measured, charged[memcg] / CALLS) for memcg, op in enumerate(OPERATIONS, 2)
    ]
