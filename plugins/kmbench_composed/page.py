"""Compositions with per-memcg copies of caches, charged by the page."""

from kmbench.core.build import Accounting
from kmbench.core.events import GFP_ACCOUNT, PAGES_KMALLOC, PAGES_STACK
from kmbench.core.paths import Ops
from kmbench.parameters import Parameter
from kmbench_composed.common import (
    CONTEXT,
    FORCE,
    FORCES,
    LOCKED,
    SELECTION,
    WHAT,
    exempt,
    select_gfp,
    with_selection,
)
from kmbench_policies.copies import OWN, PARENT
from kmbench_policies.page_unit import Choices, page_unit
from kmbench_policies.pages import KMEM_FIRST, KMEM_ONLY, MEMORY_FIRST
from kmbench_policies.removal import DROPPED, REPARENTED, ZOMBIE

ORDER = {"memory-first": MEMORY_FIRST, "kmem-first": KMEM_FIRST, "kmem": KMEM_ONLY}
REMOVAL = {
    "reparented": {"removal": REPARENTED, "late": PARENT, "deactivate": True},
    "zombie": {"removal": ZOMBIE, "late": OWN, "slabs_pin": True},
    "zombie-shrunk": {
        "removal": ZOMBIE, "late": PARENT, "slabs_pin": True, "at_once": True, "deactivate": True,
    },
    "dropped": {"removal": DROPPED},
    "to-root": {"removal": DROPPED, "to_root": True},
}  # fmt: skip
COPIES = {
    "work": {},
    "work-once": {"dedup": True},
    "sleepers": {"sync": True, "dedup": True},  # at once where the allocation may sleep
}


def choices(given: dict) -> Choices:
    """The choices that the parameters make."""
    selection = given["selection"]
    kinds = 1 << PAGES_STACK | 1 << PAGES_KMALLOC if selection == "all" else 0
    return Choices(
        counters=ORDER[given["order"]],
        before_pages=given["before_pages"],
        exempt=exempt(given),
        select_gfp=select_gfp(selection),
        page_kinds=kinds,
        page_gfp=GFP_ACCOUNT if selection == "flagged" else 0,
        **REMOVAL[given["removed"]],
        **COPIES[given["copies"]],
    )


def accounting(given: dict) -> Accounting:
    """What the memory controller does."""
    return Accounting(
        stock_slots=int(given["stock"]), stock_batch=32, counter_locked=given["locked"],
        forces=FORCES if given["forces"] else 0,
    )  # fmt: skip


composed_page = with_selection(page_unit(
    choices,
    caches=WHAT["flagged"],
    select_ops=Ops(br=3, ptr=3, rcu=1, call=1),
    free_ops=Ops(br=1, ptr=1),
    accounting=accounting,
    parameters=(
        SELECTION,
        CONTEXT,
        Parameter("copies", "work", "when a copy is made", choices=tuple(COPIES)),
        Parameter("order", "memory-first", "counters, in order", choices=tuple(ORDER)),
        Parameter("before_pages", False, "slabs are charged before their pages are had"),
        Parameter("removed", "reparented", "a removed group's copies", choices=tuple(REMOVAL)),
        Parameter("stock", True, "a page stock on each CPU"),
        FORCE,
        LOCKED,
    ),
    name="composed-page",
    description="per-memcg copies of caches, slabs charged; the rest is parameters",
    source="a composition of policies",
))  # fmt: skip
