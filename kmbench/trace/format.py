"""kmbench's trace file: one Parquet file ``NAME.kmtrace.parquet``, streamed by row groups.

Columns are the fields of :data:`kmbench.core.events.EVENT`.  The schema metadata holds one JSON
document under the key ``kmbench.trace``: format version, name, what the trace is, number of
events, SHA-256 of the events' bytes, and the Setup (machine, caches with geometry, groups, slabs
and objects at the start).  What the real machine read meanwhile may lie beside it in
``NAME.truth.parquet`` (:mod:`kmbench.trace.truth`).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kmbench.core.events import EVENT
from kmbench.core.setup import Setup
from kmbench.errors import UsageProblem
from kmbench.trace.checks import bounds_of, check_events, check_setup
from kmbench.trace.setup_json import setup_from_json, setup_to_json
from kmbench.trace.tables import open_parquet

SUFFIX = ".kmtrace.parquet"
TRUTH_SUFFIX = ".truth.parquet"
VERSION = 1
ROW_GROUP = 1 << 18  # events; 8 MiB of EVENT records
_KEY = b"kmbench.trace"
SCHEMA = pa.schema([(name, pa.from_numpy_dtype(EVENT[name])) for name in EVENT.names])
# times compress best as differences, handles as they are, the rest as dictionaries
_DELTA = ("t",)
_PLAIN = ("t", "obj")


class TraceInfo(NamedTuple):
    """What a trace file says about itself."""

    name: str
    what: str  # one line for people
    events: int
    sha256: str  # of the events' bytes, in order
    source: dict[str, Any]  # kernel, machine, duration: whatever the recorder knew


def truth_path(path: str | Path) -> Path:
    """Where the readings of the real machine lie that belong to the trace `path`."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(SUFFIX) + TRUTH_SUFFIX)


def _to_table(events: np.ndarray) -> pa.Table:
    columns = [pa.array(np.ascontiguousarray(events[name])) for name in EVENT.names]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _chunks(events: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    arrays = [events] if isinstance(events, np.ndarray) else events
    for array in arrays:
        for start in range(0, len(array), ROW_GROUP):
            yield array[start : start + ROW_GROUP]


def write_trace(
    path: str | Path,
    setup: Setup,
    events: np.ndarray | Iterable[np.ndarray],
    *,
    what: str = "",
    source: dict[str, Any] | None = None,
) -> TraceInfo:
    """Write a trace file; it appears under its name only when it is complete.

    events: EVENT array, or an iterable of such arrays in time order; memory stays bounded by
        what the iterable hands out.

    Raises UsageProblem when the name does not end in ``.kmtrace.parquet``, when an event does not
    fit `setup`, or when the file cannot be written.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIX) or path.name == SUFFIX:
        raise UsageProblem(f"{path}: name of a trace file; expected NAME{SUFFIX}")
    where = str(path)
    check_setup(setup, where)
    bounds = bounds_of(setup)
    digest = hashlib.sha256()
    count = last_t = 0
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with pq.ParquetWriter(
            partial, SCHEMA, compression="zstd", compression_level=9, version="2.6",
            use_dictionary=[name for name in EVENT.names if name not in _PLAIN],
            column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
        ) as writer:  # fmt: skip
            for chunk in _chunks(events):
                if chunk.dtype != EVENT:
                    raise UsageProblem(f"{where}: events of type {chunk.dtype}; expected EVENT")
                last_t = check_events(chunk, bounds, where, count, last_t)
                digest.update(np.ascontiguousarray(chunk).tobytes())
                writer.write_table(_to_table(chunk), row_group_size=ROW_GROUP)
                count += len(chunk)
            name = path.name.removesuffix(SUFFIX)
            info = TraceInfo(name, what, count, digest.hexdigest(), source or {})
            document = {"version": VERSION, **info._asdict(), "setup": setup_to_json(setup)}
            writer.add_key_value_metadata({_KEY: json.dumps(document, sort_keys=True)})
        os.replace(partial, path)
    except OSError as err:
        raise UsageProblem(f"{path}: cannot be written ({err.strerror or err})") from None
    finally:
        partial.unlink(missing_ok=True)
    return info


class TraceFile:
    """An open trace: setup and description at hand, events on demand.  A context manager.

    Raises UsageProblem, also while iterating, with one line that names the file, the field and
    what was expected.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if self.path.is_dir():
            raise UsageProblem(f"{self.path}: is a folder; expected a file NAME{SUFFIX}")
        self._file = open_parquet(self.path)
        try:
            self.info, self.setup = self._read_head()
        except BaseException:
            self._file.close()
            raise

    def _read_head(self) -> tuple[TraceInfo, Setup]:
        where = str(self.path)
        schema = self._file.schema_arrow
        text = (self._file.metadata.metadata or {}).get(_KEY)
        if text is None:
            raise UsageProblem(f"{where}: no metadata {_KEY.decode()}; expected a kmbench trace")
        for name in EVENT.names:
            index = schema.get_field_index(name)
            wanted = SCHEMA.field(name).type
            found = "missing" if index < 0 else schema.field(index).type
            if found != wanted:
                raise UsageProblem(f"{where}: column {name} is {found}; expected {wanted}")
        try:
            document = json.loads(text)
            version = document["version"]
            info = TraceInfo(**{name: document[name] for name in TraceInfo._fields})
        except (ValueError, TypeError, KeyError):
            raise UsageProblem(f"{where}: metadata {_KEY.decode()} is damaged") from None
        if version != VERSION:
            raise UsageProblem(f"{where}: field version is {version!r}; expected {VERSION}")
        if info.events != self._file.metadata.num_rows:
            raise UsageProblem(
                f"{where}: field events is {info.events}; expected {self._file.metadata.num_rows}"
            )
        setup = setup_from_json(document.get("setup"), where)
        check_setup(setup, where)
        return info, setup

    def __enter__(self) -> "TraceFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def batches(self) -> Iterator[np.ndarray]:
        """EVENT arrays in time order, checked, one row group at a time."""
        bounds = bounds_of(self.setup)
        row = last_t = 0
        for group in range(self._file.num_row_groups):
            try:
                table = self._file.read_row_group(group, columns=list(EVENT.names))
            except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
                reason = str(err).splitlines()[0]
                raise UsageProblem(
                    f"{self.path}: row group {group} is damaged ({reason})"
                ) from None
            columns = {}
            for name in EVENT.names:
                column = table.column(name)
                if column.null_count:
                    raise UsageProblem(f"{self.path}: column {name} has empty cells; expected none")
                columns[name] = column.to_numpy()
            last_t = check_events(columns, bounds, str(self.path), row, last_t)
            out = np.empty(table.num_rows, EVENT)
            for name, values in columns.items():
                out[name] = values
            row += len(out)
            yield out

    def read(self) -> np.ndarray:
        """All events as one EVENT array."""
        out = np.empty(self.info.events, EVENT)
        row = 0
        for batch in self.batches():
            out[row : row + len(batch)] = batch
            row += len(batch)
        return out


def open_trace(path: str | Path) -> TraceFile:
    """Open a trace file.  Raises UsageProblem when it is missing, truncated or no trace."""
    return TraceFile(path)
