"""Per-group figures of a timeline: what a group used and was charged, with and without descendants.

Counters of the kernel include descendants; ground truth and bills in ``timeline`` are a group's
own.  Here both are brought to the same footing.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

__all__ = ["CHARGED", "ROOT", "group_means", "with_subtrees"]

ROOT = 1  # row of the root group: never charged for its own use, never counted as unaccounted

CHARGED = pl.max_horizontal("kmem_usage", "memory_kernel")
"""Kernel memory that a row of ``timeline`` is charged, whichever counter carries it: where it is
both, kmem is what memory has of it."""


def with_subtrees(timeline: pl.LazyFrame, by: Sequence[str] = ()) -> pl.LazyFrame:
    """``timeline`` without the root, with four columns in bytes added.

    ``used``: slots and pages that tasks of the group and of its descendants really allocated;
    ``used_own``: the group's own; ``charged``: :data:`CHARGED`; ``charged_own``: that less its
    children's.  ``by`` names the columns that tell runs apart.
    """
    by = list(by)
    tree = timeline.select(*by, "memcg", "parent").unique().collect()
    below = _descendants(tree, by)
    rows = timeline.filter(pl.col("memcg") > ROOT).with_columns(
        used_own=pl.col("true_slab") + pl.col("true_pages"), charged=CHARGED
    )
    if not below.height:  # a flat tree: nothing to add up
        return rows.with_columns(used=pl.col("used_own"), charged_own=pl.col("charged"))
    keys = [*by, "sample", "memcg"]
    used_below = (
        rows.join(below.lazy(), on=[*by, "memcg"])
        .group_by(*by, "sample", "ancestor")
        .agg(used_below=pl.col("used_own").sum())
        .rename({"ancestor": "memcg"})
    )
    charged_below = (
        rows.filter(pl.col("parent") > ROOT)
        .group_by(*by, "sample", "parent")
        .agg(charged_below=pl.col("charged").sum())
        .rename({"parent": "memcg"})
    )
    return (
        rows.join(used_below, on=keys, how="left")
        .join(charged_below, on=keys, how="left")
        .with_columns(
            used=pl.col("used_own") + pl.col("used_below").fill_null(0),
            charged_own=pl.col("charged") - pl.col("charged_below").fill_null(0),
        )
        .drop("used_below", "charged_below")
    )


def _descendants(tree: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Every pair (memcg, ancestor) in which the ancestor is neither the root nor the group."""
    up = tree.select(*by, ancestor="memcg", next="parent").filter(pl.col("next") > ROOT)
    level = tree.filter(pl.col("memcg") > ROOT, pl.col("parent") > ROOT).select(
        *by, "memcg", ancestor="parent"
    )
    levels = [level]
    while level.height and len(levels) <= tree.height:  # a damaged, cyclic tree must end too
        level = level.join(up, on=[*by, "ancestor"]).select(*by, "memcg", ancestor="next")
        levels.append(level)
    return pl.concat(levels)


def group_means(timeline: pl.LazyFrame) -> pl.LazyFrame:
    """One row per run and group: ``run_id, group, used, charged``, bytes, mean over all samples.

    Descendants are included on both sides.  A group counts as zero in samples in which it does
    not exist.
    """
    samples = timeline.group_by("run_id").agg(samples=pl.col("sample").n_unique())
    return (
        with_subtrees(timeline, by=["run_id"])
        .group_by("run_id", "group")
        .agg(pl.col("used").sum(), pl.col("charged").sum())
        .join(samples, on="run_id")
        .select(
            "run_id",
            "group",
            used=pl.col("used") / pl.col("samples"),
            charged=pl.col("charged") / pl.col("samples"),
        )
    )
