"""The hooks of a shrinker, with what the host does where one has none.

Every hook takes the core state `S` and the shrinker's own tables `Q`.  A shrinker keeps cached
objects (:mod:`kmbench.core.cached`) on lists, row ``owner * S.vm[0].lists + kind``: `owner` is the
group that pays for an object where group reclaim reaches slab objects, else 0.

A userland listener defines only those from ``pressure`` on; they get its tables as `U`.
"""

from collections.abc import Callable


def count(S, Q, memcg):
    """How many objects list owner `memcg` has that might be freed."""
    return 0


def scan(S, Q, memcg, nr, gfp):
    """Scan `nr` objects of a list owner and free what may go: how many were scanned, or ``STOP``
    if it cannot free anything in this context."""
    return 0


def lru_add(S, Q, obj):
    """The last reference to an object that is on no list was dropped."""


def lru_del(S, Q, obj):
    """An object left its list for good: it is freed, or a scan met it while it was in use."""


def touch(S, Q, obj):
    """The last reference to an object that is on a list was dropped: it was used again."""


def pressure(S, U, memcg, scanned, reclaimed):
    """User pages of one group in a round of reclaim; `memcg`: the group that is over its limit, 0 =
    the whole machine is short."""


def pressure_tree(S, U, memcg, scanned, reclaimed, gfp):
    """The same of a whole round, all groups of it together; pages of slabs count as reclaimed when
    the whole machine is short."""


def pressure_prio(S, U, memcg, prio, gfp):
    """Direct or group reclaim begins a round at this priority."""


def stalled(S, U, ns, io_ns):
    """A task, or kswapd, spent so long in reclaim on CPU ``S.k[0].cpu``, `io_ns` of it writing."""


def told(S, U, memcg, arg):
    """A TELL event: userland of a group says `arg`, whose meaning is the listener's."""


def notified(S, U):
    """``S.vm[0].notify_due`` is now: userland acts."""


SHRINKER_HOOKS: dict[str, Callable] = {
    hook.__name__: hook
    for hook in (
        count, scan, lru_add, lru_del, touch, pressure, pressure_tree, pressure_prio, stalled, told,
        notified,
    )
}  # fmt: skip
