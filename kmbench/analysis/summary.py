"""The metrics of one run, from the tables that the engine hands out.

Plain arrays: a run of a sweep is small, and a query has a price of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from kmbench.analysis.groups import ROOT
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
    lines, slabs = Columns(timeline), Columns(caches)
    nr_samples = len(lines.starts)
    values: dict[str, float | None] = dict.fromkeys(metric.name for metric in STORED)
    values["failed_allocs"] = failed_allocs
    values["leak_bytes"] = leak
    values |= _group_metrics(lines, nr_samples)
    values |= _cache_metrics(slabs, nr_samples, page_size)
    values |= _duplicate_partials(slabs, nr_samples)
    values |= _op_metrics(Columns(ops), allocs, frees)
    if metadata is not None and len(metadata):
        values["metadata_bytes"] = float(np.mean(metadata))
    if unaccounted is not None and len(unaccounted):
        values |= _unaccounted_metrics(unaccounted, lines, owned)
    if zombies is not None and zombies.shape[1]:
        values["zombie_groups"] = float(zombies[0].mean())
        values["zombie_bytes"] = float(zombies[1].mean() * page_size)
    values |= final or {}
    return values


class Columns:
    """The columns of a table as arrays; those of a sampled table in the order of samples."""

    def __init__(self, frame: Frame):
        if isinstance(frame, pl.LazyFrame):
            frame = frame.collect()
        self.table = frame.to_arrow() if isinstance(frame, pl.DataFrame) else frame
        self.order: np.ndarray | None = None
        self.starts = np.zeros(0, np.int64)
        if self.table.num_rows and "sample" in self.table.column_names:
            sample = self["sample"]
            if (np.diff(sample) < 0).any():
                self.order = np.argsort(sample, kind="stable")
                sample = sample[self.order]
            self.starts = np.flatnonzero(np.diff(sample, prepend=sample[0] - 1))

    def __getitem__(self, name: str) -> np.ndarray:
        """A column of numbers, int64 or float64."""
        values = self.table.column(name).to_numpy()
        return values if self.order is None else values[self.order]

    def otherwise(self, name: str, other: np.ndarray | int) -> np.ndarray:
        """A column of whole numbers; `other` where the table lacks it or it is null."""
        if name not in self.table.column_names:
            return np.broadcast_to(np.asarray(other), self.table.num_rows)
        column = self.table.column(name)
        if not column.null_count:
            return self[name]
        missing = column.is_null().to_numpy()
        values = column.fill_null(0).to_numpy()
        if self.order is not None:
            missing, values = missing[self.order], values[self.order]
        return np.where(missing, other, values)

    def having(self, name: str, test: Callable[[str], bool]) -> np.ndarray:
        """For which rows the text of a label column passes `test`."""
        column = self.table.column(name)
        if not pa.types.is_dictionary(column.type):
            column = pc.dictionary_encode(column)
        chunks = column.unify_dictionaries().chunks
        if not chunks:
            return np.zeros(0, bool)
        passed = np.array([test(text) for text in chunks[0].dictionary.to_pylist()], bool)
        rows = passed[np.concatenate([chunk.indices.to_numpy() for chunk in chunks])]
        return rows if self.order is None else rows[self.order]

    def by_sample(self, values: np.ndarray) -> np.ndarray:
        """Sums over the rows of each sample."""
        return np.add.reduceat(values, self.starts) if len(self.starts) else values[:0]

    def samples(self) -> np.ndarray:
        """The number of the sample of each row, counted from 0 without gaps."""
        which = np.zeros(self.table.num_rows, np.int64)
        which[self.starts[1:]] = 1
        return which.cumsum()


def _unaccounted_metrics(
    unaccounted: np.ndarray, lines: Columns, owned: np.ndarray | None
) -> dict[str, float | None]:
    """A1 by cause and A2."""
    by_cause = np.asarray(unaccounted, dtype=np.float64)[:, 1:].mean(axis=0)
    values: dict[str, float | None] = {
        f"unaccounted_{name}_bytes": float(mean)
        for name, mean in zip(CAUSE_NAMES[1:], by_cause, strict=True)
    }
    total = float(by_cause.sum())
    own = lines["true_slab"][lines["memcg"] > ROOT] if owned is None else owned
    whole = int(own.sum())
    values["unaccounted_bytes"] = total
    values["unaccounted_share"] = total * len(unaccounted) / whole if whole else None
    return values


def _group_metrics(lines: Columns, nr_samples: int) -> dict[str, float | None]:
    """A4, A5 and the two totals."""
    if not nr_samples:
        return {}
    rows = lines["memcg"] > ROOT
    true_pages = lines["true_pages"]
    billed = (lines["billed_slab"] + lines.otherwise("billed_pages", true_pages))[rows]
    own = (lines["true_slab"] + true_pages)[rows]
    kmem = lines["kmem_usage"]
    charged = np.maximum(kmem, lines.otherwise("memory_kernel", kmem))[rows]
    parent, state = lines["parent"][rows], lines["state"][rows]
    used, charged_own = _with_subtrees(
        lines.samples()[rows], lines["memcg"][rows], parent, own, charged
    )
    measured = (state == 0) & (used > 0)
    error = np.abs(charged[measured] - used[measured]) / used[measured]
    return {
        "kmem_charged_mean": int(charged[parent <= ROOT].sum()) / nr_samples,
        "true_mean": int(own.sum()) / nr_samples,
        "overcharge_bytes": int((charged_own - billed).clip(0).sum()) / nr_samples,
        "charge_error_median": float(np.median(error)) if len(error) else None,
        "charge_error_p95": float(np.quantile(error, 0.95)) if len(error) else None,
    }


def _with_subtrees(
    sample: np.ndarray, memcg: np.ndarray, parent: np.ndarray, own: np.ndarray, charged: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each row: what its group and all below it used, and its charge less its children's.

    As :func:`kmbench.analysis.groups.with_subtrees` has it for many runs.
    """
    used, charged_own = own.copy(), charged.copy()
    above = np.zeros(int(memcg.max(initial=0)) + 1, np.int64)
    above[memcg] = np.where(parent > ROOT, parent, 0)
    if not above.any():
        return used, charged_own
    key = sample * len(above) + memcg
    order = np.argsort(key, kind="stable")
    ancestor = above[memcg]
    for level in range(len(above)):  # a cyclic tree must end too
        below = np.flatnonzero(ancestor)
        if not len(below):
            break
        wanted = sample[below] * len(above) + ancestor[below]
        at = order[np.searchsorted(key, wanted, sorter=order).clip(max=len(key) - 1)]
        there = key[at] == wanted
        np.add.at(used, at[there], own[below[there]])
        if level == 0:
            np.subtract.at(charged_own, at[there], charged[below[there]])
        ancestor = above[ancestor]
    return used, charged_own


def _cache_metrics(slabs: Columns, nr_samples: int, page_size: int) -> dict[str, float | None]:
    """W1, W2, W6, W7 and the slab bytes."""
    count = max(nr_samples, len(slabs.starts))
    if not count:
        return {}
    usual = slabs["num_slabs"] * slabs["pages_per_slab"] * page_size
    live, size, object_size = slabs["live_objs"], slabs["size"], slabs["object_size"]
    used = live * object_size
    slack = (used - slabs["requested"])[slabs.having("name", _is_kmalloc)]
    held = slabs.by_sample(slabs.otherwise("slab_bytes", usual))
    slots, objects = slabs.by_sample(live * size), slabs.by_sample(used)
    active = slabs.by_sample(slabs["active_objs"] * size)
    idle = int(slabs["idle"].sum())
    return {
        "slab_bytes_mean": int(held.sum()) / count,
        "slab_bytes_peak": float(held.max()) if len(held) else None,
        "slab_utilisation": _mean_ratio(slots, held),
        "slabinfo_utilisation": _mean_ratio(active, held),
        "internal_fragmentation": _mean_ratio(slots - objects, slots),
        "kmalloc_slack_bytes": int(slack.sum()) / count,
        "idle_slab_bytes": idle / count,
    }


def _is_kmalloc(name: str) -> bool:
    return name.startswith("kmalloc-")


def _mean_ratio(part: np.ndarray, whole: np.ndarray) -> float | None:
    """Mean over the samples that have any of `whole`."""
    some = whole > 0
    return float((part[some] / whole[some]).mean()) if some.any() else None


def _duplicate_partials(slabs: Columns, nr_samples: int) -> dict[str, float | None]:
    """W4: caches and nodes where several copies have partial slabs."""
    if not nr_samples:
        return {}
    nodes = slabs.otherwise("partial_nodes", (slabs["node_partial"] > 0).astype(np.int64))
    rows = np.flatnonzero(nodes > 0)
    nodes, root = nodes[rows], slabs["root"][rows]
    family = np.where(root > 0, root, slabs["cache"][rows])
    group = slabs.samples()[rows] * (int(family.max(initial=0)) + 1) + family
    several = np.zeros(len(rows), bool)
    found = 0
    for node in range(int(nodes.max(initial=0)).bit_length()):
        on_node = (nodes >> node) & 1 == 1
        copies = np.bincount(group[on_node], minlength=int(group.max()) + 1)
        found += int((copies > 1).sum())
        several |= on_node & (copies[group] > 1)
    rows = rows[several]
    free = (slabs["num_objs"][rows] - slabs["active_objs"][rows]) * slabs["size"][rows]
    return {
        "duplicate_partials": found / nr_samples,
        "duplicate_partial_bytes": int(free.sum()) / nr_samples,
    }


def _op_metrics(ops: Columns, allocs: int, frees: int) -> dict[str, float | None]:
    """Operations per allocated and per freed object."""
    alloc_side = ops.having("phase", ALLOC_PHASES.__contains__)
    free_side = ops.having("phase", FREE_PHASES.__contains__)
    whole = sum(ops[kind] for kind in VECTOR)
    near, far, wait = (int(ops.otherwise(kind, 0).sum()) for kind in LINE_VECTOR)

    def per(total: int, objects: int) -> float | None:
        return int(total) / objects if objects else None

    return {
        "ops_per_alloc": per(whole[alloc_side].sum(), allocs),
        "atoms_per_alloc": per(ops["atom"][alloc_side].sum(), allocs),
        "line_moves_per_alloc": per(near + far, allocs),
        "lock_waits_per_alloc": per(wait, allocs),
        "ops_per_free": per(whole[free_side].sum(), frees),
    }
