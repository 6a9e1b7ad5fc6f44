"""Timelines of runs, thinned on the way: what is read never stands in memory as a whole."""

from __future__ import annotations

import polars as pl

from kmbench.analysis.groups import CHARGED, ROOT

__all__ = ["POINTS", "cache_families", "group_curves", "slab_curves", "total_curves"]

POINTS = 120  # of one curve: more than a picture of it can show


def _thinned(frame: pl.LazyFrame, keys: list[str], points: int) -> pl.LazyFrame:
    """Means of the samples of ``frame`` over ``points`` slices of each run's samples.

    A run with fewer samples keeps them as they are.  Columns: ``keys``, ``t`` (ns, of the first
    sample of the slice) and every other column but ``sample``.
    """
    last = pl.col("sample").max().over("run_id") + 1
    slices = pl.when(last > points).then(pl.col("sample") * points // last).otherwise("sample")
    return (
        frame.with_columns(slice=slices)
        .group_by(*keys, "slice")
        .agg(pl.col("t").min(), pl.exclude("t", "sample", "slice", *keys).mean())
        .sort(*keys, "t")
        .drop("slice")
    )


def total_curves(timeline: pl.LazyFrame, points: int = POINTS) -> pl.LazyFrame:
    """Per run: ``run_id, t, used, charged``, bytes of all groups together.

    ``used``: what tasks of all groups but the root really allocated; ``charged``: what the groups
    right below the root are charged for kernel memory.
    """
    samples = timeline.group_by("run_id", "sample").agg(
        t=pl.col("t").first(),
        used=(pl.col("true_slab") + pl.col("true_pages")).filter(pl.col("memcg") > ROOT).sum(),
        charged=CHARGED.filter(pl.col("parent") == ROOT).sum(),
    )
    return _thinned(samples, ["run_id"], points)


def group_curves(timeline: pl.LazyFrame, points: int = POINTS) -> pl.LazyFrame:
    """Per run and group: ``run_id, group, t, used, charged``, bytes, the group's subtree.

    ``timeline`` comes from :func:`kmbench.analysis.groups.with_subtrees`.
    """
    rows = timeline.select("run_id", "group", "sample", "t", "used", "charged")
    return _thinned(rows, ["run_id", "group"], points)


def slab_curves(caches: pl.LazyFrame, points: int = POINTS) -> pl.LazyFrame:
    """Per run: ``run_id, t, slabs, live, idle, copies``.

    ``slabs``: bytes of all slabs; ``live``: slots of live objects; ``idle``: free slab memory kept
    back (metric W7); ``copies``: caches that are a group's copy and hold slabs.
    """
    samples = caches.group_by("run_id", "sample").agg(
        t=pl.col("t").first(),
        slabs=pl.col("slab_bytes").sum(),
        live=(pl.col("live_objs") * pl.col("size")).sum(),
        idle=pl.col("idle").sum(),
        copies=((pl.col("memcg") > 0) & (pl.col("num_slabs") > 0)).sum(),
    )
    return _thinned(samples, ["run_id"], points)


def cache_families(caches: pl.LazyFrame) -> pl.LazyFrame:
    """Per run and root cache, its copies included, means over samples.

    Columns: ``run_id``, ``family`` (row of the root cache), ``cache`` (its name; null where only
    copies ever held slabs), ``slabs`` and ``live`` (bytes), ``objects``, ``copies`` (that hold
    slabs), ``object_size``.
    """
    family = pl.when(pl.col("root") > 0).then(pl.col("root")).otherwise(pl.col("cache"))
    samples = caches.group_by("run_id").agg(samples=pl.col("sample").n_unique())
    own_name = pl.col("name").filter(pl.col("root") == 0).first().cast(pl.String)
    return (
        caches.group_by("run_id", family.alias("family"))
        .agg(
            slabs=pl.col("slab_bytes").sum(),
            live=(pl.col("live_objs") * pl.col("size")).sum(),
            objects=pl.col("live_objs").sum(),
            copies=((pl.col("memcg") > 0) & (pl.col("num_slabs") > 0)).sum(),
            object_size=pl.col("object_size").max(),
            cache=own_name,
        )
        .join(samples, on="run_id")
        .select(
            "run_id",
            "family",
            "cache",
            (pl.col("slabs", "live", "objects", "copies") / pl.col("samples")),
            "object_size",
        )
        .sort("run_id", "slabs", "cache", descending=[False, True, False])
    )
