"""What must hold at the edges of accounting, for every design on both allocators.

Limits at either level, the first object, slabs shared between groups, migration, removal, frees on
another CPU, limits below usage: one test each, listed in docs/model.md.
"""

import pytest

import design_run
from design_run import Run, slabs_of
from kmbench.core import events as ev
from kmbench.errors import UsageProblem

SYNC = ("souhlal-2012-v1", "kamezawa-2012")
LATE = ("souhlal-2012-v2", "linux-3.8", "linux-4.5", "linux-5.3")
COPIES = ("costa-2012", *SYNC, *LATE)
BYTES = ("ubc-2006", "tcp-memcontrol", "linux-5.9", "linux-6.18")
DROPS = ("souhlal-2012-v1", "souhlal-2012-v2", "kamezawa-2012")  # a removed group's charge
of_every_design = pytest.mark.parametrize("name", (*COPIES, *BYTES))


@pytest.fixture(autouse=True, params=["slub", "slab"])
def allocator(request, monkeypatch):
    monkeypatch.setattr(design_run, "ALLOCATOR", request.param)
    return request.param


def limited(name):
    """The counter whose limit fails an allocation: since 5.16 kmem is a statistic."""
    return ev.COUNTER_MEMORY if name == "linux-6.18" else ev.COUNTER_KMEM


def usages(run):
    return run.S.counter["usage"].tolist()


def all_came_back(run):
    """Nothing is charged but the left-over bytes of obj_cgroups, less than a page a CPU."""
    left = int(run.S.memcg["nr_charged_bytes"].sum())
    assert left < 2 * 4096 and run.pages(2) * 4096 == left
    memory = run.pages(2, ev.COUNTER_MEMORY) * 4096
    return memory in (0, left) and run.pages(1) == run.pages(2)


@of_every_design
@pytest.mark.parametrize("row", [2, 3])
def test_refused_charge_leaves_nothing_at_any_level(name, row):
    """The limit of the parent or of the child; the other one has room."""
    run = Run(name, [slabs_of(1)])
    run.warm()
    run.empty_stocks()
    run.event(ev.LIMIT_WRITE, memcg=row, cache=limited(name), arg=2)
    run.alloc(6)
    run.empty_stocks()
    before, refused = usages(run), run.S.counter["failcnt"].copy()
    assert 0 < before[2 * row + limited(name)] <= 2
    failed = run.failed
    assert failed >= 4
    run.alloc(2)
    run.empty_stocks()
    assert run.failed == failed + 2 and usages(run) == before
    changed = (run.S.counter["failcnt"] != refused).nonzero()[0].tolist()
    assert changed == [2 * row + limited(name)]


@of_every_design
def test_who_pays_for_the_first_objects(name):
    """Where the copy is made by a work item, the root cache serves until then, for good."""
    run = Run(name)
    first = run.alloc(3)
    run.wait()
    run.alloc(5)
    free_of_charge = 3 if name in LATE else 0
    assert run.unaccounted(ev.CAUSE_PENDING) == free_of_charge
    assert run.S.memcg["billed_slab"][3] == (8 - free_of_charge) * 1024
    run.free(first)
    assert run.unaccounted(ev.CAUSE_PENDING) == 0
    assert run.S.memcg["billed_slab"][3] == 5 * 1024


@of_every_design
def test_one_slab_serves_two_groups_or_it_does_not(name):
    run = Run(name)
    for memcg in (3, 4):
        run.warm(memcg)
    run.alloc(1, memcg=3)
    run.alloc(1, memcg=4)
    assert run.S.k["nr_slab_pages"][0] == (1 if name in BYTES else 2)
    assert run.S.memcg["billed_slab"][3:5].tolist() == [1024, 1024]


@of_every_design
def test_a_free_after_migration_uncharges_who_paid(name):
    run = Run(name, [slabs_of(1)])
    run.warm()
    handles = run.alloc(3)
    run.event(ev.ATTACH, memcg=4, arg=3, task=7)
    run.alloc(1, memcg=3)
    run.free(handles, memcg=4, cpu=1)
    assert run.S.memcg["billed_slab"][3:5].tolist() == [4096, 0]
    run.free([run.handle])
    run.event(ev.SHRINK)
    run.empty_stocks()
    assert all_came_back(run)


@of_every_design
def test_nothing_is_left_of_a_removed_group(name):
    run = Run(name)
    run.warm()
    handles = run.alloc(10)
    run.empty_stocks()
    charged = run.pages(2)
    run.event(ev.CG_OFFLINE, memcg=3)
    run.event(ev.CG_RELEASE, memcg=3)
    assert run.pages(2) == (0 if name in DROPS else charged) and charged > 0
    assert run.unaccounted(ev.CAUSE_REMOVED) == (10 if name in DROPS else 0)
    run.free(handles)
    run.event(ev.SHRINK)
    run.empty_stocks()
    run.wait()
    run.wait()
    assert all_came_back(run) and run.S.k["nr_slab_pages"][0] == 0
    assert not run.S.memcg["css_pages"].any() and run.S.memcg["css_refs"][3] == 0
    copies = run.S.cache[2 : int(run.S.k["nr_caches"][0])]
    assert (copies["state"][copies["memcg"] == 3] == 2).all()


@of_every_design
def test_frees_on_another_cpu_come_back_to_the_group(name):
    run = Run(name)
    run.warm()
    run.free(run.alloc(40, cpu=0), cpu=1)
    assert run.S.memcg["billed_slab"][3] == 0
    run.event(ev.SHRINK)
    run.empty_stocks()
    assert all_came_back(run) and run.S.k["nr_slab_pages"][0] == 0


@of_every_design
def test_a_limit_below_usage_fails_until_enough_is_freed(name):
    run = Run(name, [slabs_of(1)])
    run.warm()
    held = run.alloc(6)
    run.empty_stocks()
    run.event(ev.LIMIT_WRITE, memcg=3, cache=limited(name), arg=3)
    row = 2 * 3 + limited(name)
    assert run.S.counter["overshoot"][row] == run.S.counter["usage"][row] - 3 > 0
    run.alloc()
    assert run.failed == 1
    run.free(held)
    run.event(ev.SHRINK)
    run.empty_stocks()
    run.alloc()
    assert run.failed == 1


@pytest.mark.parametrize(("name", "most"), [("souhlal-2012-v1", 300), ("souhlal-2012-v2", 400)])
def test_one_cache_more_than_souhlal_has_types_for(name, most):
    """MAX_KMEM_CACHE_TYPES: the last cache that has a type is accounted, one more is a BUG."""
    caches = [slabs_of(name=f"kmalloc-{n}") for n in range(most + 1)]
    run = Run(name, caches[:most], {}, memory_pages=512)
    for _ in range(2):  # v2 makes the copy between them
        run.alloc(cache=most)
        run.wait()
    assert run.S.memcg["billed_slab"][3] >= 1024
    with pytest.raises(UsageProblem, match=f"has {most + 1} caches; .*max_types = {most}"):
        Run(name, caches, {})
    run = Run(name, caches, {"max_types": 0}, memory_pages=512)
    assert run.S.k["nr_root_caches"][0] == most + 1
