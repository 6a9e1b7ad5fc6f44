"""Designs that charge objects by their bytes at once, without stocks, in shared caches.

A group's bytes are exact (``P.bean``); its counter holds them rounded up to pages, so a limit in
pages refuses the very same allocations as one in bytes would.
"""

from typing import NamedTuple

from kmbench.core.build import Accounting
from kmbench.core.ops import (
    COUNTER_KMEM,
    CTX_INTERRUPT,
    CTX_KTHREAD,
    NOMEM,
    PLUGIN_PATH,
    Path,
    ask_vector,
    count,
    counter_charge,
    counter_force,
    counter_uncharge,
    css_get,
    css_put,
    inlined,
    outlined,
    table,
)
from kmbench.core.paths import Ops
from kmbench.design import Fact, limit_reclaim, words
from kmbench.parameters import Parameter
from kmbench.strategy import Strategy
from kmbench_policies import selection
from kmbench_policies.selection import exemption, selected

CHARGE = PLUGIN_PATH


class Choices(NamedTuple):
    """The choices that make a design."""

    vectors: bool  # slabs have an array of owners, 8 bytes an object
    exempt: int = CTX_INTERRUPT | CTX_KTHREAD  # gfp and context bits that are not accounted
    forces: int = 0  # gfp and context bits that go over the limit
    select_gfp: int = 0  # gfp bits that are accounted in any cache
    page_gfp: int = 0  # gfp bits that have kernel pages accounted


@outlined
def charge_bytes(S, P, memcg, nr_bytes, gfp):
    """Charge a group and its ancestors; False when over a limit."""
    bean = P.bean[memcg]
    count(S, CHARGE)
    k = S.k[0]
    nr = ((bean.held + nr_bytes + k.page_size - 1) >> k.page_shift) - bean.pages
    if nr > 0 and counter_charge(S, COUNTER_KMEM, memcg, nr):
        if gfp & P.par[0].forces == 0:
            return False
        counter_force(S, COUNTER_KMEM, memcg, nr)
    bean.held += nr_bytes
    bean.pages += nr
    css_get(S, memcg, nr)
    return True


@outlined
def uncharge_bytes(S, P, memcg, nr_bytes):
    """Give bytes back."""
    bean = P.bean[memcg]
    count(S, CHARGE)
    k = S.k[0]
    bean.held -= nr_bytes
    nr = bean.pages - ((bean.held + k.page_size - 1) >> k.page_shift)
    if nr > 0:
        counter_uncharge(S, COUNTER_KMEM, memcg, nr, 0)
        bean.pages -= nr
        css_put(S, memcg, nr)


@inlined
def charge_for(S, P, memcg, nr_bytes, gfp):
    """Charge what is accounted: the group that pays, -CAUSE_* or NOMEM."""
    cause = exemption(P, gfp)
    if cause:
        return -cause
    return memcg if charge_bytes(S, P, memcg, nr_bytes, gfp) else NOMEM


def post_alloc(S, P, cpu, memcg, cache, gfp, slab, billed):
    """Charge the object's slot once it is there."""
    if memcg <= 1 or not selected(P, cache, gfp):
        return billed
    payer = charge_for(S, P, memcg, S.cache[cache].slot, gfp)
    if payer > 0 and P.par[0].vectors:
        ask_vector(S, cpu, slab)
    return payer


def obj_free(S, P, cpu, cache, billed, slab):
    """Uncharge an object."""
    if billed > 0:
        uncharge_bytes(S, P, billed, S.cache[cache].slot)


def slab_new(S, P, cpu, memcg, cache, order, gfp, slab):
    """A slab of a selected cache gets its array of owners at once."""
    if slab > 0 and P.par[0].vectors and P.selected[cache].on:
        ask_vector(S, cpu, slab)
    return True


def page_alloc(S, P, cpu, memcg, kind, order, gfp, billed):
    """Charge accounted kernel pages."""
    if memcg <= 1 or (gfp & P.par[0].page_gfp) == 0:
        return billed
    return charge_for(S, P, memcg, S.k[0].page_size << order, gfp)


def byte_facts(choices: Choices, caches) -> dict[str, Fact]:
    """What a design of this kind does."""
    over = words(choices.forces)
    return {
        **selection.selection_facts(caches, choices.exempt),
        "unit": Fact(
            "object bytes" + (", __GFP_ACCOUNT pages" if choices.page_gfp else ""), post_alloc
        ),
        "caches": Fact("shared" + (", owners in the slab" if choices.vectors else ""), post_alloc),
        "charge_point": Fact("after the object", post_alloc),
        "counters": Fact("kmem, by the page it needs", charge_bytes),
        **limit_reclaim(Accounting(), by_memory=False),
        "limit": Fact("NULL" if over == "none" else f"NULL; go over it: {over}", charge_bytes),
        "deletion": Fact("zombie while bytes are charged", uncharge_bytes),
        "root": Fact("not accounted", post_alloc),
    }


def page_free(S, P, cpu, billed, kind, order):
    """Uncharge kernel pages."""
    if billed > 0:
        uncharge_bytes(S, P, billed, S.k[0].page_size << order)


HOOKS = {
    "post_alloc": post_alloc,
    "obj_free": obj_free,
    "slab_new": slab_new,
    "page_alloc": page_alloc,
    "page_free": page_free,
}
TABLES = {
    "par": table(1, **dict.fromkeys(Choices._fields, "i8")),
    "bean": table("memcg", held="i8", pages="i8"),
    **selection.TABLES,
}


def byte_unit(
    choices: Choices,
    caches: tuple[str, ...] | str,
    charge_ops: Ops,
    accounting: Accounting,
    parameters: tuple[Parameter, ...] = (),
    facts: dict[str, Fact] | None = None,
    **about,
) -> Strategy:
    """A Strategy from `choices`; arguments as those of :func:`page_unit.page_unit`.

    `facts`: what is to be said of it otherwise than of its kind.
    """

    def prepare(S, P, setup, given):
        for name, value in choices._asdict().items():
            P.par[name] = value
        selection.mark_selected(P, setup, given.get("caches", caches), caches, about["name"])

    return Strategy(
        hooks=HOOKS,
        tables=TABLES,
        paths=(Path("byte_charge", "charge", charge_ops),),
        parameters=parameters,
        accounting=lambda given: accounting,
        prepare=prepare,
        design={**byte_facts(choices, caches), **(facts or {})},
        **about,
    )
