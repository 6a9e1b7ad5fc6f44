"""Choices that both kinds of composition have."""

from dataclasses import replace

from kmbench.core.events import (
    CTX_DYING,
    CTX_INTERRUPT,
    CTX_KTHREAD,
    CTX_MEMALLOC,
    GFP_ACCOUNT,
    GFP_NOACCOUNT,
    GFP_NOFAIL,
)
from kmbench.parameters import Parameter
from kmbench.strategy import Strategy
from kmbench_policies.selection import ALL, FLAGGED, mark_selected

WHAT = {
    "flagged": FLAGGED,  # Vladimir Davydov's whitelist, 2015
    "all": ALL,  # Souhlal's first version; 3.8
    "dentries": ("dentry", "*inode*"),  # opt-in, as proposed in February 2012
}
CONTEXTS = {
    "process": CTX_INTERRUPT | CTX_KTHREAD,
    "willing": CTX_INTERRUPT | CTX_KTHREAD | GFP_NOFAIL | CTX_DYING,  # 3.8
}
FORCES = GFP_NOFAIL | CTX_DYING | CTX_MEMALLOC

SELECTION = Parameter("selection", "flagged", "what is accounted", choices=tuple(WHAT))
CONTEXT = Parameter(
    "contexts", "process", "all processes, or those that may fail", choices=tuple(CONTEXTS)
)
FORCE = Parameter("forces", True, "__GFP_NOFAIL and dying tasks go over the limit")
LOCKED = Parameter("locked", False, "res_counter (a lock a level), not page_counter (an atomic)")


def select_gfp(selection: str) -> int:
    """gfp bits that are accounted in any cache."""
    return GFP_ACCOUNT if selection == "flagged" else 0


def exempt(given: dict) -> int:
    """gfp and context bits that are not accounted."""
    return CONTEXTS[given["contexts"]] | (GFP_NOACCOUNT if given["selection"] == "all" else 0)


def with_selection(strategy: Strategy) -> Strategy:
    """`strategy` with the caches accounted that its parameter ``selection`` stands for."""

    def prepare(S, P, setup, given):
        strategy.prepare(S, P, setup, given)
        wanted = WHAT[given["selection"]]
        mark_selected(P, setup, wanted, wanted, strategy.name)

    return replace(strategy, prepare=prepare)
