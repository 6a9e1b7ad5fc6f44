"""Hardware profiles: validation, pricing by hand, shared lines, calibration."""

import copy
import functools
import itertools
import json
import math
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import kmbench
from kmbench.analysis.compare import compare
from kmbench.analysis.pricing import (
    closed_loop,
    fetch_ns,
    line_stations,
    near_ns,
    price_runs,
    sharing,
    turns,
)
from kmbench.analysis.published import (
    CALIBRATED,
)
from kmbench.cli.app import main
from kmbench.cli.hardware import command as hardware_command
from kmbench.core.jit import JIT
from kmbench.core.paths import PATHS, Ops
from kmbench.errors import UsageProblem
from kmbench.hardware.calibrate import doubts
from kmbench.hardware.probes import X86
from kmbench.hardware.profile import (
    COSTS,
    Cost,
    Profile,
    load_profile,
    profile_from,
    profile_names,
)
from kmbench.store.schema import CALLS, LINE_VECTOR, VECTOR

PUBLISHED = Path(__file__).parent.parent / "workloads" / "published"


def profile(**ns) -> Profile:
    """A profile whose costs are 0 but for those given."""
    return Profile("p", "d", {name: Cost(ns.get(name, 0.0), "here") for name in COSTS})


# -- profiles ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", profile_names())
def test_profiles_say_where_every_number_comes_from_and_survive_toml(name):
    loaded = load_profile(name)
    assert loaded.name == name
    assert set(loaded.costs) == set(COSTS)
    assert all(cost.source.strip() for cost in loaded.costs.values())
    again = profile_from(tomllib.loads(loaded.to_toml()), "again")
    assert again == loaded and again.label == loaded.label


def test_a_label_tells_machines_apart():
    a, b = profile(br=1.0), profile(br=2.0)
    assert a.label != b.label and a.label.startswith("p ")
    assert a.label == profile(br=1.0).label


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("costs", "br", "ns"), -1, "costs.br.ns = -1: expected nanoseconds"),
        (("costs", "br", "ns"), "x", "costs.br.ns = 'x': expected nanoseconds"),
        (("costs", "br", "ns"), float("nan"), "costs.br.ns = nan: expected nanoseconds"),
        (("costs", "br", "source"), "", "costs.br.source: expected where"),
        (("costs", "br"), 3, "costs.br: expected { ns = NUMBER, source = TEXT }"),
        (("costs", "br", "quartiles"), [1.0], "costs.br.quartiles: expected two numbers"),
        (("costs", "bra"), {}, "unknown cost 'bra'; did you mean 'br'?"),
        (("costs",), [], "costs: expected a table"),
        (("cpus",), 0, "cpus = 0: expected a whole number, 1 to 4096"),
        (("page_size",), 5000, "page_size = 5000: expected a power of two"),
        (("nodes",), 200, "nodes = 200: expected at most one a CPU"),
        (("smt",), 3, "smt = 3: expected a number, 1 to threads_per_core"),
        (("memory",), "much", "memory = 'much': expected as in '16 GiB'"),
        (("name",), "", "name = '': expected a string"),
        (("speed",), 1, "unknown key 'speed'"),
    ],
)
def test_a_bad_profile_is_told_by_field(path, value, words):
    values = copy.deepcopy(tomllib.loads(load_profile("laptop").to_toml()))
    at = values
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(UsageProblem) as problem:
        profile_from(values, "my.toml")
    assert words in str(problem.value) and "my.toml" in str(problem.value)


def test_unknown_profiles_are_told(tmp_path):
    with pytest.raises(UsageProblem, match="did you mean 'laptop'"):
        load_profile("laptob")
    with pytest.raises(UsageProblem, match="no such hardware profile"):
        load_profile("x.toml", tmp_path)
    with pytest.raises(UsageProblem, match="t: hardware: unknown hardware profile"):
        kmbench.Scenario(name="t", workload="spread", hardware="nope")


def test_scaling_changes_the_costs_named():
    scaled = load_profile("server").scaled(3, ["br", "call"])
    for name, cost in load_profile("server").costs.items():
        assert scaled.ns(name) == (3 * cost.ns if name in ("br", "call") else cost.ns)


# -- prices --------------------------------------------------------------------------------


def ops_rows(*rows):
    """Table ``ops`` of run r: (phase, count, Ops) each."""
    columns = {"run_id": ["r"] * len(rows), "phase": [phase for phase, *_ in rows]}
    for i, kind in enumerate(Ops._fields):
        columns[kind] = [count * ops[i] for _, count, ops in rows]
    return pl.DataFrame(columns).lazy()


def records(nr: int, dtype) -> np.recarray:
    return np.zeros(nr, dtype).view(np.recarray)


def runs_row(**values):
    row = {"run_id": "r", "allocs": 10, "frees": 5, "cpus": 2, "nodes": 1, "running": 2,
           "think_ns": 0, "busy": 2, "lines": "[]", "shrinker_visits": None,
           "hardware": "?"}  # fmt: skip
    return pl.DataFrame([row | values])


def test_ops_are_the_vectors_of_the_schema():
    assert Ops._fields == (*VECTOR, *LINE_VECTOR, *CALLS)


def test_prices_by_hand():
    costs = profile(br=1.0, ptr_l1=2.0, ptr_l2=10.0, ptr_l3=100.0, atom=5.0, line_socket=50.0,
                    line_remote=200.0, wait=7.0, call=8.0)  # fmt: skip
    ops = ops_rows(
        ("alloc", 10, Ops(br=2, ptr=1)),  # 40
        ("slab", 1, Ops(ptr=3)),  # 30
        ("page", 1, Ops(ptr=1)),  # 10
        ("free", 5, Ops(br=1, ptr=2)),  # 25
        ("charge", 4, Ops(atom=1, ptr=1, call=3)),  # 28 + 96
        ("line", 1, Ops(near=2, far=1, wait=1)),  # 100 + 200 + 7
        ("group", 1, Ops(ptr=9)),  # of no object
    )
    row = price_runs(runs_row(), ops, costs).row(0, named=True)
    assert row["alloc_ns"] == 8.0
    assert row["free_ns"] == 5.0
    assert row["charge_ns"] == pytest.approx(12.4)
    assert row["line_ns"] == pytest.approx(30.7)
    assert row["pair_ns"] == pytest.approx(56.1)
    assert row["pairs_per_s"] == pytest.approx(2e9 / 25.4)  # nothing is shared
    assert row["hardware"] == costs.label


def test_a_run_without_allocations_has_no_price():
    row = price_runs(runs_row(allocs=0), ops_rows(("alloc", 1, Ops(br=1))), profile(br=1.0))
    assert row["pair_ns"].to_list() == [None]


def test_lines_come_from_siblings_cores_and_sockets():
    machine = profile(line_core=10.0, line_socket=50.0, line_remote=130.0)
    machine = Profile("p", "d", machine.costs, cpus=8, nodes=2, threads_per_core=2)
    assert near_ns(machine) == pytest.approx((10 + 2 * 50) / 3)
    assert fetch_ns(machine, 8, 2) == pytest.approx((3 * near_ns(machine) + 4 * 130) / 7)
    assert fetch_ns(machine, 1, 1) == 0


def test_threads_share_cores_once_all_cores_are_taken():
    machine = Profile("p", "d", profile().costs, cpus=8, threads_per_core=2, smt=1.5)
    assert [sharing(machine, 8, busy) for busy in (1, 4)] == [1, 1]
    assert sharing(machine, 8, 6) == pytest.approx(6 / 5)  # two cores get 1.5 times as much done
    assert sharing(machine, 8, 8) == sharing(machine, 8, 99) == pytest.approx(2 / 1.5)
    assert sharing(profile(), 8, 8) == 1  # a thread a core


def test_rate_of_many_cpus():
    line = [(20, 1)]
    assert closed_loop(100, [], 8) == closed_loop(100, [(0, 1)], 8) == pytest.approx(8e7)
    assert closed_loop(100, line, 1) == pytest.approx(1e9 / 120)  # nobody to wait for
    assert closed_loop(100, line, 1000) == pytest.approx(1e9 / 20, rel=1e-3)  # the line is busy
    rates = [closed_loop(100, line, n) for n in range(1, 50)]
    assert all(a <= b for a, b in zip(rates, rates[1:], strict=False))


def product_form(own: float, taken: list[float], cpus: int) -> float:
    """The same rate by summing over all states of the closed network (Gordon and Newell, 1967)."""

    def weight(customers: int) -> float:
        states = itertools.product(range(customers + 1), repeat=len(taken))
        return sum(
            math.prod(t**n for t, n in zip(taken, at, strict=True))
            * own ** (customers - sum(at)) / math.factorial(customers - sum(at))
            for at in states if sum(at) <= customers
        )  # fmt: skip

    return 1e9 * weight(cpus - 1) / weight(cpus)


@pytest.mark.parametrize("taken", [[20], [20, 20], [50, 20, 7]])
def test_rate_at_several_lines_is_exact(taken):
    for cpus in (1, 2, 7):
        ours = closed_loop(100, [(ns, 1) for ns in taken], cpus)
        assert ours == pytest.approx(product_form(100, taken, cpus))


def test_who_shares_a_line_with_nobody_does_not_wait():
    own = [(20 / 4, 1 / 4)] * 4  # each of four CPUs comes to a line of its own only
    assert closed_loop(100, own, 4) == pytest.approx(4e9 / 120)
    # two pairs of CPUs, each pair at a line of its own: no more than two apart, and no less
    pairs_of_two = closed_loop(100, [(20 / 2, 1 / 2)] * 2, 4)
    assert 2 * closed_loop(100, [(20, 1)], 2) == pytest.approx(pairs_of_two, rel=0.01)
    assert closed_loop(100, [(20, 1)], 4) < pairs_of_two


def test_turns_at_a_line_are_of_those_who_come_to_it():
    machine = profile(line_socket=10.0, line_remote=100.0)
    run = {"cpus": 4, "nodes": 2, "running": 4}
    visits = [2, 2, 0, 0, 0]  # two writes, each after another line
    lines = [[0.5, 0.25, *visits, 1], [0.5, 0.25, *visits, 0.25], [0.1, 0.1, *[0] * 6]]
    stations = line_stations(run | {"lines": json.dumps(lines)}, 1e3, machine)
    with pytest.raises(UsageProblem, match="run r: lines: expected 8 numbers a line"):
        line_stations(run | {"run_id": "r", "lines": "[[1, 1, 2, 1]]"}, 1e3, machine)
    each = (10 + 2 * 100) / 3
    assert stations == [
        (pytest.approx(2 * each), 1), (pytest.approx(30), 0.25), (pytest.approx(11), 0)
    ]  # fmt: skip


def test_what_follows_within_a_fetch_is_the_same_turn():
    alone = turns(2, 0, 2, 0, met=9)  # another line was waited for before each visit
    assert alone == turns(2, 2, 2, 2, met=0) == 2 + 2 * 2 / 4  # half of the looks after a write
    assert turns(2, 2, 2, 2, met=1) == pytest.approx(alone / 2)  # every other visit joins a turn
    assert turns(1, 0, 2, 2, met=1) == 1 + 1 * 1 / 2  # no write can join where none was before
    assert turns(0, 0, 5, 0, met=0) == 0  # readers share it

    machine = profile(line_socket=90.0)
    run = {"cpus": 4, "nodes": 1, "running": 4,
           "lines": json.dumps([[1, 0, 2, 2, 2, 0, 0, 1]])}  # fmt: skip
    rare, close = (line_stations(run, own, machine)[0][0] for own in (1e6, 180))
    assert rare == pytest.approx(2 * 90, rel=1e-3)
    assert close == pytest.approx(90)  # visits 90 ns apart: one comes within a fetch


# -- runs ----------------------------------------------------------------------------------


def pairs(**parameters):
    given = {"pairs": 400, "tasks": 4, "size": 64} | parameters
    machine = kmbench.scenario.Machine(cpus=4, nodes=2)
    return kmbench.Scenario(
        name="p", workload="slab_pairs", parameters=given, machine=machine, sample_every="0 ns"
    )


def test_counts_are_priced_alike_when_made_and_later(tmp_path):
    scenario = pairs()
    results = kmbench.run(scenario, ["none", "linux-6.18"], out=tmp_path)
    runs = results.runs.sort("strategy").collect()
    assert runs["hardware"].to_list() == [scenario.profile().label] * 2
    again = price_runs(runs, results.ops, scenario.profile())
    assert again["pair_ns"].to_list() == runs["pair_ns"].to_list()
    other = load_profile("power8-10")
    cell = compare(results, metrics=["pair_ns", "overhead_ns"], hardware=other).frame
    assert cell["hardware"].unique().to_list() == [other.label]
    value = {(row["metric"], row["strategy"]): row["value"] for row in cell.to_dicts()}
    ours, none = value["pair_ns", "linux-6.18"], value["pair_ns", "none"]
    assert value["overhead_ns", "linux-6.18"] == pytest.approx(ours - none)


def test_hardware_gives_the_machine_unless_the_file_does(tmp_path):
    path = tmp_path / "s.toml"
    text = 'hardware = "power8-10"\n[workload]\nplugin = "spread"\n'
    path.write_text(text)
    machine = kmbench.load_scenario(path).machine
    assert (machine.cpus, machine.page_size, machine.memory) == (80, 65536, "64 GiB")
    path.write_text(text + "[machine]\ncpus = 3\n")
    machine = kmbench.load_scenario(path).machine
    assert (machine.cpus, machine.page_size) == (3, 65536)


def test_lines_move_as_often_as_cpus_take_turns(tmp_path):
    """Four CPUs on two nodes allocate and free 4 KiB in one group: with locked counters every
    charge finds the line at the CPU before, which is of the other node, and waits for it."""
    scenario = pairs(size=4096, groups=1, pairs=400)
    results = kmbench.run(scenario, ["none", "linux-5.9"], out=tmp_path)
    ops = {}
    for name in ("none", "linux-5.9"):
        (run,) = results.runs.filter(strategy=name).select("run_id").collect()["run_id"]
        rows = results.ops.filter(pl.col("run_id") == run, phase="line").collect()
        ops[name] = {row["path"]: row["count"] for row in rows.iter_rows(named=True)}
    assert ops["none"] == {}
    row = results.runs.filter(strategy="linux-5.9").collect().row(0, named=True)
    # kmem of the group: charged and uncharged by each pair, on every CPU in turn
    assert row["hot_line_writes"] == pytest.approx(2, rel=0.05)
    assert ops["linux-5.9"]["line_far"] > 0 and "line_near" not in ops["linux-5.9"]
    moves = row["line_moves_per_alloc"] * row["allocs"]
    assert moves == pytest.approx(ops["linux-5.9"]["line_far"])
    assert row["pairs_per_s"] < 4e9 / row["alloc_ns"]
    (hottest, *others) = json.loads(row["lines"])
    # obj_cgroup: read, and after kmem's lines written by each operation; the first reference that
    # is taken comes after the write of the one before it, and so does the look at the group
    assert hottest[2:] == pytest.approx([4, 2, 0, 3, 2, 1], rel=0.05, abs=0.05)
    for line in others[:2]:  # kmem of the group and of the root
        assert line[2:] == pytest.approx([2, 2, 0, 0, 0, 1], rel=0.05)
    assert sum(line[1] for line in [hottest, *others]) == pytest.approx(row["line_moves_per_alloc"])


def test_who_fetches_a_line_and_who_waits():
    """One counter, written by given CPUs at given times."""
    from kmbench.core.events import EVENT, GFP_KERNEL_ACCOUNT, PAGE_ALLOC, PAGES_STACK
    from kmbench.core.paths import LINE_FAR, LINE_NEAR, LOCK_WAIT
    from kmbench.core.setup import GroupSpec, Machine, Setup

    setup = Setup(
        Machine(cpus=4, nodes=2, memory_pages=4096), "3.13", (),
        (GroupSpec("/", 0), GroupSpec("/a")), 10,
    )  # fmt: skip
    simulation = kmbench.Simulation(setup, kmbench.load_plugins().strategy("linux-3.8"))
    writes = [(0, 0), (0, 100), (2, 200), (1, 300), (3, 5000), (3, 5100)]  # (cpu, ns)
    events = np.zeros(len(writes), EVENT)
    events["op"], events["memcg"], events["gfp"] = PAGE_ALLOC, 2, GFP_KERNEL_ACCOUNT
    events["cache"] = PAGES_STACK
    events["obj"], events["arg"] = range(1, len(writes) + 1), 7  # more than a batch: no stock
    events["cpu"], events["t"] = zip(*writes, strict=True)
    simulation.feed(events)
    kmem = simulation.S.counter[2 * 2 + 1]
    assert (kmem["writer"], kmem["near"], kmem["far"], kmem["writes"]) == (4, 2, 1, 6)
    counts = simulation.S.path["count"]
    lines = 4  # memory and kmem, of the group and of the root
    assert (counts[LINE_NEAR], counts[LINE_FAR]) == (2 * lines, lines)
    assert counts[LOCK_WAIT] == 2 * lines  # by CPU 2 and CPU 1; CPU 3 came late


def test_who_reads_a_line_and_who_writes_it_next():
    """One line, which two CPUs of a node and two of another read and write."""
    from kmbench.core.lines import read_line, write_line
    from kmbench.core.paths import NR_PATHS
    from kmbench.core.state import LINE, PATH, VISIT

    kernel = [(name, "i8") for name in ("cpu", "nr_nodes", "now", "nr_lines", "crowded")]
    S = SimpleNamespace(k=records(1, kernel), path=records(NR_PATHS, PATH), visit=records(4, VISIT))
    S.k["nr_nodes"], S.k["crowded"], S.visit["line"] = 2, 1, -1
    line = records(1, list(LINE))[0]
    write, read = functools.partial(write_line, S, line, 0), functools.partial(read_line, S, line)
    moves = []
    for cpu, use in (
        (0, read), (0, write), (0, read),  # nobody else had it
        (2, read), (1, read), (2, read),  # CPU 2 fetches it; CPU 1 joins
        (0, write), (0, write),  # CPU 2 is told; nobody else is there
        (1, read), (1, write), (3, write),
    ):  # fmt: skip
        S.k["cpu"] = cpu
        use()
        moves.append((int(line["near"]), int(line["far"])))
    assert moves[:3] == [(0, 0)] * 3
    assert moves[3:6] == [(1, 0)] * 3
    assert moves[6:8] == [(2, 0)] * 2
    assert moves[8:] == [(2, 1), (2, 2), (3, 2)]
    visits = (line[name] for name in ("opens", "takes", "takes_on", "looks", "looks_on"))
    assert [line["writes"], *visits] == [5, 1, 3, 0, 3, 0]  # CPU 3 begins with a write


def test_visits_end_with_the_operation_and_at_another_line():
    """Lines a and b: two CPUs read and write them at given times."""
    from kmbench.core.lines import read_line, write_line
    from kmbench.core.paths import NR_PATHS
    from kmbench.core.state import LINE, PATH, VISIT

    kernel = [(name, "i8") for name in ("cpu", "nr_nodes", "now", "nr_lines", "crowded")]
    S = SimpleNamespace(k=records(1, kernel), path=records(NR_PATHS, PATH), visit=records(2, VISIT))
    S.k["nr_nodes"], S.k["crowded"], S.visit["line"] = 1, 1, -1
    a, b = records(2, list(LINE))
    for cpu, now, use, line in (
        (0, 1, "read", a), (0, 1, "write", a), (0, 1, "write", a),  # one visit
        (1, 1, "read", a),  # another CPU's
        (0, 2, "write", a),  # the next operation, right after a visit that wrote
        (0, 3, "read", a), (0, 4, "write", a),  # after one that only read
        (0, 4, "read", b), (0, 4, "read", a),  # back from another line
    ):  # fmt: skip
        S.k["cpu"], S.k["now"] = cpu, now
        if use == "read":
            read_line(S, line)
        else:
            write_line(S, line, 0)
    names = ("opens", "takes", "takes_on", "looks", "looks_on")
    assert [int(a[name]) for name in names] == [2, 3, 1, 4, 1]
    assert [int(b[name]) for name in names] == [0, 0, 0, 1, 0]


# -- published figures ---------------------------------------------------------------------


@pytest.mark.skipif(not JIT, reason="probes are compiled code")
def test_a_quick_calibration_is_a_valid_profile(tmp_path):
    path = tmp_path / "here.toml"
    for _ in range(5):  # beside other tests a line between CPUs can take milliseconds
        done = CliRunner().invoke(
            hardware_command, ["calibrate", "--quick", "--name", "here", "-o", str(path)]
        )
        if "others keep the CPUs busy" not in str(done.exception):
            break
        assert not path.exists()
    else:
        pytest.skip(f"this machine is too busy to be measured: {done.exception}")
    assert done.exit_code == 0, done.output
    made = load_profile(path)
    assert made.name == "here" and made.cpus >= 1
    assert made.details["took_s"] > 0 and f"took {made.details['took_s']:g} s" in done.output
    for name in ("ptr_l1", "atom", "spin", *(["call", "cas"] if X86 else [])):
        low, high = made.costs[name].quartiles
        assert 0 < low <= made.ns(name) <= high


def test_doubts_about_a_calibration_are_said():
    costs = profile(br=1.0).costs | {"cas": Cost(4.0, "s", (3.0, 5.0))}
    idle = {"others_cpus": 0.0}
    assert doubts(Profile("p", "d", profile().costs, details=idle)) == []
    busy = Profile("p", "d", costs, cpus=1, details={"others_cpus": 0.7})
    others, wide, single = doubts(busy)
    assert "0.7 CPUs" in others and "cas (50%)" in wide and "one CPU" in single


def test_every_path_of_the_core_has_a_price():
    phases = {"alloc", "free", "slab", "page", "charge", "line", "group", "reclaim"}
    assert {path.phase for path in PATHS} <= phases


# -- command line --------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text('sample_every = "0 ns"\n[workload]\nplugin = "slab_pairs"\npairs = 100\n')
    return path


def test_runs_on_several_machines_are_never_mixed(small, tmp_path, capsys):
    out = tmp_path / "r"
    here = tmp_path / "here.toml"
    here.write_text(load_profile("laptop").scaled(2).to_toml())
    arguments = ["run", str(small), "-s", "none", "-s", "linux-6.18", "--out", str(out)]
    assert main([*arguments, "--hardware", "laptop", "--hardware", str(here)]) == 0
    frame = compare(kmbench.open_results(out), metrics=["pair_ns"]).frame
    none = frame.filter(strategy="none").sort("value")
    assert none["hardware"].n_unique() == 2 and none["cpus"].to_list() == [8, 8]
    assert none["value"][1] / none["value"][0] == pytest.approx(2)
    capsys.readouterr()
    assert main(["compare", str(out), "--hardware", "power8-10", "--metric", "T5"]) == 0
    assert load_profile("power8-10").label in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hardware", "show", "laptob"], "did you mean 'laptop'"),
        (["run", "SMALL", "--hardware", "nope"], "unknown hardware profile 'nope'"),
        (["run", "SMALL", "--hardware", "nope.toml"], "no such hardware profile"),
        (["published", str(PUBLISHED / "long-2021-v1.toml"), "--cost", "rcux=1"], "did you mean"),
        (["published", str(PUBLISHED / "long-2021-v1.toml"), "--cost", "rcu=x"], "expected nano"),
        (["published", "SMALL"], "none of the scenarios has [[published]] figures"),
        (["published", "nowhere.toml"], "nowhere.toml: no such scenario file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, small, capsys):
    assert main([str(small) if word == "SMALL" else word for word in arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_profiles_are_shown_with_their_sources(capsys):
    assert main(["hardware", "show", "--json"]) == 0
    shown = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(shown) == set(profile_names())
    assert main(["hardware", "show", "laptop"]) == 0
    text = capsys.readouterr().out
    assert all(f"{shown['laptop']['costs'][cost]['ns']:.2f}" in text for cost in COSTS)


def test_published_figures_as_json(tmp_path, capsys):
    path = PUBLISHED / "long-2021-v1.toml"
    assert main(["published", str(path), "--out", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["verdict"] for one in told][0] == CALIBRATED
    assert all(one["ours"] > 0 and one["source"] for one in told)
