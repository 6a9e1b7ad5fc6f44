"""Snapshots taken beside a trace, as readings to validate against and samples to take."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.core.setup import Setup
from kmbench.trace.capture_stream import SAMPLE_KMEM, SAMPLE_SLABS
from kmbench.trace.importers.caches import plain_name
from kmbench.trace.importers.snapshots import Snapshot, kernel_bytes
from kmbench.trace.truth import ACTIVE, KMEM, SLABS, Truth, write_truth

_SCHEMA = {
    "item": pl.String, "t": pl.Int64, "real": pl.Int64, "kind": pl.String, "scored": pl.Boolean,
}  # fmt: skip


def _timed(snapshots: Iterable[Snapshot], start: int) -> list[tuple[int, Snapshot]]:
    return [(shot.t - start, shot) for shot in snapshots if shot.t >= start]


def sample_events(
    slabinfo: Sequence[Snapshot], memory_stat: Sequence[Snapshot], start: int
) -> np.ndarray:
    """One SAMPLE (EVENT array, time order) for every moment of a snapshot; `start` in ns."""
    moments = {(t, SAMPLE_SLABS) for t, _ in _timed(slabinfo, start)}
    moments |= {(t, SAMPLE_KMEM) for t, _ in _timed(memory_stat, start)}
    out = np.zeros(len(moments), EVENT)
    out["op"], out["memcg"] = ev.SAMPLE, 1
    for row, (t, kind) in zip(out, sorted(moments), strict=True):
        row["t"], row["arg"] = t, kind
    return out


def write_readings(
    path: Path, name: str, setup: Setup, slabinfo: Sequence[Snapshot],
    memory_stat: Sequence[Snapshot], start: int, last: int,
) -> None:  # fmt: skip
    """Write the truth file beside the trace `path` when any snapshot has a time.

    Nothing counts as scored: an imported trace does not know the state at its start.
    """
    rows = []
    for t, shot in _timed(slabinfo, start):
        for cache, row in shot.rows.items():
            cache = plain_name(cache)
            rows.append((cache, t, row.active, ACTIVE, False))
            if row.slabs >= 0:
                rows.append((cache, t, row.slabs, SLABS, False))
    rows += [
        (shot.group, t, kernel_bytes(shot.rows), KMEM, False)
        for t, shot in _timed(memory_stat, start)
    ]
    if not rows:
        return
    readings = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    unknown = dict.fromkeys(("live_start", "live_end", "slabs_made", "slabs_gone"))
    caches = {
        spec.name: {"order": spec.order, "scoreable": False, **unknown} for spec in setup.caches
    }
    totals = {"t_end": last, "zombies_end": None, "t_shrink": None}
    order = ["kind", "item", "t", "real", "scored"]
    write_truth(Truth(name, readings.select(order), caches, totals), path)
