"""Groups that come and go: who is left with what they leave, in the direction the sources state."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import kmbench
from design_run import PLUGINS
from kmbench.core import events as ev
from kmbench.core.jit import JIT
from kmbench.parameters import parse_parameters

SCENARIO = Path(__file__).parent.parent / "workloads" / "churn" / "short_lives.toml"
GROUPS = 60 if JIT else 8
DROPPED = ("souhlal-2012-v1", "souhlal-2012-v2", "kamezawa-2012")
ZOMBIES = ("linux-3.8", "linux-4.5", "ubc-2006")
PARENT = ("costa-2012", "linux-5.3", "linux-5.9", "linux-6.18")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Metrics of every strategy by name."""
    out = tmp_path_factory.mktemp("short_lives")
    scenario = kmbench.load_scenario(SCENARIO, {"workload.groups": str(GROUPS)})
    rows = kmbench.run(scenario, out=out).runs.collect().to_dicts()
    return {row["strategy"]: row for row in rows}


def left(row):
    """Bytes that removed groups' tasks left, by who is billed."""
    return {heir: row[f"left_to_{heir}_bytes"] for heir in ("zombies", "parent", "root", "nobody")}


def test_everything_left_is_left_to_somebody(runs):
    totals = {name: sum(left(row).values()) for name, row in runs.items()}
    assert len(set(totals.values())) == 1 and totals["none"] > 0
    assert not any(row["failed_allocs"] or row["leak_bytes"] for row in runs.values())


@pytest.mark.parametrize("name", DROPPED)
def test_patches_of_2012_drop_the_bill(runs, name):
    """Suleiman Souhlal's patches 2 and 5: nobody, unless the root is accounted."""
    assert left(runs[name])["nobody"] == sum(left(runs[name]).values())
    assert runs[name]["zombie_groups"] == 0 and runs[name]["dead_caches"] > 0


def test_cover_letter_of_2012_moves_the_bill_to_the_root(tmp_path):
    settings = {
        "workload.groups": str(GROUPS), "strategies.souhlal-2012-v1.charge_to_root": "true",
    }  # fmt: skip
    scenario = kmbench.load_scenario(SCENARIO, settings)
    row = kmbench.run(scenario, ["souhlal-2012-v1"], out=tmp_path).runs.collect().row(0, named=True)
    assert left(row)["root"] == sum(left(row).values()) > 0


@pytest.mark.parametrize("name", ZOMBIES)
def test_charges_keep_removed_groups_alive(runs, name):
    assert runs[name]["zombie_groups"] > 0 and left(runs[name])["zombies"] > 0
    assert left(runs[name])["parent"] == 0


@pytest.mark.parametrize("name", PARENT)
def test_charges_go_to_the_parent(runs, name):
    """Costa's slab chaining, 5.3's caches, obj_cgroup."""
    assert left(runs[name])["parent"] > 0 and left(runs[name])["zombies"] == 0


def test_zombies_by_version(runs):
    """Deactivation of dead caches (2014) ends zombies earlier, reparenting (2019) all of them."""
    zombies = {name: row["zombie_groups"] for name, row in runs.items()}
    assert zombies["linux-3.8"] > zombies["linux-4.5"] > 20 * zombies["linux-5.3"]
    lives = {name: row["zombie_lifetime"] for name, row in runs.items()}
    assert lives["linux-3.8"] > lives["linux-4.5"] > lives["linux-5.3"] == 0
    assert runs["linux-3.8"]["zombie_bytes"] > runs["linux-4.5"]["zombie_bytes"] > 0


def test_empty_slabs_of_dead_caches_linger_up_to_2014(runs):
    """3.8 and the patches before it keep min_partial empty slabs in a dead cache, 4.5 none."""
    assert runs["linux-3.8"]["slab_bytes_mean"] > runs["linux-4.5"]["slab_bytes_mean"]
    assert runs["linux-3.8"]["kmem_charged_mean"] > 1.2 * runs["linux-4.5"]["kmem_charged_mean"]


def test_first_objects_of_every_group_are_lost_where_a_work_item_makes_the_copy(runs):
    pending = {name: row["unaccounted_pending_bytes"] for name, row in runs.items()}
    late = {"linux-3.8", "linux-4.5", "linux-5.3", "souhlal-2012-v2"}
    assert {name for name, nr_bytes in pending.items() if nr_bytes} == late
    assert pending["linux-3.8"] > pending["souhlal-2012-v2"]


def test_buffers_from_interrupts_are_nobodys(runs):
    """Lost to the interrupt only where kmalloc is accounted without __GFP_ACCOUNT at all."""
    lost = {name for name, row in runs.items() if row["unaccounted_interrupt_bytes"]}
    assert lost == {"souhlal-2012-v1", "souhlal-2012-v2", "linux-3.8"}


def test_dead_caches_are_named_as_in_souhlal_s_posting(tmp_path):
    scenario = kmbench.load_scenario(SCENARIO, {"workload.groups": "2", "workload.kept": "100"})
    results = kmbench.run(scenario, ["souhlal-2012-v1", "linux-3.8"], out=tmp_path)
    names = set(results.caches.collect()["name"].cast(pl.String).to_list())
    assert {"dentry(/pods/0)", "dentry(/pods/0)dead", "dentry(3:/pods/0)"} <= names
    assert not any(n.startswith("dentry(3") and n.endswith("dead") for n in names)


def test_the_stream_is_the_life_of_groups():
    """Each group is made once, allocates, frees what it holds and is removed, in time order."""
    scenario = kmbench.load_scenario(SCENARIO, {"workload.groups": "7"})
    opened = _open(PLUGINS.workloads["short_lives"], scenario)
    sim = kmbench.Simulation(opened.setup, PLUGINS.strategy("none"))
    events = np.concatenate([batch.copy() for batch in opened.batches(sim.S)])
    assert (np.diff(events["t"]) >= 0).all()
    for op in (ev.CG_CREATE, ev.CG_OFFLINE):
        assert sorted(events["memcg"][events["op"] == op]) == list(range(3, 10))
    made = np.isin(events["op"], (ev.ALLOC, ev.PAGE_ALLOC))
    assert made.sum() == 7 * 64 == len(set(events["obj"][made]))
    gone = np.isin(events["op"], (ev.FREE, ev.PAGE_FREE))
    assert len(set(events["obj"][gone])) == gone.sum() < made.sum()


def _open(workload, scenario):
    given = parse_parameters(workload.parameters, scenario.parameters, "workload")
    return workload.open(given, kmbench.Host(2, 1, 1 << 16, 4096, "6.18", 0, "."))


@pytest.mark.parametrize(("pages", "zombies"), [(0, 0), (4, 9)])
def test_page_cache_keeps_removed_groups_until_it_is_reclaimed(tmp_path, pages, zombies):
    """Since 5.3 no slab does (b2052564e66d, 3.19: charges of pages stay with a removed group)."""
    churn = {
        "plugin": "container_churn", "containers": 9, "per_hour": 10**6, "life_ms": 1,
        "cache_pages": pages, "lag_ms": 10**9, "stop": "10 s",
    }  # fmt: skip
    file = tmp_path / "churn.toml"
    keys = "\n".join(f"{key} = {value!r}" for key, value in churn.items())
    file.write_text(
        f'name = "churn"\nera = "5.9"\nsample_every = "0 ns"\n[reclaim]\nswap = "0 MiB"\n'
        f'[workload]\nplugin = "mix"\n[workload.parts.pods]\n{keys}\n'
        '[workload.parts.other]\nplugin = "spread"\ngroups = 1\n'
    )
    found = kmbench.run(file, ["linux-5.3", "linux-5.9"], out=tmp_path).runs.collect()
    assert found["zombie_groups"].to_list() == [zombies, zombies]
