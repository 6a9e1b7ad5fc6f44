"""Strategies that each break one rule, for the conformance kit to catch."""

import os
import random

import kmbench
from kmbench.core.jit import JIT
from kmbench.core.ops import (
    COUNTER_KMEM,
    NOMEM,
    PLUGIN_PATH,
    Ops,
    Path,
    count,
    counter_add,
    counter_charge,
    counter_uncharge,
    make_copy,
    schedule_work,
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
    print("what a hook prints is not taken for what was seen")
    S.path[PLUGIN_PATH].count = 0


def counts(S, P, cpu, memcg, cache, gfp):
    count(S, PLUGIN_PATH)
    return cache


def changes_bill(S, P, cpu, memcg, cache, gfp):
    S.memcg[memcg].billed_slab += 8
    return cache


def wraps(S, P, cpu, memcg, cache, gfp):
    P.small[0].n += 1
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


def ignores_limits(S, P, cpu, memcg, cache, gfp, slab, billed):
    if memcg > 1:
        counter_add(S, COUNTER_KMEM, memcg, 1)
    return memcg if memcg > 1 else billed


def gives_back(S, P, cpu, cache, billed, slab):
    if billed > 0:
        counter_uncharge(S, COUNTER_KMEM, billed, 1, 0)


def charges_for_good(S, P, cpu, memcg, cache, gfp, slab, billed):
    if memcg > 1 and counter_charge(S, COUNTER_KMEM, memcg, 1) == 0:
        P.held[memcg].n += 1
    return billed


def frees_nothing(S, P, cpu, cache, billed, slab):
    count(S, PLUGIN_PATH)


def gives_back_at_removal(S, P, cpu, memcg):
    counter_uncharge(S, COUNTER_KMEM, memcg, P.held[memcg].n, 0)
    P.held[memcg].n = 0


def makes_copies(S, P, memcg):
    if memcg > 1:
        make_copy(S, memcg, 1)


def any_copy(S, P, cpu, memcg, cache, gfp):
    for copy in range(S.k[0].nr_caches - 1, cache, -1):
        if S.cache[copy].root == cache:
            return copy
    return cache


def a_page_whatever_order(S, P, cpu, memcg, kind, order, gfp, billed):
    if memcg <= 1:
        return billed
    return NOMEM if counter_charge(S, COUNTER_KMEM, memcg, 1) else memcg


def one_page_back(S, P, cpu, billed, kind, order):
    if billed > 0:
        counter_uncharge(S, COUNTER_KMEM, billed, 1, 0)


def percpu_for_good(S, P, cpu, memcg, nr_bytes, gfp, billed):
    if memcg > 1 and counter_charge(S, COUNTER_KMEM, memcg, 2) == 0:
        P.held[memcg].n += 2
    return billed


def queues(S, P, memcg):
    schedule_work(S, 0, memcg, 0)


def queues_again(S, P, kind, a, b):
    schedule_work(S, kind, a, b)


def never_ends(S, P, cpu, memcg, cache, gfp):
    while S.k[0].nr_cpus > 0:
        cpu += 1
    return cache


def never_ends_compiled(S, P, cpu, cache, billed, slab):
    while JIT and S.k[0].nr_events >= 100:
        cpu += 1


def with_copies(parameters):
    return kmbench.Accounting(copies=True)


# name -> (hooks, check, what the message must say, the function that it must name)
BROKEN = {
    "unknown-field": ({"select": unknown_field}, "types", "slots", unknown_field),
    "forgets-return": ({"post_alloc": forgets_return}, "types", "returns nothing on some paths",
                       forgets_return),
    "returns-float": ({"post_alloc": returns_float}, "types", "expected a whole number",
                      returns_float),
    "beyond-table": ({"select": beyond_table}, "bounds", "of a table of 17 rows", beyond_table),
    "before-table": ({"select": before_table}, "bounds", "of a table of 17 rows", before_table),
    "wraps": ({"select": wraps}, "fields",
              "stores 128 in small.n, which holds -128 to 127 (i1)", wraps),
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
    "ignores-limits": ({"post_alloc": ignores_limits, "obj_free": gives_back}, "limits",
                       "over its limit", ignores_limits),
    "holds-on": ({"post_alloc": charges_for_good, "obj_free": frees_nothing,
                  "cg_offline": gives_back_at_removal}, "refunds",
                 "stay charged to a group whose objects", charges_for_good),
    "any-copy": ({"cg_create": makes_copies, "select": any_copy}, "copies", "from a copy of group",
                 any_copy),
    "any-order": ({"page_alloc": a_page_whatever_order, "page_free": one_page_back}, "pages",
                  "are charged as 1", a_page_whatever_order),
    "percpu-stays": ({"percpu_alloc": percpu_for_good, "cg_offline": gives_back_at_removal},
                     "percpu", "bytes are charged as", percpu_for_good),
    "works-on": ({"cg_create": queues, "run_work": queues_again}, "work", "still wait",
                 queues_again),
    "never-ends": ({"select": never_ends}, "plain", "no end within 10 s", never_ends),
    "never-ends-compiled": ({"obj_free": never_ends_compiled}, "types",
                            "compiled, event 101 does not end within 10 s", never_ends_compiled),
    "knows-process": ({"select": knows_process}, "cached", "another fingerprint", knows_process),
}  # fmt: skip


@kmbench.hookimpl
def kmbench_register_strategies(register):
    for name, (hooks, *_) in BROKEN.items():
        register(
            kmbench.Strategy(
                name=name, description="broken", source="a test", hooks=hooks,
                tables={"seen": table("cache", n="i8"), "held": table("memcg", n="i8"),
                        "small": table(1, n="i1")}
                if hooks else {}, paths=PATHS,
                **({"accounting": with_copies} if name == "any-copy" else {}),
                prepare=rolls_dice if name == "rolls-dice" else None,
            )
        )  # fmt: skip
