"""What `kmbench run` prints: who was charged, who really used it, what was wasted, what failed and
what an allocation cost, a line per strategy."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import polars as pl

from kmbench.analysis.compare import CONTEXT, Comparison, compare
from kmbench.analysis.compare_view import title_of
from kmbench.analysis.groups import group_means
from kmbench.analysis.metrics import METRICS, NOT_APPLICABLE, format_bytes, format_value
from kmbench.analysis.parameters import strategy_labels
from kmbench.analysis.tables import Column, Grid, as_text
from kmbench.errors import UsageProblem
from kmbench.store.dataset import Results

__all__ = ["BRIEF", "brief", "group_table", "main_table"]

TOP_GROUPS = 6
NAME_WIDTH = 24
ALLOCATOR = ("allocator", "era")  # columns of CONTEXT that tell allocators apart
TRUTH = "true_mean"
BRIEF = {
    "kmem_charged_mean": ("charged to groups", "memory"),
    "charge_error_median": ("charged to groups", "error"),
    "unaccounted_share": ("charged to groups", "nobody's"),
    "slab_bytes_mean": ("slabs", "memory"),
    "excess_slab_bytes": ("slabs", "over none"),
    "metadata_bytes": ("", "metadata"),
    "pair_ns": ("", "alloc+free"),
    "failed_allocs": ("", "failed"),
}
"""Metrics that answer the first questions, with the heads of their columns."""
LEGEND = (
    "memory charged: for kernel memory, in whichever counter; error: |charged - used| / used, "
    "median over groups and samples; nobody's: share of the groups' objects that no group pays "
    "for; metadata: what accounting keeps for itself; others are means"
)


def main_table(
    results: Results,
    run_ids: Iterable[str] | None = None,
    *,
    baseline: str = "none",
    width: int | None = None,
) -> str:
    """Plain-text tables over ``run_ids`` (default: all runs), without a final newline.

    First a line per strategy with the metrics of :data:`BRIEF`, ``baseline`` on top; then how runs
    went that were short of memory; then, for the groups that used most, what they used and what
    each strategy charged.  Scenarios and machines stay apart; where runs differ in their
    allocator, that is a column, whatever eras the allocators are of.
    """
    runs = _labelled(results, run_ids)
    if not runs.height:
        raise UsageProblem(f"{results.path}: no successful run to show")
    present = runs["label"].unique().sort()
    chosen = baseline if baseline in present else present[0]
    ids = runs["run_id"].cast(pl.String).to_list()
    several = runs["allocator"].n_unique() > 1
    comparison = compare(
        results, baseline=chosen, metrics=[*BRIEF, TRUTH], run_ids=ids,
        by=ALLOCATOR[0] if several else None, collapse=ALLOCATOR[1:] if several else (),
    )  # fmt: skip
    parts = [
        *brief(comparison),
        *shortage_table(results, runs),
        *group_table(results, ids, baseline=chosen),
    ]
    return "\n\n".join(as_text(grid, width) for grid in parts)


def brief(comparison: Comparison) -> list[Grid]:
    """A line per strategy, of a comparison of :data:`BRIEF` and :data:`TRUTH`: one grid per
    context; what columns mean stands below the last."""
    contexts = comparison.frame.partition_by(CONTEXT, as_dict=True, maintain_order=True)
    made = []
    for key, part in contexts.items():
        values = {(r["strategy"], r["by"], r["metric"]): r["value"] for r in part.to_dicts()}
        lines = part.select("strategy", "by").unique(maintain_order=True).sort(
            pl.col("strategy") != comparison.baseline, "strategy", "by", maintain_order=True
        )  # fmt: skip
        columns = [Column("strategy", left=True)]
        columns += [Column(comparison.by, left=True)] if comparison.by else []
        columns += [Column(head, group) for group, head in BRIEF.values()]
        rows = [
            [strategy, *([by] if comparison.by else []), *_formatted(values, strategy, by)]
            for strategy, by in lines.iter_rows()
        ]
        lead = 2 if comparison.by else 1
        title = f"{title_of(dict(zip(CONTEXT, key, strict=True)), part)}; {_used(part)}"
        made.append(Grid(title, columns, rows, lead))
    notes = [LEGEND, *(f"note: {note}" for note in comparison.notes)]
    return [*made[:-1], made[-1]._replace(notes=notes)]


def _formatted(values: dict[tuple, float | None], strategy: str, by: str | None) -> list[str]:
    return [format_value(METRICS[name], values.get((strategy, by, name))) for name in BRIEF]


def _used(part: pl.DataFrame) -> str:
    """What groups really used; a range where it differs, since allocations failed."""
    used = part.filter(metric=TRUTH)["value"].drop_nulls()
    texts = dict.fromkeys(format_bytes(round(value)) for value in (used.min(), used.max()))
    return f"groups really used {' to '.join(texts)}"


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
    """One grid per scenario and machine: what the groups that used most really used, and what each
    strategy charged them; ``baseline`` first.

    Descendants are included on both sides; means over samples, then over seeds.  What was used is
    the mean over the strategies, which differs between them only where allocations failed.
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
    used = (
        part.group_by("group")
        .agg(pl.col("used").mean(), most=pl.max_horizontal(pl.col("used", "charged").max()))
        .sort(["used", "most", "group"], descending=[True, True, False])
    )
    shown = used.head(TOP_GROUPS)
    charged: dict[tuple[Any, ...], float] = {
        (r["label"], r["allocator"], r["group"]): r["charged"] for r in part.iter_rows(named=True)
    }
    strategies = sorted(part["label"].unique(), key=lambda name: (name != first, name))
    allocators = part["allocator"].unique().sort().to_list()
    several = len(allocators) > 1
    columns = [Column("", left=True), *([Column("allocator", left=True)] if several else [])]
    columns += [Column(_short(group)) for group in shown["group"]]
    rows = [["really used", *([""] if several else []), *map(_whole_bytes, shown["used"])]]
    for strategy, allocator in product(strategies, allocators):
        values = [charged.get((strategy, allocator, group)) for group in shown["group"]]
        rows.append([strategy, *([allocator] if several else []), *map(_whole_bytes, values)])
    more = used.height - shown.height
    title = "what groups were charged, descendants included, means"
    title += f" ({where})" if where else ""
    notes = [f"and {more} more group{'s' if more > 1 else ''}"] if more > 0 else []
    return Grid(title, columns, rows, lead=1 + several, notes=notes)


def _whole_bytes(value: float | None) -> str:
    return NOT_APPLICABLE if value is None else format_bytes(round(value))


def _short(name: str) -> str:
    """A long path keeps its end, which tells groups apart."""
    return name if len(name) <= NAME_WIDTH else "..." + name[3 - NAME_WIDTH :]
