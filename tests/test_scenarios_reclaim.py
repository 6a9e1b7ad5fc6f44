"""What the scenarios of reclaim show, and how bad ones are refused."""

from pathlib import Path

import polars as pl
import pytest

import kmbench
from kmbench.analysis.pricing import path_prices
from kmbench.core.jit import JIT
from kmbench.core.paths import PATHS, SHRINKER_ASKED, SHRINKER_BIT, SHRINKER_EMPTY
from kmbench.errors import UsageProblem
from kmbench.hardware.profile import load_profile

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


SMALL = {
    "machine.memory": "64 MiB", "reclaim.swap": "32 MiB", "workload.swap_mib": "32",
    "workload.rounds": "3",
}  # fmt: skip


def stress(name, tmp_path, settings):
    """The stress test of a scenario in workloads/pressure on a small machine."""
    scenario = WORKLOADS / "pressure" / f"{name}.toml"
    (run,) = kmbench.run(scenario, out=tmp_path, settings=settings).runs.collect().to_dicts()
    return run


def balances(run):
    assert run["chunks_signalled"] == run["chunks_freed"] + run["chunks_readded"]
    added = run["chunks_added"] + run["chunks_readded"]
    assert run["chunks_left"] == added - run["chunks_signalled"]
    return run["chunks_signalled"] > 0


def test_both_readings_survive_and_the_intended_one_swaps_less(tmp_path):
    posted = stress("mempressure_posted", tmp_path, SMALL)
    intended = stress("mempressure_intended", tmp_path, SMALL)
    assert balances(posted) and balances(intended)
    assert posted["oom_kills"] == intended["oom_kills"] == 0
    assert posted["swapped_bytes"] >= 3 * 32 * 2**20  # each round swap is full before the window
    assert intended["swapped_bytes"] < posted["swapped_bytes"] / 2
    assert intended["time_to_notice"] < posted["time_to_notice"] / 10


def test_without_its_shrinker_the_same_test_is_killed(tmp_path):
    assert stress("mempressure_none", tmp_path, SMALL)["oom_kills"] == 1


@pytest.mark.skipif(JIT, reason="engines of their own take long to compile")
@pytest.mark.parametrize("name", ["vmpressure", "psi"])
def test_what_was_merged_instead(name, tmp_path):
    run = stress(name, tmp_path, SMALL | {"machine.memory": "8 MiB", "reclaim.swap": "4 MiB"})
    assert balances(run) or name == "psi"
    assert run["time_to_notice"] > 0 and run["wake_ups"] > 0


@pytest.mark.parametrize(("era", "files"), [("4.5", 0), ("4.19", 0), ("4.19", 3)])
def test_idle_shrinkers_are_asked_for_every_group_or_by_their_bit(era, files, tmp_path):
    settings = {
        "workload.groups": "20", "reclaim.superblocks": "30", "workload.drops": "4",
        "workload.files": str(files), "era": f'"{era}"', "machine.nodes": "1",
    }  # fmt: skip
    scenario = WORKLOADS / "published" / "tkhai-2018.toml"
    (run,) = kmbench.run(scenario, out=tmp_path, settings=settings).runs.collect().to_dicts()
    if era == "4.5":
        assert run["shrinker_visits"] == 4 * (20 + 2) * 30
    else:  # one round frees all, one clears the bits; first names lack a copy and are the root's
        assert run["shrinker_visits"] == (2 * 21 if files else 0)
    price = path_prices(enumerate(PATHS), load_profile("server"))
    visits = run["shrinker_visits"]
    if era == "4.5":
        ns = visits * price[SHRINKER_ASKED]
    else:  # of the two rounds one finds nothing
        ns = visits * price[SHRINKER_BIT] + visits / 2 * price[SHRINKER_EMPTY]
    assert run["visit_time"] == pytest.approx(ns / 1e9)


def test_every_node_is_asked_to_drop_its_caches_up_to_4_18(tmp_path):
    scenario = WORKLOADS / "published" / "tkhai-2018.toml"
    visits = {}
    for era in ("4.5", "4.19"):
        for nodes in ("1", "2"):
            settings = {
                "workload.groups": "1000", "reclaim.superblocks": "30", "workload.files": "1",
                "era": f'"{era}"', "machine.cpus": "2", "machine.nodes": nodes,
            }  # fmt: skip
            results = kmbench.run(scenario, out=tmp_path, settings=settings)
            (run,) = results.runs.collect().to_dicts()
            visits[era, nodes] = run["shrinker_visits"]
    # one round frees all and one finds nothing, of the other node the first one already
    assert 2 * visits["4.5", "2"] == 3 * visits["4.5", "1"] > 0
    assert visits["4.19", "2"] == visits["4.19", "1"] > 0


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
