"""``costa-shrink-fn``: what the posting's shrink functions reach, as posted and completed."""

import pytest

from kmbench.core import events as ev
from reclaim_box import NORETRY, A, B, Box, fill

POSTED_AND_COMPLETED = pytest.mark.parametrize("as_posted", [True, False])


@POSTED_AND_COMPLETED
def test_lowering_a_kmem_limit_shrinks(as_posted):
    """shrink_slab(&shrink, 0, 0) asks for twice the list: four batches of 1024 here."""
    box = Box(as_posted, independent=True).dentries(A, 2100)
    assert box.usage(A, ev.COUNTER_KMEM) == 100
    box.limit(A, ev.COUNTER_KMEM, 60)
    assert box.usage(A, ev.COUNTER_KMEM) <= 60 and box.vm["freed_objects"] > 0


@POSTED_AND_COMPLETED
def test_a_list_shorter_than_half_a_batch_cannot_be_shrunk(as_posted):
    """Twice 500 is less than 1024: whatever the limit, the shrinker is never called."""
    box = Box(as_posted, independent=True).dentries(A, 500)
    box.limit(A, ev.COUNTER_KMEM, 10)
    assert box.vm["scanned_objects"] == 0 and box.usage(A, ev.COUNTER_KMEM) == 24


def test_a_full_groups_own_dentries_go():
    for as_posted in (True, False):
        box = fill(Box(as_posted).dentries(A, 2100), 120)
        assert box.vm["own_bytes"] == box.vm["freed_bytes"] > 0
        assert box.usage(A, ev.COUNTER_MEMORY) <= 120


def test_as_posted_groups_below_the_full_one_are_not_asked():
    posted = fill(Box(True).dentries(B, 2100), 120)
    completed = fill(Box(False).dentries(B, 2100), 120)
    assert posted.vm["freed_objects"] == 0 and posted.sim.S.k["nr_failed_limit"][0] == 1
    assert completed.vm["freed_objects"] > 0 and completed.sim.S.k["nr_failed_limit"][0] == 0


def test_as_posted_the_shrink_function_ignores_gfp_fs():
    nofs = NORETRY & ~ev.GFP_FS
    assert fill(Box(True).dentries(A, 2100), 120, nofs).vm["freed_objects"] > 0
    assert fill(Box(False).dentries(A, 2100), 120, nofs).vm["freed_objects"] == 0


def test_as_posted_direct_reclaim_of_the_machine_reaches_no_shrinker():
    """It would follow a null pointer; kswapd has its own way to the superblock's list."""
    direct = NORETRY & ~ev.GFP_KSWAPD_RECLAIM
    freed = {}
    for as_posted in (True, False):
        box = Box(as_posted, pages=400).dentries(A, 4200)  # 200 pages
        for _ in range(6):
            box.event(ev.USER_ALLOC, cache=ev.USER_ANON, arg=50, gfp=direct)
        freed[as_posted] = int(box.vm["freed_objects"])
    assert freed[True] == 0 < freed[False]
    box = Box(True, pages=400).dentries(A, 4200)
    for _ in range(6):
        box.event(ev.USER_ALLOC, cache=ev.USER_ANON, arg=50, gfp=NORETRY, step=50_000_000)
    assert box.vm["freed_objects"] > 0 and box.vm["kswapd_turns"] > 0


def test_as_posted_a_removed_groups_list_is_lost():
    """Its charge went to the parent, whose reclaim does not find the dentries."""
    freed = {}
    for as_posted in (True, False):
        box = Box(as_posted).dentries(B, 2100).event(ev.CG_OFFLINE, memcg=B)
        freed[as_posted] = int(fill(box, 120).vm["freed_objects"])
    assert freed[True] == 0 < freed[False]


@POSTED_AND_COMPLETED
def test_the_root_and_groups_are_on_the_superblocks_list(as_posted):
    box = Box(as_posted).dentries(1, 30).dentries(A, 40).dentries(B, 50)
    assert int(box.sim.S.Q.superblock["nr"][0]) == 120
    assert [int(box.sim.S.lru["nr"][row * 2]) for row in (1, A, B)] == [30, 40, 50]
    box.event(ev.FREE, obj=35)  # unlink
    assert int(box.sim.S.Q.superblock["nr"][0]) == 119 and int(box.sim.S.lru["nr"][A * 2]) == 39
