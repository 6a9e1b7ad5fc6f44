"""Calls that obj_cgroup accounting makes, against those in the text of a running Linux 6.18.44.

Read there, by the functions' names: a group's pair on a stock hit calls obj_cgroup_charge_account,
refill_obj_stock and twice __account_obj_stock more than the root's, which has the two hooks as
well; its sections are those of obj_cgroup_get and obj_cgroup_put.  Past the stock, of a charge:
obj_cgroup_charge_pages, try_charge_memcg, mod_memcg_state, __css_rstat_updated,
memcg1_account_kmem and refill_obj_stock, with three sections for a reference of the group; of an
uncharge, where refill_obj_stock jumps to obj_cgroup_uncharge_pages: mod_memcg_state,
__css_rstat_updated, memcg1_account_kmem and refill_stock, with three.
"""

import numpy as np
import pytest

from design_run import Run, slabs_of
from kmbench.core.paths import Ops
from kmbench.tabulate import strategy_paths


def of_a_pair(run: Run, memcg: int) -> Ops:
    """Operations for accounting of an allocation and its free, after some like it."""
    for _ in range(4):
        run.free(run.alloc(memcg=memcg))
    before = run.S.path["count"].copy()
    run.free(run.alloc(memcg=memcg))
    passed = run.S.path["count"] - before
    given = {p.name: p.default for p in run.strategy.parameters}
    total = np.zeros(len(Ops._fields), np.int64)
    for row, path in strategy_paths(run.strategy, given):
        if path.phase == "charge":
            total += passed[row] * np.array(path.ops)
    return Ops(*total.tolist())


@pytest.mark.parametrize(
    ("cache", "calls", "sections", "atomics"),
    [(slabs_of(16), 4, 2, 0), (slabs_of(8, order=3), 14, 8, 4)],
    ids=["stock hit", "4 KiB"],
)
def test_a_pair_in_a_group_calls_what_the_kernel_calls(cache, calls, sections, atomics):
    run = Run("linux-6.18", [cache])
    run.alloc(2, memcg=2)
    root, group = of_a_pair(run, 1), of_a_pair(run, 2)
    assert (root.call, root.rcu, root.atom) == (2, 0, 0)  # the two hooks
    assert (group.call - root.call, group.rcu) == (calls, sections)
    assert group.atom == atomics  # kmem of the group and of the root, charged and uncharged


def test_an_object_without_owner_has_its_vector_looked_at():
    run = Run("linux-6.18", [slabs_of(4), slabs_of(4, "plain", flags=0)])
    for cache, looks in ((2, 0), (1, 3)):
        run.free(run.alloc(3, memcg=1, cache=cache))
        assert run.passed("objcg_none") == looks
