"""Published figures: how they are judged, and the table of them that is documented."""

from pathlib import Path

import pytest

import kmbench
from kmbench.analysis.published import (
    CALIBRATED,
    consists_of,
    count_all,
    judge,
    published_grid,
)
from kmbench.analysis.sensitivity import sensitivity, sensitivity_grid
from kmbench.analysis.tables import as_markdown
from kmbench.errors import UsageProblem
from kmbench.hardware.profile import (
    COSTS,
)
from kmbench.published import published_from

PUBLISHED = Path(__file__).parent.parent / "workloads" / "published"


ENTRY = {"what": "w", "figure": "none:pair_ns", "value": 20.0, "unit": "ns", "source": "s"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"figure": "none"}, "figure = 'none': expected STRATEGY:METRIC"),
        ({"value": "x"}, "value = 'x': expected a number"),
        ({"value": 0}, "value: expected a number other than 0"),
        ({"sauce": "s"}, "unknown key 'sauce'; did you mean 'source'?"),
        ({"calibrates": 1}, "calibrates = 1: expected true or false"),
        ({"against": {"workload.size": 1}}, "against: expected a figure of two metrics"),
    ],
)
def test_a_bad_entry_is_told(change, words):
    with pytest.raises(UsageProblem) as problem:
        published_from([ENTRY | change], "s.toml")
    assert words in str(problem.value) and "s.toml: published 1" in str(problem.value)
    with pytest.raises(UsageProblem, match="source: expected a string, there is none"):
        published_from([{k: v for k, v in ENTRY.items() if k != "source"}], "s.toml")


def test_figures_are_judged_after_calibration(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(
        """
sample_every = "0 ns"
[workload]
plugin = "slab_pairs"
pairs = 200
[[published]]
what = "base"
figure = "none:pair_ns"
value = 123.0
unit = "ns"
source = "s"
calibrates = true
[[published]]
what = "the same as itself"
figure = "none:pair_ns / none:pair_ns"
value = 1
unit = "x"
source = "s"
[[published]]
what = "far off"
figure = "linux-6.18:pair_ns - none:pair_ns"
value = 1e6
unit = "ns"
source = "s"
reason = "nobody is that slow"
set = { "workload.size" = 4096 }
[[published]]
what = "other settings for the second"
figure = "linux-6.18:pair_ns - linux-6.18:pair_ns"
value = 50
unit = "ns"
source = "s"
against = { "workload.in_root" = true }
[[published]]
what = "the rate of a pair and 10 us of other work"
figure = "none:pairs_per_s"
value = 98785.0
unit = "/s"
source = "s"
tolerance = 1e-4
set = { "workload.think_ns" = 10000 }
"""
    )
    base, same, far, other, rate = judge([path], kmbench.load_plugins(), tmp_path / "r")
    assert base.verdict == CALIBRATED and base.ours == pytest.approx(123)
    assert same.verdict == "met" and same.error == 0
    assert far.verdict == "missed" and 0 < far.ours < 1000 and -1 < far.error < -0.99
    assert 0 < other.ours < far.ours and rate.verdict == "met"
    notes = published_grid([base, same, far]).notes
    assert notes[0] == "1 of 2 predictions met" and "[1] nobody is that slow" in notes


def test_unknown_strategies_and_metrics_of_figures_are_told(tmp_path):
    path = tmp_path / "s.toml"
    for figure, words in (
        ("nome:pair_ns", "did you mean 'none'"), ("none:pear_ns", "did you mean 'pair_ns'")
    ):  # fmt: skip
        path.write_text(
            '[workload]\nplugin = "slab_pairs"\n[[published]]\nwhat = "w"\nvalue = 1\nunit = "ns"\n'
            f'source = "s"\nfigure = "{figure}"\n'
        )
        with pytest.raises(UsageProblem, match=words):
            judge([path], kmbench.load_plugins(), tmp_path)


def test_at_most_one_entry_of_a_scenario_calibrates_and_none_is_accounted():
    for path in sorted(PUBLISHED.glob("*.toml")):
        for entry in kmbench.load_scenario(path).published:
            if entry.calibrates:
                in_root = entry.settings.get("workload.in_root") == "true"
                assert in_root or entry.terms[0][0].strategy == "none", path


CHEAP = (
    "recording-vm-2026", "recording-vm-syscalls-2026", "xeon-vm-2026", "xeon-vm-syscalls-2026",
    "long-2021-v1", "long-2021-v6",
)  # fmt: skip


@pytest.fixture(scope="module")
def cheap(tmp_path_factory):
    """What the published scenarios that take seconds counted."""
    paths = [PUBLISHED / f"{name}.toml" for name in CHEAP]
    return count_all(paths, kmbench.load_plugins(), tmp_path_factory.mktemp("cheap"))


def parts_of(table: str) -> dict[str, list[list[str]]]:
    """Cells of a table of figures in Markdown by scenario, without the marks of reasons."""
    parts: dict[str, list[list[str]]] = {}
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not cells[1]:  # name and machine
            parts[cells[0].split(" (")[0]] = []
        parts[list(parts)[-1]].append([*cells[:4], cells[4].split(" [")[0]])
    return parts


def test_the_documented_table_is_what_the_command_prints(cheap):
    """`kmbench published workloads/published --format md`; of the scenarios that take longer only
    the verdicts are counted."""
    text = (PUBLISHED.parents[1] / "docs" / "hardware.md").read_text()
    after = text[text.index("workloads/published --format md` prints:") :]
    documented = parts_of(after.split("\n\n")[1])
    assert set(documented) == {path.stem for path in PUBLISHED.glob("*.toml")}
    verdicts = [row[-1] for part in documented.values() for row in part]
    met, missed = verdicts.count("met"), verdicts.count("missed")
    assert f"{met} of {met + missed} predictions met" in after
    for counted in cheap:
        table = as_markdown(published_grid(counted.verdicts())).split("\n\n")[0]
        name = counted.scenario.name
        assert documented[name] == parts_of(table)[name]


def test_a_calibration_scales_what_its_figure_consists_of(cheap):
    counted = next(one for one in cheap if one.scenario.name == "long-2021-v6")
    base = counted.scenario.published[0]
    parts = consists_of(counted, base, counted.profile)
    assert set(parts) == {"br", "ptr_l1", "pcpu", "cas", "call"}  # no interrupts off, no atomics
    hashes = {verdict.hardware for verdict in counted.verdicts()}
    assert len(hashes) == 1 and counted.profile.label not in hashes
    with pytest.raises(UsageProblem, match="cannot be scaled to 31.3 ns"):
        counted.verdicts(scales=lambda *_: ["line_remote"])


def test_sensitivity_halves_and_doubles_every_cost(cheap):
    outcomes = sensitivity(cheap)
    assert [o.factor for o in outcomes if o.choice == "irq"] == [0.5, 2.0]
    assert {o.choice for o in outcomes} >= set(COSTS)
    plain = outcomes[0]
    assert plain.changed == () and plain.met <= plain.predictions == 35
    idle = next(o for o in outcomes if o.choice == "line_remote")
    assert (idle.met, idle.median_error) == (plain.met, plain.median_error)
    dear = next(o for o in outcomes if o.choice == "irq" and o.factor == 2)
    assert dear.median_error != plain.median_error
    assert "nothing changes with" in sensitivity_grid(outcomes).notes[1]


# -- calibration ---------------------------------------------------------------------------
