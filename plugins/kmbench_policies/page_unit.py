"""Designs with per-memcg copies of caches, charged by the page: the three parts joined.

Of an allocation, in order: :func:`copies.select`, :func:`pages.slab_new` if it needs a slab; of a
slab that goes, :func:`slab_gone`; of a removed group, :func:`removal.cg_offline`.
"""

from collections.abc import Callable
from typing import NamedTuple

from kmbench.core.build import Accounting
from kmbench.core.ops import (
    COUNTER_KMEM,
    CTX_INTERRUPT,
    CTX_KTHREAD,
    ONLINE,
    Path,
    count,
    css_put,
    inlined,
    table,
)
from kmbench.core.paths import Ops
from kmbench.core.state import UNLIMITED
from kmbench.design import Fact
from kmbench.errors import UsageProblem
from kmbench.parameters import Parameter
from kmbench.strategy import Strategy
from kmbench_policies import copies, mm_owner, pages, selection
from kmbench_policies.copies import CREATE_COPY, OWN, create_copy
from kmbench_policies.pages import SLAB_TEST, free_pages, slab_new, uncharge_pages
from kmbench_policies.removal import (
    cg_offline,
    dead_copy,
    destroy_copies,
    queue_dead,
    removal_facts,
)


class Choices(NamedTuple):
    """The choices that make a design; see the modules that read them."""

    counters: int  # pages.KMEM_ONLY, KMEM_FIRST or MEMORY_FIRST
    removal: int  # removal.DROPPED, ZOMBIE or REPARENTED
    before_pages: bool  # slabs are charged before their pages are had
    exempt: int = CTX_INTERRUPT | CTX_KTHREAD  # gfp and context bits that are not accounted
    select_gfp: int = 0  # gfp bits that are accounted in any cache
    sync: bool = False  # copies are made inside allocations that may sleep
    dedup: bool = False  # one work item a copy
    late: int = OWN  # copies.OWN or PARENT
    bypass: bool = False  # pages of dying tasks bypass the memory counter
    kmem_nofail: bool = True  # __GFP_NOFAIL goes over the kmem limit where memory comes first
    page_kinds: int = 0  # bits 1 << PAGES_*: kernel pages that are accounted
    page_gfp: int = 0  # gfp bits that have kernel pages accounted
    slabs_pin: bool = False  # charged slabs keep the group alive
    to_root: bool = False
    at_once: bool = False
    deactivate: bool = False
    all_active: bool = True  # groups account from their creation
    tests_frees: bool = False  # objects of root caches have their page's cache looked at as well
    acct_root: bool = False  # the root is a group like any other
    on: bool = False  # the root's allocations are tested from the start: there is no static key


@inlined
def activate(P, memcg):
    """A group accounts from now on; the first one turns the static key on."""
    P.group[memcg].active = 1
    if memcg > 1:
        P.par[0].on = 1


def cg_create(S, P, memcg):
    """A group accounts if every one does, its parent does, or its kmem limit is set already."""
    g = S.memcg[memcg]
    limited = S.counter[memcg * 2 + COUNTER_KMEM].limit < UNLIMITED
    inherited = g.parent > 1 and P.group[g.parent].active != 0
    if P.par[0].all_active or limited or inherited:
        activate(P, memcg)


def limit_write(S, P, memcg, counter, nr_pages):
    """The first kmem limit of a group without children has it accounted from then on."""
    if counter != COUNTER_KMEM or nr_pages < 0:
        return
    for child in range(2, S.k[0].nr_groups):
        if S.memcg[child].parent == memcg and S.memcg[child].state == ONLINE:
            return
    activate(P, memcg)


def slab_gone(S, P, cpu, cache, order, slab):
    """Uncharge a copy's slab, or pages that could not be had; the last one ends a dead copy."""
    c = S.cache[cache]
    if c.memcg == 0 or (slab == 0 and P.par[0].before_pages == 0):
        return
    count(S, SLAB_TEST)
    pays = c.pays
    if pays > 0:
        uncharge_pages(S, P, pays, 1 << order, 0)
    if slab == 0:
        return
    P.copy[cache].pages -= 1 << order
    if P.par[0].slabs_pin:
        if css_put(S, pays, 1 << order) and P.par[0].at_once:
            destroy_copies(S, pays)
    if c.state == 1 and P.par[0].at_once == 0 and P.copy[cache].pages == 0:
        queue_dead(S, P, cache)


def page_free(S, P, cpu, billed, kind, order):
    """Uncharge kernel pages; the last charged page of a removed group ends it."""
    if free_pages(S, P, billed, order) and P.par[0].at_once:
        destroy_copies(S, billed)


def run_work(S, P, kind, a, b):
    """Make a copy, or look after a dead one."""
    if kind == CREATE_COPY:
        create_copy(S, P, a, b)
    else:
        dead_copy(S, P, a)


HOOKS = {
    "cg_create": cg_create,
    "limit_write": limit_write,
    "select": copies.select,
    "slab_new": slab_new,
    "slab_gone": slab_gone,
    "page_alloc": pages.page_alloc,
    "page_free": page_free,
    "obj_free": copies.obj_free,
    "cg_offline": cg_offline,
    "run_work": run_work,
}
TABLES = {
    "par": table(1, **dict.fromkeys(Choices._fields, "i8")),
    **selection.TABLES,
    **copies.TABLES,
}
WORK_ITEMS = 1 << 16
WORK_DELAY = Parameter("work_delay_us", 1000, "from queueing a work item to its run", "us", 0)


def page_unit(
    choices: Callable[[dict], Choices],
    caches: tuple[str, ...] | str,
    select_ops: Ops,
    free_ops: Ops,
    accounting: Callable[[dict], Accounting],
    parameters: tuple[Parameter, ...] = (),
    by_mm: bool = False,
    **about,
) -> Strategy:
    """A Strategy from the `choices` that its parameters make.

    `caches`: patterns of root caches that are accounted, or ``selection.FLAGGED``; a parameter
    ``caches`` takes their place.  A parameter ``max_types`` bounds the machine's root caches.
    `select_ops`: operations of the test in every accounted allocation; the root's ends before the
    copy is looked up.  `free_ops`: in every free of a copy's object, and of others where
    `tests_frees`.  `by_mm`: tasks are charged by the owner of their mm.  `about`: name,
    description, source and copy_name.
    """

    given = {p.name: p.default for p in (*parameters, WORK_DELAY)}
    usual = choices(given)

    def prepare(S, P, setup, given):
        types = given.get("max_types", 0)
        if types and len(setup.caches) > types:
            raise UsageProblem(
                f"strategy {about['name']}: the machine has {len(setup.caches)} caches; one more "
                f"than max_types = {types} is a BUG there: expected a larger max_types, or 0"
            )
        for name, value in choices(given)._asdict().items():
            P.par[name] = value
        selection.mark_selected(P, setup, given.get("caches", caches), caches, about["name"])

    return Strategy(
        hooks={**HOOKS, **mm_owner.HOOKS} if by_mm else HOOKS,
        tables={**TABLES, **mm_owner.TABLES} if by_mm else TABLES,
        paths=(
            Path("select_copy", "alloc", select_ops),
            Path("slab_owner_test", "slab", Ops(br=1, ptr=1)),
            Path("select_root", "alloc", select_ops._replace(ptr=select_ops.ptr - 1, pcpu=0)),
            Path("free_copy", "free", free_ops),
        ),
        parameters=(*parameters, WORK_DELAY),
        accounting=lambda given: accounting(given)._replace(
            copies=True, work_items=WORK_ITEMS, work_delay_ns=1000 * given["work_delay_us"]
        ),
        prepare=prepare,
        design={
            **selection.selection_facts(caches, usual.exempt),
            **copies.copy_facts(usual, given.get("max_types", 0)),
            **pages.page_facts(usual, accounting(given)),
            **removal_facts(usual),
            "root": Fact("accounted" if usual.acct_root else "not accounted", copies.select),
        },
        **about,
    )
