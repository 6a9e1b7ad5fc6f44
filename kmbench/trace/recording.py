"""A recording of either kind, a capture folder or a trace file, opened the same way."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kmbench.core.setup import Setup
from kmbench.trace.capture import is_capture, lost_events, read_capture
from kmbench.trace.format import SUFFIX, TraceInfo, open_trace


class Recording(NamedTuple):
    """A recording ready to be replayed."""

    path: Path
    name: str
    what: str  # one line for people
    source: dict[str, Any]  # kernel, machine, duration: whatever the recorder knew
    setup: Setup
    nr_events: int
    batches: Iterator[np.ndarray]  # EVENT arrays in time order; can be read once


def _source(manifest: dict[str, Any]) -> dict[str, Any]:
    wanted = ("kernel", "cpu", "nproc", "memtotal_kb", "clock", "snapshot_interval_s")
    source = {key: manifest[key] for key in wanted if key in manifest}
    return source | {"events_lost": lost_events(manifest)}


@contextmanager
def open_recording(path: str | Path) -> Iterator[Recording]:
    """Open a capture folder or a trace file.

    Raises UsageProblem naming the file, the field and what was expected.
    """
    path = Path(path)
    if path.is_dir() or is_capture(path):
        capture = read_capture(path)
        manifest = capture.manifest
        yield Recording(
            path, str(manifest.get("name", path.name)), str(manifest.get("what", "")),
            _source(manifest) | {"vectors": capture.vectors}, capture.setup, len(capture.events),
            iter([capture.events]),
        )  # fmt: skip
        return
    with open_trace(path) as trace:
        info: TraceInfo = trace.info
        name = info.name or path.name.removesuffix(SUFFIX)
        yield Recording(
            path, name, info.what, info.source, trace.setup, info.events, trace.batches()
        )
