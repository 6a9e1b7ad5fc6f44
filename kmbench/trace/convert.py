"""From a capture folder to a trace file with its readings beside it, whole or its beginning."""

from pathlib import Path

import numpy as np
import polars as pl

from kmbench.errors import UsageProblem
from kmbench.trace.capture import lost_events, read_capture
from kmbench.trace.format import TraceInfo, write_trace
from kmbench.trace.truth import read_capture_truth, write_truth

# what of a capture's manifest says how and where it was recorded
_SOURCE = ("name", "what", "kernel", "cpu", "nproc", "memtotal_kb", "clock", "snapshot_interval_s")


def convert_capture(
    folder: str | Path, path: str | Path, *, seconds: float | None = None
) -> TraceInfo:
    """Write the capture `folder` as the trace file `path` and its readings beside it.

    seconds: keep only what happened before that; the totals over the whole recording (live
        objects, slabs made and returned, zombies) can then not be judged and are left out.

    Raises UsageProblem naming the file, the field and what was expected.
    """
    if seconds is not None and not seconds > 0:
        raise UsageProblem(f"{path}: seconds is {seconds!r}; expected a number above 0")
    capture, truth = read_capture(folder), read_capture_truth(folder)
    events = capture.events
    source = {key: capture.manifest[key] for key in _SOURCE if key in capture.manifest}
    source["events_lost"] = lost_events(capture.manifest)
    source["repairs"], source["vectors"] = capture.repairs._asdict(), capture.vectors
    if seconds is not None:
        end = int(seconds * 1e9)
        events = events[: int(np.searchsorted(events["t"], end))]
        source["seconds"] = seconds
        del source["vectors"]  # counted over all of it
        readings = truth.readings.filter(pl.col("t") < end)
        whole = ("live_end", "slabs_made", "slabs_gone")
        caches = {name: row | dict.fromkeys(whole) for name, row in truth.caches.items()}
        totals = truth.totals | {"zombies_end": None}
        truth = truth._replace(readings=readings, caches=caches, totals=totals)
    info = write_trace(path, capture.setup, events, what=source.get("what", ""), source=source)
    write_truth(truth, path)
    return info
