"""SLAB: layout and limits as published, the paths of 3.5, recordings, full teardown, the CLI."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kmbench
import streams
from golden import SLAB_ERA_LAYOUTS, SLAB_LAYOUTS, SLAB_TUNABLES
from kmbench.analysis import show
from kmbench.analysis.overview import main_table
from kmbench.core import events as ev
from kmbench.core.geometry import ERAS, make_cache
from kmbench.core.jit import JIT, by_allocator, entry, outlined
from kmbench.core.sample import CACHE_COLUMNS
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.slab_geometry import (
    RULES,
    array_limits,
    free_limit,
    on_slab,
    slab_cache,
    slab_layout,
    slab_slot,
)
from kmbench.core.tables import records, tables_class
from kmbench.errors import UsageProblem
from kmbench.scenario import load_scenario
from kmbench.store.dataset import Results
from kmbench.trace.format import open_trace
from reference import slab as reference

WORKLOADS = Path(__file__).parent.parent / "workloads"
PLUGINS = kmbench.load_plugins()
SECOND = 10**9


# -- geometry ------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "reclaim", "align", "objects", "order", "outside"), SLAB_LAYOUTS)
def test_layouts(size, reclaim, align, objects, order, outside):
    ours = slab_layout(size, align, ev.SLAB_RECLAIM_ACCOUNT if reclaim else 0)
    theirs = reference.layout(size, align, reclaim)
    assert (ours.objects, ours.order, ours.management > 0) == (objects, order, outside)
    assert theirs == (ours.objects, ours.order, ours.management)


def reference_layout(since, size, align, reclaim, rewritable, page_size=4096, small=False):
    if since == "4.6":
        return reference.layout_4_6(size, size, rewritable, reclaim, page_size, small)
    return reference.layout(size, align, reclaim, page_size, small, since)


@pytest.mark.parametrize("since", SLAB_ERA_LAYOUTS)
def test_layouts_of_later_eras(since):
    for size, reclaim, align, rewritable, *expected in SLAB_ERA_LAYOUTS[since]:
        flags = ev.SLAB_RECLAIM_ACCOUNT if reclaim else 0
        ours = slab_layout(size, align, flags, since=since, written_free=rewritable)
        assert [ours.objects, ours.order, ours.management] == expected, size
        assert [*reference_layout(since, size, align, reclaim, rewritable)] == expected, size


@pytest.mark.parametrize("page_size", [4096, 65536])
@pytest.mark.parametrize("since", RULES)
def test_layouts_of_both_models_for_every_size(since, page_size):
    small = (16, 24) if RULES[since].index == 0 and page_size == 4096 else (8, 16, 24)
    for size in [*small, *range(32, 9000, 24), 16384, 65536, 1 << 20]:
        for flags, pages, rewritable in ((0, 1 << 20, True), (ev.SLAB_RECLAIM_ACCOUNT, 64, False)):
            ours = slab_layout(
                size, 8, flags, page_size, pages, since=since, written_free=rewritable
            )
            tiny = pages * page_size <= 32 << 20
            theirs = reference_layout(since, size, 8, flags > 0, rewritable, page_size, tiny)
            assert theirs == (ours.objects, ours.order, ours.management), size


def test_an_era_decides_the_layout_and_what_may_be_written():
    plain = make_cache("c", 256, align=64)
    built = make_cache("c", 256, align=64, ctor=True)
    typesafe = make_cache("c", 256, align=64, flags=ev.SLAB_TYPESAFE_BY_RCU)
    assert (plain.size, built.size, typesafe.size) == (256, 320, 320)
    caches, groups = (plain, built, typesafe), (GroupSpec("/", 0),)
    for era, expected in (
        ("3.5", [(15, 0)] * 3), ("3.13", [(15, 0)] * 3), ("4.5", [(16, 16)] * 3),
        ("4.19", [(16, 0), (16, 16), (16, 16)]),
    ):  # fmt: skip
        laid_out = on_slab(Setup(Machine(), era, caches, groups, 10)).caches
        assert [(cache.objects, cache.management) for cache in laid_out] == expected, era
    tiny = make_cache("c", 8)
    assert [slab_cache(tiny, 2, 4096, 1 << 20, since).size for since in RULES] == [8, 8, 16, 16]


@pytest.mark.parametrize("size", SLAB_TUNABLES)
def test_tunables(size):
    limit, batchcount, factor = SLAB_TUNABLES[size]
    assert array_limits(size, 2) == (limit, batchcount, factor * batchcount)
    assert reference.tunables(size, 2) == (limit, batchcount, factor)
    assert array_limits(size, 1)[2] == 0 == reference.tunables(size, 1)[2]


def test_free_limit_of_a_node():
    assert free_limit(60, 20, cpus_of_node=2) == 3 * 60 + 20


@pytest.mark.parametrize(
    ("object_size", "slub", "flags", "slab"),
    [
        (192, 192, ev.SLAB_RECLAIM_ACCOUNT, 192),
        (616, 624, ev.SLAB_RECLAIM_ACCOUNT, 616),  # a constructor: SLUB's free pointer is behind
        (184, 192, ev.SLAB_TYPESAFE_BY_RCU | ev.SLAB_HWCACHE_ALIGN, 192),
        (96, 104, ev.SLAB_TYPESAFE_BY_RCU, 96),
        (768, 832, ev.SLAB_HWCACHE_ALIGN, 768),
        (5840, 5888, 0, 5888),  # aligned to 64 bytes without the flag
        (96, 96, ev.SLAB_KMALLOC, 96),
        (24, 32, ev.SLAB_HWCACHE_ALIGN, 32),
    ],
)
def test_slot_without_the_free_pointer(object_size, slub, flags, slab):
    cache = make_cache("c", object_size, size=slub, flags=flags)
    assert slab_slot(cache)[0] == slab


# -- paths ---------------------------------------------------------------------------------


class Run:
    """One cache of 192-byte objects on SLAB, fed by calls."""

    def __init__(
        self, cpus=1, nodes=1, strategy="none", objects=3000, size=192, era="3.5",
    ):  # fmt: skip
        caches = (make_cache("dentry", size, size=size), make_cache("kmalloc-96", 96))
        setup = Setup(
            Machine(cpus, nodes, 1 << 14), era, caches, (GroupSpec("/", 0), GroupSpec("/g")),
            objects,
        )  # fmt: skip
        self.sim = kmbench.Simulation(on_slab(setup), PLUGINS.strategy(strategy))
        self.S, self.handle = self.sim.S, 0

    def feed(self, op, objects, cpu=0, t=0):
        events = np.zeros(len(objects), ev.EVENT)
        events["op"], events["obj"], events["cpu"], events["t"] = op, objects, cpu, t
        events["cache"], events["memcg"] = op == ev.ALLOC, 2
        self.sim.feed(events)

    def alloc(self, count, cpu=0):
        objects = range(self.handle + 1, self.handle + 1 + count)
        self.handle += count
        self.feed(ev.ALLOC, objects, cpu)
        return objects

    def wait(self, t):
        self.feed(ev.MARK, [0], t=t)

    def counts(self, node=0):
        """(slabs full, partial, free; objects in arrays; in the shared array) of the cache."""
        S, nodes, cpus = self.S, self.S.k["nr_nodes"][0], self.S.k["nr_cpus"][0]
        lists = S.list["nr"][(nodes + node) * 3 : (nodes + node) * 3 + 3].tolist()
        parked = int(S.cpu["avail"][cpus : 2 * cpus].sum())
        return (*lists, parked, int(S.node["shared_avail"][nodes + node]))


def test_refill_takes_a_batch_of_what_is_there():
    """The first batch is 16, an array in use gets 60; a slab of 20 objects is all there is."""
    run = Run()
    run.alloc(1)
    assert run.counts() == (0, 1, 0, 15, 0)
    run.alloc(16)
    assert run.counts() == (1, 0, 0, 3, 0)
    run.alloc(4)  # 20 gone: the array is in use now, so it takes the whole second slab
    assert run.counts() == (2, 0, 0, 19, 0)


def test_full_array_gives_its_batch_to_the_shared_array_and_then_to_the_slabs():
    run = Run(cpus=2)
    objects = run.alloc(700)
    parked = run.counts()[3]
    run.feed(ev.FREE, objects[: 120 - parked])
    assert run.counts()[3:] == (120, 0)
    run.feed(ev.FREE, objects[120 - parked : 121 - parked])
    assert run.counts()[3:] == (61, 60)
    run.feed(ev.FREE, objects[121 - parked : 121 - parked + 60 * 7 + 59])
    assert run.counts()[3:] == (120, 480)  # eight batches
    slabs = sum(run.counts()[:3])
    run.feed(ev.FREE, objects[600 - parked : 601 - parked])
    full, partial, free, *arrays = run.counts()
    assert arrays == [61, 480]
    assert full + partial + free == slabs  # 60 free objects are below the limit of the node
    assert partial + free >= 3


def test_empty_slabs_go_above_the_limit_of_free_objects():
    run = Run()  # one CPU: no shared array; limit of the node 2 * 60 + 20
    objects = run.alloc(1000)
    run.feed(ev.FREE, objects)
    assert run.S.node["free_objects"][1] <= 140
    assert run.counts()[2] <= 7
    shrink = np.zeros(1, ev.EVENT)
    shrink["op"], shrink["cache"] = ev.SHRINK, 1
    run.sim.feed(shrink)
    assert run.counts() == (0, 0, 0, 0, 0) and run.S.k["nr_slab_pages"][0] == 0


@pytest.mark.parametrize(("era", "kept"), [("3.5", True), ("4.5", True), ("4.19", False)])
def test_free_slabs_go_too_when_partial_ones_hold_enough_from_4_7(era, kept):
    """Six slabs go empty below the limit; then many partial ones hold more than it allows."""
    run = Run(era=era)
    objects = np.array(run.alloc(1000))
    slab = run.S.obj["slab"][objects]
    known = np.unique(slab)
    empty = objects[np.isin(slab, known[:6])]
    run.feed(ev.FREE, empty)
    thinned = [objects[slab == row][1:] for row in known[6:-8]]
    run.feed(ev.FREE, np.concatenate(thinned))
    node = run.S.node[1]
    assert node["free_objects"] > node["free_limit"]
    assert (run.counts()[2] > 0) == kept


def test_idle_arrays_are_reaped_in_fifths_and_free_slabs_every_four_seconds():
    run = Run(cpus=2)
    run.feed(ev.FREE, run.alloc(100))
    parked = run.counts()[3]
    run.wait(2 * SECOND)  # used since: only forgets that
    assert run.counts()[3] == parked
    run.wait(4 * SECOND)
    assert run.counts()[3] == parked - 24
    slabs = sum(run.counts()[:3])
    for second in range(5, 60):
        run.wait(second * SECOND)
    assert sum(run.counts()[:3]) == 0 < slabs


def test_objects_of_another_node_wait_in_twelves():
    run = Run(cpus=2, nodes=2)
    objects = run.alloc(40, cpu=0)
    run.feed(ev.FREE, objects[:12], cpu=1)
    assert run.S.alien["avail"].tolist()[4:8] == [0, 0, 12, 0]
    assert run.counts(node=0)[4] == 0
    run.feed(ev.FREE, objects[12:13], cpu=1)
    assert run.S.alien["avail"].tolist()[4:8] == [0, 0, 1, 0]
    assert run.counts(node=0)[4] == 12  # home, in the shared array of their node


def test_management_outside_the_slab_is_an_object_of_its_size():
    run = Run(size=1024, cpus=2)
    objects = run.alloc(4 * 27)
    assert run.S.k["metadata"][0] == 27 * 64  # 48 + 4 * 4 bytes a slab
    assert run.S.cpu["live"][4:6].sum() == 0  # no kmalloc-64 here: only counted
    run = Run(size=512, cpus=2)
    objects = run.alloc(8 * 10)
    assert run.S.cpu["live"][4:6].sum() == 10  # 48 + 8 * 4 bytes from kmalloc-96
    run.feed(ev.FREE, objects)
    shrink = np.zeros(1, ev.EVENT)
    shrink["op"] = ev.SHRINK
    run.sim.feed(shrink)
    assert run.S.cpu["live"][4:6].sum() == 0 == run.S.k["metadata"][0]


def test_slabinfo_counts_parked_objects_as_active():
    run = Run(cpus=2)
    run.feed(ev.FREE, run.alloc(100)[:97])
    sample = np.zeros(1, ev.EVENT)
    sample["op"] = ev.SAMPLE
    run.sim.feed(sample)
    row = dict(zip(CACHE_COLUMNS, run.sim.tables()[1][:, -1].tolist(), strict=True))
    full, partial, free, parked, shared = run.counts()
    assert row["live_objs"] == 3
    assert row["active_objs"] == 3 + parked + shared
    assert row["num_objs"] == 20 * (full + partial + free) == 20 * row["num_slabs"]
    assert (row["free_slabs"], row["node_partial"]) == (free, partial)
    assert (row["limit"], row["batchcount"], row["shared_factor"]) == (120, 60, 8)
    assert row["shared_avail"] == shared


def test_only_the_allocator_in_use_is_compiled():
    with_array = tables_class(("array", "k"))
    without = tables_class(("k",))
    field = np.dtype([("n", "i8")])

    @outlined
    def slub(S):
        return S.k[0].n + 1

    @outlined
    def slab(S):
        return S.array[0].n + 2

    chosen = by_allocator(slub, slab)

    @entry
    def call(S):
        return chosen(S)

    assert call(without(records(1, field))) == 1
    if JIT:
        assert slub.signatures and not slab.signatures
    assert call(with_array(records(1, field), records(1, field))) == 2


# -- whole runs ----------------------------------------------------------------------------


@pytest.mark.parametrize(("era", "per_slab"), [("3.5", 20), ("5.16", 21)])
@pytest.mark.parametrize("strategy", ["none", "costa-2012", "souhlal-2012-v1", "linux-6.18"])
def test_slabs_in_closed_form(strategy, era, per_slab, tmp_path):
    """A hundred groups with five dentries each, so many to a slab: shared slabs, or 100 copies."""
    results = kmbench.run(
        WORKLOADS / "waste" / "spread.toml", [strategy], out=tmp_path,
        settings={"allocator": "slab", "machine.cpus": "1", "era": f'"{era}"'},
    )  # fmt: skip
    caches = results.caches.collect()
    own = caches.filter((caches["root"] == 1) | (caches["cache"] == 1))
    last = own.filter(own["sample"] == own["sample"].max())
    shared = strategy in ("none", "linux-6.18")
    assert last["num_slabs"].sum() == (-(-500 // per_slab) if shared else 100)
    run = results.runs.collect().row(0, named=True)
    assert (run["allocator"], run["era"], run["leak_bytes"]) == ("slab", era, 0)


@pytest.mark.parametrize(("name", "parameters"), streams.STRATEGIES)
def test_nothing_is_left_after_full_teardown(name, parameters):
    for seed in range(3 if JIT else 1):
        setup, events = streams.seeded_case(seed, 300 if JIT else 100, initial=False)
        setup, events = streams.to_slab(setup, events, seed)
        known = [cache.name for cache in setup.caches]
        if "caches" in parameters:
            kept = [cache for cache in parameters["caches"] if cache in known]
            parameters = {**parameters, "caches": kept}
        simulation = kmbench.Simulation(setup, PLUGINS.strategy(name), parameters, seed)
        simulation.feed(events)
        assert simulation.teardown() == 0 == simulation.teardown()  # vectors of vectors come late
        S = simulation.S
        assert not S.cpu["avail"].any() and not S.node["shared_avail"].any()
        assert not S.alien["avail"].any() and not S.list["nr"][2::3].any()
        # what is left are obj_cgroup vectors that lie in each other's slabs: these streams charge
        # objects of the kmalloc caches that serve vectors, too
        left = np.flatnonzero(S.obj["slab"])
        slabs = S.slab[np.unique(S.obj["slab"][left])]
        assert slabs["inuse"].sum() == len(left) and S.list["nr"].sum() == len(slabs)
        assert (left > setup.nr_objects).all() and (left < setup.nr_objects + len(S.slab)).all()
        assert slabs["vector"].all()
        assert S.k["nr_slab_pages"][0] == (1 << slabs["order"]).sum()


@pytest.mark.parametrize("recording", ["churn", "compile", "limit_neg"])
def test_a_recording_keeps_its_objects_on_slab(recording):
    before = open_trace(WORKLOADS / "recorded" / f"{recording}.kmtrace.parquet").setup
    after = on_slab(before)
    assert ERAS[after.era].slab and not ERAS[before.era].slab
    for row, (slub, slab) in enumerate(zip(before.caches, after.caches, strict=True), 1):
        assert (slab.name, slab.flags) == (slub.name, slub.flags)
        old = before.initial_slabs[before.initial_slabs["cache"] == row]
        new = after.initial_slabs[after.initial_slabs["cache"] == row]
        parked = (before.initial_sheaves["cache"] == row).sum()
        assert new["inuse"].sum() == old["inuse"].sum() - parked
        slots = new["objects"].sum() - old["objects"].sum()
        assert 0 <= slots < max(slab.objects, 1)
    known = np.bincount(after.initial_objects["slab"], minlength=len(after.initial_slabs) + 1)
    assert (known[1:] <= after.initial_slabs["inuse"]).all()
    was = before.initial_slabs["cache"][before.initial_objects["slab"] - 1]
    now = after.initial_slabs["cache"][after.initial_objects["slab"] - 1]
    assert (was == now).all()


@pytest.mark.skipif(not JIT, reason="a million events")
def test_a_recording_runs_on_both_allocators(tmp_path):
    path = WORKLOADS / "recorded" / "limit_neg.toml"
    rows = []
    for allocator in ("slub", "slab"):
        settings = {"allocator": allocator, "teardown": "true"}
        results = kmbench.run(path, ["none", "linux-5.9"], out=tmp_path, settings=settings)
        rows += results.runs.collect().to_dicts()
    assert {row["leak_bytes"] for row in rows} == {0}
    assert len({(row["allocs"], row["frees"], row["failed_allocs"]) for row in rows}) == 1
    assert {row["era"] for row in rows} == {"5.16", "6.18"}


def test_an_era_without_slab_is_refused(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('allocator = "slab"\nera = "6.12"\n[workload]\nplugin = "spread"\n')
    with pytest.raises(UsageProblem, match=r"era = '6.12': SLAB was removed in 6.8; expected one"):
        load_scenario(path)
    assert load_scenario(path, {"era": '"3.5"'}).era == "3.5"
    assert load_scenario(path, {"allocator": "slub"}).era == "6.12"
    plain = kmbench.Scenario("s", "spread")
    assert (plain.kernel_era(), replace(plain, allocator="slab").kernel_era()) == ("6.18", "5.16")


def test_both_allocators_in_one_table_and_as_slabinfo(tmp_path):
    path = WORKLOADS / "waste" / "spread.toml"
    results = [
        kmbench.run(path, ["none", "costa-2012"], out=tmp_path, settings={"allocator": allocator})
        for allocator in ("slub", "slab")
    ]
    ids = [run_id for part in results for run_id in part.run_ids()]
    head, *_ = main_table(Results(tmp_path, ids), ids).split("\n\nwhat groups were charged")
    lines = [line.split() for line in head.splitlines() if line.startswith("costa-2012")]
    assert [line[1] for line in lines[:2]] == ["slab", "slub"]
    assert "scenario spread" in head and head.count("scenario") == 1

    run = results[1].run("none")
    sample, _ = show.sample_at(run)
    (line,) = (
        line.split() for line in show.slabinfo_text(show.caches_at(run, sample)).splitlines()
        if line.startswith("dentry")
    )  # fmt: skip
    # 500 objects and what two CPUs hold; arrays of 120, batches of 60, 8 of them shared
    assert line[3:6] == ["192", "21", "1"]
    assert line[8:11] == ["120", "60", "8"]
    assert line[13:] == ["25", "25", "0"]
