"""User beancounters: Pavel Emelianov and Kirill Korotaev, "UBC: kernel memory accounting (core)",
16 August 2006; OpenVZ kernel/bc/kmem.c.

Objects of caches with SLAB_UBC, kmalloc with __GFP_UBC and pages with __GFP_UBC are charged by
their bytes to ``kmemsize`` of the task's beancounter after they were allocated; a slab holds a
pointer to the payer of each object.  The flags of today, SLAB_ACCOUNT and __GFP_ACCOUNT, stand for
those.  What is charged keeps the beancounter alive: nothing is handed to a parent.

Ours: barrier and limit are one, the group's kmem limit (so the severities UB_HARD and UB_SOFT are
the same); __GFP_NOFAIL is UB_FORCE; beancounters did not nest, groups here do, so ancestors are
charged too.  The later precharge of a task or CPU is not part of the posting.  kmemsize counts
bytes; the kmem counter shows them rounded up to pages.
"""

from kmbench.core.build import Accounting
from kmbench.core.events import GFP_ACCOUNT, GFP_NOFAIL
from kmbench.core.paths import Ops
from kmbench_policies.byte_unit import Choices, byte_unit
from kmbench_policies.selection import FLAGGED

ubc_2006 = byte_unit(
    Choices(vectors=True, forces=GFP_NOFAIL, select_gfp=GFP_ACCOUNT, page_gfp=GFP_ACCOUNT),
    caches=FLAGGED,
    charge_ops=Ops(br=3, ptr=2, irq=1, spin=1, call=2),
    accounting=Accounting(counter_locked=True, vectors=True),
    name="ubc-2006",
    description="beancounters: flagged objects charged by the byte, caches shared",
    source='Emelianov and Korotaev, "UBC: kernel memory accounting (core)", 16 Aug 2006',
)
