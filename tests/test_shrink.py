"""How hard shrinkers work: golden values of each era, and what must hold for any stream."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kmbench
import reclaim_streams
from kmbench.core import events as ev
from kmbench.core.geometry import make_cache
from kmbench.core.jit import JIT
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.shrink import LRU_RATIO, PRIORITY, PRIORITY_CAPPED, by_lru_ratio, by_priority
from kmbench.core.slab_geometry import on_slab
from kmbench.core.vm import Reclaim
from kmbench.final import final_figures
from kmbench.memory import Memory


class Shrinker:
    """A shrinker that scans what it is asked to, frees nothing, and remembers the sum."""

    def __init__(self, rules, refuses=False, batch=128):
        self.scanned = 0
        self.refuses = refuses
        vm = SimpleNamespace(
            rules=rules, batch=batch, seeks=2, at_least_batch=0, scanned_objects=0, cost=0,
            object_ns=0,
        )  # fmt: skip
        self.S = SimpleNamespace(
            vm=[vm], k=[SimpleNamespace(release=0, cpu=0)], P=None, Q=None,
            R=SimpleNamespace(scan=self.scan),
        )  # fmt: skip
        self.owner = SimpleNamespace(deferred=0)

    def scan(self, S, Q, memcg, nr, gfp):
        if self.refuses:
            return -1
        self.scanned += nr
        return nr


@pytest.mark.parametrize(
    ("scanned", "pages", "freeable", "expected", "left"),
    [
        (1000, 100_000, 50_000, 896, 103),
        (32, 100_000, 50_000, 0, 31),
        (6250, 100_000, 50_000, 6144, 105),
        (100_000, 100_000, 50_000, 99_968, 31),
    ],
)
def test_shrink_slab_of_3_5(scanned, pages, freeable, expected, left):
    one = Shrinker(LRU_RATIO)
    by_lru_ratio(one.S, one.owner, 0, freeable, scanned, pages, 0)
    assert (one.scanned, one.owner.deferred) == (expected, left)


@pytest.mark.parametrize(
    ("prio", "freeable", "deferred", "expected", "left"),
    [
        (12, 50_000, 0, 0, 24),
        (12, 50_000, 5000, 0, 5024),
        (8, 50_000, 0, 384, 6),
        (4, 50_000, 0, 6144, 106),
        (0, 50_000, 0, 99_968, 32),
        (12, 262_144, 0, 128, 0),
        (0, 100, 0, 128, 72),
        (1, 60, 0, 60, 0),
    ],
)
def test_do_shrink_slab_of_6_18(prio, freeable, deferred, expected, left):
    one = Shrinker(PRIORITY)
    one.owner.deferred = deferred
    by_priority(one.S, one.owner, 0, freeable, prio, 0)
    assert (one.scanned, one.owner.deferred) == (expected, left)


@pytest.mark.parametrize("rules", [LRU_RATIO, PRIORITY])
def test_a_refusing_shrinker_winds_up_to_a_bound(rules):
    one = Shrinker(rules, refuses=True)
    for _ in range(50):
        if rules == LRU_RATIO:
            by_lru_ratio(one.S, one.owner, 0, 1000, 500, 1000, 0)
        else:
            by_priority(one.S, one.owner, 0, 1000, 4, 0)
    assert 500 <= one.owner.deferred <= 2000


def test_small_passes_are_capped_between_4_16_and_5_12():
    one = Shrinker(PRIORITY_CAPPED)
    one.owner.deferred = 100_000
    by_priority(one.S, one.owner, 0, 10_000, 12, 0)
    assert one.scanned == 5000 // 128 * 128


@pytest.fixture(scope="module")
def plugins():
    return kmbench.load_plugins()


ENGINES = [("none", "slub"), ("linux-4.5", "slab")]  # few: each takes long to compile


def run(case, plugins, engine, gfp=None):
    setup, reclaim, events = case
    strategy, allocator = engine
    if allocator == "slab":
        setup = on_slab(setup)
    if gfp is not None:
        events = events.copy()
        events["gfp"] = gfp
    memory = Memory(reclaim, plugins.shrinker("dentry-inode"))
    simulation = kmbench.Simulation(setup, plugins.strategy(strategy), memory=memory)
    simulation.feed(events)
    assert simulation.S.vm["busy"][0] == 0
    return simulation.S


EXAMPLES = settings(
    max_examples=40 if JIT else 4, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@EXAMPLES
@given(seed=st.integers(0, 10_000))
def test_references_keep_objects_and_counts_hold(engine, seed, plugins):
    S = run(reclaim_streams.seeded_case(seed, 300), plugins, engine)
    item, live = S.item, S.obj["slab"][: len(S.item)] > 0
    assert live[item["pins"] > 0].all(), "a pinned object was freed"
    parents = item["parent"][(item["known"] > 0) & (item["parent"] > 0)]
    assert (item["known"][parents] > 0).all() and (item["pins"][parents] > 0).all()
    for table in ("user", "owner", "stat", "lru", "pool"):
        for name in getattr(S, table).dtype.names:
            assert (getattr(S, table)[name] >= 0).all(), (table, name)
    unused = np.bincount(
        S.obj["owner"][: len(item)][(item["known"] > 0) & (item["pins"] == 0)],
        minlength=len(S.memcg),
    )
    assert (S.user["unused"] == unused).all()


@pytest.mark.parametrize("engine", ENGINES)
@EXAMPLES
@given(seed=st.integers(0, 10_000))
def test_without_gfp_fs_no_dentry_is_freed(engine, seed, plugins):
    nofs = ev.GFP_NOFS & ~ev.GFP_KSWAPD_RECLAIM  # kswapd itself may
    setup, reclaim, events = reclaim_streams.seeded_case(seed, 300)
    events = events[events["op"] != ev.DROP_CACHES]  # and whoever writes there
    S = run((setup, reclaim, events), plugins, engine, nofs)
    assert S.vm["freed_objects"][0] == 0


QUIET = (ev.ACCESS, ev.USER_ALLOC, ev.USER_FREE, ev.PIN, ev.UNPIN, ev.MARK, ev.DROP_CACHES)


@pytest.mark.parametrize("engine", ENGINES)
@EXAMPLES
@given(seed=st.integers(0, 10_000))
def test_pages_freed_by_the_shrinker_are_slabs_that_went_empty(engine, seed, plugins):
    """Where nobody else frees objects these are all slabs that ever went; without grace periods."""
    setup, reclaim, events = reclaim_streams.seeded_case(seed, 300)
    flags = ~ev.SLAB_TYPESAFE_BY_RCU
    caches = tuple(cache._replace(flags=cache.flags & flags) for cache in setup.caches)
    events = events[np.isin(events["op"], QUIET)]
    S = run((setup._replace(caches=caches), reclaim, events), plugins, engine)
    gone = sum(int(c["slabs_gone"]) << int(c["order"]) for c in S.cache)
    if S.k["nr_failed"][0] or S.vm["oom_kills"][0]:
        assert S.vm["freed_slab_pages"][0] <= gone
    else:
        assert S.vm["freed_slab_pages"][0] == gone


@pytest.mark.parametrize(("inodes", "slots"), [("", 512), ("inode_cache", 512 + 1024)])
def test_what_a_first_toucher_pays_for_others(inodes, slots, plugins):
    """k groups have an object: whoever pays, 1 - 1/k of it is for the others."""
    names = (("dentry", 512), ("inode_cache", 1024))
    caches = tuple(make_cache(name, size, flags=ev.SLAB_ACCOUNT) for name, size in names)
    groups = (GroupSpec("/", 0), *(GroupSpec(f"g{row}") for row in range(2, 31)))
    setup = Setup(Machine(), "6.18", caches, groups, 100)
    memory = Memory(Reclaim(inode_cache=inodes), plugins.shrinker("dentry-inode"))

    def shared(strategy, *accesses):
        simulation = kmbench.Simulation(setup, plugins.strategy(strategy), memory=memory)
        events = np.zeros(len(accesses), ev.EVENT)
        events["op"], events["cache"], events["gfp"] = ev.ACCESS, 1, ev.GFP_KERNEL
        events["obj"], events["memcg"] = zip(*accesses, strict=True)
        simulation.feed(events)
        return final_figures(simulation.S, simulation.P)["shared_bytes"]

    alone = [(1, 2), (2, 2), (2, 2), (3, 3)]
    assert shared("linux-6.18", *alone) == 0
    among = shared("linux-6.18", *alone, (1, 3), (1, 4), (2, 3))
    assert among == pytest.approx(slots * (2 / 3 + 1 / 2))
    assert shared("none", *alone, (1, 3), (1, 4), (2, 3)) == 0  # nobody pays
    assert shared("linux-6.18", (1, 1), (1, 2)) == 0  # nor for the root
    # the root, fourteen groups, and one that stands for all others
    many = shared("linux-6.18", (1, 2), *((1, row) for row in range(1, 31)))
    assert many == pytest.approx(slots * 15 / 16)
