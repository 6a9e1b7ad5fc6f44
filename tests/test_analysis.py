"""Pareto fronts, scaling curves, timelines; and that large timelines are read in bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import make_results
from kmbench.analysis import pareto, scaling, timelines
from kmbench.analysis.compare import compare, load_runs
from kmbench.analysis.groups import with_subtrees
from kmbench.analysis.metrics import METRICS
from kmbench.analysis.parameters import in_order
from kmbench.store.dataset import open_results

ROOT = Path(__file__).parent.parent


@pytest.fixture
def one(tmp_path):
    return open_results(make_results.write_all(tmp_path / "one"))


def test_front_by_hand():
    metrics = [METRICS["pair_ns"], METRICS["slab_utilisation"]]  # lower, higher is better
    frame = pl.DataFrame(
        {
            "pair_ns": [1.0, 2.0, 2.0, 3.0, None, 1.0],
            "slab_utilisation": [0.5, 0.9, 0.8, 0.9, 1.0, 0.5],
        }
    )
    assert pareto.on_front(frame, metrics).to_list() == [True, True, False, False, None, True]


def test_points_of_a_comparison(one):
    comparison = compare(one, metrics=pareto.AXES)
    found = pareto.points(comparison.frame, ["scenario"])
    front = dict(found.select("strategy", "front").iter_rows())
    # none: cheapest and least slab; linux-6.18: exact; the others are beaten by linux-6.18
    assert front == {
        "none": True, "costa-2012": True, "linux-5.9": False, "linux-6.18": True
    }  # fmt: skip
    assert found.filter(strategy="linux-6.18")["charge_error_median"].item() == 0


def test_curves_take_numbers_that_vary_within_a_scenario(tmp_path):
    for groups in (10, 100):
        for strategy, growth in (("none", 1), ("costa-2012", 3)):
            make_results.write(
                tmp_path, strategy, scenario_params=json.dumps({"groups": groups, "kind": "x"}),
                workload_hash=f"g{groups}", slab_bytes_mean=float(growth * groups),
            )  # fmt: skip
    make_results.write(tmp_path, "none", scenario="alone", scenario_params='{"groups": 7}')
    runs = load_runs(open_results(tmp_path))
    assert scaling.varied(runs) == ["groups"]
    found = scaling.curves(runs, "groups", ["W0"])
    rows = found.select("strategy", "x", "value", "scenario").rows()
    assert rows == [
        ("costa-2012", 10.0, 30.0, "churn"), ("costa-2012", 100.0, 300.0, "churn"),
        ("none", 10.0, 10.0, "churn"), ("none", 100.0, 100.0, "churn"),
    ]  # fmt: skip
    assert scaling.curves(runs, "cpus").is_empty()


def test_timelines_by_hand(one):
    mine = pl.col("run_id").cast(pl.String) == "costa20120000"
    total = timelines.total_curves(one.timeline).filter(mine).collect()
    assert total["used"].to_list() == [32_000, 64_000]
    assert total["charged"].to_list() == [48_000, 96_000]
    groups = timelines.group_curves(with_subtrees(one.timeline, ["run_id"])).filter(mine).collect()
    web = groups.filter(pl.col("group").cast(pl.String) == "/web")
    assert web["used"].to_list() == [12_000, 24_000]
    assert web["charged"].to_list() == [18_000, 36_000]


def test_thinning_keeps_means_and_ends(one):
    whole = timelines.total_curves(one.timeline).collect()
    thin = timelines.total_curves(one.timeline, points=1).collect()
    assert thin.height == whole.height // 2
    assert thin["used"].to_list() == [48_000.0] * thin.height
    assert set(thin["t"]) == {0}


def test_caches_of_a_run(one):
    slabs = timelines.slab_curves(one.caches).collect()
    assert set(slabs["slabs"]) == {11 * 4096, 26 * 4096, 12 * 4096}
    families = timelines.cache_families(one.caches).collect()
    assert families.filter(cache="dentry")["live"].to_list() == [19_200.0] * 4


def test_values_of_parameters_in_order():
    assert in_order(["10", "9", "x", None, "1e3"]) == [None, "9", "10", "1e3", "x"]


def test_large_timelines_are_read_in_bounded_memory():
    """What many more rows take is less than those rows are."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    code = (
        "import sys, tempfile, pathlib; sys.path.insert(0, 'benchmarks'); import scan\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    for rows in (100_000, 700_000):\n"
        "        at = pathlib.Path(folder, str(rows))\n"
        "        scan.write_timelines(at, rows, 40)\n"
        "        print(scan.measure('compare', str(at), '--groups')[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True,
        env={**os.environ, "POLARS_MAX_THREADS": "2"},
    )  # fmt: skip
    small, large = map(int, done.stdout.split())
    raw = 600_000 * 20 * 8  # bytes of the rows that the larger one has more
    assert large - small < raw, f"{small >> 20} MiB, {large >> 20} MiB"
