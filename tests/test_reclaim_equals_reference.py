"""Reclaim in the compiled core equals the plain-Python reference, event by event."""

import os

import pytest

import kmbench
import reclaim_streams
from kmbench.core.events import OP_NAMES
from kmbench.core.jit import JIT
from kmbench.memory import Memory
from observe_core import check, observe, observe_reclaim
from reference import Reference
from test_core_equals_reference import comparable, differences

SEEDS = int(os.environ.get("KMBENCH_TEST_SEEDS", "6" if JIT else "2"))
EVENTS = 300 if JIT else 150
COMPILED = ("none", "costa-2012", "souhlal-2012-v2", "linux-3.8", "linux-4.5", "linux-6.18")


@pytest.fixture(scope="module")
def plugins():
    return kmbench.load_plugins()


def assert_equal_on(setup, reclaim, events, name, parameters, shrinker, given, plugins):
    memory = Memory(reclaim, plugins.shrinker(shrinker), given)
    simulation = kmbench.Simulation(setup, plugins.strategy(name), parameters, 1, memory=memory)
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
        assert_equal_on(*case, name, parameters, "dentry-inode", {}, plugins)


@pytest.mark.skipif(JIT, reason="engines of their own take long to compile")
@pytest.mark.parametrize("shrinker", ["lru", "clock"])
def test_baselines(shrinker, plugins):
    for seed in range(SEEDS):
        setup, reclaim, events = reclaim_streams.seeded_case(100 + seed, EVENTS)
        reclaim = reclaim._replace(inode_cache="")
        given = {"capacity": (0, 40)[seed % 2]}
        assert_equal_on(setup, reclaim, events, "none", {}, shrinker, given, plugins)
