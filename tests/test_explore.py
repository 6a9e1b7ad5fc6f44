"""Exploring the design space: what is enumerated, what is on the front, and that nothing leaks."""

import json
from xml.etree import ElementTree

import polars as pl
import pytest

import kmbench
from kmbench.cli.app import main
from kmbench.errors import UsageProblem
from kmbench.sweep import explore
from kmbench.sweep.explore import AXES, Design, Space

PLUGINS = kmbench.load_plugins()
SCENARIO = """
name = "small"
sample_every = "1 ms"
teardown = true
[workload]
plugin = "spread"
groups = 6
objects = 50
freed = 0.4
interval = 20000
"""


def test_every_composition_is_counted_once_and_is_not_run_by_default():
    space = Space(PLUGINS)
    designs = space.designs()
    assert len(set(designs)) == len(designs)
    sizes = {name: sum(d.strategy == name for d in designs) for name in PLUGINS.compositions}
    assert sizes == {"composed-byte": 3 * 2 * 2 * 2 * 2, "composed-page": 3 * 2 * 3 * 3 * 5 * 16}
    assert not PLUGINS.compositions.keys() & PLUGINS.strategies.keys()
    assert len(space.sample(10, 3)) == 10
    assert space.sample(10, 3) == space.sample(10, 3) != space.sample(10, 4)


def test_a_composition_is_what_the_historic_design_is(tmp_path):
    """Linux 5.3 and the composition as it is differ in what a path costs, not in what they do."""
    scenario = tmp_path / "small.toml"
    scenario.write_text(SCENARIO)
    results = kmbench.run(scenario, ["linux-5.3", "composed-page"], out=tmp_path / "out")
    frame = results.timeline.collect()
    first, second = (part.drop("run_id") for _, part in frame.group_by("run_id"))
    assert first.equals(second)


def test_a_sample_of_all_designs_leaks_nothing(tmp_path, capsys):
    scenario = tmp_path / "small.toml"
    scenario.write_text(SCENARIO)
    words = ["explore", str(scenario), "--search", "random", "--trials", "40", "--executor",
             "serial", "--out", str(tmp_path / "out"), "--json"]  # fmt: skip
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["failed"] == {}
    rows = document["designs"]
    assert len(rows) == 40 + len(PLUGINS.strategies) - 1
    assert {row["leak_bytes"] for row in rows} == {0.0}
    front = [row for row in rows if row["front"]]
    assert all(row["beaten_by"] is None for row in front)
    names = {row["design"] for row in front}
    for row in rows:
        if not row["front"]:
            assert row["beaten_by"] is None or row["beaten_by"] in names
    assert any(row["front_historic"] for row in rows if row["historic"])
    assert main([*words[:-1]]) == 0  # from what is stored
    text = capsys.readouterr().out
    assert "best among those that were built" in text
    assert "40 compositions tried, 0 runs failed, 0 designs leak charges" in text
    figure = tmp_path / "front.svg"
    assert main([*words, "--hardware", "server-72", "--figure", str(figure)]) == 0
    priced = json.loads(capsys.readouterr().out)["designs"]
    assert {row["design"] for row in priced} == names | {row["design"] for row in rows}
    assert all(row["pair_ns"] > 0 for row in priced)
    drawn = ElementTree.fromstring(figure.read_text())
    built = [row["design"] for row in priced if row["historic"]]
    told = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {name for name in built if any(word.endswith(f" {name}") for word in told)} == set(built)
    squares = list(drawn.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(squares) == 1 + 3 * len(built)


def test_the_winner_beats_on_every_axis():
    frame = pl.DataFrame({
        "design": ["a", "b", "c"], "front": [True, True, False],
        **{axis: [1.0, 3.0, 2.0] if i else [2.0, 1.0, 2.0] for i, axis in enumerate(AXES)},
    })  # fmt: skip
    assert explore._winners(frame) == [None, None, "a"]


def test_the_search_asks_for_each_design_once():
    pytest.importorskip("optuna")
    space, asked = Space(PLUGINS, ["composed-byte"]), []

    def evaluate(designs):
        asked.extend(designs)
        cheap = {design: dict(design.parameters) for design in designs}
        return {
            design: (float(given["locked"]), 1.0, float(given["forces"]), float(given["pages"]))
            for design, given in cheap.items()
        }

    found = explore.search(space, 60, 0, evaluate, generation=20)
    assert len(asked) == len(set(asked)) == len(found) <= 48
    assert set(found) <= set(space.designs())
    best = dict.fromkeys(("locked", "forces", "pages"), False).items()
    assert any(best <= dict(design.parameters).items() for design in found)


def test_names_that_are_no_composition(tmp_path, capsys):
    with pytest.raises(UsageProblem, match="none is a strategy, not a composition"):
        Space(PLUGINS, ["none"])
    scenario = tmp_path / "small.toml"
    scenario.write_text(SCENARIO)
    assert main(["explore", str(scenario), "-c", "composed-pag"]) == 2
    assert "did you mean 'composed-page'?" in capsys.readouterr().err


def test_designs_are_named_by_what_is_unusual():
    space = Space(PLUGINS)
    family = PLUGINS.compositions["composed-byte"]
    usual = tuple((p.name, p.default) for p in family.parameters)
    assert space.words(Design("none")) == "none"
    assert space.words(Design("composed-byte", usual)) == "composed-byte: as it is"
    changed = dict(usual) | {"selection": "all", "forces": False, "locked": True}
    words = space.words(Design("composed-byte", tuple(changed.items())))
    assert words == "composed-byte: all, no forces, locked"
