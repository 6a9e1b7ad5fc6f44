"""The HTML report: its content, its figures, and that it works in a browser."""

import json
import re
import shutil

import polars as pl
import pytest

import make_results
from kmbench.analysis.compare import compare
from kmbench.analysis.report import gather, report_html, write_figures
from kmbench.analysis.report.colours import strategy_colours
from kmbench.analysis.report.figures import filled, units_of
from kmbench.analysis.report.labels import places
from kmbench.analysis.report.page import packed, static_figures
from kmbench.cli import app
from kmbench.errors import UsageProblem
from kmbench.store.dataset import open_results


def scenarios(folder, seeds=1):
    """Two scenarios, one of which varies a parameter; every strategy on all seeds."""
    for seed in range(seeds):
        for strategy in make_results.STRATEGIES:
            make_results.write(folder, strategy, seed)
            params = json.dumps({"groups": 10 * (1 + seed % 3)})
            make_results.write(
                folder, strategy, seed, scenario="grow", scenario_params=params,
                workload_hash=f"grow{seed}",
            )  # fmt: skip
    return folder


@pytest.fixture
def content(tmp_path):
    return gather(open_results(scenarios(tmp_path / "r", 3)))


def test_content_by_hand(tmp_path):
    content = gather(open_results(scenarios(tmp_path)))
    assert content.facts["runs"] == 8
    assert list(content.colours)[0] == "none"
    assert content.contexts["label"].to_list() == ["churn", "grow"]
    summary = content.tables["summary"].filter(
        context=0, metric="slab_bytes_mean", strategy="costa-2012"
    )
    assert summary["ratio"].item() == pytest.approx(26 / 11)
    assert summary["pairs"].item() == 1
    totals = content.tables["totals"].filter(context=0, strategy="costa-2012")
    assert totals["used"].to_list() == [32_000, 64_000]
    assert totals["charged"].to_list() == [48_000, 96_000]
    assert totals["t"].to_list() == [0, 0.001]
    groups = content.tables["groups"].filter(context=0, strategy="costa-2012", group="/web")
    assert groups["used"].to_list() == [12_000, 24_000]
    ops = content.tables["ops"].filter(context=1, strategy="linux-5.9")
    assert dict(ops.select("phase", "ops").iter_rows()) == {
        "alloc": 12.0, "charge": 0.25, "free": 2.0,
    }  # fmt: skip
    caches = content.tables["caches"].filter(context=0, strategy="none")
    assert set(caches["cache"]) == {"dentry", "kmalloc-64"}
    latency = content.tables["latency"].filter(context=0, strategy="none", op="alloc")
    shares = {group: list(part["share"]) for (group,), part in latency.group_by("group")}
    assert shares == {"": [1, 0.25], "/web": [1, 1 / 3], "/db": [1]}
    assert content.tables["speed"].height == 0


def test_timelines_are_of_runs_that_share_workload_and_seed(tmp_path):
    make_results.write_all(tmp_path, seeds=2)
    make_results.write(tmp_path, "none", 7)  # a seed that no other strategy has
    content = gather(open_results(tmp_path))
    assert content.contexts["seed"].to_list() == [0]
    assert content.tables["totals"].height == 2 * len(make_results.STRATEGIES)


def test_waste_adds_up_to_what_is_not_live(content):
    slabs = content.tables["slabs"].filter(context=0, strategy="costa-2012")
    waste = content.tables["waste"].filter(context=0, strategy="costa-2012")
    free = (slabs["slabs"] - slabs["live"]).mean()
    assert waste.filter(pl.col("kind") != "metadata")["bytes"].sum() == pytest.approx(free)
    assert waste.filter(kind="metadata")["bytes"].item() == 256


def test_curves_over_what_varies(content):
    rows = content.tables["scaling"].filter(metric="slab_bytes_mean", strategy="none")
    assert set(rows["parameter"]) == {"groups"}
    assert rows["x"].to_list() == [10, 20, 30]


def test_another_baseline_and_none_at_all(tmp_path):
    make_results.write(tmp_path, "linux-6.18")
    assert gather(open_results(tmp_path)).facts["baseline"] == "linux-6.18"
    make_results.write(tmp_path / "bad", "none", status="failed", error="why")
    with pytest.raises(UsageProblem, match="no successful run"):
        gather(open_results(tmp_path / "bad"))


def test_colours_are_stable_and_apart():
    names = ["none", "costa-2012", "linux-3.8", "linux-4.5", "linux-5.9", "mine", "mine[a=1]"]
    colours = strategy_colours(names)
    assert len(set(colours.values())) == len(names)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours.values())
    assert strategy_colours(reversed(names)) == colours


def test_names_of_points_stay_apart():
    names = ["first", "second", "third", "far"]
    found = places(names, [1.0, 1.0, 1.01, 9.0], [5.0, 5.0, 5.0, 9.0])
    assert len({(p.dx, p.dy, p.align) for p in found[:3]}) == 3
    assert all(p.align for p in found)
    crowd = places(["a long name indeed"] * 40, [1.0] * 40, [1.0] * 40)
    assert any(p.align == "" for p in crowd)  # what has no room is left out


def test_words_in_specifications():
    spec = {"a": "$DOMAIN", "b": "in $UNIT", "c": "datum.x / $DIVISOR"}
    assert filled(spec, {"DOMAIN": [0, 1], "UNIT": 'a"b', "DIVISOR": 1024}) == {
        "a": [0, 1], "b": 'in a"b', "c": "datum.x / 1024",
    }  # fmt: skip
    assert units_of(0) == ("B", 1)
    assert units_of(3 << 20) == ("MiB", 1 << 20)


def test_packed_columns():
    frame = pl.DataFrame({"w": ["x", None, "x"], "n": [1, None, 3], "f": [1.0, 0.12345678, None]})
    assert packed(frame) == {
        "w": {"words": ["x", None], "codes": [0, 1, 0]},
        "n": [1, None, 3],
        "f": [1, 0.1234568, None],
    }


def test_page_is_whole_and_links_nowhere(content):
    page = report_html(content, "a <title>")
    assert "<title>a &lt;title&gt;</title>" in page
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.DOTALL)
    assert not re.search(r'\ssrc=|\shref="(?!data:|#)', markup)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert set(json.loads(data[1])["tables"]) == set(content.tables)
    assert page.count("</script>") == 3
    assert len(page) < 3 << 20


def test_every_figure_compiles_and_shows_its_strategies(content, tmp_path):
    names = [name for name, _ in static_figures(content)]
    assert "churn.charged" in names
    assert "grow-slub-6.18.slab_bytes_mean.over.groups" in names
    few = content._replace(contexts=content.contexts.head(1))
    written = write_figures(few, tmp_path / "figures")
    assert len(written) == 2 * len([name for name in names if not name.startswith("grow.")])
    for path in written:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG" if path.suffix == ".png" else b"<svg"), path
        if path.suffix == ".svg":
            assert b"linux-6.18" in data, path


def test_command(tmp_path, capfd):
    folder = scenarios(tmp_path / "r")
    page = tmp_path / "page.html"
    assert app.main(["report", str(folder), "-o", str(page), "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["bytes"] == page.stat().st_size
    assert app.main(["report", str(tmp_path / "nowhere"), "-o", str(page)]) == 2
    assert "no such folder" in capfd.readouterr().err
    assert app.main(["report", str(folder), "-o", str(page), "--figures", str(page)]) == 2


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, capfd):
    import sys

    monkeypatch.setitem(sys.modules, "vl_convert", None)
    folder = make_results.write_all(tmp_path / "r")
    assert app.main(["report", str(folder), "-o", str(tmp_path / "page.html")]) == 2
    assert "kmbench[report]" in capfd.readouterr().err
    assert compare(open_results(folder)).frame.height  # everything else works


# --- in a browser ---


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; the reason where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine (.ci/run installs it where it can)")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A report over 200 runs."""
    folder = tmp_path_factory.mktemp("report")
    scenarios(folder / "r", 25)
    page = folder / "report.html"
    page.write_text(report_html(gather(open_results(folder / "r"))))
    return page


@pytest.fixture
def page(browser, file):
    """The report, open; at the end it must not have complained nor loaded anything else."""
    opened = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme="dark")
    complaints = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url))
    opened.goto(file.as_uri())
    opened.wait_for_selector("[data-figure=cost-waste] svg.marks")
    yield opened
    assert [c for c in complaints if not c.startswith((file.as_uri(), "data:"))] == []
    opened.close()


def draw_all(page):
    """Scroll through the page until every figure is drawn, however slow the machine is.

    What comes near the screen is told within a frame; then the page says when it is drawn.
    """
    height = page.evaluate("document.body.scrollHeight")
    for y in range(0, height, 600):
        page.evaluate(f"window.scrollTo(0, {y})")
        page.evaluate("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")
        page.evaluate("drawn()")


def test_everything_is_drawn_and_a_selection_filters(page):
    draw_all(page)
    for figure in ("cost-waste", "cost-error", "operations", "slabs", "waste", "cache"):
        assert page.locator(f"[data-figure={figure}] svg.marks").count() == 1, figure
    assert page.locator("#small svg.marks").count() == 4
    assert page.locator("#t-summary tbody tr").count() == 4
    assert page.locator("#t-runs tbody tr").count() == 200
    page.click("#chips >> text=costa-2012")
    draw_all(page)
    assert page.locator("#t-summary tbody tr").count() == 3
    assert page.locator("#small svg.marks").count() == 3
    assert "costa-2012" not in page.locator("[data-figure=waste]").inner_text()
    page.click("#chips >> text=all")
    draw_all(page)
    assert "costa-2012" in page.locator("[data-figure=waste]").inner_text()


def test_scenarios_groups_and_growth_can_be_chosen(page):
    draw_all(page)
    assert page.locator("[data-figure=scaling] svg").count() == 0
    assert "vary no number" in page.inner_text("#no-scaling")
    page.select_option("#context", label="grow")
    draw_all(page)
    assert page.locator("[data-figure=scaling] svg.marks").count() == 1
    page.select_option("#metric", label="slab bytes, mean")
    page.wait_for_function(
        "document.querySelector('[data-figure=scaling]').textContent.includes('KiB')"
    )
    page.select_option("#group", label="/web/php")
    draw_all(page)
    assert page.locator("#small svg.marks").count() == 4


def test_keys_sort_a_table_and_theme_is_kept(page):
    head = page.locator("#t-summary button[data-key=ops_per_alloc]")
    head.focus()
    page.keyboard.press("Enter")
    first = page.locator("#t-summary tbody th").all_inner_texts()
    page.keyboard.press("Enter")  # the button has the focus again
    assert page.locator("#t-summary tbody th").all_inner_texts() == first[::-1]
    assert page.locator("#t-summary th[aria-sort=descending]").count() == 1
    dark = "document.documentElement.hasAttribute('data-dark')"
    assert page.evaluate(dark)  # as the system
    page.click("#theme")
    assert not page.evaluate(dark)
    page.reload()
    page.wait_for_selector("[data-figure=cost-waste] svg.marks")
    assert not page.evaluate(dark)


def test_narrow_screens_do_not_scroll_sideways(page):
    page.set_viewport_size({"width": 390, "height": 800})
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_caches_and_runs_can_be_searched(page):
    page.fill("#find-cache", "kmalloc")
    assert page.locator("#t-caches tbody tr").count() == 1
    page.fill("#find-run", "linux-5.9")
    assert page.locator("#t-runs tbody tr").count() == 50
