"""Grids: what one means, and bad ones in one line."""

import pytest

import kmbench
from grids import CHURN, GRID, PLUGINS, ROOT, SPREAD, write_grid
from kmbench.cli.app import main
from kmbench.errors import UsageProblem
from kmbench.sweep.filters import Filter
from kmbench.sweep.grid import load_grid
from kmbench.sweep.plan import plan_sweep
from kmbench.unused import refuse_unused


def test_a_grid_is_product_times_zip_less_what_filters_drop(tmp_path):
    points = list(load_grid(write_grid(tmp_path)).points(()))
    seen = {
        (p.scenario.parameters["groups"], p.scenario.parameters["objects"],
         p.scenario.parameters["size"], p.scenario.strategies["costa-2012"]["independent"])
        for p in points
    }  # fmt: skip
    pairs = ((3, 2, 64), (3, 5, 192), (9, 2, 64))
    assert seen == {(*pair, flag) for pair in pairs for flag in (True, False)}
    assert len(points) == 2 * len(seen)


def test_equal_runs_are_made_once_and_strategies_are_paired(tmp_path):
    made = plan_sweep(load_grid(write_grid(tmp_path)), PLUGINS)
    assert len(set(made.run_ids)) == len(made.run_ids)
    names = [name for job in made.jobs for name in job.strategies]
    assert names.count("none") == 6  # once a seed and point of the workload
    assert names.count("costa-2012") == 12


def test_seeds_come_from_the_point_and_not_from_its_place(tmp_path):
    first = plan_sweep(load_grid(write_grid(tmp_path)), PLUGINS)
    turned = GRID.replace("[3, 9]", "[9, 3]").replace("[true, false]", "[false, true]")
    second = plan_sweep(load_grid(write_grid(tmp_path, turned)), PLUGINS)
    assert set(first.run_ids) == set(second.run_ids)
    assert first.run_ids != second.run_ids
    seeds = [job.scenario.seed for job in first.jobs]
    assert len(set(seeds)) == 6
    smaller = plan_sweep(load_grid(write_grid(tmp_path, GRID.replace("[3, 9]", "[3]"))), PLUGINS)
    assert set(smaller.run_ids) < set(first.run_ids)


BAD_GRIDS = {
    "key": ("sedes = 2", "unknown key 'sedes'; did you mean 'seeds'?"),
    "seeds": ("seeds = 0", "seeds = 0: expected a whole number"),
    "seed": ("[product]\nseed = [1, 2]", "use `seeds`"),
    "scenario": ("[product]\nera = ['6.81']", "unknown era '6.81'; did you mean '6.18'?"),
    "parameter": ("[product]\n'workload.gruops' = [1]", "'gruops'; did you mean 'groups'?"),
    "value": ("[product]\n'workload.groups' = ['many']", "expected a whole number"),
    "machine": ("[product]\n'machine.cpu' = [1]", "unknown key 'cpu'; did you mean 'cpus'?"),
    "strategy": ("strategies = ['nome']", "unknown strategy 'nome'; did you mean 'none'?"),
    "unused": (
        "strategies = ['none']\n[product]\n'strategies.costa-2012.independent' = [true]",
        "strategies.costa-2012.independent is not used",
    ),
    "its machine": (
        f"scenario = {str(CHURN)!r}\n[product]\n'machine.cpus' = [1, 2]",
        "workload replay: machine.cpus is not used: it brings its own machine",
    ),
    "its name": ("[product]\nname = ['a', 'b']", "name: no run depends on it"),
    "its parameter": (
        "strategies = ['costa-2012']\n[product]\n'strategies.costa-2012.indep' = [true]",
        "did you mean 'independent'?",
    ),
    "unquoted": ("[product]\nworkload.groups = [1]", "quote a dotted key"),
    "empty": ("[product]\n'workload.groups' = []", "expected a list of values"),
    "lengths": ("[zip]\n'workload.groups' = [1]\n'workload.size' = [8, 16]", "equally many"),
    "twice": ("[product]\n'workload.size' = [8]\n[zip]\n'workload.size' = [8]", "in both"),
    "filter": ("filters = ['groups > 1']\n[product]\n'workload.groups' = [1]", "is not varied"),
    "call": ("filters = ['exit()']\n[product]\n'workload.groups' = [1]", "expected comparisons"),
    "syntax": ("filters = ['1 +']", "not an expression"),
    "nothing left": (
        "filters = ['workload.groups > 1']\n[product]\n'workload.groups' = [1]",
        "the filters leave no point",
    ),
    "not TOML": ("seeds = = 1", "not TOML"),
    "date": ("[product]\n'workload.groups' = [2012-02-21]", "expected numbers, strings"),
}


@pytest.mark.parametrize("name", BAD_GRIDS)
def test_a_bad_grid_is_one_line_and_code_2(tmp_path, capsys, name):
    text, words = BAD_GRIDS[name]
    assert main(["sweep", str(write_grid(tmp_path, text)), "-n"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_key_that_a_run_looks_at_is_taken():
    keys = ["machine.cpus", "machine.nodes", "machine.memory", "machine.page_size", "era"]
    for path in (SPREAD, ROOT / "workloads" / "churn" / "short_lives.toml"):
        refuse_unused(kmbench.load_scenario(path), keys, PLUGINS)
    slab = kmbench.load_scenario(CHURN, {"allocator": "slab"})
    refuse_unused(slab, ["era"], PLUGINS)
    for key in keys[:4]:
        with pytest.raises(UsageProblem, match=f"{key} is not used"):
            refuse_unused(slab, [key], PLUGINS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b * 2 == 6", True), ("not a.b in [1, 2]", True), ("a.b % 2 == 0 or -c > 0", False),
     ("1 < a.b < 3", False), ("a.b - 1 >= 2 and c != 'x'", True)],
)  # fmt: skip
def test_filters(text, expected):
    assert Filter(text, {"a.b", "c"}).keeps({"a.b": 3, "c": 1}) is expected


def test_a_filter_that_cannot_be_worked_out_is_bad_usage():
    with pytest.raises(UsageProblem, match="filter 'c > 1'"):
        Filter("c > 1", {"c"}).keeps({"c": "text"})
