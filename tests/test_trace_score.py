"""The verdict on a replay: what it counts, and that a poor replay fails it."""

import numpy as np
import polars as pl
import pytest

from kmbench.errors import UsageProblem
from kmbench.trace.live import Live
from kmbench.trace.score import COLUMNS, PAGE, score
from kmbench.trace.truth import read_truth
from trace_capture import write_capture

TIMES = list(range(100, 2100, 100))
SLABS = [400 + at for at in range(20)]
KMEM = [PAGE * (10 + at) for at in range(20)]
NAMES = ("dentry", "task_struct", "mm_struct", "kmalloc-64")


@pytest.fixture
def capture(tmp_path):
    row = {"scoreable": True, "live_start": 5, "live_end": 7}
    row |= {"slabs_made": 200, "slabs_gone": 150}
    truth = {
        "caches": dict.fromkeys(NAMES, row) | {"kmalloc-8": row | {"scoreable": False}},
        "memcgs": {"/job": {"scoreable": True}, "/ctl": {"scoreable": False}},
    }
    snaps = [
        {"t": t, "t_sysfs": -1, "cache": cache, "num_slabs": slabs}
        for t, slabs in zip(TIMES, SLABS, strict=True)
        for cache in range(5)
    ]
    memcgs = [
        {"t0": t, "t1": t, "memcg": memcg, "kmem_usage": usage}
        for t, usage in zip(TIMES, KMEM, strict=True)
        for memcg in (1, 2)
    ]
    return write_capture(tmp_path / "c", truth=truth, snapshots=snaps, memcgs=memcgs)


def predicted():
    slabs = pl.DataFrame(
        [
            {"cache": name, "t": t, "num_slabs": n, "made": 200, "returned": 150}
            for t, n in zip(TIMES, SLABS, strict=True)
            for name in NAMES
        ]
    )
    return slabs, pl.DataFrame({"memcg": "/job", "t": TIMES, "bytes": KMEM})


def values(result):
    return {row.quantity: row.value for row in result.rows}


@pytest.mark.parametrize("counted, right", [(3, 2), (2, 2)])
def test_slabs_made_are_counted_until_the_end_of_the_workload(tmp_path, counted, right):
    row = {"scoreable": True, "live_start": 5, "live_end": 7, "slabs_made": counted}
    slabs = [{"slab": at, "t_alloc": t} for at, t in enumerate((-1, 5, 900_000, 900_001))]
    truth = {"caches": {"dentry": row}, "memcgs": {}}
    folder = write_capture(tmp_path / "c", truth=truth, slabs=slabs)
    assert read_truth(folder).caches["dentry"]["slabs_made"] == right


def test_a_perfect_replay_passes_every_row(capture):
    live = (Live("dentry", 7, 7, 0, 7, 0),)
    result = score(capture, *predicted(), zombies=0, live=live)
    assert result.passed
    assert all(row.passed for row in result.rows)
    assert result.readings.columns == list(COLUMNS)
    assert set(result.readings["kind"]) == {"slabs", "kmem", "slab_pages"}
    assert result.summary()["passed"] is True


def test_other_table_kinds_are_taken(capture):
    slabs, kmem = predicted()
    assert score(capture, slabs.to_arrow(), kmem.to_dict(as_series=False), zombies=0).passed
    assert score(capture, slabs.lazy(), kmem.lazy()).passed


def test_kmem_bounds(capture):
    slabs, kmem = predicted()
    off = np.array(KMEM)
    off[:6] += 1
    rows = values(score(capture, slabs, kmem.with_columns(bytes=pl.Series(off))))
    assert rows["kmem readings exact"] == pytest.approx(14 / 20)
    assert rows["kmem readings within a page"] == 1
    off[:3] += PAGE
    rows = values(score(capture, slabs, kmem.with_columns(bytes=pl.Series(off))))
    assert rows["kmem readings within a page"] == pytest.approx(17 / 20)
    assert rows["kmem sum of errors / usage"] == pytest.approx((6 + 3 * PAGE) / sum(KMEM))


def test_slab_bounds(capture):
    slabs, kmem = predicted()
    off = slabs.with_columns(
        num_slabs=pl.col("num_slabs") + 4 * (pl.col("cache") == "dentry").cast(int)
    )
    rows = values(score(capture, off, kmem))
    assert rows["slabs caches exact at every snapshot"] == pytest.approx(3 / 4)
    assert rows["slabs caches within max(1, 1 %)"] == 1  # 4 of 400 and more
    assert rows["slab pages mean error / total"] == pytest.approx(4 / (4 * np.mean(SLABS)))
    assert rows["slab pages mean error / moved"] == pytest.approx(4 / (4 * 19))
    off = slabs.with_columns(
        num_slabs=pl.col("num_slabs") + 5 * (pl.col("t") == 100).cast(int)
    )  # one snapshot is enough
    result = score(capture, off, kmem)
    rows = values(result)
    assert rows["slabs caches exact at every snapshot"] == 0
    assert rows["slabs caches within max(1, 1 %)"] == 0
    assert not result.passed
    assert result.items.filter(pl.col("item") == "dentry")["worst"].item() == 5


def test_a_cache_without_a_row_has_no_slabs_but_a_missing_sample_is_wrong(capture):
    slabs, kmem = predicted()
    result = score(capture, slabs.filter(pl.col("cache") != "dentry"), kmem)
    dentry = result.readings.filter((pl.col("item") == "dentry") & (pl.col("kind") == "slabs"))
    assert dentry["predicted"].to_list() == [0] * 20
    result = score(capture, slabs.filter(pl.col("t") != 100), kmem.filter(pl.col("t") != 100))
    rows = values(result)
    assert rows["kmem readings exact"] == pytest.approx(19 / 20)
    assert rows["slabs caches exact at every snapshot"] == 0
    assert rows["slab pages mean error / total"] is None
    assert result.readings.filter(pl.col("t") == 100)["predicted"].null_count() == 8


def test_unscored_items_are_reported_but_not_judged(capture):
    slabs, kmem = predicted()
    result = score(capture, slabs, kmem)
    unscored = result.readings.filter(~pl.col("scored"))
    assert set(unscored["item"]) == {"/ctl", "kmalloc-8"}
    assert result.passed


def test_lifetimes_live_objects_and_zombies(capture):
    slabs, kmem = predicted()
    off = slabs.with_columns(
        made=pl.when(pl.col("cache") == "dentry").then(180).otherwise(pl.col("made")),
    )
    live = Live("dentry", 9, 8, 0, 7, 0), Live("kmalloc-64", 6, 6, 3, 7, 2)
    rows = values(score(capture, off, kmem, zombies=2, live=live))
    assert rows["slabs made sum"] == pytest.approx(20 / 800)
    assert rows["slabs made worst cache"] == pytest.approx(0.1)
    assert rows["slabs returned sum"] == 0
    assert rows["live objects, caches that differ"] == 1
    assert rows["zombies missed"] == 2


def test_live_objects_tell_the_recordings_faults_from_the_models():
    right = Live("dentry", 6, 6, 3, 9, 2)
    assert not right.differs and right.drift == 1  # vectors are no fault of either
    assert right._replace(replay=7).differs
    assert right._replace(kernel=None).drift is None


def test_what_was_not_handed_over_is_not_judged(capture):
    slabs, kmem = predicted()
    result = score(capture, slabs.select("cache", "t", "num_slabs"), kmem)
    skipped = [row.quantity for row in result.rows if row.passed is None]
    assert len(skipped) == 6 and "zombies missed" in skipped
    assert result.passed


def test_bad_tables_and_captures(capture, tmp_path):
    slabs, kmem = predicted()
    with pytest.raises(UsageProblem, match="column num_slabs is missing"):
        score(capture, slabs.drop("num_slabs"), kmem)
    with pytest.raises(UsageProblem, match="no such file"):
        score(tmp_path / "none.kmtrace.parquet", slabs, kmem)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "odd.truth.parquet")
    with pytest.raises(UsageProblem, match="column kind is missing"):
        score(tmp_path / "odd.kmtrace.parquet", slabs, kmem)
