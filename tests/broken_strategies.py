"""Strategies that each break one rule, for the conformance kit to catch."""

import os
import random

import kmbench
from kmbench.core.ops import (
    COUNTER_KMEM,
    PLUGIN_PATH,
    Ops,
    Path,
    count,
    counter_charge,
    counter_uncharge,
    table,
)

PROCESS = os.getpid()
PATHS = (Path("charge", "charge", Ops(br=1)),)


def unknown_field(S, P, cpu, memcg, cache, gfp):
    return S.cache[cache].slots


def forgets_return(S, P, cpu, memcg, cache, gfp, slab, billed):  # noqa: RET503
    if memcg > 2:
        return billed


def returns_float(S, P, cpu, memcg, cache, gfp, slab, billed):
    return billed / 2


def beyond_table(S, P, cpu, memcg, cache, gfp):
    P.seen[cache * 100].n += 1
    return cache


def before_table(S, P, cpu, memcg, cache, gfp):
    P.seen[cache - 3].n += 1
    return cache


def other_cache(S, P, cpu, memcg, cache, gfp):
    return cache % 3 + 1


def no_such_group(S, P, cpu, memcg, cache, gfp, slab, billed):
    return memcg + 1000


def charges(S, P, cpu, memcg, cache, gfp, slab, billed):
    if memcg <= 1:
        return billed
    counter_charge(S, COUNTER_KMEM, memcg, 1)
    return memcg


def never_uncharges(S, P, cpu, cache, billed, slab):
    count(S, PLUGIN_PATH)


def uncharges_twice(S, P, cpu, cache, billed, slab):
    if billed > 0:
        counter_uncharge(S, COUNTER_KMEM, billed, 2, 0)


def resets_count(S, P, cpu, cache, billed, slab):
    S.path[PLUGIN_PATH].count = 0


def counts(S, P, cpu, memcg, cache, gfp):
    count(S, PLUGIN_PATH)
    return cache


def changes_bill(S, P, cpu, memcg, cache, gfp):
    S.memcg[memcg].billed_slab += 8
    return cache


def overflows(S, P, cpu, memcg, cache, gfp):
    n = 1
    for _ in range(70):
        n = n * 2
    P.seen[0].n = n
    return cache


def rolls_dice(S, P, setup, parameters):
    S.k["rcu_delay"] = random.SystemRandom().randrange(1 << 40)


def slow(S, P, cpu, memcg, cache, gfp):
    for i in range(1000):
        P.seen[0].n += i ^ P.seen[0].n
    return cache


def knows_process(S, P, cpu, memcg, cache, gfp):
    return cache + 0 * PROCESS


# name -> (hooks, check, what the message must say, the function that it must name)
BROKEN = {
    "unknown-field": ({"select": unknown_field}, "types", "slots", unknown_field),
    "forgets-return": ({"post_alloc": forgets_return}, "types", "returns nothing on some paths",
                       forgets_return),
    "returns-float": ({"post_alloc": returns_float}, "types", "expected a whole number",
                      returns_float),
    "beyond-table": ({"select": beyond_table}, "bounds", "of a table of 17 rows", beyond_table),
    "before-table": ({"select": before_table}, "bounds", "of a table of 17 rows", before_table),
    "other-cache": ({"select": other_cache}, "rows", "expected cache", other_cache),
    "no-such-group": ({"post_alloc": no_such_group}, "rows", "expected a group below",
                      no_such_group),
    "leaks": ({"post_alloc": charges, "obj_free": never_uncharges}, "leak", "stay charged",
              charges),
    "uncharges-twice": ({"post_alloc": charges, "obj_free": uncharges_twice}, "counters",
                        "more was uncharged than charged", uncharges_twice),
    "resets-count": ({"obj_free": resets_count, "select": counts}, "counters",
                     "count of a path goes down", resets_count),
    "changes-bill": ({"select": changes_bill}, "conservation", "are billed", changes_bill),
    "overflows": ({"select": overflows}, "plain", "OverflowError", overflows),
    "rolls-dice": ({}, "deterministic", "another state", None),
    "slow": ({"select": slow}, "speed", "times none", slow),
    "knows-process": ({"select": knows_process}, "cached", "another fingerprint", knows_process),
}  # fmt: skip


@kmbench.hookimpl
def kmbench_register_strategies(register):
    for name, (hooks, *_) in BROKEN.items():
        register(
            kmbench.Strategy(
                name=name, description="broken", source="a test", hooks=hooks,
                tables={"seen": table("cache", n="i8")} if hooks else {}, paths=PATHS,
                prepare=rolls_dice if name == "rolls-dice" else None,
            )
        )  # fmt: skip
