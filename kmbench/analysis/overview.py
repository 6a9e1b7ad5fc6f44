"""The table after `kmbench run`: who was charged what against who used what, and at what cost."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import polars as pl

from kmbench.analysis.compare import CONTEXT, compare
from kmbench.analysis.compare_view import grids
from kmbench.analysis.groups import group_means
from kmbench.analysis.metrics import METRICS, NOT_APPLICABLE, format_bytes, format_value
from kmbench.analysis.parameters import strategy_labels
from kmbench.analysis.tables import WIDTH, Column, Grid, as_text
from kmbench.errors import UsageProblem
from kmbench.store.dataset import Results

__all__ = ["group_table", "main_table"]

TOP_GROUPS = 10
NAME_WIDTH = 40
SPEED = "events_per_s"
ALLOCATOR = ("allocator", "era")  # columns of CONTEXT that tell allocators apart


def main_table(
    results: Results,
    run_ids: Iterable[str] | None = None,
    *,
    baseline: str = "none",
    width: int = WIDTH,
) -> str:
    """Two plain-text tables over ``run_ids`` (default: all runs), without a final newline.

    First every headline metric and the speed by strategy, ``baseline`` as 1.00x (the first
    strategy there is when the baseline did not run); then, for the groups that used most, what
    they used and what each strategy charged.  Scenarios and machines stay apart; where runs differ
    in their allocator, that is a column, whatever eras the allocators are of.
    """
    runs = _labelled(results, run_ids)
    if not runs.height:
        raise UsageProblem(f"{results.path}: no successful run to show")
    present = runs["label"].unique().sort()
    chosen = baseline if baseline in present else present[0]
    names = [metric.name for metric in METRICS.values() if metric.headline]
    ids = runs["run_id"].cast(pl.String).to_list()
    several = runs["allocator"].n_unique() > 1
    comparison = compare(
        results, baseline=chosen, metrics=[*names, SPEED], run_ids=ids,
        by=ALLOCATOR[0] if several else None, collapse=ALLOCATOR[1:] if several else (),
    )  # fmt: skip
    parts = [
        *grids(comparison),
        *shortage_table(results, runs),
        *group_table(results, ids, baseline=chosen),
    ]
    return "\n\n".join(as_text(grid, width) for grid in parts)


def _labelled(results: Results, run_ids: Iterable[str] | None) -> pl.DataFrame:
    """The successful runs: ``run_id``, context and ``label`` of the strategy."""
    runs = results.runs.filter(pl.col("status") == "ok")
    if run_ids is not None:
        runs = runs.filter(pl.col("run_id").cast(pl.String).is_in(list(run_ids)))
    with results.reading():
        found = runs.select("run_id", *CONTEXT, "strategy", "strategy_params").collect()
    return found.select("run_id", *CONTEXT, label=strategy_labels(found))


SHORTAGE = (
    "oom_kills", "swapped_bytes", "stall_time", "reclaim_efficiency", "enomem_reclaimable",
    "chunks_freed", "wake_ups", "time_to_notice",
)  # fmt: skip


def shortage_table(results: Results, runs: pl.DataFrame) -> list[Grid]:
    """How runs went that modelled reclaim, one row each in the order of scenarios: one grid or
    none.  `runs`: ``run_id``, context and ``label``.

    Readings of one mechanism are scenarios of their own: so they stand below each other.  Columns
    that no run has a value for are left out.
    """
    with results.reading():
        found = results.runs.select("run_id", *SHORTAGE).collect()
    table = runs.join(found, on="run_id").filter(pl.col("oom_kills").is_not_null())
    several = table["allocator"].n_unique() > 1
    keys = ["scenario", "label", *(["allocator"] if several else [])]
    means = table.group_by(keys).agg(pl.col(SHORTAGE).mean()).sort(keys)
    names = [name for name in SHORTAGE if means[name].is_not_null().any()]
    if not names:
        return []
    columns = [Column(key.replace("label", "strategy"), left=True) for key in keys]
    columns += [Column(METRICS[name].label) for name in names]
    rows = [
        [str(row[key]) for key in keys] + [format_value(METRICS[name], row[name]) for name in names]
        for row in means.iter_rows(named=True)
    ]
    return [Grid("when memory ran out", columns, rows, lead=len(keys))]


def group_table(
    results: Results, run_ids: Iterable[str] | None = None, *, baseline: str = "none"
) -> list[Grid]:
    """One grid per scenario and machine: the groups that used most, used against charged.

    Descendants are included on both sides; means over samples, then over seeds.  ``used`` is the
    mean over the strategies, which differs between them only where allocations failed.
    ``baseline`` is the first strategy.
    """
    runs = _labelled(results, run_ids)
    timeline = results.timeline.filter(pl.col("run_id").is_in(runs["run_id"].implode()))
    with results.reading():
        means = (
            group_means(timeline)
            .join(runs.lazy(), on="run_id")
            .group_by(*CONTEXT, "group", "label")
            .agg(pl.col("used").mean(), pl.col("charged").mean())
            .with_columns(pl.col("group").cast(pl.String))
            .collect(engine="streaming")
        )
    apart = [name for name in CONTEXT if name not in ALLOCATOR]
    parts = means.partition_by(apart, as_dict=True)
    several = len(parts) > 1
    return [
        _group_grid(part, ", ".join(str(word) for word in key) if several else "", baseline)
        for key, part in sorted(parts.items(), key=str)
    ]


def _group_grid(part: pl.DataFrame, where: str, first: str) -> Grid:
    strategies = sorted(part["label"].unique(), key=lambda name: (name != first, name))
    used = (
        part.group_by("group")
        .agg(pl.col("used").mean(), most=pl.max_horizontal(pl.col("used", "charged").max()))
        .sort(["used", "most", "group"], descending=[True, True, False])
    )
    charged = {
        (r["group"], r["allocator"], r["label"]): r["charged"] for r in part.iter_rows(named=True)
    }
    allocators = part["allocator"].unique().sort().to_list()
    columns = [Column("group", left=True), Column("used")]
    if len(allocators) > 1:
        columns.append(Column("allocator", left=True))
    columns += [Column(strategy, "charged under") for strategy in strategies]
    rows = []
    shown = used.head(TOP_GROUPS)
    for row, allocator in product(shown.iter_rows(named=True), allocators):
        cells = [_short(row["group"]), format_bytes(round(row["used"]))]
        cells += [allocator] if len(allocators) > 1 else []
        for strategy in strategies:
            value = charged.get((row["group"], allocator, strategy))
            cells.append(NOT_APPLICABLE if value is None else format_bytes(round(value)))
        rows.append(cells)
    more = used.height - shown.height
    title = "groups: kernel memory really used and charged, descendants included, means"
    title += f" ({where})" if where else ""
    notes = [f"and {more} more group{'s' if more > 1 else ''}"] if more > 0 else []
    return Grid(title, columns, rows, lead=1 + len(allocators[:2]), notes=notes)


def _short(name: str) -> str:
    """A long path keeps its end, which tells groups apart."""
    return name if len(name) <= NAME_WIDTH else "..." + name[3 - NAME_WIDTH :]
