"""Runs end to end: closed forms, paired workloads, the same bytes twice, and clear errors."""

import os
import signal
import subprocess
import sys
import time
from math import ceil
from pathlib import Path

import polars as pl
import pytest

import kmbench
from kmbench.core.geometry import make_cache
from kmbench.core.jit import JIT
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.errors import UsageProblem

ROOT = Path(__file__).parent.parent
SPREAD = ROOT / "workloads" / "waste" / "spread.toml"
STRATEGIES = ("none", "costa-2012", "linux-5.9", "linux-6.18")


def last_slabs(results, strategy: str) -> int:
    """Slabs of the dentry cache and its copies at the last sample."""
    run = results.runs.filter(pl.col("strategy") == strategy).select("run_id").collect().item()
    rows = results.caches.filter(
        (pl.col("run_id").cast(pl.String) == run)
        & pl.col("name").cast(pl.String).str.starts_with("dentry")
    ).collect()
    return rows.filter(pl.col("sample") == pl.col("sample").max())["num_slabs"].sum()


def scenario(**parameters) -> kmbench.Scenario:
    return kmbench.Scenario(
        name="t", workload="spread", parameters=parameters, sample_every="0 ns", teardown=True
    )


@pytest.mark.parametrize(
    ("groups", "objects", "cpus_used"), [(100, 5, 1), (10, 42, 1), (7, 50, 2), (3, 1, 2)]
)
def test_spread_needs_the_slabs_of_the_closed_form(tmp_path, groups, objects, cpus_used):
    made = scenario(groups=groups, objects=objects, cpus_used=cpus_used)
    results = kmbench.run(made, STRATEGIES, out=tmp_path)
    per_slab = 21
    on_cpu = [len(range(cpu, objects, cpus_used)) for cpu in range(cpus_used)]
    if cpus_used == 1:  # groups take turns on the two CPUs, each with its own active slab
        shares = [len(range(cpu, groups, 2)) * objects for cpu in range(2)]
    else:
        shares = [groups * n for n in on_cpu]
    shared = sum(ceil(n / per_slab) for n in shares)
    copies = groups * sum(ceil(n / per_slab) for n in on_cpu)
    assert last_slabs(results, "none") == shared
    assert last_slabs(results, "linux-6.18") == shared
    assert last_slabs(results, "linux-5.9") == shared
    assert last_slabs(results, "costa-2012") == copies


def test_pairs_need_one_slab_a_cpu_and_leave_nothing_charged(tmp_path):
    made = kmbench.Scenario(
        name="p", workload="slab_pairs", parameters={"pairs": 500, "tasks": 4, "groups": 2},
        sample_every="0 ns", teardown=True,
    )  # fmt: skip
    results = kmbench.run(made, STRATEGIES, out=tmp_path)
    assert last_slabs(results, "none") == 2
    assert last_slabs(results, "costa-2012") == 2  # group i stays on CPU i
    runs = results.runs.collect()
    assert runs["leak_bytes"].to_list() == [0.0] * len(STRATEGIES)
    assert runs["allocs"].to_list() == [500] * len(STRATEGIES)


def test_strategies_see_the_same_objects(tmp_path):
    results = kmbench.run(scenario(groups=20, objects=30, freed=0.5), STRATEGIES, out=tmp_path)
    truth = results.timeline.select(
        "t", "sample", "memcg", "true_slab", "objects", "run_id"
    ).collect()
    parts = [part.drop("run_id") for _, part in truth.group_by("run_id")]
    assert all(part.equals(parts[0]) for part in parts)
    assert results.runs.select("workload_hash").collect().n_unique() == 1


def test_the_same_seed_gives_the_same_bytes_in_two_processes(tmp_path):
    program = (
        "import sys, kmbench;"
        f"kmbench.run({str(SPREAD)!r}, ['none', 'linux-6.18'], out=sys.argv[1],"
        " settings={'workload.freed': '0.5'})"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.parquet"))
    assert len(files) == 14
    for name in files:
        if name.parts[0] != "timing":
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), (
                name
            )


def test_another_seed_frees_other_objects(tmp_path):
    results = kmbench.run(
        scenario(groups=20, objects=30, freed=0.5), ["none"], seeds=2, out=tmp_path
    )
    assert results.runs.select("run_id").collect().n_unique() == 2
    partial = results.caches.filter(pl.col("node_partial") > 0).collect()
    assert partial.group_by("run_id").agg(pl.col("node_partial", "idle")).n_unique() == 2


@pytest.mark.skipif(not JIT, reason="this is about the other mode")
def test_plain_python_gives_the_same_tables(tmp_path):
    settings = {"workload.groups": "6", "workload.freed": "0.4"}
    kmbench.run(SPREAD, STRATEGIES, out=tmp_path / "jit", settings=settings)
    program = (
        f"import kmbench; kmbench.run({str(SPREAD)!r}, {list(STRATEGIES)!r},"
        f" out={str(tmp_path / 'plain')!r}, settings={settings!r})"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    for path in sorted((tmp_path / "jit").rglob("*.parquet")):
        name = path.relative_to(tmp_path / "jit")
        if name.parts[0] != "timing":
            assert path.read_bytes() == (tmp_path / "plain" / name).read_bytes(), name


def test_timeline_rows_outgrow_their_buffer(tmp_path):
    made = kmbench.Scenario(
        name="many", workload="spread", parameters={"groups": 40, "objects": 50, "interval": 1000},
        sample_every="2 us",
    )  # fmt: skip
    results = kmbench.run(made, ["costa-2012"], out=tmp_path)
    samples = results.timeline.select(pl.col("sample").n_unique()).collect().item()
    assert samples == 1000
    assert results.timeline.select(pl.len()).collect().item() == 41 * samples


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "kmbench", *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, **environment}, cwd=ROOT,
    )  # fmt: skip


BAD_INPUT = {
    "missing": (["nowhere.toml"], "nowhere.toml: no such scenario file"),
    "strategy": ([str(SPREAD), "-s", "lunix-6.18"], "unknown strategy 'lunix-6.18'; did you mean"),
    "key": ([str(SPREAD), "--set", "wrokload.groups=1"], "unknown key 'wrokload'; did you mean"),
    "parameter": ([str(SPREAD), "--set", "workload.gruops=1"], "did you mean 'groups'?"),
    "kind": ([str(SPREAD), "--set", "workload.groups=many"], "expected a whole number"),
    "negative": ([str(SPREAD), "--set", "workload.groups=-1"], "expected at least 1"),
    "setting": ([str(SPREAD), "--set", "groups"], "expected KEY=VALUE"),
    "era": ([str(SPREAD), "--set", 'era="9.9"'], "unknown era '9.9'"),
    "memory": ([str(SPREAD), "--set", "machine.memory=lots"], "expected a number and a unit"),
    "allocator": ([str(SPREAD), "--allocator", "slob"], "unknown allocator 'slob'"),
    "workload": ([str(SPREAD), "--set", "workload.plugin=sprad"], "unknown workload 'sprad'"),
    "strategy parameter": (
        [str(SPREAD), "--set", "strategies.costa-2012.cashes=dentry"],
        "unknown parameter 'cashes'; did you mean 'caches'?",
    ),
    "strategy value": (
        [str(SPREAD), "-s", "costa-2012", "--set", 'strategies.costa-2012.caches=["dentri"]'],
        "unknown cache 'dentri'; did you mean 'dentry'?",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_2(case, tmp_path):
    arguments, message = BAD_INPUT[case]
    done = cli("run", *arguments, "--out", str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name = ", "not TOML"),
        ("seed = 1", "workload: expected a table"),
        ("[workload]\ngroups = 1", "workload.plugin: expected the name of a workload"),
        ("seed = -4\n[workload]\nplugin = 'spread'", "seed = -4: expected a whole number"),
        ("teardown = 3\n[workload]\nplugin = 'spread'", "expected true or false"),
        ("[machine]\ncpus = 0\n[workload]\nplugin = 'spread'", "machine.cpus = 0"),
        ("[machine]\nmemory = 5\n[workload]\nplugin = 'spread'", "machine"),
        ("[workload]\nplugin = 'replay'", "path: expected a trace file"),
        ("[workload]\nplugin = 'replay'\npath = 'no.parquet'", "no.parquet"),
    ],
)
def test_bad_scenarios(tmp_path, content, message):
    path = tmp_path / "bad.toml"
    path.write_text(content)
    with pytest.raises(UsageProblem) as problem:
        kmbench.run(path, ["none"], out=tmp_path / "results")
    assert message in str(problem.value)


def test_a_hook_that_does_not_compile_ends_with_code_3_and_keeps_other_results(tmp_path):
    plugin = tmp_path / "wrong.py"
    plugin.write_text(
        "import kmbench\n"
        "def cg_create(S, P, memcg):\n    S.memcg[memcg].colour = 1\n"
        "@kmbench.hookimpl\n"
        "def kmbench_register_strategies(register):\n"
        "    register(kmbench.Strategy(name='wrong', description='', source='',"
        " hooks={'cg_create': cg_create}))\n"
    )
    out = str(tmp_path / "results")
    assert cli("run", str(SPREAD), "-s", "none", "--out", out).returncode == 0
    done = cli("run", str(SPREAD), "-s", "wrong", "-p", str(plugin), "--out", out)
    assert done.returncode == (3 if JIT else 3), done.stderr
    assert "colour" in done.stderr and len(done.stderr.splitlines()) == 1
    assert kmbench.open_results(out).runs.collect().height == 1


def test_killed_at_any_moment_the_dataset_reads_and_a_repeat_completes_it(tmp_path):
    arguments = [sys.executable, "-m", "kmbench", "run", str(SPREAD), "--out", str(tmp_path / "r")]
    arguments += [word for name in STRATEGIES for word in ("-s", name)]
    for delay in (0.2, 0.5, 0.7, 0.9, 1.1, 1.4):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   cwd=ROOT)  # fmt: skip
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (tmp_path / "r").exists():
            results = kmbench.open_results(tmp_path / "r")
            assert results.timeline.collect().height >= results.runs.collect().height
    assert subprocess.run(arguments, capture_output=True, check=False, cwd=ROOT).returncode == 0
    assert kmbench.open_results(tmp_path / "r").runs.collect().height == len(STRATEGIES)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((("/", 0), ("/a", 3), ("/b", 2)), "groups[2].parent is 3; expected a tree"),
        ((("/", 0), ("/a", 2)), "groups[2].parent is 2; expected another row"),
        ((("/", 0), ("/a", 1, -5)), "groups[2].memory_limit is -5; expected pages"),
        ((("/a", 1),), "does not start with the root"),
    ],
)
def test_groups_that_are_no_tree_are_refused(groups, message):
    setup = Setup(
        Machine(memory_pages=4096), "6.18", (make_cache("a", 64),),
        tuple(GroupSpec(*group) for group in groups), 2,
    )  # fmt: skip
    with pytest.raises(UsageProblem) as problem:
        kmbench.Simulation(setup, kmbench.load_plugins().strategy("none"))
    assert message in str(problem.value)


def test_a_strategy_that_is_named_twice_is_run_once(tmp_path):
    """Two threads wrote the same files: a temporary one was gone when it was to be renamed."""
    names = ["none", "costa-2012"] * 8
    results = kmbench.run(scenario(groups=3, objects=1), names, out=tmp_path, jobs=8)
    assert sorted(results.runs.collect()["strategy"]) == ["costa-2012", "none"]
    assert len(results.run_ids()) == 2
