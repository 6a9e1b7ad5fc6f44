"""What the scenarios of reclaim show, and how bad ones are refused."""

from pathlib import Path

import polars as pl
import pytest

import kmbench
from kmbench.errors import UsageProblem

WORKLOADS = Path(__file__).parent.parent / "workloads"
SHORT = {
    "workload.files": "4000", "workload.names": "60000", "machine.memory": "16 MiB",
    "workload.limit_pages": "512", "workload.warm_ms": "1500", "workload.alone_ms": "200",
    "workload.crowded_ms": "300",
}  # fmt: skip


def by_strategy(results):
    return {row["strategy"]: row for row in results.runs.collect().to_dicts()}


def test_a_dentry_bomb_is_held_back_by_its_own_shrinker(tmp_path):
    names = ["none", "costa-2012", "linux-3.8", "linux-4.5"]
    scenario = WORKLOADS / "isolation" / "dentry_bomb.toml"
    results = kmbench.run(scenario, names, out=tmp_path, settings=SHORT)
    runs = by_strategy(results)
    for name in ("costa-2012", "linux-4.5"):
        assert runs[name]["victim_hit_ratio_kept"] >= 0.95, name
        assert runs[name]["victim_rate_kept"] >= 0.95, name
        assert runs[name]["failed_allocs"] == 0, name
        assert runs[name]["reclaim_targeting"] == 1.0, name
    assert runs["none"]["victim_hit_ratio_kept"] < 0.95
    assert runs["none"]["victim_rate_kept"] < 0.5
    assert runs["none"]["interference_bytes"] > 0
    assert runs["linux-3.8"]["enomem_reclaimable"] > 0
    assert runs["linux-4.5"]["enomem_reclaimable"] == 0
    web = results.accesses.filter((pl.col("group") == "/web") & (pl.col("phase") == 2)).collect()
    assert web.height == len(names) and (web["accesses"] > 0).all()


@pytest.mark.parametrize("as_posted", ["true", "false"])
def test_chunks_of_mempressure_balance_to_the_last(tmp_path, as_posted):
    results = kmbench.run(
        WORKLOADS / "pressure" / "mempressure_shrinker.toml", out=tmp_path,
        settings={"shrinkers.mempressure.as_posted": as_posted, "workload.rounds": "3"},
    )  # fmt: skip
    (run,) = results.runs.collect().to_dicts()
    assert run["oom_kills"] == 0 and run["chunks_signalled"] > 0
    assert run["chunks_signalled"] == run["chunks_freed"] + run["chunks_readded"]
    added = run["chunks_added"] + run["chunks_readded"]
    assert run["chunks_left"] == added - run["chunks_signalled"]


def test_without_its_shrinker_the_same_test_is_killed(tmp_path):
    scenario = WORKLOADS / "pressure" / "mempressure_none.toml"
    results = kmbench.run(scenario, out=tmp_path, settings={"workload.rounds": "3"})
    (run,) = results.runs.collect().to_dicts()
    assert run["oom_kills"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reclaim.swap": "much"}, "reclaim.swap = 'much'"),
        ({"reclaim.swop": "1"}, "unknown parameter 'swop'"),
        ({"reclaim.inode_cache": "xfs"}, "unknown cache 'xfs'"),
        ({"shrinkers.dentry.capacity": "1"}, "unknown shrinker 'dentry'; did you mean"),
        ({"shrinkers.lru.capacity": "1"}, "a run has one shrinker"),
        ({"shrinkers.dentry-inode.capacity": "3"}, "unknown parameter 'capacity'"),
    ],
)
def test_bad_scenarios_are_one_line(tmp_path, settings, message):
    with pytest.raises(UsageProblem) as problem:
        scenario = WORKLOADS / "isolation" / "dentry_bomb.toml"
        kmbench.run(scenario, ["none"], out=tmp_path, settings=settings)
    assert message in str(problem.value) and "\n" not in str(problem.value)


def test_a_workload_that_needs_reclaim_says_so(tmp_path):
    bare = tmp_path / "bare.toml"
    bare.write_text('[workload]\nplugin = "dentry_bomb"\n')
    with pytest.raises(UsageProblem, match="needs a table"):
        kmbench.run(bare, ["none"], out=tmp_path)
