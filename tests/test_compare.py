"""Paired comparison, gates and the tables that come out of them."""

import io
import json
import sys

import numpy as np
import polars as pl
import pytest

import make_results
from kmbench.analysis.compare import CONTEXT, compare, load_runs
from kmbench.analysis.compare_view import format_ratio, grids
from kmbench.analysis.gate import failures, parse_gate
from kmbench.analysis.metrics import METRICS, format_value
from kmbench.analysis.overview import BRIEF, group_table, main_table
from kmbench.analysis.statistics import MIN_PAIRS, paired
from kmbench.analysis.tables import Column, Grid, as_json, as_markdown, as_text, encode, room
from kmbench.errors import UsageProblem
from kmbench.store.dataset import open_results


@pytest.fixture
def one(tmp_path):
    return open_results(make_results.write_all(tmp_path / "one"))


@pytest.fixture
def many(tmp_path):
    return open_results(make_results.write_all(tmp_path / "many", seeds=7))


def cell(comparison, metric, strategy, **where):
    rows = comparison.frame.filter(
        pl.col("metric") == metric,
        pl.col("strategy") == strategy,
        *(pl.col(key) == value for key, value in where.items()),
    )
    assert rows.height == 1
    return rows.row(0, named=True)


# --- statistics ---


def test_one_pair_has_no_interval():
    result = paired(np.array([3.0]), np.array([2.0]))
    assert (result.ratio, result.difference) == (1.5, 1.0)
    assert result.ratio_low is result.difference_low is None
    assert not result.significant


def test_interval_covers_the_true_ratio_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(100):
        base = rng.normal(100, 20, 30)
        result = paired(base * 1.2 + rng.normal(0, 5, 30), base)
        hits += result.ratio_low <= 1.2 <= result.ratio_high
    assert 88 <= hits <= 99


def test_pairing_removes_what_seeds_have_in_common():
    seeds = np.arange(10) * 1000.0
    result = paired(seeds + 101 + np.arange(10) % 2, seeds + 100)
    assert result.significant
    assert 1 <= result.difference_low <= result.difference_high <= 2


def test_no_mark_on_few_pairs_nor_on_noise():
    few = np.arange(MIN_PAIRS - 1) + 10.0
    assert not paired(few + 1, few).significant
    enough = np.arange(MIN_PAIRS) + 10.0
    assert paired(enough + 1, enough).significant
    assert not paired(enough + [1, -1, 1, -1, 1, -1], enough).significant


@pytest.mark.parametrize(
    ("values", "base", "ratio"),
    [([0, 0], [0, 0], 1.0), ([1, 2], [0, 0], None), ([0, 0], [1, 2], 0.0)],
)
def test_zeros(values, base, ratio):
    result = paired(np.array(values, float), np.array(base, float))
    assert result.ratio == ratio
    assert result.ratio_low == result.ratio_high == ratio


# --- comparison ---


def test_baseline_is_one_and_values_stand_beside(one):
    comparison = compare(one)
    base = cell(comparison, "slab_bytes_mean", "none")
    assert (base["ratio"], base["value"], base["pairs"]) == (1.0, 11 * 4096, 1)
    costa = cell(comparison, "slab_bytes_mean", "costa-2012")
    assert costa["value"] == 26 * 4096
    assert costa["ratio"] == pytest.approx(26 / 11)
    assert costa["baseline"] == 11 * 4096


def test_other_baseline(one):
    comparison = compare(one, baseline="linux-6.18", metrics=["O1"])
    assert cell(comparison, "ops_per_alloc", "linux-5.9")["ratio"] == pytest.approx(12.25 / 9.25)
    assert comparison.frame["strategy"][0] == "linux-6.18"


def test_w3_is_against_none_whatever_the_baseline(one):
    comparison = compare(one, baseline="linux-5.9", metrics=["W3"])
    assert cell(comparison, "excess_slab_bytes", "costa-2012")["value"] == 15 * 4096
    assert cell(comparison, "excess_slab_bytes", "none")["value"] == 0


def test_w3_needs_the_same_workload_and_seed(tmp_path):
    make_results.write(tmp_path, "none", workload_hash="a")
    make_results.write(tmp_path, "costa-2012", workload_hash="b")
    runs = load_runs(open_results(tmp_path))
    excess = dict(zip(runs["strategy"], runs["excess_slab_bytes"], strict=True))
    assert excess == {"none": 0, "costa-2012": None}


def test_seeds_are_paired_and_marked(many):
    comparison = compare(many, metrics=["W0"])
    costa = cell(comparison, "slab_bytes_mean", "costa-2012")
    assert costa["pairs"] == 7
    assert costa["significant"]
    assert costa["ratio_low"] < costa["ratio"] < costa["ratio_high"]
    assert costa["difference_low"] == costa["difference_high"] == 15 * 4096
    assert not cell(comparison, "slab_bytes_mean", "linux-6.18")["significant"]


def test_only_shared_seeds_count(many, tmp_path):
    make_results.write(many.path, "costa-2012", seed=99)
    costa = cell(compare(open_results(many.path), metrics=["W0"]), "slab_bytes_mean", "costa-2012")
    assert costa["pairs"] == 7


def test_result_does_not_depend_on_the_order_of_files(many):
    first = compare(many)
    assert first.frame.equals(compare(open_results(many.path)).frame)


def test_machines_and_eras_are_never_mixed(one):
    make_results.write(one.path, "none", hardware="power8")
    make_results.write(one.path, "costa-2012", hardware="power8", slab_bytes_mean=1.0)
    comparison = compare(open_results(one.path), metrics=["W0"])
    assert comparison.frame.select(CONTEXT).unique().height == 2
    other = cell(comparison, "slab_bytes_mean", "costa-2012", hardware="power8")
    assert other["ratio"] == pytest.approx(1 / (11 * 4096))
    texts = [as_text(grid) for grid in grids(comparison)]
    assert "hardware generic" in texts[0]
    assert "hardware power8" in texts[1]


def test_context_without_baseline_is_said(one):
    make_results.write(one.path, "costa-2012", era="3.5")
    comparison = compare(open_results(one.path), metrics=["W0"])
    assert "era 3.5" in comparison.notes[0]
    row = cell(comparison, "slab_bytes_mean", "costa-2012", era="3.5")
    assert (row["value"], row["ratio"], row["pairs"]) == (26 * 4096, None, 0)


def test_by_a_column_of_runs(one):
    for cpus in (4, 10):
        for strategy in ("none", "costa-2012"):
            make_results.write(one.path, strategy, cpus=cpus)
    comparison = compare(open_results(one.path), by="cpus", metrics=["W0"])
    assert set(comparison.frame["by"]) == {"2", "4", "10"}
    with pytest.raises(UsageProblem, match="did you mean 'cpus'"):
        compare(one, by="cpu")
    with pytest.raises(UsageProblem, match="unknown parameter 'strategy'"):
        compare(one, by="strategy")


def test_a_parameter_of_the_workload_that_is_called_as_a_column(one):
    """``groups`` of runs counts the root, too; compare said 11 where 10 were asked for."""
    for strategy in ("none", "costa-2012"):
        params = json.dumps({"groups": 7})
        make_results.write(one.path, strategy, scenario_params=params, workload_hash="other")
    results = open_results(one.path)
    comparison = compare(results, by="workload.groups", metrics=["W0"])
    assert set(comparison.frame["by"]) == {"7", None}
    assert "workload.groups" not in " ".join(comparison.notes)
    alone = compare(results, metrics=["W0"], where={"workload.groups": "7"})
    assert set(alone.frame["pairs"]) == {1}
    (note,) = compare(results, by="groups", metrics=["W0"]).notes
    assert note == "groups is the column of runs; workload.groups is the workload's parameter"


def test_by_a_parameter_of_the_strategy_pairs_with_the_plain_baseline(one):
    for caches in (["dentry"], ["dentry", "filp"]):
        params = json.dumps({"caches": caches, "joint": True})
        make_results.write(one.path, "costa-2012", strategy_params=params)
    results = open_results(one.path)
    comparison = compare(results, by="caches", metrics=["W0"])
    for value in ("dentry", "dentry+filp"):
        row = cell(comparison, "slab_bytes_mean", "costa-2012[joint=true]", by=value)
        assert row["ratio"] == pytest.approx(26 / 11)
        assert cell(comparison, "slab_bytes_mean", "none", by=value)["ratio"] == 1.0


def test_by_a_parameter_of_the_scenario(one):
    for k in (5, 8):
        for strategy in ("none", "costa-2012"):
            params = json.dumps({"k": k})
            make_results.write(one.path, strategy, workload_hash=f"k{k}", scenario_params=params)
    comparison = compare(open_results(one.path), by="k", metrics=["W0"])
    assert set(comparison.frame["by"]) == {None, "5", "8"}
    assert cell(comparison, "slab_bytes_mean", "costa-2012", by="8")["pairs"] == 1


def test_variants_of_a_strategy_are_told_apart_by_what_differs(one):
    for batch in (32, 64):
        params = json.dumps({"batch": batch, "same": 1})
        make_results.write(one.path, "linux-6.18", strategy_params=params)
    labels = set(compare(open_results(one.path), metrics=["W0"]).frame["strategy"])
    assert "linux-6.18[batch=32,same=1]" in labels
    assert {"none", "linux-6.18"} < labels


def test_failed_and_repeated_runs_are_left_out_and_said(one):
    make_results.write(one.path, "linux-5.9", status="failed", error="out of pages")
    make_results.write(one.path, "linux-5.9", versions='{"kmbench": "1"}')
    comparison = compare(open_results(one.path), metrics=["W0"])
    assert any("1 failed run(s) left out: out of pages" in note for note in comparison.notes)
    assert any("1 older run(s)" in note for note in comparison.notes)
    assert cell(comparison, "slab_bytes_mean", "linux-5.9")["pairs"] == 1


def test_nothing_to_compare(tmp_path, one):
    with pytest.raises(UsageProblem, match="no complete runs"):
        compare(open_results(tmp_path))
    with pytest.raises(UsageProblem, match="unknown strategy 'linux-5.8'; did you mean"):
        compare(one, baseline="linux-5.8")
    make_results.write(tmp_path / "bad", "none", status="failed", error="why")
    with pytest.raises(UsageProblem, match="why"):
        compare(open_results(tmp_path / "bad"))


# --- gates ---


@pytest.mark.parametrize(
    ("text", "failing"),
    [
        ("W0<=1.1x", ["costa-2012"]),
        ("slab_bytes_mean <= 3x", []),
        ("costa-2012: W0 > 2x", []),
        ("W0<=47K", ["costa-2012", "linux-5.9"]),
        ("W0<=0.05M", ["costa-2012"]),
        ("W1>=40%", ["costa-2012"]),
        ("A7<=0", ["costa-2012", "linux-5.9", "linux-6.18"]),
        ("A4<=1.0x", ["costa-2012", "linux-5.9"]),
        ("F1==0", []),
    ],
)
def test_gates(one, text, failing):
    gate = parse_gate(text)
    lines = failures(gate, compare(one, metrics=[gate.metric.name]))
    assert [line.split(": ")[-2].split(",")[0] for line in lines] == failing


@pytest.mark.parametrize("text", ["", "W0", "W0<=", "W0<=x", "W0=1", "W0<=1.0y", "W0<=1x extra"])
def test_bad_gates(text):
    with pytest.raises(UsageProblem, match="gate"):
        parse_gate(text)


def test_gate_on_unknown_names(one):
    with pytest.raises(UsageProblem, match="unknown metric"):
        parse_gate("nothing<=1")
    with pytest.raises(UsageProblem, match="did you mean 'costa-2012'"):
        failures(parse_gate("costa-2013:W0<=1"), compare(one, metrics=["W0"]))


# --- tables ---


def test_text_survives_mail(many):
    for grid in grids(compare(many)):
        text = as_text(grid)
        assert text.isascii()
        lines = text.splitlines()
        assert max(map(len, lines)) <= 100
        assert not any(line.endswith(" ") or "\t" in line for line in lines)
        assert sum(line.startswith("metric ") for line in lines) > 1  # blocks repeat the names


def test_one_row_of_the_table(one):
    text = as_text(next(grids(compare(one, metrics=["W0"]))))
    row = next(line for line in text.splitlines() if line.startswith("slab bytes"))
    assert row.split() == [
        "slab", "bytes,", "mean", "v", "44.00", "KiB", "1.00x", "104.0", "KiB", "2.36x", "48.00",
        "KiB", "1.09x", "44.00", "KiB", "1.00x",
    ]  # fmt: skip


def test_text_aligns_and_wraps_whole_groups():
    columns = [Column("name", left=True)]
    columns += [Column(head, group) for group in ("first", "second") for head in ("a", "b")]
    grid = Grid("title", columns, [["x", "1", "22", "333", "4"]], notes=["end"])
    assert as_text(grid, 18).splitlines() == [
        "title", "", "      first", "name  a   b", "----  -  --", "x     1  22", "",
        "      second", "name    a  b", "----  ---  -", "x     333  4", "", "end",
    ]  # fmt: skip


def test_words_of_the_last_column_are_broken_into_lines():
    columns = [Column("n", left=True), Column("words", left=True)]
    grid = Grid("", columns, [["a", "one two three four five six seven"], ["b", "x" * 40]])
    lines = as_text(grid, 30).splitlines()
    assert lines[2:] == ["a  one two three four five six", "   seven", "b  " + "x" * 40]
    assert as_text(grid, 100).splitlines()[2] == "a  one two three four five six seven"


def test_plain_text_is_as_wide_as_a_narrow_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for columns, width in ((60, 60), (200, 100), (10, 40)):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "stdout", Terminal())
        assert room() == width
        monkeypatch.setattr(sys, "stdout", io.StringIO())
        assert room() == 100


def test_text_of_one_column_wider_than_the_page():
    grid = Grid("", [Column("n", left=True), Column("w" * 30), Column("v")], [["a", "b", "c"]])
    text = as_text(grid, 20)
    assert "w" * 30 in text
    assert text.count("n  ") == 2


def test_foreign_letters_become_escapes():
    text = as_text(
        Grid("", [Column("g", left=True), Column("v")], [["/caf\u00e9", "1"], ["/x", "2"]])
    )
    assert text.isascii()
    assert len({len(line) for line in text.splitlines()}) == 1


def test_markdown(one):
    text = as_markdown(next(grids(compare(one, metrics=["W0"]))))
    assert "| slab bytes, mean | v | 44.00 KiB | 1.00x" in text
    assert as_markdown(Grid("", [Column("a")], [["x|y"]])).endswith("| x\\|y |")


def test_frames_as_csv_json_parquet(one):
    frame = compare(one, metrics=["W0"]).frame
    assert pl.read_csv(io.BytesIO(encode(frame, "csv")))["strategy"].to_list() == [
        "none", "costa-2012", "linux-5.9", "linux-6.18",
    ]  # fmt: skip
    rows = json.loads(encode(frame, "json"))
    assert rows[1]["ratio"] == pytest.approx(26 / 11)
    assert pl.read_parquet(io.BytesIO(encode(frame, "parquet"))).equals(frame)
    assert json.loads(as_json({"a": [float("nan"), float("inf"), 1.5]})) == {"a": [None, None, 1.5]}


@pytest.mark.parametrize(("ratio", "text"), [(None, "-"), (1.0, "1.00x"), (12345.6, "1.23e+04x")])
def test_format_ratio(ratio, text):
    assert format_ratio(ratio) == text


def test_main_table(one):
    text = main_table(one)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 100
    brief, groups = text.split("what groups were charged")
    costa = next(line for line in brief.splitlines() if line.startswith("costa-2012"))
    row = load_runs(one).filter(strategy="costa-2012").row(0, named=True)
    assert costa.split()[1:] == " ".join(
        format_value(METRICS[name], row[name]) for name in BRIEF
    ).split()  # fmt: skip
    assert [line.split()[0] for line in groups.splitlines()[2:3]] == ["/db"]
    assert groups.splitlines()[2].split() == ["/db", "/web", "/web/php"]
    rows = {line[:11].strip(): line[11:].split() for line in groups.splitlines()[4:]}
    assert rows["really used"][2:4] == ["17.58", "KiB"]
    web = {name: " ".join(cells[2:4]) for name, cells in rows.items()}
    assert [web[name] for name in make_results.STRATEGIES] == [
        "0 B", "26.37 KiB", "21.97 KiB", "17.58 KiB"
    ]  # fmt: skip


def test_main_table_of_some_runs_and_without_none(one):
    ids = [one.run("costa").run_id, one.run("linux-5.9").run_id]
    text = main_table(one, ids)
    lines = [line.split()[0] for line in text.splitlines() if line.startswith(("costa", "linux"))]
    assert lines == ["costa-2012", "linux-5.9"] * 2
    with pytest.raises(UsageProblem, match="no successful run"):
        main_table(one, [])


def test_variants_are_named_where_they_stand_side_by_side(one):
    for scenario, shares in (("alike", (1,)), ("varied", (1, 2))):
        for share in shares:
            params = json.dumps({"share": share})
            make_results.write(one.path, "costa-2012", scenario=scenario, strategy_params=params)
        make_results.write(one.path, "none", scenario=scenario)
    results = open_results(one.path)
    frame = compare(results, metrics=["W0"]).frame
    names = {key: set(part["strategy"]) for (key,), part in frame.group_by("scenario")}
    assert names["alike"] == {"none", "costa-2012"}
    assert names["varied"] == {"none", "costa-2012[share=1]", "costa-2012[share=2]"}
    mixed = compare(results, metrics=["W0"], collapse=["scenario"]).frame
    assert {"costa-2012[share=1]", "costa-2012[share=2]"} < set(mixed["strategy"])


def test_group_table_keeps_scenarios_apart(one):
    make_results.write(one.path, "none", scenario="other")
    titles = [grid.title for grid in group_table(open_results(one.path))]
    assert len(titles) == 2
    assert "other" in titles[1]


# --- layouts ---


def test_collapsed_contexts_pair_within_and_average_over(one):
    for strategy, slabs in (("none", 100.0), ("costa-2012", 300.0)):
        make_results.write(one.path, strategy, scenario="other", slab_bytes_mean=slabs)
    comparison = compare(open_results(one.path), metrics=["W0"], collapse=["scenario"])
    assert comparison.frame["scenario"].null_count() == comparison.frame.height
    row = cell(comparison, "slab_bytes_mean", "costa-2012")
    assert row["pairs"] == 2
    assert row["ratio"] == pytest.approx((26 * 4096 + 300) / (11 * 4096 + 100))
    with pytest.raises(UsageProblem, match="did you mean 'scenario'"):
        compare(one, collapse=["scenarios"])


def test_a_context_column_can_be_pivoted(one):
    for cpus in (10, 4):
        for strategy in ("none", "costa-2012"):
            make_results.write(one.path, strategy, cpus=cpus)
    comparison = compare(open_results(one.path), by="cpus", metrics=["W0"])
    (grid,) = grids(comparison, pivot=True)
    assert [column.group for column in grid.columns[1::2]] == ["cpus 2", "cpus 4", "cpus 10"]
    row = next(row for row in grid.rows if row[0] == "costa-2012")
    assert [cell.strip() for cell in row[2::2]] == ["2.36x"] * 3


@pytest.mark.parametrize("width", [60, 78, 100])
def test_no_line_is_wider_than_asked(many, width):
    comparison = compare(many)
    texts = [as_text(grid, width) for grid in [*grids(comparison), *group_table(many)]]
    assert max(len(line) for text in texts for line in text.splitlines()) <= width
    assert all(text.isascii() for text in texts)


def test_many_pairs_are_drawn_in_blocks():
    rng = np.random.default_rng(3)
    base = rng.normal(100, 20, 20_000)
    result = paired(base * 1.1 + rng.normal(0, 5, 20_000), base)
    assert result.ratio_low < 1.1 < result.ratio_high
    assert result.difference_high - result.difference_low == pytest.approx(
        2 * 1.96 * np.hypot(5, 2) / np.sqrt(20_000), rel=0.2
    )


def test_some_runs_only(one):
    for k in (5, 8):
        for strategy in ("none", "costa-2012"):
            params = json.dumps({"k": k})
            make_results.write(one.path, strategy, workload_hash=f"k{k}", scenario_params=params)
    results = open_results(one.path)
    comparison = compare(results, where={"k": "8", "scenario": "churn"}, metrics=["W0"])
    assert cell(comparison, "slab_bytes_mean", "costa-2012")["pairs"] == 1
    both = compare(results, where={"k": "5,8"}, by="k", metrics=["W0"])
    assert set(both.frame["by"]) == {"5", "8"}
    few = compare(results, strategies=["linux-6.18"], metrics=["W0"])
    assert set(few.frame["strategy"]) == {"none", "linux-6.18"}
    for where, words in (
        ({"k": "9"}, "unknown k '9'"),
        ({"k": "5,9"}, "unknown k '9'"),
        ({"kk": "9"}, "did you mean 'k'"),
        ({"scenario": "chrn"}, "did you mean 'churn'"),
    ):
        with pytest.raises(UsageProblem, match=words):
            compare(results, where=where)
    with pytest.raises(UsageProblem, match="did you mean 'linux-6.18'"):
        compare(results, strategies=["linux-6.19"])


def test_metrics_across(one):
    comparison = compare(one, metrics=["W0", "A5.median"])
    (grid,) = grids(comparison, pivot=True)
    assert [column.group for column in grid.columns[1::2]] == [
        "slab bytes, mean v", "charge error, median v"
    ]  # fmt: skip
    assert [row[0] for row in grid.rows] == list(make_results.STRATEGIES)
    assert grid.rows[1][2].strip() == "2.36x"
