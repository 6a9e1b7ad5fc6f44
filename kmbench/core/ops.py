"""What a hook may call and use: the core's operations for strategies, in one place."""

from kmbench.core.allocator import attach_slab, detach_slab, flush_cache, reaps, shrink_cache
from kmbench.core.events import (
    CAUSE_CHARGE,
    CAUSE_DYING,
    CAUSE_INTERRUPT,
    CAUSE_KTHREAD,
    CAUSE_MM_OWNER,
    CAUSE_NOFAIL,
    CAUSE_NOT_SELECTED,
    CAUSE_PENDING,
    CAUSE_REMOVED,
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
    GFP_KERNEL,
    GFP_NOACCOUNT,
    GFP_NOFAIL,
    PAGES_KMALLOC,
    PAGES_STACK,
    SLAB_ACCOUNT,
    SLAB_KMALLOC,
    SLAB_RECLAIM_ACCOUNT,
)
from kmbench.core.groups import (
    copy_of,
    css_get,
    css_pin,
    css_put,
    css_unpin,
    destroy_copy,
    make_copy,
    move_slab,
    online_ancestor,
    rebill_copy,
    reparent,
)
from kmbench.core.jit import by_table, inlined, outlined
from kmbench.core.joints import reclaim, shrink
from kmbench.core.lines import read_line, write_line
from kmbench.core.memcg import (
    count,
    counter_add,
    counter_charge,
    counter_force,
    counter_note,
    counter_uncharge,
    drain_all_stock,
    is_below,
    refill_stock,
    try_charge,
)
from kmbench.core.objects import NOMEM, ask_vector, holder, unbilled_as
from kmbench.core.paths import PLUGIN_PATH, Ops, Path
from kmbench.core.rng import below, next_u32
from kmbench.core.slab_pages import SMALLER
from kmbench.core.state import FULL, LINE, OFFLINE, ONLINE
from kmbench.core.tables import table
from kmbench.core.work import defer_work, schedule_work

__all__ = [
    "CAUSE_CHARGE", "CAUSE_DYING", "CAUSE_INTERRUPT", "CAUSE_KTHREAD", "CAUSE_MM_OWNER",
    "CAUSE_NOFAIL", "CAUSE_NOT_SELECTED", "CAUSE_PENDING", "CAUSE_REMOVED", "CAUSE_VECTOR",
    "COUNTER_KMEM", "COUNTER_MEMORY", "CTX_DYING", "CTX_INTERRUPT", "CTX_KTHREAD", "CTX_MEMALLOC",
    "FULL", "GFP_ACCOUNT", "GFP_DIRECT_RECLAIM", "GFP_HIGH", "GFP_KERNEL", "GFP_NOACCOUNT",
    "GFP_NOFAIL", "LINE", "NOMEM", "OFFLINE", "ONLINE", "Ops", "PAGES_KMALLOC", "PAGES_STACK",
    "PLUGIN_PATH", "Path", "SLAB_ACCOUNT", "SLAB_KMALLOC", "SLAB_RECLAIM_ACCOUNT", "SMALLER",
    "ask_vector", "attach_slab", "below", "by_table", "copy_of", "count", "counter_add",
    "counter_charge", "counter_force", "counter_note", "counter_uncharge", "css_get", "css_pin",
    "css_put", "css_unpin", "defer_work", "destroy_copy", "detach_slab", "drain_all_stock",
    "flush_cache", "holder", "inlined", "is_below", "make_copy", "move_slab", "next_u32",
    "online_ancestor", "outlined", "read_line", "reaps", "rebill_copy", "reclaim", "refill_stock",
    "reparent", "schedule_work", "shrink", "shrink_cache", "table", "try_charge", "unbilled_as",
    "write_line",
]  # fmt: skip
