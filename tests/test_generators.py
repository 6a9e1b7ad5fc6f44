"""Generators of actors: their closed forms, their bytes, and what they do when memory runs out."""

import os
import subprocess
import sys
from collections import Counter
from math import floor
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

import kmbench
from design_run import PLUGINS
from kmbench.core import events as ev
from kmbench.core.build import Accounting, build_state
from kmbench.errors import UsageProblem
from kmbench.parameters import parse_parameters
from kmbench.scenario import scenario_files
from kmbench_workloads.objects import MEASURED, OPERATIONS, billed_bytes, slab_bytes

WORKLOADS = Path(__file__).parent.parent / "workloads"
SMALL = {
    "container_churn": {"containers": 9, "files": 5, "scratch": 4, "processes": 2},
    "drop_many": {"groups": 3, "files": 50, "dropped": 0.8, "together": 7},
    "find": {"directories": 7, "files": 5},
    "fork_bomb": {"processes": 30},
    "fs_mark": {"files": 40, "threads": 3},
    "hackbench": {"groups": 2, "fan": 3, "loops": 4, "queue": 2},
    "kernel_compile": {"compilers": 10, "jobs": 3, "headers": 30, "sources": 60, "missing": 70},
    "memcached": {"connections": 12, "requests": 5},
    "sock_flood": {"sockets": 50},
    "tcp_buffers": {"connections": 3, "buffer_kib": 4, "rounds": 2},
    "webserver_fleet": {"groups": 4, "workers": 3, "requests": 20, "files": 100},
}
RANDOM = {
    "container_churn", "drop_many", "fs_mark", "kernel_compile", "memcached", "tcp_buffers",
    "webserver_fleet",
}  # fmt: skip


def opened(name, given=None, seed=0, pages=1 << 16):
    workload = PLUGINS.workloads[name]
    values = parse_parameters(workload.parameters, {**SMALL[name], **(given or {})}, name)
    return workload.open(values, kmbench.Host(2, 1, pages, 4096, "6.18", seed, "."))


def stream(name, given=None, seed=0):
    """All events; nothing fails, so a closed loop needs no engine either."""
    source = opened(name, given, seed)
    S = build_state(source.setup, Accounting(), seed, 0)
    S.obj["slab"] = 1  # whatever is asked for is there
    return source.setup, np.concatenate([batch.copy() for batch in source.batches(S)])


STREAMS = {name: stream(name) for name in SMALL}


def operations(name, setup, events):
    """How often each operation must have been carried out."""
    p = {q.name: q.default for q in PLUGINS.workloads[name].parameters} | SMALL[name]
    if name == "container_churn":
        nr = p["containers"]
        return {"process": nr * p["processes"], "file": nr * p["files"],
                "tmpfs file": nr * p["scratch"]}  # fmt: skip
    if name == "drop_many":
        return {"file": p["groups"] * p["files"]}
    if name == "find":
        return {"open": p["directories"], "file": p["directories"] * (p["files"] + 1)}
    if name == "fork_bomb":
        return {"process": p["processes"]}
    if name == "fs_mark":
        nr = p["files"] * p["threads"]
        return {"open": nr, "written file": nr, "journal": nr}
    if name == "hackbench":
        tasks = p["groups"] * p["fan"]
        return {"process": 2 * tasks, "unix socketpair": tasks,
                "message": tasks * p["fan"] * p["loops"]}  # fmt: skip
    if name == "kernel_compile":
        nr = -(-p["compilers"] // p["jobs"]) * p["jobs"]
        return {"process": nr, "written file": nr, "open": nr * p["headers"],
                "name": min(nr * p["misses"], p["missing"]),
                "file": touched(setup, events) - nr}  # fmt: skip
    if name == "memcached":
        nr = p["connections"]
        return {"accepted": nr, "received": nr * p["requests"], "segment": nr * p["requests"]}
    if name == "sock_flood":
        return {"tcp socket": p["sockets"]}
    if name == "tcp_buffers":
        nr = p["connections"] * p["rounds"] * (p["buffer_kib"] * 1024 // 1000)
        return {"connection": p["connections"], "segment": nr, "received": nr}
    nr = p["groups"] * p["workers"] * p["requests"]
    return {"open": nr, "file": touched(setup, events)}


def touched(setup, events):
    """Distinct inodes that were brought in."""
    inode = [c.name for c in setup.caches].index("ext4_inode_cache") + 1
    made = events[(events["op"] == ev.ALLOC) & (events["cache"] == inode)]
    return len(np.unique(made["obj"]))


@pytest.mark.parametrize("name", SMALL)
def test_what_is_allocated_is_the_operations_times_their_mix(name):
    setup, events = STREAMS[name]
    wanted, kinds = Counter(), ("pages", "stack", "page_table")
    for operation, nr in operations(name, setup, events).items():
        for item in OPERATIONS[operation]:
            wanted[item.what] += floor(nr * round(1000 * item.count) / 1000)
    names = ["", *(cache.name for cache in setup.caches)]
    slabs = Counter(names[row] for row in events["cache"][events["op"] == ev.ALLOC])
    pages = Counter(kinds[row] for row in events["cache"][events["op"] == ev.PAGE_ALLOC])
    assert slabs + pages == +wanted


@pytest.mark.parametrize("name", SMALL)
def test_a_stream_is_in_order_and_every_object_comes_before_it_goes(name):
    setup, events = STREAMS[name]
    assert (np.diff(events["t"]) >= 0).all()
    live = np.zeros(setup.nr_objects, bool)
    for op, obj in zip(events["op"].tolist(), events["obj"].tolist(), strict=True):
        if op in (ev.ALLOC, ev.PAGE_ALLOC, ev.FREE, ev.PAGE_FREE):
            assert live[obj] == (op in (ev.FREE, ev.PAGE_FREE)) and obj
            live[obj] = not live[obj]
    kept = {"drop_many": 30, "find": 42, "fs_mark": 120}
    inodes = [c.name for c in setup.caches].index("dentry") + 1 if name in kept else 0
    made = events[(events["op"] == ev.ALLOC) & live[events["obj"]] & (events["cache"] == inodes)]
    assert len(np.unique(made["obj"])) == kept.get(name, 0)


# crc32 of the small streams with seed 0; plain Python (NUMBA_DISABLE_JIT=1) makes the same
BYTES = {
    "container_churn": 0x58FDA2A8,
    "drop_many": 0xC8DEC376,
    "find": 0xBFE24211,
    "fork_bomb": 0x1726D968,
    "fs_mark": 0xC23D7853,
    "hackbench": 0x64328489,
    "kernel_compile": 0xAF851018,
    "memcached": 0x6D74771E,
    "sock_flood": 0x41AAD32F,
    "tcp_buffers": 0xBA1D4F9C,
    "webserver_fleet": 0x94B2F082,
}


@pytest.mark.parametrize("name", SMALL)
def test_the_same_seed_makes_the_same_bytes_and_another_one_others(name):
    _, events = STREAMS[name]
    assert crc32(events.tobytes()) == BYTES[name]
    assert np.array_equal(stream(name)[1], events)
    assert np.array_equal(stream(name, seed=1)[1], events) == (name not in RANDOM)


def test_the_mixes_are_what_was_measured():
    """Bytes of slab, and bytes charged to a group, by operation on Linux 6.18 (x86_64)."""
    for operation, (slab, billed) in MEASURED.items():
        assert slab_bytes(operation) == pytest.approx(slab, rel=0.05), operation
        if billed:
            assert billed_bytes(operation) == pytest.approx(billed, rel=0.01), operation


def test_plain_python_makes_the_same_bytes():
    """crc32 of the same streams in a process that compiles nothing."""
    code = (
        "import test_generators as t, zlib; "
        "print(all(zlib.crc32(e.tobytes()) == t.BYTES[n] for n, (_, e) in t.STREAMS.items()))"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout.strip() == "True"


@pytest.mark.parametrize("name", ["fork_bomb", "sock_flood"])
def test_what_fails_gives_back_what_it_got(name):
    """2 MiB hold some twenty processes; who fails never was, and in the end nothing is left."""
    size = {"processes": 60, "fork_us": 20000} if name == "fork_bomb" else {"sockets": 4000}
    source = opened(name, size, pages=512)
    sim = kmbench.Simulation(source.setup, PLUGINS.strategy("none"))
    most = 0
    for batch in source.batches(sim.S):
        sim.feed(batch)
        most = max(most, np.count_nonzero(sim.S.obj["slab"]))
    assert sim.S.k["nr_failed_pages"][0] > 0 and most > 0
    assert not sim.S.obj["slab"].any() and sim.S.k["nr_skipped"][0] == 0
    assert sim.S.k["nr_allocs"][0] < source.setup.nr_objects


def test_arrivals_of_containers_are_a_poisson_process():
    """Times between creations: their mean is that of the rate, their deviation too."""
    given = {"containers": 1000, "per_hour": 3600, "files": 1, "scratch": 0, "processes": 0}
    _, events = stream("container_churn", given)
    gaps = np.diff(events["t"][events["op"] == ev.CG_CREATE]) / 1e9
    assert abs(gaps.mean() - 1) < 0.1 and abs(gaps.std() - 1) < 0.1


def test_containers_stay_on_their_cpus():
    """One CPU each, or all that there are."""
    for used, expected in ((1, 1), (0, 2)):
        given = {"containers": 20, "per_hour": 10**6, "files": 9, "cpus_used": used}
        _, events = stream("container_churn", given)
        made = events[events["op"] == ev.ALLOC]
        cpus = [len(np.unique(made["cpu"][made["memcg"] == g])) for g in np.unique(made["memcg"])]
        assert len(cpus) == 20 and set(cpus) == {expected}


def test_who_is_popular_is_asked_for_by_every_group_but_paid_by_one():
    setup, events = STREAMS["webserver_fleet"]
    dentry = [c.name for c in setup.caches].index("dentry") + 1
    made = events[(events["op"] == ev.ALLOC) & (events["cache"] == dentry)]
    assert len(made) == len(np.unique(made["obj"])) and len(np.unique(made["memcg"])) == 4


def test_messages_cross_cpus():
    _, events = STREAMS["hackbench"]
    cpu = {}
    crossed = 0
    for e in events:
        if e["op"] == ev.ALLOC:
            cpu[e["obj"]] = e["cpu"]
        elif e["op"] == ev.FREE:
            crossed += cpu[e["obj"]] != e["cpu"]
    assert crossed > 2 * 72 / 2  # of 72 messages of two objects


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("drop_many", {"dropped": 1.5}, "dropped = 1.5: expected at most 1"),
        ("container_churn", {"per_hour": 10**9}, "per_hour = 1000000000: expected at most 1000000"),
        ("container_churn", {"life_ms": 10**12}, "waits of 10"),
        ("container_churn", {"cpus_used": 3}, "cpus_used = 3: expected at most 2, the CPUs"),
        ("kernel_compile", {"jobs": 10**8}, "jobs = 100000000: expected at most 1000000"),
        ("sock_flood", {"sockets": 10**10}, "objects at a time: expected at most 268435456"),
        ("webserver_fleet", {"exponent": float("nan")}, "exponent = nan: expected at most 10"),
        ("hackbench", {"fan": 0}, "fan = 0: expected at least 1 tasks"),
        ("webserver_fleet", {"exponent": "much"}, "exponent = 'much': expected a number"),
        ("fork_bomb", {"process": 3}, "unknown parameter 'process'; did you mean 'processes'?"),
    ],
)
def test_bad_parameters_are_one_line(name, given, message):
    with pytest.raises(UsageProblem) as problem:
        opened(name, given)
    assert message in str(problem.value) and "\n" not in str(problem.value)


LITTLE = SMALL | {
    "dentry_bomb": {"files": 100, "names": 500, "warm_ms": 5, "alone_ms": 1, "crowded_ms": 5},
    "mempressure_test": {"rounds": 1},
    "messages": {"clients": 3, "messages": 20},
    "short_lives": {"groups": 5},
    "slab_pairs": {"pairs": 200},
    "spread": {"groups": 4},
}
SERVER = {"names": 50, "warm_ms": 5, "alone_ms": 1, "crowded_ms": 5}


@pytest.mark.parametrize(
    "path", scenario_files(WORKLOADS), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_scenario_runs_at_a_small_size(tmp_path, path):
    scenario = kmbench.load_scenario(path)
    settings = dict(LITTLE.get(scenario.workload, {}))
    settings |= SERVER if scenario.parameters.get("names") else {}
    settings = {f"workload.{key}": str(value) for key, value in settings.items()}
    if "recorded" in path.parts:  # each is replayed in full by other tests
        assert (path.parent / scenario.parameters["path"]).exists()
        return
    results = kmbench.run(kmbench.load_scenario(path, settings), ["none"], out=tmp_path)
    (run,) = results.runs.collect().to_dicts()
    assert run["status"] == "ok" and run["events"] > 0


def test_scenarios_are_where_their_purpose_is():
    purposes = {"isolation", "waste", "churn", "pressure", "overhead", "published", "recorded"}
    files = scenario_files(WORKLOADS)
    assert {path.parent.name for path in files} == purposes
    used = {kmbench.load_scenario(path).workload for path in files}
    assert set(PLUGINS.workloads) - used == set()
