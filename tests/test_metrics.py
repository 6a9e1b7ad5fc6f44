"""The metric catalogue, its formatting, and the metrics of a run worked out by hand."""

import numpy as np
import polars as pl
import pytest

import make_results
from kmbench.analysis.groups import group_means, with_subtrees
from kmbench.analysis.metrics import METRICS, STORED, format_value, select_metrics
from kmbench.analysis.summary import summarise
from kmbench.core.events import CAUSE_NAMES
from kmbench.errors import UsageProblem
from kmbench.store.schema import make_table


def tables(share=1.25, slabs=11, per_alloc=12):
    return (
        make_table("timeline", make_results.timeline(share), "r"),
        make_table("caches", make_results.caches(slabs), "r"),
        make_table("ops", make_results.ops(per_alloc, 1000), "r"),
    )


def summary(*frames, **changes):
    given = {"page_size": 4096, "allocs": 1000, "frees": 500} | changes
    return summarise(*(frames or tables()), **given)


def test_names_are_complete_and_in_the_order_of_the_catalogue():
    assert list(summary()) == [metric.name for metric in STORED]


def test_accuracy_by_hand():
    values = summary()
    true = (4000 + 8000 + 20_000) * 1.5
    assert values["true_mean"] == true
    assert values["kmem_charged_mean"] == 1.25 * true
    assert values["charge_error_median"] == pytest.approx(0.25)
    assert values["charge_error_p95"] == pytest.approx(0.25)
    assert values["overcharge_bytes"] == 0.25 * true
    assert values["leak_bytes"] is None
    assert values["unaccounted_bytes"] is None  # the engine gave no causes


def test_unaccounted_by_cause():
    lost = np.zeros((2, len(CAUSE_NAMES)), np.int64)
    lost[:, 0] = 999  # "billed": never counted
    lost[0, 2], lost[1, 2], lost[1, 3] = 1000, 3000, 4000
    values = summary(unaccounted=lost, metadata=np.array([10, 30]), leak=0)
    assert values["unaccounted_pending_bytes"] == 2000
    assert values["unaccounted_interrupt_bytes"] == 2000
    assert values["unaccounted_kthread_bytes"] == 0
    assert values["unaccounted_bytes"] == 4000
    assert values["unaccounted_share"] == 8000 / (3 * 32_000)
    assert values["metadata_bytes"] == 20
    assert values["leak_bytes"] == 0


def test_waste_by_hand():
    values = summary()
    slots, held = 100 * 192 + 32 * 64, 12 * 4096
    assert values["slab_bytes_mean"] == values["slab_bytes_peak"] == held
    assert values["slab_utilisation"] == pytest.approx(slots / held)
    assert values["slabinfo_utilisation"] == pytest.approx((231 * 192 + 32 * 64) / held)
    objects = 100 * 186 + 32 * 64
    assert values["internal_fragmentation"] == pytest.approx(1 - objects / slots)
    assert values["kmalloc_slack_bytes"] == 32 * 64 - 1600
    assert values["idle_slab_bytes"] == 192


def test_odd_orders_count_with_their_real_bytes():
    timeline, caches, ops = tables()
    held = pl.from_arrow(caches).with_columns(slab_bytes=pl.lit(8192))
    assert summary(timeline, held, ops)["slab_bytes_mean"] == 2 * 8192


def test_overhead_by_hand():
    values = summary()
    assert values["ops_per_alloc"] == 12.25
    assert values["atoms_per_alloc"] == 0.25
    assert values["ops_per_free"] == 4.0
    idle = summary(allocs=0, frees=0)
    assert idle["ops_per_alloc"] is idle["ops_per_free"] is None


def test_billed_pages_replace_used_pages_in_overcharge():
    timeline, caches, ops = tables(share=0.0)
    lines = pl.from_arrow(timeline).with_columns(
        kmem_usage=pl.when(pl.col("memcg") == 4).then(10_000).otherwise(0),
        billed_pages=pl.when(pl.col("memcg") == 4).then(4096).otherwise(0),
    )
    assert summary(lines, caches, ops)["overcharge_bytes"] == 10_000 - 4096


def test_nothing_ran():
    values = summary(*(table.slice(0, 0) for table in tables()))
    assert values["slab_bytes_mean"] is None
    assert values["kmem_charged_mean"] is None
    assert values["failed_allocs"] == 0


def test_zombies_and_groups_that_use_nothing_have_no_charge_error():
    timeline, caches, ops = tables()
    lines = pl.from_arrow(timeline).with_columns(
        state=pl.when(pl.col("memcg") == 4).then(1).otherwise(0),
        kmem_usage=pl.when(pl.col("memcg") == 4).then(0).otherwise(pl.col("kmem_usage")),
    )
    assert summary(lines, caches, ops)["charge_error_p95"] == pytest.approx(0.25)
    empty = lines.with_columns(true_slab=pl.lit(0))
    assert summary(empty, caches, ops)["charge_error_median"] is None


def test_subtrees_of_a_deep_tree_against_plain_python():
    rng = np.random.default_rng(3)
    nr_groups, nr_samples = 40, 3
    parents = [0, *(int(rng.integers(1, i + 1)) for i in range(1, nr_groups))]
    own = rng.integers(0, 1000, (nr_samples, nr_groups))
    own[:, 0] = 0
    total = own.copy()
    for row in range(nr_groups - 1, 0, -1):  # children have higher rows than parents
        total[:, parents[row] - 1] += total[:, row]
    frame = pl.LazyFrame(
        {
            "sample": np.repeat(np.arange(nr_samples), nr_groups),
            "memcg": np.tile(np.arange(1, nr_groups + 1), nr_samples),
            "parent": np.tile(parents, nr_samples),
            "true_slab": own.ravel(),
            "true_pages": np.zeros(own.size, np.int64),
            "kmem_usage": total.ravel() * 2,
            "memory_kernel": np.zeros(own.size, np.int64),
        }
    )
    rows = with_subtrees(frame).collect().sort("sample", "memcg")
    assert rows["used"].to_list() == total[:, 1:].ravel().tolist()
    assert rows["charged_own"].to_list() == (2 * own[:, 1:]).ravel().tolist()


def test_group_means_count_absence_as_zero():
    lines = pl.from_arrow(make_table("timeline", make_results.timeline(1.0), "r")).lazy()
    late = lines.filter((pl.col("memcg") != 4) | (pl.col("sample") == 1))
    means = {row[1]: row[2:] for row in group_means(late).collect().iter_rows()}
    assert means["/db"] == (20_000, 20_000)
    assert means["/web"] == (18_000, 18_000)
    assert "/" not in means


def test_select_by_name_and_id():
    names = [m.name for m in select_metrics(["W1", "charge-error-p95", "w1"])]
    assert names == ["slab_utilisation", "charge_error_p95"]
    assert all(metric.headline for metric in select_metrics())
    with pytest.raises(UsageProblem, match="did you mean 'slab_utilisation'"):
        select_metrics(["slab_utilization"])
    with pytest.raises(UsageProblem, match="unknown metric 'qqq'; known: "):
        select_metrics(["qqq"])


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("slab_bytes_mean", 0, "0 B"),
        ("slab_bytes_mean", 1023, "1023 B"),
        ("slab_bytes_mean", 0.5, "0.5 B"),
        ("slab_bytes_mean", 4096, "4.00 KiB"),
        ("slab_bytes_mean", 1048575, "1.00 MiB"),
        ("excess_slab_bytes", -150 * 2**20, "-150.0 MiB"),
        ("slab_bytes_mean", 2**70, "1048576 PiB"),
        ("slab_utilisation", 0.94321, "94.32 %"),
        ("charge_error_p95", 12.0, "1200 %"),
        ("ops_per_alloc", 4.254, "4.25"),
        ("failed_allocs", 1234567, "1,234,567"),
        ("failed_allocs", 0.5, "0.50"),
        ("events_per_s", 52e6, "52.00 M/s"),
        ("events_per_s", 12, "12 /s"),
        ("leak_bytes", None, "-"),
    ],
)
def test_format(name, value, text):
    assert format_value(METRICS[name], value) == text
