"""How faithful a replay was: every reading of the real machine beside what was predicted.

Bounds of a faithful replay (each over the caches and groups that the recording can judge):

====================  ==========================================================================
kmem                  >= 75 % of a group's readings exact to the byte, >= 90 % within a page,
                      >= 98 % within four; sum of errors <= 0.5 % of the usage
slabs                 num_slabs exact at every snapshot for >= 75 % of the caches, and within
                      max(1 slab, 1 %) at every snapshot for >= 95 %
slab_pages            mean error of the sum <= 0.1 % of it, and <= 5 % of what moved
lifetimes             slabs made and returned: within 3 % in sum, within 10 % per cache with >= 100
live                  live objects at the end: what the operations leave of the kernel's count at
                      the start, exactly
zombies               removed groups not yet released at the end: exact
====================  ==========================================================================
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from kmbench.errors import UsageProblem
from kmbench.trace.live import Live
from kmbench.trace.truth import KMEM, SLABS, Truth, read_truth

SLAB_PAGES = "slab_pages"
PAGE = 4096
COLUMNS = ("capture", "kind", "item", "t", "real", "predicted", "scored")
MIN_LIFETIMES = 100


class Row(NamedTuple):
    """One line of the verdict."""

    quantity: str
    value: float | None  # None: not measured, or nothing to judge
    bound: str
    passed: bool | None


class Score(NamedTuple):
    """Readings (columns COLUMNS) and the verdict on them."""

    readings: pl.DataFrame
    rows: tuple[Row, ...]
    items: pl.DataFrame  # per scored item: readings, exact, within, mean_error, p50, p95, worst
    live: tuple[Live, ...]  # every scored cache

    @property
    def passed(self) -> bool:
        """Whether no row fails."""
        return all(row.passed is not False for row in self.rows)

    def summary(self) -> dict[str, Any]:
        """The rows as a plain document."""
        return {row.quantity: row._asdict() for row in self.rows} | {"passed": self.passed}


def _frame(table: Any, columns: Mapping[str, pl.DataType], what: str) -> pl.DataFrame:
    frame = table.collect() if isinstance(table, pl.LazyFrame) else table
    if not isinstance(frame, pl.DataFrame):
        frame = pl.DataFrame(frame)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UsageProblem(f"{what}: column {missing[0]} is missing; expected {', '.join(columns)}")
    return frame.with_columns(pl.col(name).cast(kind) for name, kind in columns.items())


def _join(truth: pl.DataFrame, kind: str, predicted: pl.DataFrame, key: str, value: str):
    """Readings of `kind` with the prediction for the same item and time; absent caches have 0."""
    times = predicted.select("t").unique().with_columns(sampled=pl.lit(True))
    side = predicted.select(pl.col(key).alias("item"), "t", predicted=pl.col(value)).unique(
        ["item", "t"], keep="last", maintain_order=True
    )
    joined = truth.filter(pl.col("kind") == kind).join(side, on=["item", "t"], how="left")
    joined = joined.join(times, on="t", how="left")
    return joined.with_columns(
        predicted=pl.when(pl.col("sampled")).then(pl.col("predicted").fill_null(0))
    ).drop("sampled")


def _slab_pages(slabs: pl.DataFrame, orders: dict[str, int]) -> pl.DataFrame:
    """Sum of the pages of all scored caches at every snapshot."""
    order = pl.DataFrame(
        {"item": list(orders), "order": list(orders.values())},
        schema={"item": pl.String, "order": pl.Int64},
    )
    scored = slabs.filter(pl.col("scored")).join(order, on="item", how="left")
    pages = pl.lit(1, pl.Int64) * 2 ** pl.col("order").cast(pl.Int64)
    return (
        scored.group_by("t", maintain_order=True)
        .agg(
            real=(pl.col("real") * pages).sum(),
            predicted=(pl.col("predicted") * pages).sum(),
            whole=pl.col("predicted").is_not_null().all(),
        )
        .select(
            kind=pl.lit(SLAB_PAGES), item=pl.lit("all"), t="t", real=pl.col("real"),
            scored=pl.lit(True), predicted=pl.when("whole").then("predicted"),
        )
    )  # fmt: skip


def _items(readings: pl.DataFrame) -> pl.DataFrame:
    error = (pl.col("predicted") - pl.col("real")).abs()
    slack = pl.when(pl.col("kind") == KMEM).then(PAGE).otherwise(
        pl.max_horizontal(pl.lit(1.0), pl.col("real") * 0.01)
    )  # fmt: skip
    return (
        readings.filter(pl.col("scored"))
        .group_by("kind", "item", maintain_order=True)
        .agg(
            readings=pl.len(),
            exact=(error == 0).fill_null(False).mean(),
            within=(error <= slack).fill_null(False).mean(),
            mean_error=error.mean(),
            p50=error.quantile(0.5, "higher"),
            p95=error.quantile(0.95, "higher"),
            worst=error.max(),
            mean_real=pl.col("real").mean(),
        )
    )


def _row(quantity: str, value: float | None, limit: float, at_least: bool) -> Row:
    bound = f"{'>=' if at_least else '<='} {limit:g}"
    passed = None if value is None else (value >= limit if at_least else value <= limit)
    return Row(quantity, value, bound, passed)


def _kmem_rows(readings: pl.DataFrame) -> list[Row]:
    kmem = readings.filter((pl.col("kind") == KMEM) & pl.col("scored"))
    limits = (("exact", 0, 0.75), ("within a page", 1, 0.90), ("within 4 pages", 4, 0.98))
    if not len(kmem):
        return [
            Row(f"kmem readings {name}", None, f">= {limit:g}", None) for name, _, limit in limits
        ]
    # a reading that was not predicted is as wrong as it can be
    error = (pl.col("predicted").fill_null(-1 << 40) - pl.col("real")).abs()
    rows = [
        _row(
            f"kmem readings {name}", kmem.select((error <= pages * PAGE).mean()).item(), limit, True
        )
        for name, pages, limit in limits
    ]
    share = kmem.select(error.sum() / pl.max_horizontal(pl.col("real").sum(), 1)).item()
    return [*rows, _row("kmem sum of errors / usage", share, 0.005, False)]


def _slab_rows(readings: pl.DataFrame, items: pl.DataFrame) -> list[Row]:
    slabs = items.filter(pl.col("kind") == SLABS)
    exact = slabs.select((pl.col("exact") == 1).mean()).item() if len(slabs) else None
    within = slabs.select((pl.col("within") == 1).mean()).item() if len(slabs) else None
    rows = [
        _row("slabs caches exact at every snapshot", exact, 0.75, True),
        _row("slabs caches within max(1, 1 %)", within, 0.95, True),
    ]
    pages = readings.filter(pl.col("kind") == SLAB_PAGES)
    of_total = of_moved = None
    if len(pages) and not pages["predicted"].null_count():
        error = pages.select((pl.col("predicted") - pl.col("real")).abs().mean()).item()
        mean, moved = pages["real"].mean(), pages["real"].max() - pages["real"].min()
        of_total = error / mean if mean else None
        of_moved = error / moved if moved else None
    return [
        *rows,
        _row("slab pages mean error / total", of_total, 0.001, False),
        _row("slab pages mean error / moved", of_moved, 0.05, False),
    ]


def _end_values(truth: Truth, slabs: pl.DataFrame, column: str) -> dict[str, int] | None:
    """`column` per cache at the last sample before the recorder's final shrink."""
    before = slabs.filter(pl.col("t") <= truth.totals["t_end"])
    if column not in slabs.columns or not len(before):
        return None
    last = before.filter(pl.col("t") == before["t"].max())
    return dict(last.select("cache", column).iter_rows())


def _lifetime_rows(truth: Truth, slabs: pl.DataFrame) -> list[Row]:
    rows = []
    for column, key in (("made", "slabs_made"), ("returned", "slabs_gone")):
        names = f"slabs {column} sum", f"slabs {column} worst cache"
        predicted = _end_values(truth, slabs, column)
        if predicted is None:
            rows += [Row(names[0], None, "<= 0.03", None), Row(names[1], None, "<= 0.1", None)]
            continue
        pairs = [
            (row[key], predicted.get(cache, 0))
            for cache, row in truth.caches.items()
            if row["scoreable"] and row[key] is not None
        ]
        real = sum(pair[0] for pair in pairs)
        share = abs(sum(pair[1] for pair in pairs) - real) / real if real else None
        large = [abs(guess - real) / real for real, guess in pairs if real >= MIN_LIFETIMES]
        # a few slabs either way say nothing about a share
        fair = share if real >= MIN_LIFETIMES else None
        rows.append(_row(names[0], fair, 0.03, False))
        rows.append(_row(names[1], max(large, default=None), 0.10, False))
    return rows


def score(
    capture: str | Path | Truth,
    slabs: Any,
    kmem: Any,
    *,
    zombies: int | None = None,
    live: tuple[Live, ...] = (),
) -> Score:
    """Compare a replay with what the recorded machine read.

    capture: a capture folder, a trace file with its readings beside it, or those readings.
    slabs: table with columns cache (name), t (ns), num_slabs, and if known made and returned
        (slabs since the start); one row per cache and sample, at least for the caches
        that have slabs.
    kmem: table with columns memcg (group name), t (ns), bytes; one row per group and sample.
    zombies: removed groups not yet released at the end.
    live: counts of live objects, see :mod:`kmbench.trace.live`.

    Tables may be polars, Arrow, or a dict of arrays.  A reading at whose time nothing was sampled
    has no prediction (empty `predicted`) and counts as wrong.

    Raises UsageProblem when a table lacks a column or the capture has no readings.
    """
    truth = capture if isinstance(capture, Truth) else read_truth(capture)
    slab_kinds = {"cache": pl.String, "t": pl.Int64, "num_slabs": pl.Int64}
    kmem_kinds = {"memcg": pl.String, "t": pl.Int64, "bytes": pl.Int64}
    slab_frame = _frame(slabs, slab_kinds, "predicted slabs")
    kmem_frame = _frame(kmem, kmem_kinds, "predicted kmem")
    slab_readings = _join(truth.readings, SLABS, slab_frame, "cache", "num_slabs")
    kmem_readings = _join(truth.readings, KMEM, kmem_frame, "memcg", "bytes")
    orders = {name: row["order"] for name, row in truth.caches.items()}
    pages = _slab_pages(slab_readings, orders)
    parts = [slab_readings, kmem_readings, pages]
    readings = pl.concat([part.select(*COLUMNS[1:]) for part in parts]).select(
        pl.lit(truth.name).alias("capture"), *COLUMNS[1:]
    )
    items = _items(readings)
    left = truth.totals["zombies_end"]
    missed = None if zombies is None or left is None else abs(zombies - left)
    wrong = sum(count.differs for count in live) if live else None
    rows = (
        *_kmem_rows(readings),
        *_slab_rows(readings, items),
        *_lifetime_rows(truth, slab_frame),
        _row("live objects, caches that differ", wrong, 0, False),
        _row("zombies missed", missed, 0, False),
    )
    return Score(readings, rows, items, live)
