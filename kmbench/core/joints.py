"""Where reclaim joins the rest of the core: ``S.R``, and what it is in a run without reclaim.

The core calls ``S.R.get_pages(...)`` where memory can run out.  In a run that models no reclaim
these functions do what stands below and are compiled to next to nothing, and objects come and go in
the loop itself.  In one that does, each way of coming and going is one function, and ``S.R`` has
the functions of :data:`kmbench.core.reclaim.RECLAIM`, the strategy's and the shrinker's.
"""

from functools import cache

from kmbench.core.fingerprint import fingerprint
from kmbench.core.jit import inlined
from kmbench.core.objects import alloc_object, free_object
from kmbench.core.pages import alloc_pages
from kmbench.core.rows import prefetch
from kmbench.core.specialise import Hooks


@inlined
def get_pages(S, cpu, order, gfp):
    """2**order pages for `cpu`: their first page frame, or -1."""
    k = S.k[0]
    return alloc_pages(S.pfn, S.area, S.path, k.nr_nodes, cpu % k.nr_nodes, order)


@inlined
def over_limit(S, cpu, memcg, nr, gfp, over):
    """A charge of `nr` pages met the limit of row `over`: 0 once it is charged, or that row."""
    return over


@inlined
def reclaim_group(S, memcg, nr, gfp):
    """Reclaim `nr` pages from a group and its descendants: pages freed."""
    return 0


@inlined
def shrink_group(S, memcg):
    """Have the shrinkers scan a group's own objects: pages freed."""
    return 0


@inlined
def timer(S):
    """``S.k[0].timer_due`` is now."""


@inlined
def may_free(S, obj):
    """The stream frees the object of a handle: whether it may."""
    return True


@inlined
def allocating(S, obj):
    """An object exists, but not yet its owner and its bill."""


@inlined
def failed(S, memcg, cache, cause):
    """An operation failed."""


@inlined
def group_gone(S, memcg):
    """A group was removed."""


@inlined
def look_ahead(S, op, obj):
    """Ask for the object record of a coming event."""
    prefetch(S.obj, obj)


@inlined
def look_nearer(S, op, obj):
    """Some events later, ask for the record of its slab."""
    prefetch(S.slab, max(S.obj[obj].slab, 0))


@inlined
def other(S, op, cpu, memcg, obj, cache, gfp, arg):
    """An event that only runs with reclaim process: 0 or FAIL_*."""
    return 0


@inlined
def reclaim(S, memcg, nr, gfp):
    """For strategies: reclaim `nr` pages from a group's subtree; pages freed, 0 where a run models
    no reclaim."""
    return S.R.reclaim_group(S, memcg, nr, gfp)


@inlined
def shrink(S, memcg):
    """For strategies: have the shrinkers scan the group's own objects; pages freed, 0 where a run
    models no reclaim."""
    return S.R.shrink_group(S, memcg)


JOINTS = {"alloc_object": alloc_object, "free_object": free_object} | {
    function.__name__: function
    for function in (
        get_pages, over_limit, reclaim_group, shrink_group, timer, may_free, allocating, failed,
        group_gone, look_ahead, look_nearer, other,
    )
}  # fmt: skip


@cache
def no_reclaim() -> Hooks:
    """``S.R`` of a run without reclaim; the same object for all of them."""
    return Hooks(fingerprint(JOINTS.values(), tuple(JOINTS)), JOINTS)
