"""Suleiman Souhlal, "[PATCH 00/10] memcg: Kernel Memory Accounting", 27 February 2012, and its v2,
"[PATCH v2 00/13]", 9 March 2012.

A group's copies of caches are made when it first allocates from them; slabs are charged before
their pages are had, to the counter kmem_bytes and, unless kernel memory is limited on its own, to
the memory counter before it.  A removed group loses its copies ("dead" caches) and what they were
charged.

v1 accounts every cache (patch 3/10 "memcg: Slab accounting."), but not what has __GFP_NOACCOUNT
(4/10).  Allocations that may sleep make the copy on the spot, others queue it, once a copy (4/10).
A dying task's charge bypasses the group: ``kmem_bypassed``.  v2 accounts caches with
SLAB_MEMCG_ACCT, that is the dentry and the kmalloc caches; all copies are made by work items; a
dying task is charged over the limit.

A group's copies are an array of 300 pointers (v2: 400), one a root cache: the cache after the last
is a BUG in both versions, whatever it is for, and here an error.

Both were written for SLAB, whose cache_reap drains dead copies.  On SLUB, ours: a work item shrinks
them.
Where a run models reclaim, a full memory counter reclaims user pages; no slab object is freed.

Removal: by the patches (2/10, 5/10) the charge goes to the root only with
CONFIG_CGROUP_MEM_RES_CTLR_KMEM_ACCT_ROOT, else to nobody; the cover letter says "moved to the
root".  ``acct_root`` is that option, by which the root's tasks have copies and charges too;
``charge_to_root`` follows the cover letter.
"""

from kmbench.core.build import Accounting
from kmbench.core.events import CTX_DYING, CTX_INTERRUPT, CTX_KTHREAD, GFP_NOACCOUNT, GFP_NOFAIL
from kmbench.core.paths import Ops
from kmbench.parameters import Parameter
from kmbench_policies.page_unit import Choices, page_unit
from kmbench_policies.pages import KMEM_ONLY, MEMORY_FIRST
from kmbench_policies.removal import DROPPED
from kmbench_policies.selection import ALL

MEMCG_ACCT = ("dentry", "kmalloc-*")  # v2: caches created with SLAB_MEMCG_ACCT
EXEMPT = CTX_INTERRUPT | CTX_KTHREAD | GFP_NOFAIL
# MAX_KMEM_CACHE_TYPES: kmem_cache_create gives each root cache a bit, BUG_ON if none is left
V1_TYPES, V2_TYPES = (
    Parameter("max_types", nr, "root caches there may be; 0 = any number", minimum=0)
    for nr in (300, 400)
)
INDEPENDENT = Parameter("independent", False, "memory.kmem.independent_kmem_limit: kmem alone")
TO_ROOT = Parameter("charge_to_root", False, "a removed group's charge goes to the root")
ACCT_ROOT = Parameter("acct_root", False, "..._KMEM_ACCT_ROOT: the root is accounted too")
FREE_OPS = Ops(br=1, ptr=1, atom=2)  # the copy's reference, taken and dropped around each free

souhlal_2012_v1 = page_unit(
    lambda p: Choices(
        counters=KMEM_ONLY if p["independent"] else MEMORY_FIRST,
        removal=DROPPED,
        before_pages=True,
        exempt=EXEMPT | GFP_NOACCOUNT,
        sync=True,
        dedup=True,
        bypass=True,
        to_root=p["charge_to_root"] or p["acct_root"],
        acct_root=p["acct_root"],
        on=True,
    ),
    caches=ALL,
    select_ops=Ops(br=4, ptr=3, rcu=1, call=1),
    free_ops=FREE_OPS,
    accounting=lambda p: Accounting(
        stock_slots=1, stock_batch=32, stock_single=True, counter_locked=True, forces=0
    ),
    parameters=(INDEPENDENT, TO_ROOT, ACCT_ROOT, V1_TYPES),
    name="souhlal-2012-v1",
    description="all caches copied when first used, slabs charged, dropped at removal",
    source='Suleiman Souhlal, "[PATCH 00/10] memcg: Kernel Memory Accounting", 27 Feb 2012',
    by_mm=True,
    copy_name="{cache}({group})",
    dead_suffix="dead",
)

souhlal_2012_v2 = page_unit(
    lambda p: Choices(
        counters=KMEM_ONLY if p["independent"] else MEMORY_FIRST,
        removal=DROPPED,
        before_pages=True,
        exempt=EXEMPT,
        dedup=True,
        to_root=p["charge_to_root"],
        on=True,
    ),
    caches=MEMCG_ACCT,
    select_ops=Ops(br=4, ptr=3, rcu=1, call=1),
    free_ops=FREE_OPS,
    accounting=lambda p: Accounting(
        stock_slots=1, stock_batch=32, stock_single=True, counter_locked=True, forces=CTX_DYING
    ),
    parameters=(
        Parameter("caches", list(MEMCG_ACCT), "caches with SLAB_MEMCG_ACCT, as patterns"),
        INDEPENDENT,
        TO_ROOT,
        V2_TYPES,
    ),
    name="souhlal-2012-v2",
    description="flagged caches copied by work items, slabs charged, dropped at removal",
    source='Suleiman Souhlal, "[PATCH v2 00/13] memcg: Kernel Memory Accounting", 9 Mar 2012',
    by_mm=True,
    copy_name="{cache}({group})",
    dead_suffix="dead",
)
