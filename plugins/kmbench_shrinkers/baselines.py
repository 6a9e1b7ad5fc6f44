"""Plain LRU and CLOCK: the textbook policies, as baselines and for caches of a fixed size.

LRU moves an object to the new end at every use.  CLOCK (second chance) sets a bit instead, and a
scan spares an object whose bit is set once.  With ``capacity`` the cache holds that many objects:
what comes in beyond drives out the next victim, without any memory pressure.
"""

from kmbench.core.ops import inlined
from kmbench.core.shrinker_ops import (
    charged_group,
    drop_object,
    list_add,
    list_del,
    list_rotate,
    prefetch,
    prune_list,
)
from kmbench.parameters import Parameter
from kmbench.shrinker import Shrinker


@inlined
def home(S, obj):
    """Row of the list that an object belongs on."""
    return charged_group(S, obj) if S.vm[0].memcg_aware else 0


def count(S, Q, memcg):
    """Length of the list."""
    return S.lru[memcg].nr


def scan(S, Q, memcg, nr, gfp):
    """Visit `nr` objects, oldest first; referenced ones are spared once, pinned ones leave."""
    return prune_list(S, memcg, nr)


@inlined
def ask_for_victims(S, row):
    """Prefetch what evicting the next ones will touch; each record is asked for an eviction ahead
    of the one that is found through it."""
    first = S.lru[row].oldest
    second = S.item[first].next
    prefetch(S.slab, max(S.obj[first].slab, 0))
    prefetch(S.obj, second)
    prefetch(S.item, S.item[second].next)


def lru_add(S, Q, obj):
    """A new object is the newest; one too many drives out the oldest that nobody refers to."""
    row = home(S, obj)
    S.item[obj].referenced = 0
    list_add(S, row, obj)
    if Q.par[0].capacity and S.lru[row].nr > Q.par[0].capacity:
        victim = S.lru[row].oldest
        while S.item[victim].referenced:
            S.item[victim].referenced = 0
            list_rotate(S, victim)
            victim = S.lru[row].oldest
        list_del(S, victim)
        ask_for_victims(S, row)
        if S.item[victim].pins == 0:
            drop_object(S, victim)


def move_to_newest(S, Q, obj):
    """LRU: a used object becomes the newest."""
    list_rotate(S, obj)


def set_bit(S, Q, obj):
    """CLOCK: a used object is spared at the next scan."""
    S.item[obj].referenced = 1


CAPACITY = Parameter("capacity", 0, "objects that a list holds at most; 0 = no bound", "objects", 0)
HOOKS = {"count": count, "scan": scan, "lru_add": lru_add}

lru = Shrinker(
    name="lru",
    description="least recently used: every use moves an object to the new end",
    source="the textbook policy",
    hooks={**HOOKS, "touch": move_to_newest},
    parameters=(CAPACITY,),
)

clock = Shrinker(
    name="clock",
    description="second chance: a use sets a bit, a scan spares an object with the bit once",
    source="F. J. Corbato, A Paging Experiment with the Multics System, 1968",
    hooks={**HOOKS, "touch": set_bit},
    parameters=(CAPACITY,),
)
