"""One run as a trace that ui.perfetto.dev and chrome://tracing open: counters over model time.

The format is the JSON of Chrome's "Trace Event Format": ``C`` events are counters, ``i`` events are
moments, ``M`` events give names.  Every group is shown as a process, and so are the caches.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from kmbench.analysis.groups import CHARGED
from kmbench.errors import UsageProblem
from kmbench.store.dataset import Run

__all__ = ["trace_events", "write_perfetto"]

CACHES = 1_000_000  # process numbers of groups are their rows; caches come behind them
GROUP_COUNTERS = {
    "kmem charged (B)": CHARGED,
    "truly used by its tasks (B)": pl.col("true_slab") + pl.col("true_pages"),
    "charged in advance (B)": pl.col("stock") + pl.col("byte_stock"),
    "kmem failcnt": pl.col("kmem_failcnt"),
}
BATCH = 1 << 16  # rows held as Python objects at a time


def trace_events(run: Run) -> Iterator[dict[str, Any]]:
    """The events: names first, then a counter wherever its value changed, then failures.

    Times are microseconds of model time, as the format wants them.
    """
    groups = run.timeline.select("memcg", pl.col("group").cast(pl.String)).unique().sort("memcg")
    with run.reading():
        names = groups.collect().rows()
    yield _name("process_name", CACHES, "slab caches")
    yield {"ph": "M", "name": "process_sort_index", "pid": CACHES, "args": {"sort_index": -1}}
    for memcg, group in names:
        yield _name("process_name", memcg, f"memcg {group}")
    for counter, value in GROUP_COUNTERS.items():
        rows = run.timeline.select("t", "sample", pid="memcg", value=value)
        yield from _counters(run, rows, pl.lit(counter))
    caches = run.caches.select(
        "t", "sample", "cache", pl.col("name").cast(pl.String), "live_objs",
        slab=pl.col("slab_bytes"),
    )  # fmt: skip
    for word, column in (("slabs (B)", "slab"), ("live objects", "live_objs")):
        rows = caches.select("t", "sample", "name", pid=pl.lit(CACHES), value=column)
        yield from _counters(run, rows, pl.concat_str("name", pl.lit(f" {word}")))
    yield from _failures(run)


def _name(what: str, pid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "args": {"name": name}}


def _counters(run: Run, rows: pl.LazyFrame, name: pl.Expr) -> Iterator[dict[str, Any]]:
    """``C`` events of ``rows`` (t, sample, pid, value), without those that change nothing.

    A group or cache that is gone has no rows any more; one more event brings it to 0.
    """
    with run.reading():
        frame = rows.with_columns(name=name).drop_nulls("value").sort("pid", "name", "t").collect()
    times = frame.select("sample", "t").unique().sort("sample")
    following = times.select(pl.col("sample"), after=pl.col("t").shift(-1))
    key = ["pid", "name"]
    ends = (
        frame.group_by(key, maintain_order=True)
        .agg(pl.col("sample").last(), pl.col("value").last())
        .join(following, on="sample", how="left")
        .filter(pl.col("after").is_not_null(), pl.col("value") != 0)
        .select(*key, t="after", value=pl.lit(0, pl.Int64))
    )
    changed = frame.filter(
        (pl.col("value") != pl.col("value").shift().over(key)).fill_null(pl.col("value") != 0)
    )
    whole = pl.concat([changed.select(*key, "t", pl.col("value").cast(pl.Int64)), ends])
    for part in whole.sort("t", *key).iter_slices(BATCH):
        for pid, counter, t, value in part.rows():
            yield {"ph": "C", "name": counter, "pid": pid, "ts": t / 1000, "args": {"v": value}}


def _failures(run: Run) -> Iterator[dict[str, Any]]:
    columns = ("t", "memcg", "op", "cause")
    with run.reading():
        rows = run.failures.select(columns).with_columns(pl.col("op", "cause").cast(pl.String))
        frame = rows.sort("t").collect()
    for t, memcg, op, cause in frame.iter_rows():
        yield {"ph": "i", "name": f"{op} failed: {cause}", "pid": memcg, "tid": memcg,
               "ts": t / 1000, "s": "p"}  # fmt: skip


def write_perfetto(run: Run, path: Path) -> int:
    """Write the trace of ``run`` to ``path``, compressed when that ends in ``.gz``.

    Returns the number of events.  The same run gives the same bytes.  Raises
    :class:`UsageProblem` when the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    events = 0
    try:
        with open(temporary, "wb") as raw:
            packer = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw
            packer.write(b'{"displayTimeUnit":"ns","traceEvents":[')
            for event in trace_events(run):
                packer.write(b",\n" if events else b"\n")
                packer.write(json.dumps(event, separators=(",", ":")).encode())
                events += 1
            packer.write(b"\n]}\n")
            if packer is not raw:
                packer.close()
        os.replace(temporary, path)
    except OSError as error:
        raise UsageProblem(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return events
