"""Mainline's per-memcg caches: Linux 3.8, 4.5 and 5.3.

``linux-3.8``: Glauber Costa, "[PATCH v5/v6] kmem controller for memcg / slab accounting", merged
for 3.8 (mm/memcontrol.c, mm/memcontrol.h, mm/page_alloc.c, mm/slab_common.c).  Every cache is
copied by a work item, queued by each allocation until the copy is there; kmem is charged before
memory, in the page allocator.  Stacks and large kmalloc are charged too.  Charges keep a removed
group alive, dead caches are shrunk once and keep their list limits.
A group accounts from the first write of its kmem limit (``all_groups=false``); recordings rarely
have one, so by default all groups do.  That the write is refused while the group has tasks is not
modelled.  The page allocator charges the current task's group, not the cache's owner; they differ
only if the task migrates within an allocation, which events cannot express.

``linux-4.5``: Vladimir Davydov, "memcg: switch to white list policy", November 2015 (a9bb7e620efd,
5d097056c9a0), and deactivation of dead caches (4.19 mm/slab_common.c:memcg_deactivate_kmem_caches,
mm/slub.c:__kmemcg_cache_deactivate).  Up to 5.2; charged after the pages, memory before kmem.

``linux-5.3``: Roman Gushchin, "mm: reparent slab memory on cgroup removal" v7, 11 June 2019 (5.3
mm/slab_common.c, mm/slab.h:memcg_charge_slab).  Up to 5.8.  Kernel pages still keep a removed group
alive.

``as_posted`` for the last two: a full kmem counter fails __GFP_NOFAIL charges as well (mended by
e55d9d9bfb69, "memcg, kmem: do not fail __GFP_NOFAIL charges", September 2019).
Up to 4.7 a removed group keeps its id as long as anything keeps it alive; 73f576c04b94, "mm:
memcontrol: fix cgroup creation failure after many small jobs", July 2016, gives it back at removal.

A full memory counter reclaims user pages up to 3.18, slab objects too since 4.0; a full kmem
counter never reclaims.
"""

from kmbench.core.build import Accounting
from kmbench.core.events import (
    CTX_DYING,
    CTX_INTERRUPT,
    CTX_KTHREAD,
    CTX_MEMALLOC,
    GFP_ACCOUNT,
    GFP_NOACCOUNT,
    GFP_NOFAIL,
    PAGES_KMALLOC,
    PAGES_STACK,
)
from kmbench.core.paths import Ops
from kmbench.parameters import Parameter
from kmbench_policies.copies import PARENT
from kmbench_policies.page_unit import Choices, page_unit
from kmbench_policies.pages import KMEM_FIRST, MEMORY_FIRST
from kmbench_policies.removal import REPARENTED, ZOMBIE
from kmbench_policies.selection import ALL, FLAGGED

FORCES = GFP_NOFAIL | CTX_DYING | CTX_MEMALLOC
EXEMPT_3_8 = CTX_INTERRUPT | CTX_KTHREAD | GFP_NOFAIL | CTX_DYING
AS_POSTED = Parameter("as_posted", False, "a full kmem counter fails __GFP_NOFAIL (up to 5.3)")
FREE_OPS = Ops(br=1, ptr=1)  # mm/slab.h:cache_from_obj looks at the page's cache
ZOMBIE_IDS = Parameter("zombies_hold_ids", True, "removed groups keep their id (up to 4.7)")
NAME = "{cache}({row}:{group})"  # 3.8 mm/memcontrol.c:memcg_cache_name, "%s(%d:%s)"


def _accounting(zombies_hold_ids: bool) -> Accounting:
    return Accounting(
        stock_slots=1,
        stock_batch=32,
        forces=FORCES,
        slab_reclaim=True,
        zombies_hold_ids=zombies_hold_ids,
    )


linux_3_8 = page_unit(
    lambda p: Choices(
        counters=KMEM_FIRST,
        removal=ZOMBIE,
        before_pages=True,
        exempt=EXEMPT_3_8 | (GFP_NOACCOUNT if p["noaccount"] else 0),
        page_kinds=1 << PAGES_STACK | 1 << PAGES_KMALLOC,
        slabs_pin=True,
        tests_frees=True,
        all_active=p["all_groups"],
    ),
    caches=ALL,
    select_ops=Ops(br=4, ptr=4, rcu=1, call=1),
    free_ops=FREE_OPS,
    accounting=lambda p: Accounting(
        stock_slots=1, stock_batch=32, stock_single=True, counter_locked=True, forces=0
    ),
    parameters=(
        Parameter("all_groups", True, "groups account without a kmem limit"),
        Parameter("noaccount", False, "__GFP_NOACCOUNT is left out (4.1 to 4.4)"),
    ),
    name="linux-3.8",
    description="all caches copied by work items, slabs charged, removed groups linger",
    source="Linux 3.8.13 mm/memcontrol.c, mm/slab_common.c (Glauber Costa, 2012)",
    by_mm=True,
    copy_name=NAME,
)


def _whitelisted(given: dict, **more) -> Choices:
    """What 4.5 to 5.8 have in common."""
    return Choices(
        counters=MEMORY_FIRST,
        before_pages=False,
        select_gfp=GFP_ACCOUNT,
        late=PARENT,
        kmem_nofail=not given["as_posted"],
        page_gfp=GFP_ACCOUNT,
        deactivate=True,
        tests_frees=True,
        **more,
    )


_WHITELIST = {
    "caches": FLAGGED,
    "select_ops": Ops(br=3, ptr=3, rcu=1, pcpu=2, call=2),  # the css reference, taken and dropped
    "free_ops": FREE_OPS,
    "copy_name": NAME,
}

linux_4_5 = page_unit(
    lambda p: _whitelisted(p, removal=ZOMBIE, slabs_pin=True, at_once=True),
    accounting=lambda p: _accounting(p["zombies_hold_ids"]),
    parameters=(AS_POSTED, ZOMBIE_IDS),
    name="linux-4.5",
    description="whitelisted caches copied by work items, slabs charged, removed groups linger",
    source="Linux 4.5, 4.19 mm/memcontrol.c, mm/slab_common.c (Vladimir Davydov, 2015)",
    **_WHITELIST,
)

linux_5_3 = page_unit(
    lambda p: _whitelisted(p, removal=REPARENTED),
    accounting=lambda p: _accounting(zombies_hold_ids=False),
    parameters=(AS_POSTED,),
    name="linux-5.3",
    description="whitelisted caches copied by work items, handed to the parent at removal",
    source="Linux 5.3.1 mm/memcontrol.c, mm/slab_common.c (Roman Gushchin, v7, June 2019)",
    **_WHITELIST,
)
