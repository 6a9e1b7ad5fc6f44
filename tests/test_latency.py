"""Histograms of what allocations and frees cost: buckets, every event by hand, and nothing else."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kmbench
from kmbench.analysis.compare import compare, load_runs
from kmbench.analysis.pricing import path_prices
from kmbench.core.events import ALLOC, FREE
from kmbench.core.latency import BUCKETS, bounds, bucket_of
from kmbench.core.paths import ALLOC_PATH, FREE_PATH
from kmbench.hardware.profile import load_profile
from kmbench.runs import make_plans
from kmbench.scenario import load_scenario
from kmbench.tabulate import strategy_paths

TEXT = """
latency = {latency}
sample_every = "0 ns"
[workload]
plugin = "slab_pairs"
pairs = 600
size = 1000
run = 20
tasks = 2
groups = 2
"""


@given(st.integers(0, 2**36))
def test_a_bucket_holds_what_lies_between_its_bounds(ns):
    edges = bounds()
    bucket = bucket_of(ns)
    assert edges[bucket] <= ns and (ns < edges[bucket + 1] or bucket == BUCKETS - 1)
    assert edges[bucket + 1] - edges[bucket] <= max(1, edges[bucket] / 8)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    path = tmp_path_factory.mktemp("latency") / "s.toml"
    path.write_text(TEXT.format(latency="true"))
    return path


@pytest.fixture(scope="module")
def results(scenario):
    return kmbench.run(scenario, ["linux-6.18"], out=scenario.parent / "r")


def test_every_event_costs_what_its_paths_cost(scenario, results):
    """One event at a time, in another simulation, priced by hand."""
    loaded = load_scenario(scenario)
    (plan,) = make_plans(loaded, ["linux-6.18"], kmbench.load_plugins())
    paths = strategy_paths(plan.strategy, plan.parameters)
    ps = np.rint(path_prices(paths, loaded.profile()) * 1000).astype(np.int64)
    sim = kmbench.Simulation(plan.workload.setup, plan.strategy, plan.parameters)
    edges, expected = bounds(), {}
    for batch in plan.workload.batches(sim.S):
        for i in range(len(batch)):
            before, nested = sim.S.path["count"].copy(), int(sim.S.k["nr_internal"][0])
            sim.feed(batch[i : i + 1])
            passed = (sim.S.path["count"] - before)[: len(ps)]
            passed[ALLOC_PATH] += sim.S.k["nr_internal"][0] - nested
            op = int(batch["op"][i])
            passed[{ALLOC: ALLOC_PATH, FREE: FREE_PATH}[op]] += 1
            ns = int(passed @ ps) // 1000
            low = int(edges[np.searchsorted(edges, ns, "right") - 1])
            key = (int(batch["memcg"][i]), "free" if op == FREE else "alloc", low)
            expected[key] = expected.get(key, 0) + 1
    frame = results.latency.collect()
    rows = frame.select("memcg", pl.col("op").cast(pl.String), "low", "count").iter_rows()
    assert {row[:3]: row[3] for row in rows} == expected
    assert len(expected) > 8 and set(frame["group"].cast(pl.String)) == {"/g0", "/g1"}


def test_percentiles_are_metrics_and_agree_with_the_price_of_all(results):
    run = load_runs(results).row(0, named=True)
    assert run["alloc_p50_ns"] <= run["alloc_p99_ns"] <= run["alloc_p999_ns"]
    low, high = results.latency.select(
        (pl.col("low") * pl.col("count")).sum(), (pl.col("high") * pl.col("count")).sum()
    ).collect().row(0)  # fmt: skip
    assert low <= run["pair_ns"] * run["allocs"] <= high
    frame = compare(results, baseline="linux-6.18", metrics=["T8.p99"]).frame
    assert frame["value"][0] == run["alloc_p99_ns"]


def test_at_other_prices_there_is_no_histogram(results):
    assert load_runs(results, hardware=load_profile("laptop"))["alloc_p99_ns"].null_count() == 1
    assert load_runs(results, hardware=load_profile("server"))["alloc_p99_ns"].null_count() == 0


def test_a_run_without_histograms_is_the_same_run(scenario, results):
    path = scenario.with_name("off.toml")
    path.write_text(TEXT.format(latency="false"))
    off = kmbench.run(path, ["linux-6.18"], out=path.parent / "off")
    assert off.latency.collect().height == 0
    for table in ("ops", "caches", "timeline"):
        one, other = (getattr(r, table).drop("run_id").collect() for r in (results, off))
        assert one.equals(other)
    assert load_runs(off)["alloc_p99_ns"].null_count() == 1
