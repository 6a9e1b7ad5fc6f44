"""Simulator speed across machines and commits: the table ``speed`` of a dataset, from asv's files.

One file per machine, commit and environment, ``DIR/speed/<key>.parquet``: folders from several
machines are merged by copying files, or by importing each machine's asv results into one dataset.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from kmbench.errors import UsageProblem
from kmbench.store.dataset import check_file, write_parquet
from kmbench.store.schema import FLOAT, INT, LABEL, TEXT, TIME, Field, schema_of

__all__ = ["SPEED", "import_asv", "open_speed"]

SPEED = (
    Field("machine", LABEL, "", "name of the machine, as asv knows it"),
    Field("cpu", TEXT, "", "its processor", optional=True),
    Field("os", TEXT, "", "its operating system", optional=True),
    Field("ram", TEXT, "", "its memory", optional=True),
    Field("commit", LABEL, "", "commit of kmbench that was measured"),
    Field("date", TIME, "", "when that commit was made"),
    Field("environment", LABEL, "", "Python and packages, as asv names them"),
    Field("benchmark", LABEL, "", "name of the benchmark"),
    Field("parameters", TEXT, "json", "the benchmark's parameters by name"),
    Field("unit", LABEL, "", "unit of the value"),
    Field("value", FLOAT, "", "what was measured"),
    Field("low", FLOAT, "", "lower end of asv's 99 % interval", optional=True),
    Field("high", FLOAT, "", "its upper end", optional=True),
    Field("samples", INT, "count", "measurements behind the value", optional=True),
)
"""Columns of the table ``speed``; ``direction`` depends on the unit: events/s are better higher."""

RESULT_VERSION = 2  # of asv's result files, since asv 0.5


def import_asv(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[Path]:
    """Import every result in asv's ``results`` folder into the dataset ``out``; the files written.

    ``folder``: that folder, or one above it (``.asv``, or where ``asv.conf.json`` is).  Importing
    again replaces.  Raises :class:`UsageProblem` that names the file when one is not asv's.
    """
    root = _results_folder(Path(folder))
    described = _read(root / "benchmarks.json")
    written = []
    for file in sorted(root.glob("*/*.json")):
        if file.name == "machine.json":
            continue
        rows, table = _table(file, _read(file), described)
        if rows:
            key = f"{rows[0]['machine']}\0{rows[0]['commit']}\0{rows[0]['environment']}"
            name = hashlib.sha256(key.encode()).hexdigest()[:16]
            path = Path(out) / "speed" / f"{name}.parquet"
            write_parquet(path, table)
            written.append(path)
    if not written:
        raise UsageProblem(f"{root}: no results of asv; `asv run` makes some")
    return written


def _results_folder(folder: Path) -> Path:
    for candidate in (folder, folder / "results", folder / ".asv" / "results"):
        if (candidate / "benchmarks.json").is_file():
            return candidate
    raise UsageProblem(f"{folder}: no results of asv here (a folder with benchmarks.json)")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageProblem(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageProblem(f"{path}: not a file of asv")
    return content


def _table(
    file: Path, result: dict[str, Any], described: dict[str, Any]
) -> tuple[list[dict], pa.Table]:
    """The measurements of one file; :class:`UsageProblem` when it is not as asv writes it."""
    if result.get("version") != RESULT_VERSION:
        raise UsageProblem(
            f"{file}: version {result.get('version')} of asv's results; expected {RESULT_VERSION}"
        )
    try:
        rows = list(_rows(result, described))
        return rows, pa.Table.from_pylist(rows, schema_of("speed", SPEED))
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, OSError) as error:
        raise UsageProblem(f"{file}: not a result of asv: {error}") from error


def _rows(result: dict[str, Any], described: dict[str, Any]) -> Iterator[dict]:
    """A row for every measured combination of parameters; those that failed have none."""
    machine = result["params"]
    common = {
        "machine": machine["machine"], "cpu": machine.get("cpu"), "os": machine.get("os"),
        "ram": machine.get("ram"), "commit": result["commit_hash"],
        "date": datetime.fromtimestamp(result["date"] / 1000, UTC),
        "environment": result["env_name"],
    }  # fmt: skip
    for name, values in result["results"].items():
        about = described.get(name, {})
        columns = dict(zip(result["result_columns"], values, strict=False))
        measured = columns.get("result") or []
        combinations = itertools.product(*columns.get("params") or [])
        for number, (value, parameters) in enumerate(zip(measured, combinations, strict=False)):
            if isinstance(value, (int, float)) and math.isfinite(value):
                names = about.get("param_names") or [f"param{i}" for i in range(9)]
                words = (word.strip("'\"") for word in parameters)
                yield common | {
                    "benchmark": name, "unit": about.get("unit", ""), "value": float(value),
                    "parameters": json.dumps(dict(zip(names, words, strict=False))),
                    "low": _nth(columns.get("stats_ci_99_a"), number),
                    "high": _nth(columns.get("stats_ci_99_b"), number),
                    "samples": _nth(columns.get("stats_number"), number),
                }  # fmt: skip


def _nth(values: list[Any] | None, number: int) -> Any:
    value = values[number] if values and number < len(values) else None
    return None if isinstance(value, float) and not math.isfinite(value) else value


def open_speed(folder: str | os.PathLike[str]) -> pl.LazyFrame:
    """The table ``speed`` of a dataset.  Raises :class:`UsageProblem` when there is none."""
    files = sorted((Path(folder) / "speed").glob("*.parquet"))
    if not files:
        raise UsageProblem(f"{folder}: no measurements; `kmbench asv import` brings some")
    for file in files:
        check_file(file)
    schema = pl.from_arrow(schema_of("speed", SPEED).empty_table()).schema  # type: ignore[union-attr]
    return pl.scan_parquet(
        files, schema=schema, missing_columns="insert", extra_columns="ignore", glob=False
    )
