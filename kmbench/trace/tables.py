"""Reading Parquet tables and JSON documents, with one clear line for everything that is wrong."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kmbench.errors import UsageProblem

_KINDS = {"i": "integers", "b": "true or false", "s": "text"}


def _matches(kind: pa.DataType, wanted: str) -> bool:
    if wanted == "s":
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if wanted == "b":
        return pa.types.is_boolean(kind)
    return pa.types.is_integer(kind)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file.  Raises UsageProblem when it is missing, truncated or something else."""
    try:
        file = pq.ParquetFile(path)
        file.schema_arrow  # noqa: B018 - decodes names, which damage can make no text
        return file
    except FileNotFoundError:
        raise UsageProblem(f"{path}: no such file; expected a Parquet file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
        reason = str(err).splitlines()[0]
        raise UsageProblem(f"{path}: not a complete Parquet file ({reason})") from None


def check_columns(path: Path, schema: pa.Schema, columns: dict[str, str]) -> None:
    """Raise UsageProblem unless `schema` has `columns` (name -> "i", "b" or "s")."""
    for name, wanted in columns.items():
        index = schema.get_field_index(name)
        if index < 0:
            raise UsageProblem(f"{path}: column {name} is missing; expected {_KINDS[wanted]}")
        kind = schema.field(index).type
        if not _matches(kind, wanted):
            raise UsageProblem(f"{path}: column {name} is {kind}; expected {_KINDS[wanted]}")


def read_table(path: Path, columns: dict[str, str]) -> pa.Table:
    """Read `columns` (name -> "i" integers, "b" booleans, "s" text) of a Parquet file."""
    with open_parquet(path) as file:
        check_columns(path, file.schema_arrow, columns)
        try:
            table = file.read(columns=list(columns))
            # what damage has made of text, in cells or metadata, would end the process in polars
            table.validate(full=True)
            return table.replace_schema_metadata(None)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
            reason = str(err).splitlines()[0]
            raise UsageProblem(
                f"{path}: damaged data ({reason}); expected a Parquet file"
            ) from None


def read_arrays(path: Path, columns: dict[str, str], null: int = -1) -> dict[str, np.ndarray]:
    """:func:`read_table` as numpy arrays; empty integer cells become `null`."""
    table = read_table(path, columns)
    arrays = {}
    for name, wanted in columns.items():
        column = table.column(name)
        if wanted == "s":
            arrays[name] = np.asarray(column.cast(pa.string()).to_pylist(), dtype=object)
            continue
        if column.null_count:
            column = column.fill_null(null)
        arrays[name] = column.to_numpy()
    return arrays


def read_json(path: Path) -> dict:
    """Read a JSON object.  Raises UsageProblem when it is missing or not a JSON object."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageProblem(f"{path}: no such file; expected a JSON object") from None
    except (ValueError, OSError) as err:
        reason = str(err).splitlines()[0]
        raise UsageProblem(f"{path}: not JSON ({reason}); expected a JSON object") from None
    if not isinstance(document, dict):
        raise UsageProblem(f"{path}: holds a JSON {type(document).__name__}; expected an object")
    return document
