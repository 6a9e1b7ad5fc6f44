"""What a recording has collected, and the one file that keeps it until it is assembled.

Assembling compiles code and writes Parquet.  A machine that shall only be watched keeps the raw
recording (numpy is all it needs) and another one assembles it.  The file is a numpy archive
(``.npz``, nothing pickled): the ring buffers' pages, the lists of slabs, and one JSON document.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kmbench.errors import UsageProblem
from kmbench.trace.record.cgroups import Hierarchy
from kmbench.trace.record.slabs import LISTED, UNKNOWN, Census, Dump
from kmbench.trace.record.snapshots import Reading, Snapshot
from kmbench.trace.record.tasks import Task
from kmbench.trace.record.tracefs import Format

SUFFIX = ".kmraw.npz"
_VERSION = 1


class Recording(NamedTuple):
    """Everything that a session has collected.  Times: CLOCK_MONOTONIC, ns."""

    hierarchy: Hierarchy
    pages: dict[int, bytes]  # cpu -> ring-buffer pages
    page_bytes: int
    formats: dict[str, Format]
    tasks: list[Task]
    paths: dict[int, str]  # cgroup id -> path, at the start
    snapshots: list[Snapshot]
    caches: list[dict]  # rows of `caches`
    dumps: tuple[Dump, ...]
    census: tuple[Census, ...]  # at the start, at the end
    direct_map: int  # where physical memory begins in the kernel's addresses
    symbols: str  # /proc/kallsyms
    manifest: dict[str, Any]  # what the session knows already


def partial_of(out: Path) -> Path:
    """Where `out` grows until it is complete."""
    return out.with_name(f".{out.name}.{os.getpid()}.partial")


def _text(blob: bytes) -> str:
    return blob.decode("latin-1")


def _reading(one: Reading | None) -> list | None:
    return one and [one.t0, one.t1, _text(one.text)]


def _snapshot(shot: Snapshot) -> list:
    groups = [[path, _reading(kmem), *map(_text, texts)] for path, kmem, *texts in shot.groups]
    return [_reading(shot.slabinfo), _reading(shot.sysfs), groups, _reading(shot.world),
            shot.directories]  # fmt: skip


def save(recording: Recording, path: Path, *, compressed: bool = False) -> None:
    """Write `recording`; the file appears complete or not at all.  Raises OSError."""
    document = {
        "version": _VERSION, "hierarchy": [str(recording.hierarchy.root),
                                           *recording.hierarchy[1:]],
        "page_bytes": recording.page_bytes, "direct_map": recording.direct_map,
        "formats": [form.text for form in recording.formats.values()],
        "tasks": recording.tasks, "paths": list(recording.paths.items()),
        "snapshots": [_snapshot(shot) for shot in recording.snapshots],
        "caches": recording.caches, "totals": [dump.totals for dump in recording.dumps],
        "spans": [[dump.start, dump.end] for dump in recording.dumps],
        "symbols": recording.symbols, "manifest": recording.manifest,
    }  # fmt: skip
    arrays = {"document": np.frombuffer(json.dumps(document).encode(), np.uint8)}
    for cpu, blob in recording.pages.items():
        arrays[f"pages{cpu}"] = np.frombuffer(blob, np.uint8)
    for at, dump in enumerate(recording.dumps):
        arrays |= {f"listed{at}": dump.listed, f"times{at}": dump.cache_t}
    for at, (pfn, cache, vector) in enumerate(recording.census):
        arrays |= {f"pfn{at}": pfn, f"owner{at}": cache, f"vector{at}": vector}
    partial = partial_of(path)
    try:
        with partial.open("xb") as file:
            (np.savez_compressed if compressed else np.savez)(file, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _as_reading(row: list | None) -> Reading | None:
    return row and Reading(row[0], row[1], row[2].encode("latin-1"))


def _as_snapshot(row: list) -> Snapshot:
    slabinfo, sysfs, groups, world, directories = row
    found = [(path, _as_reading(kmem), *(text.encode("latin-1") for text in texts))
             for path, kmem, *texts in groups]  # fmt: skip
    return Snapshot(_as_reading(slabinfo), _as_reading(sysfs), found, _as_reading(world),
                    directories)  # fmt: skip


def load(path: Path) -> Recording:
    """What :func:`save` has written.  Raises UsageProblem."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        document = json.loads(arrays["document"].tobytes())
        if document["version"] != _VERSION:
            raise UsageProblem(f"{path}: version {document['version']}; expected {_VERSION}")
        return _recording(arrays, document)
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile):
        raise UsageProblem(f"{path}: expected what `kmbench trace record --raw` writes") from None


def _listed(rows: np.ndarray) -> np.ndarray:
    """LISTED of rows that may be from before vectors were read."""
    out = np.zeros(len(rows), LISTED)
    out["vector"] = UNKNOWN
    for name in rows.dtype.names:
        out[name] = rows[name]
    return out


def _census(arrays: dict[str, np.ndarray], at: int) -> Census:
    pfn = arrays[f"pfn{at}"].astype(np.int64)
    vector = arrays.get(f"vector{at}", np.full(len(pfn), UNKNOWN))
    return Census(pfn, arrays[f"owner{at}"].astype(np.int32), vector.astype(np.int8))


def _recording(arrays: dict[str, np.ndarray], document: dict[str, Any]) -> Recording:
    root, version, number = document["hierarchy"]
    formats = [Format(text) for text in document["formats"]]
    dumps = tuple(
        Dump(*document["spans"][at], arrays[f"times{at}"].astype(np.int64),
             _listed(arrays[f"listed{at}"]), totals)
        for at, totals in enumerate(document["totals"])
    )  # fmt: skip
    return Recording(
        Hierarchy(Path(root), version, number),
        {int(name[5:]): blob.tobytes() for name, blob in arrays.items() if name[:5] == "pages"},
        document["page_bytes"], {form.name: form for form in formats},
        [Task(*row) for row in document["tasks"]], {int(at): to for at, to in document["paths"]},
        [_as_snapshot(row) for row in document["snapshots"]], document["caches"], dumps,
        tuple(_census(arrays, at) for at in range(2)),
        document["direct_map"], document["symbols"], document["manifest"],
    )  # fmt: skip
