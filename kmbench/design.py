"""What a design does, in few words: facts that stand beside the code that makes them true.

A strategy declares facts (``Strategy.design``), most of them worked out from the choices that it is
put together from; what the host's memory controller does for it follows from its ``Accounting``.
The page ``docs/designs.md`` is made of nothing else.
"""

from collections.abc import Callable
from typing import NamedTuple

from kmbench.core.build import Accounting
from kmbench.core.charge import reclaim_group
from kmbench.core.events import (
    CTX_DYING,
    CTX_INTERRUPT,
    CTX_KTHREAD,
    CTX_MEMALLOC,
    GFP_HIGH,
    GFP_NOACCOUNT,
    GFP_NOFAIL,
)
from kmbench.core.groups import css_gone
from kmbench.core.memcg import counter_charge, refill_stock

__all__ = ["MEASURED", "ROWS", "Fact", "accounting_facts", "limit_reclaim", "words"]

ROWS = {
    "selection": "what is accounted",
    "owner": "charged group",
    "unit": "unit of charge",
    "caches": "caches",
    "meanwhile": "until there is a copy",
    "contexts": "contexts left out",
    "alloc_path": "accounted alloc, fast path",
    "free_path": "accounted free, fast path",
    "charge_point": "charged",
    "counters": "counters, in order",
    "counter_kind": "a level of a counter",
    "limit": "over a limit",
    "limit_reclaim": "a kernel charge over it reclaims",
    "user_reclaim": "a user page over it reclaims",
    "stock": "page stock",
    "byte_stock": "byte stock",
    "deletion": "removed group",
    "ids": "its id",
    "root": "root",
    "unused": "unused: no group but the root",
}
"""Rows of the page, in order: key -> heading.  Keys of ``Strategy.design``."""

MEASURED = ("alloc_path", "free_path", "unused")
"""Rows that are counted operations of a run, not declared."""


class Fact(NamedTuple):
    """A cell: what holds, and the function that makes it so."""

    text: str
    code: Callable


_BITS = {
    CTX_INTERRUPT: "interrupt",
    CTX_KTHREAD: "kthread",
    GFP_NOFAIL: "NOFAIL",
    GFP_HIGH: "ATOMIC",
    GFP_NOACCOUNT: "NOACCOUNT",
    CTX_DYING: "dying task",
    CTX_MEMALLOC: "PF_MEMALLOC",
}


def words(bits: int) -> str:
    """Names of gfp and context bits, comma separated; ``none`` if there are none."""
    return ", ".join(name for bit, name in _BITS.items() if bits & bit) or "none"


def limit_reclaim(
    accounting: Accounting, by_memory: bool, kmem_limit: bool = True
) -> dict[str, Fact]:
    """What a charge of kernel memory does before it fails, where the run models reclaim.

    `by_memory`: it is charged to the memory counter, not to one of its own alone; `kmem_limit`:
    also to a kmem counter whose limit counts.
    """
    if not by_memory:
        return {"limit_reclaim": Fact("nothing", counter_charge)}
    kmem = "; at the kmem limit nothing" if kmem_limit else ""
    text = f"at the memory limit {_reclaimed(accounting)}{kmem}"
    return {"limit_reclaim": Fact(text, reclaim_group)}


def _reclaimed(accounting: Accounting) -> str:
    return "user pages, slab objects" if accounting.slab_reclaim else "user pages"


def accounting_facts(accounting: Accounting) -> dict[str, Fact]:
    """What the host does for a strategy that asks for this."""
    slots, batch = accounting.stock_slots, accounting.stock_batch
    stock = f"{slots} slot{'s' * (slots > 1)} x {batch} pages a CPU"
    return {
        "counter_kind": Fact(
            "res_counter: spin lock" if accounting.counter_locked else "page_counter: atomic",
            counter_charge,
        ),
        "stock": Fact(
            (stock + (", one page at a time" if accounting.stock_single else ""))
            if slots
            else "none",
            refill_stock,
        ),
        "user_reclaim": Fact(_reclaimed(accounting), reclaim_group),
        "ids": Fact(
            "kept while anything pins the group"
            if accounting.zombies_hold_ids
            else "free at removal",
            css_gone,
        ),
    }
