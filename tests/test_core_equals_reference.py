"""The compiled core equals the plain-Python reference model, event by event."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kmbench
import streams
from kmbench.core.events import OP_NAMES
from kmbench.core.jit import JIT
from observe_core import check, observe
from reference import Reference

SEEDS = int(os.environ.get("KMBENCH_TEST_SEEDS", "12" if JIT else "2"))
EVENTS = 400 if JIT else 120
STOCK_BELOW = 5014  # here a removed group below the one that goes has pages in a CPU's stock
PARTS = 3  # of the strategies: a drawn stream runs through one part


def differences(ours, theirs, path=""):
    """Paths at which two nested snapshots differ."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return [] if ours == theirs else [f"{path}: core {ours}, reference {theirs}"]
    found = []
    for key in [*ours, *(k for k in theirs if k not in ours)]:
        at = f"{path}/{key}"
        if key not in ours or key not in theirs:
            found.append(f"{at}: only in the {'core' if key in ours else 'reference'}")
        else:
            found += differences(ours[key], theirs[key], at)
    return found


def comparable(core: dict, reference: dict, copies: bool, forgets: bool) -> tuple[dict, dict]:
    """Both snapshots cut to what both models have."""
    reference = {key: reference[key] for key in core}
    reference["counters"] = {key: reference["counters"].get(key, 0) for key in core["counters"]}
    if copies:  # the core counts the copies' own structures too
        reference["metadata_bytes"] = core["metadata_bytes"]
    if forgets:  # only the core destroys the empty copies of this design
        reference["caches"] = {
            key: value
            for key, value in reference["caches"].items()
            if key in core["caches"] or key[1] == 0 or value["num_slabs"]
        }
    return core, reference


def assert_equal_on(setup, events, name, parameters, seed, plugins):
    if "caches" in parameters:
        present = [cache.name for cache in setup.caches]
        kept = [name for name in parameters["caches"] if name in present]
        parameters = {**parameters, "caches": kept}
    simulation = kmbench.Simulation(setup, plugins.strategy(name), parameters, seed)
    simulation.S.k["crowded"] = 1  # so that visits to lines are compared as well
    reference = Reference(simulation.setup, name, parameters, seed)
    for i in range(-1, len(events)):
        if i >= 0:
            simulation.feed(events[i : i + 1])
            reference.step(events[i])
        core, expected = comparable(
            observe(simulation),
            reference.observe(),
            copies=len(simulation.S.child) > 1,
            forgets=name.startswith("costa"),
        )
        check(simulation)
        found = differences(core, expected)
        if found:
            what = OP_NAMES[events[i]["op"]] if i >= 0 else "start"
            pytest.fail(f"{name} {setup.era} after event {i} ({what}):\n" + "\n".join(found[:8]))


@pytest.fixture(scope="module")
def plugins():
    return kmbench.load_plugins()


@pytest.mark.parametrize(("name", "parameters"), streams.STRATEGIES)
@pytest.mark.parametrize("seed", [*range(SEEDS), STOCK_BELOW])
def test_seeded_streams(seed, name, parameters, plugins):
    setup, events = streams.seeded_case(seed, EVENTS)
    assert_equal_on(setup, events, name, parameters, seed, plugins)


@pytest.mark.parametrize(("name", "parameters"), streams.STRATEGIES)
@pytest.mark.parametrize("seed", range(SEEDS // 2))
def test_seeded_streams_on_slab(seed, name, parameters, plugins):
    setup, events = streams.to_slab(*streams.seeded_case(1000 + seed, EVENTS), seed)
    assert_equal_on(setup, events, name, parameters, seed, plugins)


@pytest.mark.parametrize(("name", "parameters"), streams.STRATEGIES)
def test_waves_overflow_sheaves_and_barns(name, parameters, plugins):
    setup, events = streams.wave_case(1, waves=4 if JIT else 1)
    assert_equal_on(setup, events[: 4 * EVENTS], name, parameters, 1, plugins)


@settings(
    max_examples=60 if JIT else 5, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(case=streams.cases(), part=st.integers(0, PARTS - 1))
def test_drawn_streams(case, part, plugins):
    setup, events = case
    for name, parameters in streams.STRATEGIES[part::PARTS]:
        assert_equal_on(setup, events, name, parameters, 0, plugins)


# one of each kind: no copies, eager ones that are chained, ones made late that die or linger
ON_SLAB = ("none", "costa-2012", "souhlal-2012-v1", "linux-3.8", "linux-5.3", "linux-6.18")


@settings(
    max_examples=60 if JIT else 3, deadline=None, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(
    case=streams.cases(max_events=90), shape=st.integers(0, 2**16),
    first=st.integers(0, len(ON_SLAB) - 1),
)  # fmt: skip
def test_drawn_streams_on_slab(case, shape, first, plugins):
    setup, events = streams.to_slab(*case, shape)
    events = streams.then_freed(events, setup.machine.cpus)
    for name in (ON_SLAB[first], ON_SLAB[(first + 1) % len(ON_SLAB)]):
        parameters = next(given for known, given in streams.STRATEGIES if known == name)
        assert_equal_on(setup, events, name, parameters, 0, plugins)
