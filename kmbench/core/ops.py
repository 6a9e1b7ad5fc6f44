"""What a hook may call and use: the core's operations for strategies, in one place."""

from kmbench.core.events import (
    CAUSE_CHARGE,
    CAUSE_DYING,
    CAUSE_INTERRUPT,
    CAUSE_KTHREAD,
    CAUSE_NOFAIL,
    CAUSE_NOT_SELECTED,
    CAUSE_PENDING,
    CAUSE_VECTOR,
    COUNTER_KMEM,
    COUNTER_MEMORY,
    CTX_DYING,
    CTX_INTERRUPT,
    CTX_KTHREAD,
    CTX_MEMALLOC,
    GFP_ACCOUNT,
    GFP_DIRECT_RECLAIM,
    GFP_HIGH,
    GFP_NOFAIL,
    SLAB_ACCOUNT,
)
from kmbench.core.groups import (
    copy_of,
    destroy_copy,
    make_copy,
    move_partial_slabs,
    move_slab,
    online_ancestor,
    reparent,
)
from kmbench.core.jit import inlined, outlined
from kmbench.core.memcg import (
    count,
    counter_charge,
    counter_force,
    counter_uncharge,
    drain_all_stock,
    refill_stock,
    try_charge,
)
from kmbench.core.objects import NOMEM, ask_vector, holder, unbilled_as
from kmbench.core.paths import PLUGIN_PATH, Ops, Path
from kmbench.core.rng import below, next_u32
from kmbench.core.state import FULL, OFFLINE, ONLINE
from kmbench.core.tables import table

__all__ = [
    "CAUSE_CHARGE", "CAUSE_DYING", "CAUSE_INTERRUPT", "CAUSE_KTHREAD", "CAUSE_NOFAIL",
    "CAUSE_NOT_SELECTED", "CAUSE_PENDING", "CAUSE_VECTOR", "COUNTER_KMEM", "COUNTER_MEMORY",
    "CTX_DYING", "CTX_INTERRUPT", "CTX_KTHREAD", "CTX_MEMALLOC", "FULL", "GFP_ACCOUNT",
    "GFP_DIRECT_RECLAIM", "GFP_HIGH", "GFP_NOFAIL", "NOMEM", "OFFLINE", "ONLINE", "Ops",
    "PLUGIN_PATH", "Path", "SLAB_ACCOUNT", "ask_vector", "below", "copy_of", "count",
    "counter_charge", "counter_force", "counter_uncharge", "destroy_copy", "drain_all_stock",
    "holder", "inlined", "make_copy", "move_partial_slabs", "move_slab", "next_u32",
    "online_ancestor", "outlined", "refill_stock", "reparent", "table", "try_charge",
    "unbilled_as",
]  # fmt: skip
