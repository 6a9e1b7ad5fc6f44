"""Reclaim in the compiled core equals the plain-Python reference, event by event."""

import os
from dataclasses import replace

import pytest

import kmbench
import reclaim_streams
from kmbench.core.events import OP_NAMES
from kmbench.core.jit import JIT
from kmbench.core.slab_geometry import on_slab
from kmbench.memory import Memory
from observe_core import check, observe, observe_reclaim
from reference import Reference
from test_core_equals_reference import comparable, differences

SEEDS = int(os.environ.get("KMBENCH_TEST_SEEDS", "6" if JIT else "2"))
EVENTS = 300 if JIT else 150
BATCHES = (32, 1024)  # with the kernel's own the short lists of these streams go unscanned to 4.15
COMPILED = ("none", "costa-2012", "linux-3.8", "linux-4.5", "linux-6.18")


@pytest.fixture(scope="module")
def plugins():
    return kmbench.load_plugins()


def assert_equal_on(setup, reclaim, events, name, parameters, shrinker, given, plugins, batch=0):
    known = plugins.shrinker(shrinker)
    memory = Memory(reclaim, replace(known, batch=batch or known.batch), given)
    simulation = kmbench.Simulation(setup, plugins.strategy(name), parameters, 1, memory=memory)
    simulation.S.k["crowded"] = 1  # so that visits to lines are compared as well
    reference = Reference(setup, name, parameters, 1, memory)
    for i, event in enumerate(events):
        simulation.feed(events[i : i + 1])
        reference.step(event)
        core, expected = comparable(
            observe(simulation),
            reference.observe(),
            copies=len(simulation.S.child) > 1,
            forgets=name.startswith("costa"),
        )
        core |= observe_reclaim(simulation)
        expected |= reference.vm.snapshot()
        check(simulation)
        reference.check()
        found = differences(core, expected)
        if found:
            what = OP_NAMES[event["op"]]
            pytest.fail(f"{name} {setup.era} after event {i} ({what}):\n" + "\n".join(found[:8]))


@pytest.mark.parametrize(("name", "parameters"), reclaim_streams.STRATEGIES)
def test_dentries_and_inodes(name, parameters, plugins):
    if JIT and name not in COMPILED:
        pytest.skip("an engine of its own takes long to compile")
    for seed in range(SEEDS):
        case = reclaim_streams.seeded_case(seed, EVENTS)
        assert_equal_on(*case, name, parameters, "dentry-inode", {}, plugins, BATCHES[seed % 2])


@pytest.mark.parametrize(("name", "parameters"), reclaim_streams.STRATEGIES)
def test_on_slab(name, parameters, plugins):
    if JIT and name != "linux-4.5":
        pytest.skip("an engine of its own takes long to compile")
    for seed in range(SEEDS):
        setup, *case = reclaim_streams.seeded_case(300 + seed, EVENTS)
        batch = BATCHES[seed % 2]
        assert_equal_on(on_slab(setup), *case, name, parameters, "dentry-inode", {}, plugins, batch)


@pytest.mark.parametrize("as_posted", [True, False])
@pytest.mark.parametrize("parameters", [{}, {"independent": False, "reclaim": True}])
def test_a_shrink_function_per_cache(parameters, as_posted, plugins):
    parameters = {"caches": ["dentry", "inode"], **parameters}
    given = {"as_posted": as_posted}
    for seed in range(SEEDS):
        case = reclaim_streams.seeded_case(200 + seed, EVENTS)
        batch = BATCHES[seed % 2]
        assert_equal_on(*case, "costa-2012", parameters, "costa-shrink-fn", given, plugins, batch)


@pytest.mark.skipif(JIT, reason="engines of their own take long to compile")
@pytest.mark.parametrize("shrinker", ["lru", "clock"])
def test_baselines(shrinker, plugins):
    for seed in range(SEEDS):
        setup, reclaim, events = reclaim_streams.seeded_case(100 + seed, EVENTS)
        reclaim = reclaim._replace(inode_cache="")
        given = {"capacity": (0, 40)[seed % 2]}
        assert_equal_on(setup, reclaim, events, "none", {}, shrinker, given, plugins)
