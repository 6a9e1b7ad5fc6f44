"""A Setup as a JSON document and back: what a trace file says about its machine."""

import base64
import zlib
from typing import Any

import numpy as np

from kmbench.core.events import SLAB_ACCOUNT
from kmbench.core.setup import (
    INITIAL_OBJECT,
    INITIAL_SHEAF,
    INITIAL_SLAB,
    CacheSpec,
    GroupSpec,
    Machine,
    Setup,
)
from kmbench.errors import UsageProblem

_ARRAYS = {
    "initial_slabs": INITIAL_SLAB,
    "initial_objects": INITIAL_OBJECT,
    "initial_sheaves": INITIAL_SHEAF,
}
# files without `slab_fields` do not tell which slabs have a vector: those of caches with
# SLAB_ACCOUNT, or with this flag: most of their objects are charged by their gfp flags
_OLD_SLAB_FIELDS = ("cache", "objects", "inuse", "cpu_free", "where", "cpu")
_OLD_CHARGED = 32


def _pack(array: np.ndarray) -> str:
    # column by column, so that equal neighbours compress away
    columns = b"".join(np.ascontiguousarray(array[name]).tobytes() for name in array.dtype.names)
    return base64.b64encode(zlib.compress(columns, 9)).decode("ascii")


def _unpack(text: str, dtype: np.dtype) -> np.ndarray:
    columns = zlib.decompress(base64.b64decode(text, validate=True))
    if len(columns) % dtype.itemsize:
        raise ValueError("not a whole number of rows")
    out = np.zeros(len(columns) // dtype.itemsize, dtype)
    at = 0
    for name in dtype.names:
        size = dtype[name].itemsize * len(out)
        out[name] = np.frombuffer(columns[at : at + size], dtype[name])
        at += size
    return out


def setup_to_json(setup: Setup) -> dict[str, Any]:
    """JSON-ready document; the arrays are deflated and base64 encoded, column by column."""
    return {
        "era": setup.era,
        "nr_objects": setup.nr_objects,
        "machine": setup.machine._asdict(),
        "cache_fields": list(CacheSpec._fields),
        "caches": [list(spec) for spec in setup.caches],
        "group_fields": list(GroupSpec._fields),
        "groups": [list(spec) for spec in setup.groups],
        "slab_fields": list(INITIAL_SLAB.names),
        **{name: _pack(getattr(setup, name)) for name in _ARRAYS},
    }


def _rows(document: dict, fields_name: str, rows_name: str, kind: type) -> tuple:
    fields = document[fields_name]
    rows = []
    for values in document[rows_name]:
        if len(values) != len(fields):
            raise ValueError(f"{rows_name} has a row of {len(values)} values")
        given = dict(zip(fields, values, strict=True))
        for name, default in kind._field_defaults.items():
            given.setdefault(name, default)
        spec = kind(**given)
        for name, value in spec._asdict().items():
            wanted = kind.__annotations__[name]
            if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is int):
                raise ValueError(f"{rows_name}.{name} is {value!r:.40}, not {wanted.__name__}")
        rows.append(spec)
    return tuple(rows)


def _initial_slabs(document: dict, caches: tuple[CacheSpec, ...]) -> np.ndarray:
    names = document.get("slab_fields", _OLD_SLAB_FIELDS)
    if set(names) - {"vector"} != set(_OLD_SLAB_FIELDS):
        raise ValueError(f"slab_fields is {names!r:.60}, not {', '.join(INITIAL_SLAB.names)}")
    rows = _unpack(document["initial_slabs"], np.dtype([(n, INITIAL_SLAB[n]) for n in names]))
    out = np.zeros(len(rows), INITIAL_SLAB)
    for name in names:
        out[name] = rows[name]
    if "vector" not in names:
        having = [spec.flags & (SLAB_ACCOUNT | _OLD_CHARGED) != 0 for spec in caches]
        known = (out["cache"] >= 1) & (out["cache"] <= len(caches))
        out["vector"][known] = np.array(having, bool)[out["cache"][known] - 1]
    return out


def setup_from_json(document: Any, where: str) -> Setup:
    """Setup of a document made by :func:`setup_to_json`.  Raises UsageProblem naming `where`."""
    try:
        caches = _rows(document, "cache_fields", "caches", CacheSpec)
        arrays = {
            name: _unpack(document[name], dtype)
            for name, dtype in _ARRAYS.items()
            if name != "initial_slabs"
        }
        return Setup(
            machine=Machine(**document["machine"]),
            era=str(document["era"]),
            caches=caches,
            groups=_rows(document, "group_fields", "groups", GroupSpec),
            nr_objects=int(document["nr_objects"]),
            initial_slabs=_initial_slabs(document, caches),
            **arrays,
        )
    except KeyError as err:
        raise UsageProblem(f"{where}: field {err.args[0]} is missing; expected a setup") from None
    except (TypeError, ValueError, zlib.error) as err:
        raise UsageProblem(f"{where}: field setup: {err}; expected a setup") from None
