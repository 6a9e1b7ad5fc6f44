"""What kernels changed since 5.9, on both allocators: stocks of bytes, statistics, shared lines."""

import pytest

import design_run
from design_run import Run, slabs_of
from kmbench.core import events as ev


@pytest.fixture(autouse=True, params=["slub", "slab"])
def allocator(request, monkeypatch):
    """Every design runs on both."""
    monkeypatch.setattr(design_run, "ALLOCATOR", request.param)


def test_byte_stock_of_several_slots_keeps_groups_apart():
    run = Run("linux-6.18", parameters={"obj_slots": 5})
    for _ in range(2):
        run.alloc(memcg=3)
        run.alloc(memcg=4)
    assert run.passed("byte_stock_drain") == 0 and run.passed("byte_stock_hit") == 2
    one = Run("linux-6.18")
    for _ in range(2):
        one.alloc(memcg=3)
        one.alloc(memcg=4)
    assert one.passed("byte_stock_drain") == 3


def test_an_obj_cgroup_a_node_drains_when_the_node_changes():
    drained = {}
    for per_node in (False, True):
        run = Run("linux-6.18", parameters={"per_node": per_node}, nodes=2)
        for turn in range(8):
            run.alloc(memcg=3, cpu=turn % 2)  # each CPU's slabs are its node's
        handles = list(range(1, 9))
        before = run.passed("byte_stock_drain")
        run.free(handles, cpu=0)  # of both nodes in turn, on one CPU
        drained[per_node] = run.passed("byte_stock_drain") - before
        assert run.sim.teardown() == 0
    assert drained[False] < drained[True]


def test_slab_statistics_come_by_the_page_from_5_14():
    updates = {}
    for batch in (False, True):
        run = Run("linux-6.18", parameters={"vmstat_batch": batch})
        run.alloc(12, memcg=3)
        updates[batch] = run.passed("vmstat_update")
    assert updates == {False: 12, True: 3}  # 1032 bytes each: at 4 x 1032 > 4096


def test_nr_charged_bytes_is_a_line_that_cpus_share():
    """Until 5.13 every refilled and every emptied stock writes it, then none that finds 0 there;
    every allocation reads the reference and the group beside it."""
    for batch, refilled in ((False, 1), (True, 0)):
        run = Run("linux-5.9", [slabs_of(1)], parameters={"vmstat_batch": batch})
        handles = run.alloc(memcg=3)  # 4104 bytes: two pages, 4088 stay
        line = run.P.left[3]
        assert line["writes"] == refilled
        run.free(handles)  # more than a page: emptied
        assert line["writes"] == refilled + 1 and line["near"] + line["far"] == 0
        run.alloc(memcg=3, cpu=1)
        # CPU 1 reads what CPU 0 wrote, then writes what both share
        assert line["writes"] == 2 * refilled + 1
        assert line["near"] + line["far"] == 1 + refilled


def test_pages_given_back_go_to_the_page_stock_from_5_11():
    usage = {}
    for to_stock in (False, True):
        run = Run("linux-5.9", [slabs_of(1)], parameters={"uncharge_to_stock": to_stock})
        run.free(run.alloc(memcg=3))
        usage[to_stock] = int(run.S.counter["usage"][6]), run.passed("stock_refill")
        assert run.sim.teardown() == 0
    assert usage[True][0] == usage[False][0] + 2 and usage[True][1] > usage[False][1]


def test_objects_of_an_lru_have_its_list_looked_up():
    for flags, found in ((ev.SLAB_ACCOUNT, 0), (ev.SLAB_ACCOUNT | ev.SLAB_RECLAIM_ACCOUNT, 3)):
        run = Run("linux-6.18", [slabs_of(flags=flags)])
        run.alloc(3, memcg=3)
        run.alloc(2, memcg=1)  # the root
        assert run.passed("list_lru_found") == found


def test_the_first_slab_bytes_wait_in_the_stock_however_many_they_are():
    run = Run("linux-6.18", [slabs_of(1)])
    (first,) = run.alloc(memcg=3)
    assert run.passed("vmstat_update") == 0  # 4104 bytes, more than a page
    run.free([first])
    assert run.passed("vmstat_update") == 0  # and none again
    run.alloc(2, memcg=3)
    assert run.passed("vmstat_update") == 1
