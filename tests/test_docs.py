"""What the documents show works as shown."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import polars as pl
import pytest

import kmbench
from kmbench.design import MEASURED, ROWS
from kmbench.scenario import scenario_files
from kmbench.sweep.grid import load_grid
from kmbench.sweep.plan import plan_sweep

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(name: str, language: str) -> list[str]:
    """Code blocks of a document."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def test_the_example_strategy_runs_and_leaves_nothing_charged(tmp_path):
    plugin = tmp_path / "per_object.py"
    plugin.write_text(blocks("docs/strategies.md", "python")[0])
    plugins = kmbench.load_plugins((plugin,))
    assert not plugins.failed
    results = kmbench.run(
        ROOT / "workloads" / "waste" / "spread.toml", ["per-object"], out=tmp_path / "r",
        plugins=plugins,
    )  # fmt: skip
    run = results.runs.collect().row(0, named=True)
    assert run["leak_bytes"] == 0
    charged = results.timeline.filter(pl.col("memcg") == 2).select(pl.col("kmem_usage").max())
    assert charged.collect().item() == 5 * 4096


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_exist(document):
    text = document.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        if target.startswith("reference/"):  # made when the site is built
            continue
        assert (document.parent / target).exists(), target
    for path in re.findall(r"`((?:kmbench|plugins|workloads|tests|benchmarks)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`(core/\w+\.py)`", text):
        assert (ROOT / "kmbench" / path).exists(), path


@pytest.mark.parametrize("page", ["README.md", "docs/findings.md"])
def test_tables_are_what_the_reference_comparison_says(page, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import make_reference

    text = (ROOT / page).read_text()
    assert make_reference.BLOCK.search(text), "no table"
    assert text == make_reference.refreshed(text), "run python benchmarks/make_reference.py"


@pytest.mark.parametrize("name", ["designs", "workloads"])
def test_a_page_is_what_the_plugins_say(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"make_{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (ROOT / "docs" / f"{name}.md").read_text() == made.page(), (
        f"run python docs/make_{name}.py"
    )


def test_the_page_of_designs_has_every_row_of_every_strategy():
    shared = {"meanwhile", "byte_stock"}  # do not apply to all
    for strategy in kmbench.load_plugins().strategies.values():
        if strategy.name != "none":
            declared = set(strategy.design) | set(MEASURED)
            declared |= {"counter_kind", "stock", "ids", "owner", "user_reclaim"}
            assert declared >= set(ROWS) - shared, strategy.name


def test_the_readme_names_every_strategy_and_workload():
    text = (ROOT / "README.md").read_text()
    plugins = kmbench.load_plugins()
    for name in [*plugins.strategies, *plugins.workloads, *plugins.shrinkers]:
        assert f"`{name}`" in text, name


def test_every_scenario_loads_and_says_what_to_look_at():
    plugins = kmbench.load_plugins()
    scenarios = scenario_files(ROOT / "workloads")
    assert scenarios
    for path in scenarios:
        scenario = kmbench.load_scenario(path)
        assert scenario.workload in plugins.workloads
        assert "ook at:" in path.read_text(), path


def test_every_grid_of_the_repository_can_be_planned():
    plugins = kmbench.load_plugins()
    grids = sorted((ROOT / "workloads").rglob("*.grid.toml"))
    assert grids
    for path in grids:
        assert plan_sweep(load_grid(path), plugins).jobs


def test_the_version_is_in_the_changelog():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_public_names():
    assert sorted(kmbench.__all__) == [
        "Accounting", "ExecutorPlugin", "Host", "KmbenchError", "Memory", "OpenWorkload",
        "Parameter", "PluginProblem", "Reclaim", "Scenario", "Shrinker", "Simulation", "Strategy",
        "UsageProblem", "Workload", "generated", "hookimpl", "load_plugins", "load_scenario",
        "open_results", "run",
    ]  # fmt: skip
    assert all(getattr(kmbench, name) for name in kmbench.__all__)


def test_the_tables_of_the_findings_are_those_of_the_reference():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import make_reference

    text = (ROOT / "docs" / "findings.md").read_text()
    assert make_reference.refreshed(text) == text
    size = sum(path.stat().st_size for path in make_reference.REFERENCE.rglob("*.parquet"))
    assert size < 3 << 20
