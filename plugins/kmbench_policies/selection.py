"""What is accounted at all: which caches, which gfp flags, which contexts.

``P.selected[cache].on`` marks the selected root caches; objects of other caches are accounted when
their gfp has a bit of ``P.par[0].select_gfp``.  ``P.par[0].exempt`` holds the gfp and context bits
that keep an allocation out.
"""

from fnmatch import fnmatchcase

from kmbench.core.ops import (
    CAUSE_DYING,
    CAUSE_INTERRUPT,
    CAUSE_KTHREAD,
    CAUSE_NOFAIL,
    CAUSE_NOT_SELECTED,
    CTX_INTERRUPT,
    CTX_KTHREAD,
    GFP_NOACCOUNT,
    GFP_NOFAIL,
    SLAB_ACCOUNT,
    inlined,
    table,
)
from kmbench.design import Fact, words
from kmbench.errors import unknown

TABLES = {"selected": table("cache", on="i4")}
ALL = ("*",)  # opt-out designs: all but what has __GFP_NOACCOUNT
FLAGGED = "SLAB_ACCOUNT"  # caches with the flag, and allocations with __GFP_ACCOUNT


@inlined
def selected(P, cache, gfp):
    """Whether objects of a root cache are accounted."""
    return P.selected[cache].on != 0 or (gfp & P.par[0].select_gfp) != 0


@inlined
def exemption(P, gfp):
    """Why an allocation in this context is not accounted (CAUSE_*), or 0."""
    kept_out = gfp & P.par[0].exempt
    if kept_out == 0:
        return 0
    if kept_out & GFP_NOACCOUNT:
        return CAUSE_NOT_SELECTED
    if kept_out & CTX_INTERRUPT:
        return CAUSE_INTERRUPT
    if kept_out & CTX_KTHREAD:
        return CAUSE_KTHREAD
    return CAUSE_NOFAIL if kept_out & GFP_NOFAIL else CAUSE_DYING


def selection_facts(caches: tuple[str, ...] | str, exempt: int) -> dict[str, Fact]:
    """What a design with these choices accounts."""
    if caches == FLAGGED:
        text = "opt-in: SLAB_ACCOUNT caches, __GFP_ACCOUNT"
    elif caches == ALL:
        text = "all caches" + (" but with __GFP_NOACCOUNT" if exempt & GFP_NOACCOUNT else "")
    else:
        text = "opt-in caches: " + ", ".join(caches)
    return {
        "selection": Fact(text, selected),
        "contexts": Fact(words(exempt & ~GFP_NOACCOUNT), exemption),
    }


def mark_selected(P, setup, wanted, default, strategy):
    """Mark the caches of `setup` that `wanted` names: patterns, or ``FLAGGED``.

    A pattern that fits no cache is a UsageProblem, unless it is the design's own (`default`).
    """
    for row, cache in enumerate(setup.caches, 1):
        if wanted == FLAGGED:
            P.selected["on"][row] = (cache.flags & SLAB_ACCOUNT) != 0
        else:
            P.selected["on"][row] = any(fnmatchcase(cache.name, pattern) for pattern in wanted)
    if wanted == FLAGGED or tuple(wanted) == tuple(default):
        return
    names = [cache.name for cache in setup.caches]
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise unknown("cache", pattern, names).within(f"strategy {strategy}: caches")
