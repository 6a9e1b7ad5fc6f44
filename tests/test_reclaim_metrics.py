"""Metrics R1 to R4, I1, I2, F3 and F4 against closed forms."""

from types import SimpleNamespace

import numpy as np
import pytest

from kmbench.core import events as ev
from kmbench.core.access import BUCKETS, PHASES
from kmbench.core.vm import LATENCY, STAT, VM
from kmbench.final import final_figures, isolation
from reclaim_box import NORETRY, A, B, Box, fill

DIRECT = NORETRY & ~ev.GFP_KSWAPD_RECLAIM


def figures(box):
    return final_figures(box.sim.S, box.sim.P)


def test_r1_efficiency_and_pages_returned():
    """2100 spared once, then freed; what did not go to the buddy lists is charged still."""
    box = Box(False, independent=True).dentries(A, 2100).limit(A, ev.COUNTER_KMEM, 0)
    assert figures(box)["reclaim_efficiency"] == 2100 / 4200
    kept = box.usage(A, ev.COUNTER_KMEM)
    assert figures(box)["reclaim_returned"] == (100 - kept) * 4096 / (2100 * 192)
    assert figures(Box(False))["reclaim_efficiency"] is None


def test_r2_counts_only_reclaim_for_a_full_group():
    """Nine in ten objects of the full group's list are a neighbour's who left them there."""
    box = Box(False).dentries(A, 2100)
    box.sim.S.obj["owner"][1:1891] = 1
    assert figures(fill(box, 120))["reclaim_targeting"] == pytest.approx(0.1)
    box = Box(False, pages=400).dentries(A, 4200)
    for _ in range(6):
        box.event(ev.USER_ALLOC, cache=ev.USER_ANON, arg=50, gfp=DIRECT)
    assert box.vm["freed_objects"] > 0 and figures(box)["reclaim_targeting"] is None


@pytest.mark.parametrize(("later", "damaged"), [(1_000_000, 10), (10_100_000_000, 0)])
def test_r3_damage_is_what_is_wanted_again_within_ten_seconds(later, damaged):
    box = Box(False, pages=400).dentries(A, 4200)
    for _ in range(6):
        box.event(ev.USER_ALLOC, cache=ev.USER_ANON, arg=50, gfp=DIRECT)
    gone = np.flatnonzero(box.sim.S.item["evicted"])[:10]
    box.event(ev.USER_FREE, cache=ev.USER_ANON, arg=200, step=later)
    freed_bytes = int(box.vm["freed_bytes"])
    box.event(ev.ACCESS, 10, memcg=A, cache=1, obj=gone)
    assert box.vm["freed_bytes"] == freed_bytes
    assert figures(box)["reclaim_damage"] == damaged * 2**20 / freed_bytes


def test_r4_failures_beside_ones_own_unused_objects():
    nofs = NORETRY & ~ev.GFP_FS
    assert figures(fill(Box(False).dentries(A, 2100), 120, nofs))["enomem_reclaimable"] == 1
    assert figures(fill(Box(False), 20, nofs))["enomem_reclaimable"] == 0


def test_i1_hit_ratio_rate_and_latency():
    stat = np.zeros(3 * PHASES, STAT)
    latency = np.zeros(3 * PHASES * BUCKETS, LATENCY)
    stat[2 * PHASES + 1] = (100, 900, 0, 0, 10_000)  # alone: 90 % hits, 100 an us
    stat[2 * PHASES + 2] = (550, 450, 200, 0, 40_000)  # beside its neighbour
    buckets = latency["nr"].reshape(3, PHASES, BUCKETS)
    buckets[2, 1, 3], buckets[2, 2, 3], buckets[2, 2, 6] = 1000, 900, 100
    vm = np.zeros(1, VM)  # hits take no time
    S = SimpleNamespace(stat=stat, latency=latency, memcg=np.zeros(3), vm=vm)
    kept = isolation(S, 2)
    assert kept["victim_hit_ratio_kept"] == 0.5
    assert kept["victim_rate_kept"] == pytest.approx(0.2)
    assert kept["victim_latency_growth"] == 63 / 7
    assert set(isolation(S, 0).values()) == {None}


def test_i2_bytes_that_nobody_paid_for_when_kswapd_ran():
    box = Box(False, pages=400)
    box.event(
        ev.ACCESS, 100, memcg=A, cache=1, obj=np.arange(1, 101), gfp=ev.GFP_KERNEL | ev.CTX_KTHREAD
    )
    while box.vm["kswapd_turns"] == 0:
        box.event(ev.USER_ALLOC, cache=ev.USER_CLEAN, arg=10)
    assert figures(box)["interference_bytes"] == 100 * 192


def test_f3_the_victim_need_not_be_the_largest():
    """The killer looks at anonymous memory; the dentries of /a/b hold three times as much."""
    box = Box(True, pages=200).dentries(B, 2100)
    box.event(ev.USER_ALLOC, memcg=A, cache=ev.USER_ANON, arg=30)
    while box.vm["oom_kills"] == 0:
        box.event(
            ev.USER_ALLOC, cache=ev.USER_ANON, arg=10, gfp=ev.GFP_KERNEL & ~ev.GFP_KSWAPD_RECLAIM
        )
    assert (figures(box)["oom_kills"], figures(box)["oom_wrong_kills"]) == (1, 1)
    assert box.sim.S.user["kills"][A] == 1


def test_f4_an_allocation_that_may_kill_nobody_is_given_up():
    """GFP_NOFS tries on for ever in 6.18: a hundred rounds, then it is a stall."""
    box = Box(False, pages=200, era="6.18")
    for _ in range(20):
        box.event(ev.USER_ALLOC, cache=ev.USER_ANON, arg=10, gfp=DIRECT & ~ev.GFP_FS)
    assert figures(box)["reclaim_stalls"] == 0  # __GFP_NORETRY gives up at once
    nofs = ev.GFP_NOFS & ~ev.GFP_KSWAPD_RECLAIM
    box.event(ev.USER_ALLOC, cache=ev.USER_ANON, arg=1, gfp=nofs)
    assert figures(box)["reclaim_stalls"] == 1 and box.vm["direct_runs"] >= 100
