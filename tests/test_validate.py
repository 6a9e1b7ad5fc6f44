"""The verbs of `kmbench trace`: validation, billing, what-if, info and convert."""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kmbench import load_plugins, run
from kmbench.analysis.fidelity import verdict_table
from kmbench.analysis.picture import Curve, number, svg_charts, text_chart
from kmbench.cli import app
from kmbench.core.events import ALLOC, CG_CREATE, CG_OFFLINE, CG_RELEASE, EVENT, FREE, SAMPLE
from kmbench.core.geometry import make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.errors import UsageProblem
from kmbench.simulate import Simulation
from kmbench.trace.billing import billing
from kmbench.trace.live import Ledger, live_counts
from kmbench.trace.recording import open_recording
from kmbench.trace.score import COLUMNS, PAGE
from kmbench.trace.truth import read_truth
from kmbench.trace.validate import BOUNDS, pooled, predict, validate
from kmbench.trace.whatif import what_if
from trace_capture import write_capture

RECORDED = Path(__file__).parents[1] / "workloads" / "recorded"
NAMES = ("churn", "compile", "limit_neg")


def trace(name):
    return RECORDED / f"{name}.kmtrace.parquet"


@pytest.fixture(scope="module")
def plugins():
    return load_plugins()


@pytest.fixture(scope="module")
def replayed(plugins):
    return {name: validate(trace(name), plugins=plugins) for name in NAMES}


@pytest.fixture
def kmbench(capfdbinary):
    """Run a command line; returns (exit code, stdout, stderr)."""

    def call(*args):
        code = app.main([str(arg) for arg in args])
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return call


def verdicts(validation):
    short = {quantity: name for name, quantity in BOUNDS.items()}
    return {short[row.quantity]: row.passed for row in validation.score.rows}


@pytest.mark.parametrize("name", NAMES)
def test_the_ordinary_engine_predicts_the_recorded_kernel(replayed, name):
    found = verdicts(replayed[name])
    kept = ("kmem-exact", "kmem-page", "kmem-4-pages", "kmem-sum", "slabs-exact", "slabs-within",
            "pages-total")  # fmt: skip
    assert {bound: found[bound] for bound in kept} == dict.fromkeys(kept, True)
    assert found["zombies"] is not False
    assert replayed[name].skipped == 0


def test_every_row_of_the_score_has_a_bound(replayed):
    rows = [row.quantity for row in replayed["churn"].score.rows]
    assert sorted(rows) == sorted(BOUNDS.values())


def test_recordings_of_different_quantities_stand_in_one_table(replayed):
    churn, compiled = replayed["churn"], replayed["compile"]
    without = [row for row in churn.score.rows if not row.quantity.startswith("kmem")]
    plain = churn._replace(score=churn.score._replace(rows=tuple(without)))
    for pair in ((plain, compiled), (compiled, plain)):
        table = verdict_table(pair, {})
        assert [line.split("  ")[0] for line in table.splitlines()[2:-2]] == [
            row.quantity for row in compiled.score.rows
        ]
        kmem = next(line for line in table.splitlines() if line.startswith("kmem readings exact"))
        assert sorted(cell == "-" for cell in kmem.split()[-3:]) == [False, True, True]


def test_pooled_shares_beat_a_plain_model(replayed):
    values = pooled(list(replayed.values()))
    assert values[BOUNDS["kmem-exact"]] > 0.99
    assert values[BOUNDS["slabs-exact"]] > 0.82
    assert values[BOUNDS["slabs-within"]] > 0.98
    assert values[BOUNDS["made-sum"]] < 0.03


def test_a_model_without_cpu_partial_lists_fails(plugins):
    failed = [verdicts(validate(trace(name), ablation="cpu-partial", plugins=plugins))
              for name in NAMES[1:]]  # fmt: skip
    assert all(rows["slabs-exact"] is False and rows["slabs-within"] is False for rows in failed)


@pytest.mark.parametrize("name", NAMES)
def test_ideal_packing_fails(plugins, name):
    rows = verdicts(validate(trace(name), ablation="packing", plugins=plugins))
    assert not any(rows[bound] for bound in ("slabs-exact", "slabs-within", "pages-total"))


def test_without_accounting_kmem_fails(plugins):
    rows = verdicts(validate(trace("compile"), strategy="none", plugins=plugins))
    assert rows["kmem-exact"] is False and rows["kmem-sum"] is False
    # accounting moves slabs by its vectors alone
    assert rows["slabs-within"] is True


def test_bounds_are_options(plugins, replayed):
    strict = validate(trace("churn"), bounds={"kmem-exact": 1.01}, plugins=plugins)
    assert verdicts(strict)["kmem-exact"] is False and not strict.passed
    assert strict.score.rows[0].bound == ">= 1.01"
    loose = validate(trace("churn"), bounds={"pages-moved": 9}, plugins=plugins)
    assert verdicts(loose)["pages-moved"] is True


def test_unknown_names_are_refused(plugins, tmp_path):
    with pytest.raises(UsageProblem, match="unknown bound 'kmem-exat'; did you mean 'kmem-exact'"):
        validate(trace("churn"), bounds={"kmem-exat": 1}, plugins=plugins)
    with pytest.raises(UsageProblem, match="unknown ablation 'x'"):
        validate(trace("churn"), ablation="x", plugins=plugins)
    shutil.copy(trace("churn"), tmp_path)
    with pytest.raises(UsageProblem, match="truth.parquet: no such file"):
        validate(tmp_path / "churn.kmtrace.parquet", plugins=plugins)


def test_a_group_is_a_zombie_until_its_release(plugins):
    groups = (GroupSpec("/", 0), *(GroupSpec(f"/g{i}", online=False) for i in range(3)))
    setup = Setup(Machine(), "6.18", (make_cache("dentry", 192),), groups, 1)
    ops = [(CG_CREATE, 2), (CG_CREATE, 3), (CG_CREATE, 4), (CG_OFFLINE, 2), (CG_OFFLINE, 3),
           (CG_RELEASE, 3), (SAMPLE, 0)]  # fmt: skip
    events = np.zeros(len(ops), EVENT)
    events["op"], events["memcg"] = zip(*ops, strict=True)
    events["arg"][:3] = 1
    simulation = Simulation(setup, plugins.strategy("linux-6.18"))
    simulation.feed(events)
    assert predict(simulation).zombies == 1


def test_live_objects_are_those_of_the_ledger(replayed):
    for validation in replayed.values():
        live = validation.score.live
        assert len(live) > 25 and not any(row.differs for row in live)
        assert any(row.vectors for row in live)
    near = [row for row in replayed["compile"].score.live if row.recorded_vectors]
    assert len(near) > 2 and all(abs(row.vectors - row.recorded_vectors) < 5 for row in near)
    assert all(row.drift is None for row in replayed["churn"].score.live)  # only its beginning


def test_a_wrong_state_at_the_start_shows_in_the_live_objects(plugins):
    truth = read_truth(trace("compile"))
    with open_recording(trace("compile")) as recording:
        setup = recording.setup
    for off, wrong in ((0, []), (1, ["filp"])):
        slabs = setup.initial_slabs.copy()
        filp = [cache.name for cache in setup.caches].index("filp") + 1
        slabs["inuse"][np.flatnonzero(slabs["cache"] == filp)[-1]] -= off
        changed = setup._replace(initial_slabs=slabs)
        simulation = Simulation(changed, plugins.strategy("linux-6.18"))
        live = live_counts(truth, simulation, Ledger(changed), None)
        assert [row.cache for row in live if row.differs] == wrong


def test_the_ledger_counts_a_free_for_the_cache_that_the_object_is_in():
    caches = make_cache("one", 64), make_cache("two", 64)
    setup = Setup(Machine(cpus=1, memory_pages=64), "6.18", caches, (GroupSpec("/", 0),), 4)
    ledger, events = Ledger(setup), np.zeros(3, EVENT)
    events["op"], events["obj"], events["cache"] = [ALLOC, ALLOC, FREE], [1, 2, 1], [1, 1, 2]
    ledger.add(events)
    assert ledger.net.tolist() == [0, 1, 0]


def test_command_prints_table_and_pictures(kmbench):
    code, out, err = kmbench(
        "trace", "validate", trace("compile"), "--worst", 3, "--bound", "kmem-exact=1.01"
    )
    assert (code, err) == (1, "")
    assert out.isascii() and max(map(len, out.splitlines())) <= 100
    assert "kmem readings exact" in out and "every reading exact" in out
    assert "o real, x predicted" in out
    assert "missed:" in out


def test_exit_code_follows_the_bounds(kmbench):
    loose = [f"--bound={name}=1000" for name in ("pages-moved", "live", "made-sum")]
    code, out, _ = kmbench("trace", "validate", trace("churn"), "--worst", 0, *loose)
    assert code == 0 and out.rstrip().endswith("no bound is missed")
    code, out, _ = kmbench(
        "trace", "validate", trace("churn"), "--worst", 0, *loose, "--bound", "slabs-exact=1"
    )
    assert code == 1 and "churn: slabs caches exact at every snapshot" in out


def test_json_and_readings_say_the_same(kmbench, tmp_path):
    target = tmp_path / "readings.parquet"
    code, out, _ = kmbench(
        "trace", "validate", trace("compile"), trace("limit_neg"), "--json", "--readings", target,
        "--bound", "kmem-exact=1.01",
    )  # fmt: skip
    document = json.loads(out)
    assert code == 1 and document["passed"] is False
    assert [c["capture"] for c in document["captures"]] == ["compile", "limit_neg"]
    frame = pl.read_parquet(target)
    assert frame.columns == list(COLUMNS)
    assert set(frame["kind"]) == {"slabs", "kmem", "slab_pages"}
    assert [str(kind) for kind in frame.dtypes[3:]] == ["Int64", "Int64", "Int64", "Boolean"]
    for row in document["captures"]:
        told = {name: line["value"] for name, line in row["summary"].items() if name != "passed"}
        mine = frame.filter(pl.col("scored") & (pl.col("capture") == row["capture"]))
        for quantity, value in from_readings(mine.to_dicts()).items():
            assert told[quantity] == pytest.approx(value, rel=1e-12), quantity
        assert {"cache", "replay", "ledger", "drift", "vectors"} <= set(*row["live"][:1])
    both = from_readings(frame.filter("scored").to_dicts(), whole=True)
    assert document["all"]["slabs caches exact at every snapshot"] == pytest.approx(both)


def from_readings(rows: list[dict], whole: bool = False):
    """The score of one recording, in plain Python, from nothing but its scored readings.

    whole: of several; the share of caches exact at every snapshot only.
    """
    errors, curve = {}, {}
    for row in rows:
        error = abs(row["predicted"] - row["real"])
        if row["kind"] == "slab_pages":
            curve[row["t"]] = row["real"], error
            continue
        item = errors.setdefault((row["kind"], row["capture"], row["item"]), [])
        item.append((error, row["real"]))
    caches = [item for (kind, *_), item in errors.items() if kind == "slabs"]
    exact = sum(not any(error for error, _ in item) for item in caches) / len(caches)
    if whole:
        return exact
    kmem = [pair for (kind, *_), item in errors.items() if kind == "kmem" for pair in item]
    within = sum(all(error <= max(1, 0.01 * real) for error, real in item) for item in caches)
    real = [pair[0] for pair in curve.values()]
    mean = sum(pair[1] for pair in curve.values()) / len(curve)
    return {
        **{f"kmem readings {name}": sum(error <= PAGE * pages for error, _ in kmem) / len(kmem)
           for name, pages in (("exact", 0), ("within a page", 1), ("within 4 pages", 4))},
        "kmem sum of errors / usage": sum(e for e, _ in kmem) / sum(r for _, r in kmem),
        "slabs caches exact at every snapshot": exact,
        "slabs caches within max(1, 1 %)": within / len(caches),
        "slab pages mean error / total": mean / (sum(real) / len(real)),
        "slab pages mean error / moved": mean / (max(real) - min(real)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["validate", "/nowhere.kmtrace.parquet"], "no such file"),
        (["validate", "--bound", "live", "x"], "--bound live: expected NAME=LIMIT"),
        (["what-if", "/nowhere.kmtrace.parquet"], "no such file"),
        (["info", "/nowhere"], "no such file"),
        (["inspect"], "unknown command 'inspect'"),
    ],
)
def test_bad_input_is_one_line(kmbench, args, message):
    code, out, err = kmbench("trace", *args)
    assert (code, out) == (2, "")
    assert err.startswith("kmbench: error: ") and err.count("\n") == 1 and message in err


def test_billing_is_as_measured(plugins):
    bills = {bill.name: bill for bill in billing(plugins)}
    assert all(bill.passed for bill in bills.values())
    # Linux 6.18: 3616.3 B a tcp socket; the socket made in softirq is not charged
    assert bills["tcp socket"].predicted == pytest.approx(3616, rel=5e-4)
    assert bills["tcp connection"].predicted == pytest.approx(5128, rel=5e-4)
    assert not any(bill.passed for bill in billing(plugins, "none"))


def test_billing_command(kmbench):
    code, out, _ = kmbench("trace", "billing", "--json")
    assert code == 0 and len(json.loads(out)) == 12
    code, out, _ = kmbench("trace", "billing")
    assert code == 0 and "eventfd" in out


def test_what_if_replays_every_strategy(plugins):
    found = {a.strategy: a for a in what_if(trace("churn"), plugins=plugins)}
    assert list(found)[0] == "none" and set(found) == set(plugins.strategies)
    none, ours, costa = found["none"], found["linux-6.18"], found["costa-2012"]
    assert not none.charged_bytes.any() and not none.metadata_bytes.any()
    assert ours.copies == 0 and costa.copies > 100
    assert costa.slab_bytes.mean() > none.slab_bytes.mean()
    assert np.array_equal(none.true_bytes, costa.true_bytes)
    assert ours.charged_bytes.mean() > 0


def test_what_if_charges_groups_with_what_a_run_does(plugins, tmp_path):
    (ours,) = what_if(trace("churn"), ["linux-6.18"], plugins=plugins)
    results = run(RECORDED / "churn.toml", ["linux-6.18"], out=tmp_path, plugins=plugins)
    metrics = results.runs.collect().row(0, named=True)
    assert ours.charged_bytes.mean() == pytest.approx(metrics["kmem_charged_mean"], rel=1e-12)
    assert ours.true_bytes.mean() == pytest.approx(metrics["true_mean"], rel=1e-12)


def test_what_if_command(kmbench, tmp_path):
    target = tmp_path / "x.svg"
    args = ("what-if", trace("churn"), "-s", "none", "-s", "linux-6.18")
    code, out, _ = kmbench("trace", *args, "--svg", target)
    assert code == 0 and "slab bytes above none   (a none, b linux-6.18" in out
    assert out.startswith("What the recorded host would have used under each design")
    ElementTree.parse(target)
    code, out, _ = kmbench("trace", *args, "--json")
    assert [row["strategy"] for row in json.loads(out)] == ["none", "linux-6.18"]


def test_what_if_on_both_allocators(kmbench, plugins):
    slub, slab = what_if(trace("churn"), ["none"], allocators=("slub", "slab"), plugins=plugins)
    assert (slub.allocator, slab.allocator) == ("slub", "slab")
    less = slub.true_bytes - slab.true_bytes  # SLAB's slots hold no free pointers
    assert (less >= 0).all() and (less < slub.true_bytes * 0.01).all()
    assert slab.slab_bytes[0] > slub.slab_bytes[0]
    args = ("what-if", trace("churn"), "-s", "none", "--allocator", "slub", "--allocator", "slab")
    code, out, _ = kmbench("trace", *args)
    assert code == 0 and "none on slab " in out
    code, _, err = kmbench("trace", "what-if", trace("churn"), "--allocator", "slob")
    assert code == 2 and "unknown allocator 'slob'" in err


def test_info(kmbench):
    code, out, _ = kmbench("trace", "info", trace("churn"), "--caches", "--groups")
    assert code == 0 and "176 of them made meanwhile" in out and "dentry" in out
    facts = json.loads(kmbench("trace", "info", trace("churn"), "--json")[1])
    assert sum(facts["ops"].values()) == facts["events"]
    assert len(facts["caches"]) == 235
    assert facts["readings"]["kmem"] > 0


def test_convert_and_info_of_a_capture(kmbench, tmp_path):
    alloc = {"t": 1000, "op": 0, "cache": 0, "obj": 600, "memcg": 2}
    folder = write_capture(tmp_path / "tiny", events=[alloc, alloc | {"t": 2000, "op": 1}])
    target = tmp_path / "t.kmtrace.parquet"
    code, out, _ = kmbench("trace", "convert", folder, "-o", target)
    assert code == 0 and "readings of the machine" in out
    facts = [json.loads(kmbench("trace", "info", p, "--json")[1]) for p in (folder, target)]
    assert facts[0]["ops"] == facts[1]["ops"]
    assert facts[0]["ops"]["alloc"] == 1
    code, _, err = kmbench("trace", "convert", folder, "-o", target, "--seconds", "-1")
    assert code == 2 and "above 0" in err


def test_a_recording_without_scored_items_says_so(kmbench, tmp_path):
    alloc = {"t": 1000, "op": 0, "cache": 0, "obj": 600, "memcg": 2}
    snapshot = {"t": 1500, "t_sysfs": -1, "cache": 0, "num_slabs": 1}
    folder = write_capture(tmp_path / "tiny", events=[alloc], snapshots=[snapshot])
    code, out, _ = kmbench("trace", "validate", folder)
    assert code == 0 and "nothing in tiny can be scored" in out


def test_what_if_takes_samples_of_its_own(plugins):
    plain, often = (
        what_if(trace("churn"), ["none"], sample_every=n, plugins=plugins)[0] for n in (0, 10**8)
    )
    assert len(often.t) > len(plain.t)
    assert often.slab_bytes.max() >= plain.slab_bytes.max()


def test_text_chart_marks_both_curves():
    t = np.arange(4) * 10**9
    text = text_chart(
        "slabs", [Curve("real", "o", t, np.array([1, 2, 3, 3])),
                  Curve("predicted", "x", t, np.array([1, 2, 2, 3]))], width=4, height=3,
    )  # fmt: skip
    assert text.splitlines()[1:4] == ["       3 |  o#", "         | #x", "       1 |#"]
    assert text_chart("none", []) == "none: nothing was read"


def test_numbers_are_short():
    values = (0, 950, 12_345, 4_560_000, 7.8e9, 0.5)
    assert [number(v) for v in values] == ["0", "950", "12.35k", "4.56M", "7.8G", "0.5"]


def test_svg_is_well_formed():
    curve = Curve("a<b", "a", np.array([0, 1]), np.array([5, 5]))
    root = ElementTree.fromstring(svg_charts([("x & y", [curve]), ("empty", [])]))
    assert root.tag.endswith("svg")
