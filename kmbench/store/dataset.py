"""The results dataset: one Parquet file per run and table, written so that it can always be read.

Layout: ``DIR/<table>/<run_id>.parquet``.  Every file is written under a temporary name in its own
folder, synced and renamed; ``runs/<run_id>.parquet`` comes last and proves the run complete.
Readers start from ``runs``, so a writer killed at any moment leaves nothing that they would see.
Every file has a checksum (:mod:`kmbench.store.seal`) and is checked before its table is scanned.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from kmbench.errors import UsageProblem, unknown
from kmbench.store.schema import (
    SCHEMA_VERSION,
    TABLES,
    VERSION_KEY,
    arrow_schema,
    make_row,
    make_table,
    polars_schema,
)
from kmbench.store.seal import Damaged, sealed, unseal

__all__ = ["Results", "Run", "open_results", "write_run", "write_runs"]

MAGIC = b"PAR1"
COMPRESSED_ROWS = 256
# damaged pages make polars panic, which is no Exception
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
STALE_SECONDS = 3600  # a temporary file this old belongs to no writer any more


# --- writing ---


def write_run(
    folder: str | os.PathLike[str],
    run: Mapping[str, Any],
    tables: Mapping[str, pa.Table | Mapping[str, Any]],
    timing: Mapping[str, Any] | None = None,
) -> Path:
    """Store one run and return the path of its proof, ``runs/<run_id>.parquet``.

    ``run`` and ``timing`` are single rows, by column name; ``tables`` has ``timeline``, ``caches``,
    ``ops`` and ``failures``, and ``accesses`` if reclaim was modelled, as Arrow tables or as
    columns for :func:`kmbench.store.schema.make_table`; one that is absent is stored empty, but for
    ``latency``, which only runs that ask for it have.
    Writing a run again replaces it.  Raises :class:`UsageProblem` when the folder cannot be
    written.
    """
    write_runs(folder, [(run, tables, timing)])
    return Path(folder) / "runs" / f"{run['run_id']}.parquet"


def write_runs(folder: str | os.PathLike[str], stored: Sequence[tuple]) -> None:
    """Store several runs, each given as the arguments of :func:`write_run` after the folder.

    Each gets files of its own, as if it were written alone, but folders are synced once for all of
    them.  No proof is written before every other table of all runs is on disk.
    """
    for table in TABLES:
        part = []
        for run, tables, timing in stored:
            if table == "runs":
                content = make_row(table, run, run["run_id"])
            elif table == "timing":
                if timing is None:
                    continue
                content = make_row(table, timing, run["run_id"])
            elif table == "latency" and table not in tables:
                continue
            else:
                content = _conform(table, tables.get(table, _empty(table)), run["run_id"])
            part.append((Path(folder) / table / f"{run['run_id']}.parquet", content))
        if part:
            _write_files(part)


def _empty(table: str) -> dict[str, list[Any]]:
    return {field.name: [] for field in TABLES[table]}


def _conform(table: str, content: pa.Table | Mapping[str, Any], run_id: str) -> pa.Table:
    if isinstance(content, pa.Table):
        if content.schema.equals(arrow_schema(table), check_metadata=True):
            return content
        content = {name: content.column(name) for name in content.column_names}
    return make_table(table, content, run_id)


def write_parquet(path: Path, content: pa.Table) -> None:
    """Write ``content`` to ``path``; readers see the old file or the whole new one, never a part.

    The same content gives the same bytes.  Raises :class:`UsageProblem` on any I/O error.
    """
    _write_files([(path, content)])


def _spelled(path: Path) -> None:
    """Refuse a name that the readers of Parquet cannot be told."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        why = "not UTF-8" if encoding == "utf-8" else f"no name in this locale ({encoding})"
        raise UsageProblem(f"{path}: the folder's name is {why}") from None


def _write_files(part: Sequence[tuple[Path, pa.Table]]) -> None:
    """Write files of one folder, all of them synced before the first gets its name."""
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path, _ in part]
    path, _ = part[0]
    folder = path.parent
    _spelled(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        for (_, content), partial in zip(part, temporary, strict=True):
            with open(partial, "wb") as file:
                file.write(_file_of(content))
        for partial in temporary:  # after all were written: the disk takes them together
            _sync(partial)
        for (path, _), partial in zip(part, temporary, strict=True):
            os.replace(partial, path)
        _sync(folder)
    except OSError as error:
        raise UsageProblem(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        for partial in temporary:
            with suppress(OSError):
                partial.unlink()


def _file_of(content: pa.Table) -> bytes:
    """The bytes of a file with this content."""
    if not content.num_rows:
        return _empty_file(content.schema.serialize().to_pybytes())
    # a dictionary and statistics per column pay off from a few rows on; below some hundred rows,
    # compression saves no bytes and takes two thirds of the time
    many = content.num_rows > 1
    codec = "zstd" if content.num_rows >= COMPRESSED_ROWS else "none"
    return sealed(content, compression=codec, use_dictionary=many, write_statistics=many)


@cache
def _empty_file(schema: bytes) -> bytes:
    """Most runs have tables without rows: no failure, no look-up."""
    content = pa.ipc.read_schema(pa.py_buffer(schema)).empty_table()
    return sealed(content, compression="none", use_dictionary=False, write_statistics=False)


@cache
def _remove_stale(folder: Path) -> None:
    """Remove, once a process, what killed writers left behind: a scan of many runs is not cheap."""
    for left in folder.glob(".*.parquet.*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                left.unlink()


def _sync(path: Path) -> None:
    """Make the content of a file durable, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading ---


def open_results(folder: str | os.PathLike[str] = "results") -> Results:
    """Open a dataset for reading.

    Raises :class:`UsageProblem`, naming the file, when the folder does not exist or a file of
    ``runs`` is no Parquet file, is cut short or has a newer schema.
    """
    path = Path(folder)
    _spelled(path)
    if not path.exists():
        raise UsageProblem(f"{path}: no such folder of results; `kmbench run` makes one")
    if not path.is_dir():
        raise UsageProblem(f"{path}: not a folder of results")
    names = sorted(_stems(path / "runs"))
    for name in names:
        check_file(path / "runs" / f"{name}.parquet")
    return Results(path, names)


def _stems(folder: Path) -> set[str]:
    try:
        entries = os.listdir(folder)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise UsageProblem(f"cannot read {folder}: {error.strerror}") from error
    return {e[:-8] for e in entries if e.endswith(".parquet") and not e.startswith(".")}


def check_file(path: Path) -> None:
    """Raise :class:`UsageProblem` naming ``path`` unless it is a Parquet file we can read.

    What has no checksum is read through once: older files, and those of other writers.
    """
    try:
        version = unseal(path, VERSION_KEY)
        if version is None:
            version = _read_through(path)
    except Damaged:
        raise UsageProblem(f"{path}: {_damage(path)}") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        # an OSError that Arrow made up has no strerror
        why = getattr(error, "strerror", None) or "damaged Parquet file"
        raise UsageProblem(f"{path}: {why}") from error
    if not version:
        raise UsageProblem(f"{path}: a Parquet file, but not one of kmbench")
    if not version.isdigit():
        raise UsageProblem(f"{path}: damaged Parquet file")
    if int(version) > SCHEMA_VERSION:
        raise UsageProblem(
            f"{path}: written by a newer kmbench (schema {int(version)}; this one reads up to "
            f"{SCHEMA_VERSION})"
        )


def _damage(path: Path) -> str:
    """What is wrong with a damaged file, in words."""
    with open(path, "rb") as file:
        if file.read(4) != MAGIC:
            return "not a Parquet file"
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4))
        if file.read(4) != MAGIC or size < 12:
            return "cut short"
    return "damaged Parquet file"


def _read_through(path: Path) -> bytes:
    """Read the whole of ``path``; its version, empty if it has none."""
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches():
            batch.validate(full=True)
        return (parquet.schema_arrow.metadata or {}).get(VERSION_KEY, b"")


class Results:
    """A dataset of complete runs; every table is a polars ``LazyFrame``.

    Columns, units and meanings are those of :mod:`kmbench.store.schema`; ``run_id`` joins them.
    """

    def __init__(self, path: Path, names: list[str], run_id: str | None = None) -> None:
        self.path = path
        self._names = names
        self._run_id = run_id

    @cached_property
    def runs(self) -> pl.LazyFrame:
        """One row per run: parameters, provenance, summary metrics, status."""
        return self._scan("runs")

    @cached_property
    def timeline(self) -> pl.LazyFrame:
        """One row per sample and group: counters beside ground truth."""
        return self._scan("timeline")

    @cached_property
    def caches(self) -> pl.LazyFrame:
        """One row per sample and cache, in slabinfo's words."""
        return self._scan("caches")

    @cached_property
    def ops(self) -> pl.LazyFrame:
        """One row per code path: how often, and what it cost in counted operations."""
        return self._scan("ops")

    @cached_property
    def failures(self) -> pl.LazyFrame:
        """One row per failed operation (the first 100,000 of a run)."""
        return self._scan("failures")

    @cached_property
    def accesses(self) -> pl.LazyFrame:
        """One row per group and phase of runs with reclaim: look-ups, hits, latency."""
        return self._scan("accesses")

    @cached_property
    def latency(self) -> pl.LazyFrame:
        """One row per group, operation and bucket of runs with ``latency = true``."""
        return self._scan("latency")

    @cached_property
    def timing(self) -> pl.LazyFrame:
        """One row per run: wall-clock seconds; the only table that is not deterministic."""
        return self._scan("timing")

    def _files(self, table: str) -> list[Path]:
        present = _stems(self.path / table)
        names = [name for name in self._names if name in present]
        return [self.path / table / f"{name}.parquet" for name in names]

    def _scan(self, table: str) -> pl.LazyFrame:
        files = self._files(table)
        schema = polars_schema(table)
        if not files:
            return pl.LazyFrame(schema=schema)
        if table != "runs":  # those were checked when the dataset was opened
            for file in files:
                check_file(file)
        frame = pl.scan_parquet(
            files, schema=schema, missing_columns="insert", extra_columns="ignore", glob=False
        )
        return frame if self._run_id is None else frame.filter(pl.col("run_id") == self._run_id)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn a failure to read into a :class:`UsageProblem` that names the damaged file.

        Put it around collecting and around using the text of what was collected.
        """
        try:
            yield
        except BrokenPipeError:
            raise
        except (*UNREADABLE, OSError, UnicodeDecodeError) as error:
            for table in TABLES:
                for file in self._files(table):
                    check_file(file)
            raise UsageProblem(f"{self.path}: cannot be read: {error}") from error

    def run_ids(self) -> list[str]:
        """Every run's id, sorted."""
        with self.reading():
            return self.runs.select(pl.col("run_id").cast(pl.String)).collect()["run_id"].to_list()

    def run(self, run_id_prefix: str) -> Run:
        """The run whose id starts with ``run_id_prefix``, or whose strategy has that name.

        Raises :class:`UsageProblem` when no run or several are meant.
        """
        wanted = pl.col("run_id").cast(pl.String), pl.col("strategy"), pl.col("seed")
        with self.reading():
            rows = self.runs.select(*wanted, "scenario").collect()
        if not rows.height:
            raise UsageProblem(f"{self.path}: no complete runs")
        found = rows.filter(pl.col("run_id").str.starts_with(run_id_prefix))
        if not found.height:
            found = rows.filter(pl.col("strategy") == run_id_prefix)
        if not found.height:
            looks_so = run_id_prefix and not set(run_id_prefix) - set("0123456789abcdef")
            raise unknown("run", run_id_prefix, rows["run_id" if looks_so else "strategy"])
        if found.height > 1:
            words = [
                f"{r['run_id']} ({r['scenario']}, {r['strategy']}, seed {r['seed']})"
                for r in found.sort("run_id").head(4).iter_rows(named=True)
            ]
            more = ", ..." if found.height > 4 else ""
            raise UsageProblem(
                f"{run_id_prefix!r} means {found.height} runs: {', '.join(words)}{more}"
            )
        run_id = found["run_id"][0]
        names = [run_id] if run_id in self._names else self._names
        return Run(self.path, names, run_id)


class Run(Results):
    """One run of a dataset: the same tables, this run's rows only."""

    @property
    def run_id(self) -> str:
        """The whole id."""
        assert self._run_id is not None
        return self._run_id

    @cached_property
    def row(self) -> dict[str, Any]:
        """The row of ``runs``, by column name."""
        with self.reading():
            return self.runs.collect().row(0, named=True)
