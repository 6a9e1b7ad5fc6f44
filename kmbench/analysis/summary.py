"""The metrics of one run, from the tables that the engine hands out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from kmbench.analysis.groups import ROOT, with_subtrees
from kmbench.core.events import CAUSE_NAMES
from kmbench.store.catalogue import STORED
from kmbench.store.schema import LINE_VECTOR, VECTOR

__all__ = ["summarise"]

ALLOC_PHASES = ("alloc", "slab", "page", "charge")
FREE_PHASES = ("free",)

Frame = pl.LazyFrame | pl.DataFrame | pa.Table


def summarise(
    timeline: Frame,
    caches: Frame,
    ops: Frame,
    *,
    page_size: int,
    allocs: int,
    frees: int,
    failed_allocs: int = 0,
    unaccounted: np.ndarray | None = None,
    owned: np.ndarray | None = None,
    metadata: np.ndarray | None = None,
    leak: int | None = None,
    zombies: np.ndarray | None = None,
    final: Mapping[str, float | None] | None = None,
) -> dict[str, float | None]:
    """Every stored metric of the catalogue by name; ``None`` where it does not apply.

    The three tables have the columns of :mod:`kmbench.store.schema` (``run_id`` is not needed).
    ``unaccounted``: int64 (samples, NR_CAUSES), bytes of live objects billed to nobody by cause;
    column 0 is not used.  ``owned``: int64 (samples,), slot bytes of live objects that belong to a
    group, in groups that are gone too; without it those of the timeline.  ``metadata``: int64
    (samples,), bytes.  ``leak``: bytes charged after full teardown, ``None`` when there was none.
    ``zombies``: int64 (2, samples), removed groups that charges keep alive, and their pages.
    ``final``: metrics that are known already (:mod:`kmbench.final`).
    """
    lines = _lazy(timeline)
    nr_samples = _scalar(lines.select(pl.col("sample").n_unique()))
    values: dict[str, float | None] = dict.fromkeys(metric.name for metric in STORED)
    values["failed_allocs"] = failed_allocs
    values["leak_bytes"] = leak
    values |= _group_metrics(lines, nr_samples)
    slabs = _lazy(caches)
    values |= _cache_metrics(slabs, nr_samples, page_size)
    values |= _duplicate_partials(slabs, nr_samples)
    values |= _op_metrics(_lazy(ops), allocs, frees)
    if metadata is not None and len(metadata):
        values["metadata_bytes"] = float(np.mean(metadata))
    if unaccounted is not None and len(unaccounted):
        values |= _unaccounted_metrics(unaccounted, lines, owned)
    if zombies is not None and zombies.shape[1]:
        values["zombie_groups"] = float(zombies[0].mean())
        values["zombie_bytes"] = float(zombies[1].mean() * page_size)
    values |= final or {}
    return values


def _lazy(frame: Frame) -> pl.LazyFrame:
    if isinstance(frame, pa.Table):
        frame = pl.from_arrow(frame, rechunk=False)  # type: ignore[assignment]
    return frame.lazy()


def _scalar(frame: pl.LazyFrame) -> int:
    return frame.collect().item() or 0


def _optional(frame: pl.LazyFrame, column: str, otherwise: pl.Expr) -> pl.Expr:
    """``column`` where the table has it and it is not null, else ``otherwise``."""
    present = column in frame.collect_schema()
    return pl.coalesce(pl.col(column), otherwise) if present else otherwise


def _unaccounted_metrics(
    unaccounted: np.ndarray, lines: pl.LazyFrame, owned: np.ndarray | None
) -> dict[str, float | None]:
    """A1 by cause and A2."""
    by_cause = np.asarray(unaccounted, dtype=np.float64)[:, 1:].mean(axis=0)
    values: dict[str, float | None] = {
        f"unaccounted_{name}_bytes": float(mean)
        for name, mean in zip(CAUSE_NAMES[1:], by_cause, strict=True)
    }
    total = float(by_cause.sum())
    own = lines.filter(pl.col("memcg") > ROOT).select(pl.col("true_slab").sum())
    whole = _scalar(own) if owned is None else int(owned.sum())
    values["unaccounted_bytes"] = total
    values["unaccounted_share"] = total * len(unaccounted) / whole if whole else None
    return values


def _group_metrics(lines: pl.LazyFrame, nr_samples: int) -> dict[str, float | None]:
    """A4, A5 and the two totals."""
    if not nr_samples:
        return {}
    billed = pl.col("billed_slab") + _optional(lines, "billed_pages", pl.col("true_pages"))
    used, charged = pl.col("used"), pl.col("charged")
    measured = (pl.col("state") == 0) & (used > 0)
    error = ((charged - used).abs() / used).filter(measured)
    row = (
        with_subtrees(lines)
        .select(
            kmem_charged_mean=charged.filter(pl.col("parent") <= ROOT).sum() / nr_samples,
            true_mean=pl.col("used_own").sum() / nr_samples,
            overcharge_bytes=(pl.col("charged_own") - billed).clip(0).sum() / nr_samples,
            charge_error_median=error.median(),
            charge_error_p95=error.quantile(0.95, "linear"),
        )
        .collect()
    )
    return row.row(0, named=True)


def _cache_metrics(
    caches: pl.LazyFrame, nr_samples: int, page_size: int
) -> dict[str, float | None]:
    """W1, W2, W6, W7 and the slab bytes."""
    usual = pl.col("num_slabs") * pl.col("pages_per_slab") * page_size
    live = pl.col("live_objs")
    is_kmalloc = pl.col("name").cast(pl.String).str.starts_with("kmalloc-")
    slack = (live * pl.col("object_size") - pl.col("requested")).filter(is_kmalloc)
    samples = (
        caches.with_columns(bytes=_optional(caches, "slab_bytes", usual))
        .group_by("sample")
        .agg(
            pl.col("bytes").sum(),
            slots=(live * pl.col("size")).sum(),
            objects=(live * pl.col("object_size")).sum(),
            active=(pl.col("active_objs") * pl.col("size")).sum(),
            idle=pl.col("idle").sum(),
            slack=slack.sum(),
        )
        .sort("sample")
        .collect()
    )
    count = max(nr_samples, samples.height)
    if not count:
        return {}
    slots, held = pl.col("slots"), pl.col("bytes")
    row = samples.select(
        slab_bytes_mean=held.sum() / count,
        slab_bytes_peak=held.max().cast(pl.Float64),
        slab_utilisation=(slots / held).filter(held > 0).mean(),
        slabinfo_utilisation=(pl.col("active") / held).filter(held > 0).mean(),
        internal_fragmentation=(1 - pl.col("objects") / slots).filter(slots > 0).mean(),
        kmalloc_slack_bytes=pl.col("slack").sum() / count,
        idle_slab_bytes=pl.col("idle").sum() / count,
    )
    return row.row(0, named=True)


def _duplicate_partials(caches: pl.LazyFrame, nr_samples: int) -> dict[str, float | None]:
    """W4: caches and nodes where several copies have partial slabs."""
    if not nr_samples:
        return {}
    family = pl.when(pl.col("root") > 0).then(pl.col("root")).otherwise(pl.col("cache"))
    one_node = (pl.col("node_partial") > 0).cast(pl.Int64)
    rows = caches.select(
        "sample",
        "cache",
        family=family,
        nodes=_optional(caches, "partial_nodes", one_node),
        free=(pl.col("num_objs") - pl.col("active_objs")) * pl.col("size"),
    ).filter(pl.col("nodes") > 0)
    several = [
        rows.filter(pl.col("nodes") // 2**node % 2 == 1)
        .filter(pl.len().over("sample", "family") > 1)
        .with_columns(node=node)
        for node in range(_scalar(rows.select(pl.col("nodes").max())).bit_length())
    ]
    if not several:
        return {"duplicate_partials": 0.0, "duplicate_partial_bytes": 0.0}
    found = pl.concat(several).collect()
    return {
        "duplicate_partials": found.select("sample", "family", "node").n_unique() / nr_samples,
        "duplicate_partial_bytes": found.unique(["sample", "cache"])["free"].sum() / nr_samples,
    }


def _op_metrics(ops: pl.LazyFrame, allocs: int, frees: int) -> dict[str, float | None]:
    """Operations per allocated and per freed object."""
    phase = pl.col("phase").cast(pl.String)
    alloc_side, free_side = phase.is_in(ALLOC_PHASES), phase.is_in(FREE_PHASES)
    whole = pl.sum_horizontal(VECTOR)
    alloc_ops, alloc_atoms, free_ops = (
        ops.select(
            whole.filter(alloc_side).sum().alias("a"),
            pl.col("atom").filter(alloc_side).sum().alias("b"),
            whole.filter(free_side).sum().alias("c"),
        )
        .collect()
        .row(0)
    )
    lines = ops.select(
        *(_optional(ops, kind, pl.lit(0)).sum().alias(kind) for kind in LINE_VECTOR)
    ).collect().row(0)  # fmt: skip
    return {
        "ops_per_alloc": alloc_ops / allocs if allocs else None,
        "atoms_per_alloc": alloc_atoms / allocs if allocs else None,
        "line_moves_per_alloc": (lines[0] + lines[1]) / allocs if allocs else None,
        "lock_waits_per_alloc": lines[2] / allocs if allocs else None,
        "ops_per_free": free_ops / frees if frees else None,
    }
