"""The hooks of a strategy, with what the host does where a strategy has none.

Every hook takes the core state `S` and the strategy's own tables `P`.  Rows (`memcg`, `cache`,
`slab`) are integers; 0 is none, memcg 1 the root.  `gfp` carries the context bits too
(:mod:`kmbench.core.events`).  `billed` is the group that pays (> 0), 0 if rightly nobody does, or
-CAUSE_* if a group's object is billed to nobody.  A charging hook may answer ``NOMEM``.

A strategy defines the ones it needs as plain module-level functions of the same arguments; one it
lacks is compiled as the default below, to nothing.
"""

from collections.abc import Callable


def cache_create(S, P, cache):
    """A root cache was registered (boot)."""


def cg_create(S, P, memcg):
    """A group came online."""


def cg_offline(S, P, cpu, memcg):
    """A group was removed by its user; its memory may live on."""


def cg_release(S, P, memcg):
    """The last reference to a removed group is gone."""


def limit_write(S, P, memcg, counter, pages):
    """A limit was written; `pages` < 0 is unlimited.  The host has stored it already."""


def attach(S, P, task, source, target, owner_stays):
    """A task moved from group `source` to `target`; `owner_stays`: it is a thread whose mm belongs
    to a task that stays in `source`."""


def charged(S, P, task, memcg):
    """Group whose memory an allocation of `task`, which is in group `memcg`, is taken for; the
    other hooks of the allocation see that one."""
    return memcg


def select(S, P, cpu, memcg, cache, gfp):
    """Which cache serves an object of the root cache `cache`: a row, or -CAUSE_* for the root
    cache with the reason why it is not billed."""
    return cache


def pre_alloc(S, P, cpu, memcg, cache, gfp, billed):
    """Charge before the object is allocated; returns `billed` or ``NOMEM``."""
    return billed


def post_alloc(S, P, cpu, memcg, cache, gfp, slab, billed):
    """Charge after the object was allocated in `slab`; returns `billed` or ``NOMEM``."""
    return billed


def obj_free(S, P, cpu, cache, billed, slab):
    """An object is about to be freed; slab 0: an allocation failed after ``pre_alloc``."""


def slab_new(S, P, cpu, memcg, cache, order, gfp, slab):
    """A slab of 2**order pages is about to get its pages (slab 0), then has got them (its row).
    Returns whether it may; False fails the allocation as over the limit, ``SMALLER`` too, unless
    a slab of the smallest order is left to be tried."""
    return True


def slab_gone(S, P, cpu, cache, order, slab):
    """A slab's pages go back; slab 0: the pages that ``slab_new`` charged for could not be had."""


def page_alloc(S, P, cpu, memcg, kind, order, gfp, billed):
    """Kernel pages that are not slabs were allocated; returns `billed` or ``NOMEM``."""
    return billed


def page_free(S, P, cpu, billed, kind, order):
    """Kernel pages are about to be freed."""


def percpu_alloc(S, P, cpu, memcg, nr_bytes, gfp, billed):
    """Per-CPU memory, `nr_bytes` over all CPUs, was allocated; returns `billed` or ``NOMEM``."""
    return billed


def percpu_free(S, P, cpu, billed, nr_bytes):
    """Per-CPU memory is about to be freed."""


def run_work(S, P, kind, a, b):
    """A queued work item runs (``defer_work``, ``schedule_work``): between events, on CPU 0."""


def flush(S, P):
    """Give back whatever the strategy's own stocks hold (the host empties the page stock after)."""


def sample(S, P):
    """Before a timeline sample: add the bytes that the strategy's own stocks hold for a group to
    ``S.memcg[g].byte_stock``."""


STRATEGY_HOOKS: dict[str, Callable] = {
    hook.__name__: hook
    for hook in (
        cache_create, cg_create, cg_offline, cg_release, limit_write, attach, charged, select,
        pre_alloc, post_alloc, obj_free, slab_new, slab_gone, page_alloc, page_free, percpu_alloc,
        percpu_free, run_work, flush, sample,
    )
}  # fmt: skip

# What a hook must return, as the kind that it is checked against: nothing, a truth value, a row.
RETURNS = dict.fromkeys(STRATEGY_HOOKS, "none")
RETURNS["slab_new"] = "truth"
for _name in ("charged", "select", "pre_alloc", "post_alloc", "page_alloc", "percpu_alloc"):
    RETURNS[_name] = "row"
