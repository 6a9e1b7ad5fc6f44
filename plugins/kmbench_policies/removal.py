"""What a removed group leaves behind: its copies of caches, and their charge.

``removal`` is one of

``DROPPED``
    The copies are taken from the group and are "dead"; their charge goes to nobody, or with
    ``to_root`` to the root (Souhlal 2012).
``ZOMBIE``
    Copies and charge stay; charged pages keep the group alive (3.8 to 5.2).
``REPARENTED``
    The copies are the parent's from now on, and their charge with them (5.3).

Dead copies are shrunk by a work item, which destroys them once they are empty; with ``at_once``
(4.5) the removal itself shrinks them, and they go with their group.  ``deactivate``: dead copies
keep no empty slabs (3.16+).
"""

from kmbench.core.ops import (
    copy_of,
    destroy_copy,
    drain_all_stock,
    inlined,
    online_ancestor,
    outlined,
    reaps,
    rebill_copy,
    schedule_work,
    shrink_cache,
)
from kmbench.design import Fact
from kmbench_policies.copies import pay_for
from kmbench_policies.pages import uncharge_pages

DROPPED, ZOMBIE, REPARENTED = 0, 1, 2
DEAD_COPY = 2  # kind of work item: a = copy


@inlined
def forget_copy(S, cache):
    """Destroy an empty dead copy, and the group's pointer to it."""
    c = S.cache[cache]
    child = S.child[c.memcg * (S.k[0].nr_root_caches + 1) + c.root]
    if child.cache == cache:
        child.cache = 0
    destroy_copy(S, cache)


@inlined
def queue_dead(S, P, cache):
    """Have a dead copy looked at by a work item, unless it already waits for one."""
    if P.copy[cache].queued == 0:
        P.copy[cache].queued = 1
        schedule_work(S, DEAD_COPY, cache, 0)


@outlined
def shrink_dead(S, cache, cpu):
    """Give back what a dead copy holds for later; it takes no sheaves any more."""
    shrink_cache(S, cache, cpu)
    S.cache[cache].sheaf = 0


@outlined
def dead_copy(S, P, cache):
    """A work item's turn: an empty dead copy is destroyed, another one shrunk.

    2012's are not shrunk where SLAB's cache_reap comes by.
    """
    P.copy[cache].queued = 0
    if S.cache[cache].state == 1:
        if P.copy[cache].pages == 0:
            forget_copy(S, cache)
        elif P.par[0].removal != DROPPED or not reaps(S):
            shrink_dead(S, cache, 0)


@outlined
def destroy_copies(S, memcg):
    """A group that nothing keeps alive any more takes its copies along."""
    for root in range(1, S.k[0].nr_root_caches + 1):
        copy = copy_of(S, memcg, root)
        if copy > 0:
            forget_copy(S, copy)


@outlined
def kill_copy(S, P, cache, target):
    """A copy dies with its group; `target` inherits its charge (> 0), nobody does, or it stays."""
    c = S.cache[cache]
    group = c.pays
    if target != group:
        uncharge_pages(S, P, group, P.copy[cache].pages, target)
        rebill_copy(S, cache, target)
        if target > 1:  # the root stays
            pay_for(P, target, cache)
    if c.state == 0:
        c.state = 1
        if P.par[0].deactivate:
            c.cpu_partial = 0
            c.min_partial = 0


def removal_facts(choices) -> dict[str, Fact]:
    """What a removed group leaves."""
    text = {
        DROPPED: f"copies dead, charge to {'the root' if choices.to_root else 'nobody'}",
        ZOMBIE: "zombie while pages are charged; copies dead",
        REPARENTED: "copies dead, they and their charge go to the parent",
    }[choices.removal]
    if choices.deactivate:
        text += ", keep no empty slabs"
    return {"deletion": Fact(text, cg_offline)}


def cg_offline(S, P, cpu, memcg):
    """The group was removed: its copies die, and everything that they inherited moves on."""
    par = P.par[0]
    target = memcg
    if par.removal == DROPPED:
        target = 1 if par.to_root else 0
    elif par.removal == REPARENTED:
        target = online_ancestor(S, memcg)
    group = P.group[memcg]
    following = group.first
    if target != memcg:
        group.first = group.last = 0
    while following > 0:
        cache = following
        following = P.copy[cache].next
        c = S.cache[cache]
        if c.state < 2:
            mine = c.state == 0
            kill_copy(S, P, cache, target)
            if mine and par.at_once:
                shrink_dead(S, cache, cpu)
            elif mine:
                queue_dead(S, P, cache)
                if par.removal == DROPPED:
                    S.child[memcg * (S.k[0].nr_root_caches + 1) + c.root].cache = 0
    drain_all_stock(S, memcg)
    if par.at_once and S.memcg[memcg].css_pages == 0:
        destroy_copies(S, memcg)
