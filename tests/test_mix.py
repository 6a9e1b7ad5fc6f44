"""Several workloads at once: each does what it does alone, moved, and nothing gets mixed up."""

from pathlib import Path

import numpy as np
import pytest

import kmbench
from design_run import PLUGINS
from kmbench.analysis.parameters import parameter_values
from kmbench.core import events as ev
from kmbench.core.build import Accounting, build_state
from kmbench.errors import UsageProblem
from kmbench.unused import refuse_unused

WORKLOADS = Path(__file__).parent.parent / "workloads"
MS = 10**6
WEB = {"plugin": "webserver_fleet", "groups": 3, "requests": 30, "files": 50}
MAKE = {"plugin": "kernel_compile", "compilers": 6, "headers": 20, "sources": 40, "run_ms": 3}
CHURN = {"plugin": "container_churn", "containers": 5, "per_hour": 1_000_000, "life_ms": 10}


def host(seed=0, pages=1 << 16):
    return kmbench.Host(2, 1, pages, 4096, "6.18", seed, ".", PLUGINS.workloads)


def opened(parts, **of_host):
    return PLUGINS.workloads["mix"].open({"parts": parts}, host(**of_host))


def stream(parts, seed=0):
    source = opened(parts, seed=seed)
    S = build_state(source.setup, Accounting(), seed, 0)
    return source.setup, np.concatenate(list(source.batches(S)))


def names_of(setup, events):
    """Events by what they mean, without row numbers: op, cache, name of the group, cpu, gfp."""
    caches = np.array(["", *(cache.name for cache in setup.caches)])
    groups = np.array(["", *(group.name for group in setup.groups)])
    of_cache = events["op"] == ev.ALLOC
    return list(
        zip(
            events["op"].tolist(), caches[np.where(of_cache, events["cache"], 0)].tolist(),
            groups[events["memcg"]].tolist(), events["cpu"].tolist(), events["gfp"].tolist(),
            strict=True,
        )
    )  # fmt: skip


def part(setup, events, name):
    """The events of one part: those of its groups."""
    rows = [row for row, g in enumerate(setup.groups, 1) if g.name.startswith(f"/{name}/")]
    return events[np.isin(events["memcg"], rows)]


def test_a_part_does_what_it_does_alone_later_and_slower():
    given = {"web": WEB, "make": MAKE | {"start": "2 ms", "share": 0.5}, "pods": CHURN}
    setup, events = stream(given)
    assert (np.diff(events["t"]) >= 0).all()
    assert sum(len(part(setup, events, name)) for name in given) == len(events)
    for name, one in (("web", WEB), ("make", MAKE), ("pods", CHURN)):
        alone_setup, alone = stream({name: one})
        mixed = part(setup, events, name)
        assert names_of(setup, mixed) == names_of(alone_setup, alone)
        t = 2 * MS + 2 * alone["t"] if name == "make" else alone["t"]
        assert np.array_equal(mixed["t"], t)
        shift = mixed["obj"][mixed["obj"] > 0] - alone["obj"][alone["obj"] > 0]
        assert len(set(shift.tolist())) == 1
    handles = [set(part(setup, events, name)["obj"].tolist()) - {0} for name in given]
    assert not handles[0] & handles[1] and not handles[1] & handles[2]
    parents = events[events["op"] == ev.CG_CREATE]
    assert {setup.groups[row - 1].name for row in parents["arg"]} == {"/pods/pods"}


def test_a_part_stops_in_time_and_equal_parts_are_not_the_same():
    setup, events = stream({"a": WEB | {"stop": "3 ms"}, "b": WEB | {"start": "1 ms"}})
    a, b = part(setup, events, "a"), part(setup, events, "b")
    assert 0 < a["t"][-1] < 3 * MS <= b["t"][-1] and b["t"][0] >= MS
    _, whole = stream({"a": WEB})
    assert np.array_equal(whole["t"][: len(a)], a["t"]) and whole["t"][len(a)] >= 3 * MS
    assert names_of(*stream({"b": WEB})) != [
        (*event[:2], event[2].replace("/a/", "/b/"), *event[3:]) for event in names_of(setup, a)
    ]


def test_the_same_seed_makes_the_same_bytes():
    one, again, other = (stream({"web": WEB, "make": MAKE}, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_a_closed_loop_sees_its_own_objects():
    """Sockets until memory is full, beside files that come first: what fails gives back its own."""
    flood = {"plugin": "sock_flood", "sockets": 3000, "hold_ms": 1}
    source = opened({"web": WEB, "flood": flood | {"start": "1 ms"}}, pages=512)
    sim = kmbench.Simulation(source.setup, PLUGINS.strategy("none"))
    for batch in source.batches(sim.S):
        sim.feed(batch)
    k = sim.S.k[0]
    assert k["nr_failed_pages"] > 0
    tcp = [cache.name for cache in source.setup.caches].index("TCP") + 1
    live = np.flatnonzero(sim.S.obj["slab"])
    assert len(live) and not (sim.S.slab["cache"][sim.S.obj["slab"][live]] == tcp).any()


def test_phases_and_victim_of_a_part_are_those_of_the_run(tmp_path):
    path = tmp_path / "mix.toml"
    path.write_text(
        '[machine]\nmemory = "64 MiB"\n[workload]\nplugin = "mix"\n'
        "[workload.parts.chat]\n"
        'plugin = "hackbench"\ngroups = 1\nfan = 3\nloops = 5\n'
        "[workload.parts.find]\n"
        'plugin = "find"\ndirectories = 20\nnames = 50\nwarm_ms = 5\nalone_ms = 2\ncrowded_ms = 5\n'
        "[reclaim]\n[shrinkers.dentry-inode]\n"
    )
    (run,) = kmbench.run(path, ["none"], out=tmp_path).runs.collect().to_dicts()
    assert run["victim_hit_ratio_kept"] >= 1 and run["skipped"] == 0


def test_runs_are_compared_by_a_parameter_of_a_part(tmp_path):
    scenario = WORKLOADS / "isolation" / "neighbours.toml"
    for groups in ("2", "3"):
        settings = {
            "workload.parts.web.groups": groups, "workload.parts.make.compilers": "4",
            "workload.parts.chat.loops": "2",
        }  # fmt: skip
        kmbench.run(kmbench.load_scenario(scenario, settings), ["none"], out=tmp_path)
    runs = kmbench.open_results(tmp_path).runs.collect()
    values = parameter_values(runs, "scenario_params", "parts.web.groups")
    assert sorted(values) == ["2", "3"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "expected tables [workload.parts.NAME]"),
        ({"a": 3}, "parts.a: expected a table with plugin"),
        ({"a": {"plugin": "webserver"}}, "parts.a: unknown workload 'webserver'; did you mean"),
        ({"a/b": WEB}, "expected a name without /"),
        ({"a": WEB | {"start": "soon"}}, "start = 'soon': expected a number and a unit"),
        ({"a": WEB | {"start": "2 s", "stop": "1 s"}}, "stop: expected a time after start"),
        ({"a": WEB | {"share": 0}}, "share = 0.0: expected 0.001 to 1000"),
        ({"a": WEB | {"group": 3}}, "unknown parameter 'group'; did you mean 'groups'?"),
        ({"a": WEB, "b": {"plugin": "spread", "size": 200}}, "parts.b: its cache dentry has"),
        (
            {"a": {"plugin": "replay", "path": str(WORKLOADS / "recorded/churn.kmtrace.parquet")}},
            "replay begins with a state of its own",
        ),
    ],
)
def test_bad_parts_are_one_line(parts, message):
    with pytest.raises(UsageProblem) as problem:
        opened(parts)
    assert message in str(problem.value) and "\n" not in str(problem.value)


def test_the_machine_of_a_mix_can_be_set():
    scenario = kmbench.load_scenario(
        WORKLOADS / "published/gushchin-2019-fleet.toml", {"machine.cpus": "4"}
    )
    refuse_unused(scenario, ["machine.cpus"], PLUGINS)
