"""What operations allocate: the slab mix of each, measured on Linux 6.18 (x86_64, two CPUs).

The counts are medians of three runs of 600 to 8000 operations, from the difference of active
objects in /proc/slabinfo; object sizes are those of the same kernel.  Page tables of a process are
what its group was charged beyond slab objects and the kernel stack.  A count that is not whole adds
up over operations: after N of them there are floor(N * count) objects.
"""

from typing import NamedTuple

from kmbench.core.events import (
    CTX_SOFTIRQ,
    GFP_ATOMIC,
    GFP_KERNEL,
    GFP_KERNEL_ACCOUNT,
    GFP_NOFS,
    PAGES_OTHER,
    PAGES_STACK,
    PAGES_TABLE,
    SLAB_ACCOUNT,
    SLAB_HWCACHE_ALIGN,
    SLAB_KMALLOC,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_TYPESAFE_BY_RCU,
)
from kmbench.core.geometry import kmalloc_caches, make_cache
from kmbench.core.setup import CacheSpec

A, R, U, H = SLAB_ACCOUNT, SLAB_RECLAIM_ACCOUNT, SLAB_TYPESAFE_BY_RCU, SLAB_HWCACHE_ALIGN
RX = GFP_ATOMIC | CTX_SOFTIRQ  # what the receiving softirq allocates


class Kind(NamedTuple):
    """A cache: bytes of an object, of its slot, and flags."""

    object_size: int
    slot: int
    flags: int = 0
    sheaf: int = 0


KINDS = {
    "dentry": Kind(192, 192, R | A),
    "inode_cache": Kind(616, 624, R | A),
    "ext4_inode_cache": Kind(1120, 1128, R | A),
    "shmem_inode_cache": Kind(744, 752, R | A),
    "proc_inode_cache": Kind(688, 696, R | A),
    "sock_inode_cache": Kind(768, 832, R | A),
    "lsm_inode_cache": Kind(32, 32),
    "lsm_file_cache": Kind(24, 24),
    "filp": Kind(184, 192, U | A),
    "buffer_head": Kind(104, 104, R | A),
    "ext4_extent_status": Kind(40, 40, R),
    "jbd2_journal_head": Kind(112, 120),
    "vm_area_struct": Kind(192, 192, U | A, 32),
    "maple_node": Kind(256, 256, 0, 32),
    "anon_vma": Kind(96, 104, U | A),
    "anon_vma_chain": Kind(64, 64, A),
    "task_struct": Kind(5840, 5888, A),
    "signal_cache": Kind(1152, 1152, A),
    "sighand_cache": Kind(2080, 2112, U | A),
    "mm_struct": Kind(1568, 1600, A),
    "files_cache": Kind(704, 704, A),
    "pid": Kind(184, 192, A),
    "TCP": Kind(2304, 2368, U | A),
    "UNIX": Kind(1152, 1152, A),
    "tcp_bind_bucket": Kind(128, 128, A),
    "eventpoll_epi": Kind(128, 128, A),
    "eventpoll_pwq": Kind(64, 64, A),
    "skbuff_head_cache": Kind(224, 256),
    "skbuff_fclone_cache": Kind(512, 512),
    "skbuff_small_head": Kind(576, 576),
    "kmalloc-cg-512": Kind(512, 512, SLAB_KMALLOC),
    "kmalloc-cg-2k": Kind(2048, 2048, SLAB_KMALLOC),
}


class Item(NamedTuple):
    """So many objects of a cache, or of blocks of 2**order kernel pages, in an operation."""

    what: str  # a cache of KINDS, or "stack", "page_table", "pages"
    count: float = 1
    gfp: int = GFP_KERNEL


PAGES = {"stack": (PAGES_STACK, 2), "page_table": (PAGES_TABLE, 0), "pages": (PAGES_OTHER, 0)}

_INODE = (Item("ext4_inode_cache", 1, GFP_NOFS), Item("dentry"), Item("lsm_inode_cache"))
_OPEN = (Item("filp"), Item("lsm_file_cache"))
_SOCKET = (Item("sock_inode_cache"), Item("dentry"), Item("lsm_inode_cache"), *_OPEN)

OPERATIONS: dict[str, tuple[Item, ...]] = {
    "name": (Item("dentry"),),
    "file": _INODE,
    "written file": (*_INODE, Item("buffer_head", 1, GFP_NOFS),
                     Item("ext4_extent_status", 2, GFP_NOFS)),
    "tmpfs file": (Item("shmem_inode_cache"), Item("dentry"), Item("lsm_inode_cache")),
    "open": _OPEN,
    "journal": (Item("jbd2_journal_head", 1, GFP_NOFS),),
    "process": (
        Item("task_struct"), Item("stack", 1, GFP_KERNEL_ACCOUNT), Item("vm_area_struct", 35),
        Item("filp", 15.4), Item("sighand_cache"), Item("mm_struct"), Item("signal_cache"),
        Item("anon_vma", 7.4), Item("anon_vma_chain", 11.4), Item("pid", 2.7),
        Item("maple_node", 5.4), Item("kmalloc-cg-2k", 1, GFP_KERNEL_ACCOUNT),
        Item("proc_inode_cache", 1.4), Item("files_cache", 0.7),
        Item("page_table", 12.3, GFP_KERNEL_ACCOUNT),
    ),
    "tcp socket": (Item("TCP"), *_SOCKET),
    "unix socketpair": tuple(Item(i.what, 2) for i in (Item("UNIX"), *_SOCKET)),
    "connection": (  # over loopback: the accepted end is made by the softirq
        Item("TCP"), Item("TCP", 1, RX), *(Item(i.what, 2) for i in _SOCKET),
        Item("tcp_bind_bucket", 2, GFP_KERNEL_ACCOUNT),
    ),
    "accepted": (Item("TCP", 1, RX), *_SOCKET, Item("eventpoll_epi"), Item("eventpoll_pwq")),
    "segment": (  # 1000 B that the sender has queued: 1000 B of a page, a header, the sk_buff
        Item("skbuff_fclone_cache"), Item("skbuff_small_head"), Item("pages", 0.244),
    ),
    "received": (Item("skbuff_head_cache", 1, RX), Item("skbuff_small_head", 1, RX)),
    "message": (  # af_unix has its buffers accounted since 4.7 (unix_create1)
        Item("skbuff_head_cache", 1, GFP_KERNEL_ACCOUNT),
        Item("kmalloc-cg-512", 1, GFP_KERNEL_ACCOUNT),
    ),
}  # fmt: skip

# bytes an operation on Linux 6.18: slab (slabinfo), and charged to its group (cgroup v1,
# memory.kmem.usage_in_bytes; 0 = not read)
MEASURED = {
    "name": (190, 200.1), "file": (1359, 1344.0), "written file": (1540, 0),
    "tmpfs file": (1024, 960.0), "open": (209, 200.2), "tcp socket": (3642, 3616.3),
    "unix socketpair": (4874, 4799.5), "connection": (7534, 5126.8), "process": (27872, 93504),
}  # fmt: skip


def caches_of(operations: list[str], era: str, cpus: int, page_size: int) -> list[CacheSpec]:
    """The caches that these operations use, in order of first use, then the kmalloc caches."""
    names = dict.fromkeys(
        item.what for name in operations for item in OPERATIONS[name] if item.what not in PAGES
    )
    return [
        *(
            make_cache(
                name, KINDS[name].object_size, size=KINDS[name].slot, flags=KINDS[name].flags,
                sheaf_capacity=KINDS[name].sheaf, era=era, cpus=cpus, page_size=page_size,
            )
            for name in names
        ),
        *kmalloc_caches(era, cpus, page_size),
    ]  # fmt: skip


def slab_bytes(operation: str) -> float:
    """Bytes of slots that an operation takes."""
    return sum(KINDS[i.what].slot * i.count for i in OPERATIONS[operation] if i.what not in PAGES)


def billed_bytes(operation: str) -> float:
    """Bytes that obj_cgroup (6.18) bills a group: objects, each with its pointer, and pages."""
    total = 0.0
    for item in OPERATIONS[operation]:
        account = item.gfp & GFP_KERNEL_ACCOUNT == GFP_KERNEL_ACCOUNT
        if item.what in PAGES:
            total += account * item.count * 4096 * (1 << PAGES[item.what][1])
        elif not item.gfp & CTX_SOFTIRQ and (account or KINDS[item.what].flags & A):
            total += item.count * (KINDS[item.what].slot + 8)
    return total
