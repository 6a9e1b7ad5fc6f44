"""The state that only a run with reclaim has, and how it is made (:mod:`kmbench.core.joints`)."""

from collections.abc import Callable
from functools import lru_cache
from math import isqrt
from typing import NamedTuple

import numpy as np
from numba.core import config

from kmbench.core.access import BUCKETS, PHASES
from kmbench.core.build import Accounting
from kmbench.core.fingerprint import fingerprint
from kmbench.core.geometry import ERAS
from kmbench.core.reclaim import RECLAIM
from kmbench.core.setup import Setup
from kmbench.core.shrink import LRU_RATIO, PRIORITY, PRIORITY_CAPPED
from kmbench.core.shrinkers import SHRINKER_HOOKS
from kmbench.core.specialise import Hooks, as_helper
from kmbench.core.state import UNLIMITED, State
from kmbench.core.tables import records, tables_class

# One record, S.vm[0].
VM = np.dtype(
    [
        (name, "i8")
        for name in (
            # watermarks, pages
            "wmark_min", "wmark_low", "wmark_high",
            # rules
            "rules", "at_least_batch", "bitmap", "memcg_aware", "charge_retries", "oom_needs_fs",
            "oom_at_once", "seeks", "batch", "lists", "superblocks", "count_referenced",
            "inode_cache", "inode_offset", "keep_less", "no_bail", "global_by_group",
            "posted_2012",
            # what things cost, ns
            "page_ns", "io_ns", "object_ns", "visit_ns", "hit_ns", "miss_ns", "fault_ns",
            "kswapd_delay",
            # now going on
            "busy", "cost", "cost_of", "phase", "target", "kswapd_due", "kswapd_prio",
            "kswapd_failures", "notify_due", "swap_free", "nr_user_pages",
            # counts
            "scanned_pages", "reclaimed_pages", "written_pages", "swapped_pages",
            "scanned_objects", "freed_objects", "freed_bytes", "freed_slab_pages", "visits",
            "target_bytes", "own_bytes", "damaged", "kswapd_turns", "direct_runs", "group_runs",
            "oom_kills", "wrong_kills", "stalls", "stall_ns", "failed_with_reclaimable",
            "unbilled_bytes",
            # what to compare: the group whose phase 1 was alone and whose phase 2 was not
            "victim",
        )
    ]
)  # fmt: skip

# A cached object, by handle.
ITEM = np.dtype(
    [
        ("next", "i4"),  # newer neighbour on its list
        ("prev", "i4"),  # older one
        ("on", "i4"),  # row of its list + 1; 0 = on none
        ("parent", "i4"),  # handle that it pins
        ("pins", "i4"),  # references, children included
        ("held", "i4"),  # those that PIN events took
        ("evicted", "i4"),  # ms + 1 when reclaim freed it; negative: in its own group's reclaim
        ("known", "u1"),  # allocated by an ACCESS and live
        ("referenced", "u1"),
        ("users", "u2"),  # bit n: ACCESS events of group row n + 1 found it; 15: of rows from 16 on
    ]
)
LIST = np.dtype([("oldest", "i4"), ("newest", "i4"), ("nr", "i8")])  # row owner * lists + kind
POOL = np.dtype([("oldest", "i4"), ("newest", "i4"), ("nr", "i8"), ("carry", "i8")])  # pfn + 1
USER = np.dtype(
    [
        ("swapped", "i8"),  # pages in swap
        ("unused", "i8"),  # cached objects of the group that nobody refers to
        ("kills", "i8"),
    ]
)
OWNER = np.dtype([("deferred", "i8"), ("bit", "i8")])  # of a shrinker's lists; row 0: of no group
# Row memcg * PHASES + phase: look-ups by what they came to, and ns of all operations but hits
STAT = np.dtype(
    [("misses", "i8"), ("hits", "i8"), ("failed", "i8"), ("returned", "i8"), ("spent", "i8")]
)
# Row (memcg * PHASES + phase) * BUCKETS + bucket: operations but hits, by the time they took
LATENCY = np.dtype([("nr", "i8")])


class Reclaim(NamedTuple):
    """How memory runs out: what a scenario says about reclaim."""

    swap_pages: int = 0
    keep_less: int = 900  # of 1000 scanned user pages, how many come free
    min_pages: int = 0  # watermark; 0 = as the kernel computes it
    page_ns: int = 250  # scanning a user page
    io_ns: int = 20_000  # writing a page, to its file or to swap
    object_ns: int = 200  # scanning a cached object
    visit_ns: int = 60  # asking one shrinker for one group
    hit_ns: int = 1_000  # looking up a cached object
    miss_ns: int = 100_000  # reading it from disk
    fault_ns: int = 1_000  # a page fault
    kswapd_delay_ns: int = 100_000  # until kswapd runs
    superblocks: int = 1  # shrinkers that are asked for every group (up to 4.18)
    inode_cache: str = ""  # cache of inodes that dentries pin; none by default


def watermarks(setup: Setup, min_pages: int) -> tuple[int, int, int]:
    """min, low and high in pages (6.18 mm/page_alloc.c:calculate_min_free_kbytes,
    __setup_per_zone_wmarks; 3.5 where the gap was a quarter of min)."""
    pages, page_size = setup.machine.memory_pages, setup.machine.page_size
    if not min_pages:
        kilobytes = min(max(isqrt(16 * (pages * page_size >> 10)), 128), 262144)
        min_pages = (kilobytes << 10) // page_size
    gap = min_pages // 4
    if list(ERAS).index(setup.era) >= list(ERAS).index("4.19"):
        gap = max(gap, pages * 10 // 10000)
    return min_pages, min_pages + gap, min_pages + 2 * gap


def reclaim_state(
    S: State,
    setup: Setup,
    accounting: Accounting,
    reclaim: Reclaim,
    shrinker,
    hooks: dict,
    P: tuple,
    Q: tuple,
    U: tuple,
) -> tuple:
    """The state of a run with reclaim: that of `S`, the tables of strategy, shrinker and listener,
    and as ``R`` all their hooks.

    `shrinker`: a :class:`kmbench.shrinker.Shrinker`.
    """  # fmt: skip
    groups, objects = len(S.memcg), len(S.obj)
    sizes = {
        "vm": (1, VM), "item": (objects, ITEM), "lru": (groups * shrinker.lists + 1, LIST),
        "pool": (groups * 3, POOL), "user": (groups, USER), "owner": (groups + 1, OWNER),
        "stat": (groups * PHASES, STAT), "latency": (groups * PHASES * BUCKETS, LATENCY),
    }  # fmt: skip
    tables = {name: records(nr, dtype) for name, (nr, dtype) in sizes.items()}
    vm = tables["vm"]
    eras = list(ERAS)
    at = eras.index(setup.era)
    vm["wmark_min"], vm["wmark_low"], vm["wmark_high"] = watermarks(setup, reclaim.min_pages)
    vm["rules"] = (
        LRU_RATIO if at < eras.index("4.19")
        else PRIORITY_CAPPED if at < eras.index("5.16")
        else PRIORITY
    )  # fmt: skip
    vm["at_least_batch"] = setup.era == "4.19"
    vm["bitmap"] = at >= eras.index("4.19")
    vm["oom_at_once"] = at < eras.index("4.5")
    vm["count_referenced"] = at >= eras.index("3.13")
    vm["no_bail"] = at < eras.index("3.13")
    vm["memcg_aware"] = vm["global_by_group"] = accounting.slab_reclaim
    vm["charge_retries"] = accounting.charge_retries
    vm["oom_needs_fs"] = accounting.oom_needs_fs
    vm["seeks"], vm["batch"], vm["lists"] = shrinker.seeks, shrinker.batch, shrinker.lists
    for name in (
        "keep_less", "page_ns", "io_ns", "object_ns", "visit_ns", "hit_ns", "miss_ns", "fault_ns",
        "superblocks",
    ):  # fmt: skip
        vm[name] = getattr(reclaim, name)
    vm["kswapd_delay"] = reclaim.kswapd_delay_ns
    vm["swap_free"] = reclaim.swap_pages
    vm["kswapd_due"] = vm["notify_due"] = UNLIMITED
    if reclaim.inode_cache:
        names = [cache.name for cache in setup.caches]
        vm["inode_cache"] = names.index(reclaim.inode_cache) + 1
        vm["inode_offset"] = setup.nr_objects // 2
    joined = {**SHRINKER_HOOKS, **shrinker.hooks, **RECLAIM, **hooks}
    R = _joined(tuple(sorted(joined.items())), config.BOUNDSCHECK)
    kept = {name: getattr(S, name) for name in S._fields if name != "R"}
    made = kept | tables | {"P": P, "Q": Q, "U": U, "R": R}
    return tables_class(tuple(made))(**made)


@lru_cache(maxsize=64)
def _joined(hooks: tuple[tuple[str, Callable], ...], bounds_checked: bool) -> Hooks:
    """``S.R`` with these functions by name; the same object for the same functions: engines are
    known by it, and a process loads each once."""
    helpers = {name: as_helper(function) for name, function in hooks}
    return Hooks(fingerprint(helpers.values(), tuple(helpers)), helpers)
