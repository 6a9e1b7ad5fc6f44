"""KAMEZAWA Hiroyuki's suggestion in reply to Glauber Costa's patch 3/7, 22 February 2012.

What was said: a flag SLAB_MEMCG_AWARE for kmem_cache_create; kmem_cache_alloc finds the copy for
the current thread's group and makes it if there is none; a full group should be reclaimed from.  No
code was posted.

Our completion: the flag is on the dentry and inode caches (``caches``), copies are made where the
allocation may sleep, else by one work item each; slabs are charged before their pages, memory then
kmem; __GFP_NOFAIL and dying tasks go over the limit; removal drops the charge, as in Souhlal's
second version.  Where a run models reclaim, a full memory counter reclaims user pages.
"""

from kmbench.core.build import Accounting
from kmbench.core.events import CTX_DYING, GFP_NOFAIL
from kmbench.core.paths import Ops
from kmbench.parameters import Parameter
from kmbench_policies.page_unit import Choices, page_unit
from kmbench_policies.pages import MEMORY_FIRST
from kmbench_policies.removal import DROPPED

MEMCG_AWARE = ("dentry", "*inode*")

kamezawa_2012 = page_unit(
    lambda p: Choices(
        counters=MEMORY_FIRST,
        removal=DROPPED,
        before_pages=True,
        sync=True,
        dedup=True,
        on=True,
    ),
    caches=MEMCG_AWARE,
    select_ops=Ops(br=3, ptr=3, rcu=1, call=1),
    free_ops=Ops(br=1, ptr=1),
    accounting=lambda p: Accounting(
        stock_slots=1,
        stock_batch=32,
        stock_single=True,
        counter_locked=True,
        forces=GFP_NOFAIL | CTX_DYING,
    ),
    parameters=(Parameter("caches", list(MEMCG_AWARE), "caches with the flag, as patterns"),),
    name="kamezawa-2012",
    description="caches with a flag copied when first used, slabs charged",
    source="KAMEZAWA Hiroyuki, reply to [PATCH 3/7], 22 Feb 2012; the rest is completed",
    by_mm=True,
    copy_name="{cache}({group})",
)
