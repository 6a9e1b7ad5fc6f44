"""The historic designs on the compiled core: limits, migration, removal, work items, teardown."""

import numpy as np
import polars as pl
import pytest

import kmbench
import streams
from design_run import ACCOUNT, MS, PLUGINS, Run, slabs_of
from kmbench.analysis.summary import Columns, _duplicate_partials
from kmbench.core import events as ev
from kmbench.core.jit import JIT
from kmbench.core.sample import CACHE_COLUMNS, TOTAL_COLUMNS
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.final import final_figures

PAGE_UNIT = (
    "souhlal-2012-v1", "souhlal-2012-v2", "kamezawa-2012", "linux-3.8", "linux-4.5", "linux-5.3",
)  # fmt: skip
BYTE_UNIT = ("ubc-2006", "tcp-memcontrol")
DESIGNS = PAGE_UNIT + BYTE_UNIT


# -- limits --------------------------------------------------------------------------------


def test_refused_slab_is_tried_at_the_smallest_order():
    """mm/slub.c:allocate_slab falls back for whatever reason the large slab was not to be had."""
    run = Run("linux-4.5", [slabs_of(2, order=1)], c=(-1, 1))
    run.warm()
    run.alloc()
    assert (run.failed, run.pages(3), run.S.k["nr_slab_pages"][0]) == (0, 1, 1)
    run.alloc()
    assert run.failed == 1


@pytest.mark.parametrize(("as_posted", "failed"), [(False, 0), (True, 1)])
def test_nofail_on_a_full_kmem_counter(as_posted, failed):
    run = Run("linux-5.3", [slabs_of(1)], {"as_posted": as_posted}, c=(-1, 1))
    run.warm()
    run.alloc()
    run.alloc(gfp=ACCOUNT | ev.GFP_NOFAIL)
    assert run.failed == failed
    assert run.S.k["forced_pages"][0] == 1 - failed


def test_dying_task_bypasses_the_memory_counter_of_souhlal_v1():
    run = Run("souhlal-2012-v1", [slabs_of(1)])
    dying = run.alloc(2, gfp=ACCOUNT | ev.CTX_DYING)
    assert (run.pages(3), run.pages(3, ev.COUNTER_MEMORY)) == (2, 0)
    run.free(dying)
    run.event(ev.SHRINK)
    assert (run.pages(3), run.pages(3, ev.COUNTER_MEMORY)) == (0, 0)


# -- who pays ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linux-3.8", "linux-4.5", "linux-5.3", "souhlal-2012-v2"])
def test_objects_before_the_copy_stay_unbilled(name):
    run = Run(name)
    run.alloc(3)
    run.wait()
    run.alloc(5)
    assert run.unaccounted(ev.CAUSE_PENDING) == 3 and run.pages(3) == 2
    assert run.S.memcg["billed_slab"][3] == 5 * 1024


@pytest.mark.parametrize("name", ["souhlal-2012-v1", "kamezawa-2012"])
def test_copy_made_inside_an_allocation_that_may_sleep(name):
    run = Run(name)
    run.alloc(gfp=ev.GFP_NOWAIT)
    run.alloc(2)
    assert run.unaccounted(ev.CAUSE_PENDING) == 1 and run.pages(3) == 1


@pytest.mark.parametrize(("groups", "per_cpu"), [(20, (5,)), (10, (2, 2, 2, 2)), (3, (30, 1))])
@pytest.mark.parametrize("name", DESIGNS)
def test_slabs_in_closed_form(name, groups, per_cpu):
    """N groups with k objects: whole slabs a copy and CPU, or one shared set of slabs."""
    spec = slabs_of(21)._replace(size=192, object_size=192)
    specs = tuple(GroupSpec(f"g{row}") for row in range(groups))
    setup = Setup(Machine(cpus=4), "4.19", (spec,), (GroupSpec("/", 0), *specs), 4096)
    parameters = {"caches": ["dentry"]} if name == "tcp-memcontrol" else None
    sim = kmbench.Simulation(setup, PLUGINS.strategy(name), parameters)
    rows = [(0, 0, 0, g, ACCOUNT, 0, 1, ev.ALLOC, 0) for g in range(2, groups + 2)]
    rows += [(0, 0, 0, 1, 0, 0, 0, ev.MARK, 0)]
    events = np.array(rows, ev.EVENT)
    events["obj"][:-1] = np.arange(1, groups + 1)
    frees = events[:-1].copy()
    frees["op"] = ev.FREE
    for part in (events, frees):
        sim.feed(part)
    mark = np.array([(10 * MS, 0, 0, 1, 0, 0, 0, ev.SHRINK, 0)], ev.EVENT)
    sim.feed(mark)
    handle = 100
    rows = []
    for group in range(2, groups + 2):
        for cpu, count in enumerate(per_cpu):
            for _ in range(count):
                handle += 1
                rows.append((10 * MS, handle, 0, group, ACCOUNT, 0, 1, ev.ALLOC, cpu))
    sim.feed(np.array(rows, ev.EVENT))
    of_copy = sum(-(-k // 21) for k in per_cpu)
    if name in BYTE_UNIT:
        assert sim.S.k["nr_slab_pages"][0] == sum(-(-groups * k // 21) for k in per_cpu)
        assert sim.S.counter["usage"][2 * 2 + 1] == -(-sum(per_cpu) * 192 // 4096)
    else:
        assert sim.S.k["nr_slab_pages"][0] == groups * of_copy
        assert sim.S.counter["usage"][2 * 2 + 1] == of_copy


# -- removal -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DESIGNS)
def test_objects_outlive_their_group_and_then_nothing_is_left(name):
    run = Run(name)
    run.warm()
    handles = run.alloc(10)
    run.event(ev.CG_OFFLINE, memcg=3)
    run.event(ev.CG_RELEASE, memcg=3)
    left, zombie = run.pages(2), int(run.S.memcg["css_pages"][3])
    run.wait()
    if name in ("souhlal-2012-v1", "souhlal-2012-v2", "kamezawa-2012"):
        assert (left, zombie, run.unaccounted(ev.CAUSE_REMOVED)) == (0, 0, 10)
    elif name == "linux-5.3":
        assert (left, zombie, run.S.memcg["billed_slab"][2]) == (3, 0, 10 * 1024)
    else:
        assert left == zombie == 3
    run.free(handles)
    run.event(ev.SHRINK)
    run.wait()
    run.wait()
    assert not run.S.counter["usage"].any() and not run.S.memcg["css_pages"].any()
    assert run.S.memcg["gone_at"][3] == (run.t - 20 * MS if zombie else 10 * MS)
    copies = run.S.cache[2 : int(run.S.k["nr_caches"][0])]
    assert (copies["state"] == 2).all()


def test_charge_may_go_to_the_root():
    run = Run("souhlal-2012-v2", parameters={"charge_to_root": True})
    run.warm()
    run.alloc(10)
    run.event(ev.CG_OFFLINE, memcg=3)
    assert (run.pages(1), run.pages(2), run.S.memcg["billed_slab"][1]) == (3, 0, 10 * 1024)
    assert run.unaccounted(ev.CAUSE_REMOVED) == 0


def test_reparented_copies_move_on_with_the_parent():
    run = Run("linux-5.3")
    run.warm()
    handles = run.alloc(10)
    for row in (3, 4, 2):
        run.event(ev.CG_OFFLINE, memcg=row)
    assert (run.pages(2), run.pages(1), run.S.memcg["billed_slab"][1]) == (0, 3, 10 * 1024)
    run.free(handles)
    run.event(ev.SHRINK)
    assert run.pages(1) == 0


def test_stacks_keep_a_group_alive_also_where_slabs_do_not():
    for name, kind in (("linux-3.8", ev.PAGES_STACK), ("linux-5.3", ev.PAGES_TABLE)):
        run = Run(name)
        stack = run.alloc(op=ev.PAGE_ALLOC, cache=kind, arg=2)
        run.event(ev.CG_OFFLINE, memcg=3)
        assert run.pages(2) == run.S.memcg["css_pages"][3] == 4
        run.wait()
        run.free(stack, op=ev.PAGE_FREE)
        assert run.pages(2) == 0 and run.S.memcg["gone_at"][3] == 10 * MS


def test_kernel_pages_that_3_8_does_not_charge():
    run = Run("linux-3.8")
    run.alloc(op=ev.PAGE_ALLOC, cache=ev.PAGES_TABLE, arg=0)
    assert run.pages(3) == 0


def test_first_kmem_limit_has_a_group_account():
    run = Run("linux-3.8", [slabs_of(1)], {"all_groups": False})
    run.warm(3)
    run.alloc(2)
    assert run.pages(3) == 0 and run.unaccounted(ev.CAUSE_NOT_SELECTED) == 2
    run.event(ev.LIMIT_WRITE, memcg=3, cache=ev.COUNTER_KMEM, arg=100)
    run.event(ev.LIMIT_WRITE, memcg=2, cache=ev.COUNTER_KMEM, arg=100)  # has children: refused
    run.warm(3)
    run.alloc(2)
    run.warm(2)
    run.alloc(2, memcg=2)
    assert run.pages(3) == run.pages(2) == 2


# -- deferred work -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "duplicates"), [("linux-3.8", 6), ("souhlal-2012-v2", 0)])
def test_work_items_queued_twice(name, duplicates):
    run = Run(name, parameters={"work_delay_us": 500})
    run.alloc(7)
    run.wait(499_999)
    run.alloc()  # queues one more, or not
    assert run.S.k["nr_caches"][0] == 2
    run.wait(1)
    assert run.S.k["nr_caches"][0] == 3
    run.wait()
    assert run.S.k["nr_work_duplicates"][0] == duplicates + (duplicates > 0)


def test_work_item_without_memory_is_lost():
    run = Run("linux-4.5", [slabs_of(4)], memory_pages=1)
    run.alloc(memcg=1)  # has the only page
    run.alloc(2)
    assert run.S.k["nr_work_lost"][0] == 2
    run.wait()
    assert run.S.k["nr_caches"][0] == 2


# -- what the metrics say ------------------------------------------------------------------


def test_figures_of_lingering_groups():
    run = Run("linux-3.8", parameters={"work_delay_us": 500})
    run.alloc(2)
    run.warm()
    run.alloc(4)
    run.event(ev.CG_OFFLINE, memcg=3)
    run.event(ev.CG_OFFLINE, memcg=4)
    run.wait(2_000 * MS)
    run.event(ev.SAMPLE)
    figures = final_figures(run.S, run.P)
    assert figures["zombie_lifetime"] == pytest.approx(1.0)  # of one group 2 s, of the other 0
    assert figures["work_items_duplicate"] == 2 and figures["work_items_lost"] == 0
    totals = dict(zip(TOTAL_COLUMNS, run.sim.tables()[2][:, -1].tolist(), strict=True))
    assert (totals["zombies"], totals["zombie_pages"]) == (1, 1)


def test_figures_of_forced_charges():
    run = Run("ubc-2006", [slabs_of(1)], c=(-1, 1))
    run.alloc(4, gfp=ACCOUNT | ev.GFP_NOFAIL)
    figures = final_figures(run.S, run.P)
    assert figures["limit_overshoot_bytes"] == figures["forced_charge_bytes"] == 3 * 4096
    assert (figures["absorbed_failures"], figures["enomem_failures"]) == (3, 0)
    run = Run("ubc-2006", [slabs_of(1)], c=(-1, 1))
    run.alloc(4, gfp=ACCOUNT)
    figures = final_figures(run.S, run.P)
    assert (figures["absorbed_failures"], figures["enomem_failures"]) == (0, 3)


@pytest.mark.parametrize(("cpu", "pairs"), [(0, 1), (1, 0)])
def test_duplicate_partials_are_pairs_of_cache_and_node(cpu, pairs):
    """Copies of two groups with a partial slab each, on the same node or on two."""
    run = Run("costa-2012", nodes=2)
    for memcg, on in ((3, 0), (4, cpu)):
        run.free(run.alloc(8, memcg=memcg, cpu=on)[:1], cpu=on)
    run.event(ev.SAMPLE)
    columns = zip(CACHE_COLUMNS, run.sim.tables()[1], strict=True)
    slabs = Columns(pl.DataFrame(dict(columns)))
    wanted = {"duplicate_partials": pairs, "duplicate_partial_bytes": pairs * 2 * 1024}
    assert _duplicate_partials(slabs, 1) == wanted


def test_overshoot_as_a_share_of_the_limit():
    run = Run("ubc-2006", [slabs_of(1)], c=(-1, 2), d=(-1, 8))
    assert final_figures(run.S, run.P)["limit_overshoot_share"] == 0
    run.alloc(5, gfp=ACCOUNT | ev.GFP_NOFAIL)
    assert final_figures(run.S, run.P)["limit_overshoot_share"] == 1.5
    unlimited = Run("ubc-2006")
    assert final_figures(unlimited.S, unlimited.P)["limit_overshoot_share"] is None


def test_misattributed_is_billed_to_a_stranger():
    run = Run("ubc-2006")
    run.alloc(4)
    assert final_figures(run.S, run.P)["misattributed_bytes"] == 0
    run.S.obj["billed"][1:4] = 2, 4, 1  # parent, sibling, root
    assert final_figures(run.S, run.P)["misattributed_bytes"] == 1024


# -- teardown ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parameters"), streams.STRATEGIES)
def test_nothing_stays_charged(name, parameters):
    for seed in range(8 if JIT else 1):
        setup, events = streams.seeded_case(seed, 400 if JIT else 100)
        here = [cache.name for cache in setup.caches]
        if "caches" in parameters:
            kept = [cache for cache in parameters["caches"] if cache in here]
            parameters = {**parameters, "caches": kept}
        sim = kmbench.Simulation(setup, PLUGINS.strategy(name), parameters, seed)
        sim.feed(events)
        assert sim.teardown() == 0
        assert not sim.S.memcg["css_pages"].any() and not sim.S.memcg["billed_slab"].any()
        assert sim.S.k["work_head"][0] == sim.S.k["work_tail"][0]


def test_every_strategy_leaves_nothing_in_a_whole_run(tmp_path):
    scenario = kmbench.Scenario("t", "spread", parameters={"groups": 6}, teardown=True)
    results = kmbench.run(scenario, [*DESIGNS, "none"] if JIT else ["none"], out=tmp_path)
    runs = results.runs.collect()
    assert not any(runs["leak_bytes"])
    for name in ("zombie_groups", "work_items_lost", "misattributed_bytes", "duplicate_partials"):
        assert runs[name].null_count() == 0
