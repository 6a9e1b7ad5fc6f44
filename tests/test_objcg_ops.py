"""Calls that obj_cgroup accounting makes, against those that a running Linux 6.18.44 executes.

By the names of the functions: a group's pair on a stock hit calls obj_cgroup_charge_account,
refill_obj_stock and twice __account_obj_stock more than the root's, which has the two hooks as
well; its sections are those of obj_cgroup_get and obj_cgroup_put.  Past the stock, of a charge:
obj_cgroup_charge_pages, try_charge_memcg, mod_memcg_state, __css_rstat_updated,
memcg1_account_kmem and refill_obj_stock, with three sections for a reference of the group; of an
uncharge, where refill_obj_stock jumps to obj_cgroup_uncharge_pages: mod_memcg_state,
__css_rstat_updated, memcg1_account_kmem and refill_stock, with three, the last left by a jump.

A section is two calls.  benchmarks/executed.py counts 8 returns more than in the root on a stock
hit, 29 for 4 KiB, and of 64 objects of 1 KiB 14.66 to 14.75 with 3.97 to 4 sections and 1 atomic;
eventfd and pipe, whose objects all are stock hits and 1 of 2 and 2 of 6 on an LRU, have 28 and 72
with 8 and 20 sections.
"""

import numpy as np
import pytest

from design_run import Run, slabs_of
from kmbench.core.paths import Ops
from kmbench.tabulate import strategy_paths
from kmbench_mainline.objcg_ops import added, ops_of_6_18


def of_pairs(run: Run, memcg: int, nr: int = 1) -> Ops:
    """Operations for accounting of allocations and then their frees, after some like them."""
    for _ in range(5):
        before = run.S.path["count"].copy()
        for handle in [run.alloc(memcg=memcg) for _ in range(nr)]:
            run.free(handle)
    passed = run.S.path["count"] - before
    given = {p.name: p.default for p in run.strategy.parameters}
    total = np.zeros(len(Ops._fields), np.int64)
    for row, path in strategy_paths(run.strategy, given):
        if path.phase == "charge":
            total += passed[row] * np.array(path.ops)
    return Ops(*total.tolist())


@pytest.mark.parametrize(
    ("cache", "returns", "sections", "atomics"),
    [(slabs_of(16), 8, 2, 0), (slabs_of(8, order=3), 29, 8, 4)],
    ids=["stock hit", "4 KiB"],
)
def test_a_pair_in_a_group_calls_what_the_kernel_calls(cache, returns, sections, atomics):
    run = Run("linux-6.18", [cache])
    run.alloc(2, memcg=2)
    root, group = of_pairs(run, 1), of_pairs(run, 2)
    assert (root.call, root.rcu, root.atom) == (2, 0, 0)  # the two hooks
    assert (group.call + 2 * group.rcu - root.call, group.rcu) == (returns, sections)
    assert group.atom == atomics  # kmem of the group and of the root, charged and uncharged


def test_runs_that_cross_pages_call_what_the_kernel_calls():
    run = Run("linux-6.18", [slabs_of(32, order=3)])
    root, group = of_pairs(run, 1, 64), of_pairs(run, 2, 64)
    returns = (group.call + 2 * group.rcu - root.call) / 64
    assert 14.6 < returns < 14.8 and 3.9 < group.rcu / 64 <= 4
    assert group.atom == 64


def test_an_object_without_owner_has_its_vector_looked_at():
    run = Run("linux-6.18", [slabs_of(4), slabs_of(4, "plain", flags=0)])
    for cache, looks in ((2, 0), (1, 3)):
        run.free(run.alloc(3, memcg=1, cache=cache))
        assert run.passed("objcg_none") == looks


@pytest.mark.parametrize(("objects", "lru", "returns", "sections"), [(2, 1, 28, 8), (6, 2, 72, 20)])
def test_objects_on_an_lru_call_what_the_kernel_calls(objects, lru, returns, sections):
    of = ops_of_6_18({"vmstat_batch": True, "cgroup_v2": False})
    pair = added(of["byte_stock_hit"], of["byte_stock_back"])
    root = added(of["objcg_of_root"], of["objcg_none"])
    found = of["list_lru_found"]
    assert objects * pair.rcu + lru * found.rcu == sections
    calls = objects * (pair.call - root.call) + lru * found.call
    assert calls + 2 * sections == returns
