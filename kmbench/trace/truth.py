"""What the real machine read while it was recorded, as one table of readings and some totals."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from kmbench.errors import UsageProblem
from kmbench.trace.capture_state import field, items, slab_caches
from kmbench.trace.capture_stream import reading_times
from kmbench.trace.format import SUFFIX, truth_path
from kmbench.trace.tables import open_parquet, read_arrays, read_json, read_table

SLABS, KMEM = "slabs", "kmem"
ACTIVE, PARTIAL = "active_objs", "partial_slabs"
_KEY = b"kmbench.truth"
_COLUMNS = {"kind": "s", "item": "s", "t": "i", "real": "i"}


class Truth(NamedTuple):
    """Readings of a recording, and totals over all of it."""

    name: str
    readings: pl.DataFrame  # kind, item, t (ns), real (slabs, objects or bytes), scored (bool)
    caches: dict[str, dict[str, Any]]  # name -> order, live_start, live_end, slabs_made, ...
    totals: dict[str, Any]  # t_end, t_shrink (ns), zombies_end, offline


def _readings(kind: str, items: list[str], t, real, scoreable: set[str], end: int) -> pl.DataFrame:
    """Readings of one kind; those of `scoreable` items up to the time `end` are scored."""
    frame = pl.DataFrame(
        {"item": pl.Series(list(items), dtype=pl.String), "t": t, "real": real}
    ).with_columns(
        kind=pl.lit(kind), scored=pl.col("item").is_in(list(scoreable)) & (pl.col("t") <= end)
    )
    return frame.select("kind", "item", pl.col("t").cast(pl.Int64), pl.col("real").cast(pl.Int64),
                        "scored")  # fmt: skip


def _end_made_with_the_workload(
    folder: Path, caches: dict[str, dict[str, Any]], names: np.ndarray, end: int
) -> None:
    """Take slabs made after the time `end` (ns) off each cache's ``slabs_made``, if it has them.

    One recorder counts those that it makes itself, once the caches are shrunk and it closes down,
    but slabs given back until then only.
    """
    slabs = read_arrays(folder / "slabs.parquet", {"cache": "i", "t_alloc": "i"})
    made = (slabs["t_alloc"] >= 0) & (slabs["cache"] >= 0) & (slabs["cache"] < len(names))
    late = made & (slabs["t_alloc"] > end)
    counts = (np.bincount(slabs["cache"][part], minlength=len(names)) for part in (made, late))
    for name, whole, after in zip(names, *counts, strict=True):
        if name in caches and caches[name]["slabs_made"] == whole:
            caches[name]["slabs_made"] -= int(after)


def read_capture_truth(folder: str | Path) -> Truth:
    """Readings of a capture folder; what may be scored follows its ``truth.json``.

    Raises UsageProblem naming the file, the field and what was expected.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    manifest, truth = read_json(path), read_json(folder / "truth.json")
    names = np.array([row["name"] for row in slab_caches(path, manifest)], object)
    orders = [field(path, row, "order", int) for row in slab_caches(path, manifest)]
    groups = np.array(items(path, manifest, "memcgs", str), object)
    caches = {}
    order_of = dict(zip(names, orders, strict=True))
    for name, row in field(folder / "truth.json", truth, "caches", dict).items():
        if name in order_of:
            keys = ("scoreable", "live_start", "live_end", "slabs_made", "slabs_gone")
            caches[name] = {"order": order_of[name], **{key: row.get(key) for key in keys}}
    dump_t = items(path, manifest, "dump_t", int, 2)
    _end_made_with_the_workload(folder, caches, names, int(dump_t[1]))
    fit = {name for name, row in caches.items() if row["scoreable"]}
    fit_groups = {
        name
        for name, row in field(folder / "truth.json", truth, "memcgs", dict).items()
        if row.get("scoreable")
    }
    columns = ("t", "t_sysfs", "cache", "active_objs", "num_slabs", "partial_slabs")
    snaps = read_arrays(folder / "snapshots.parquet", dict.fromkeys(columns, "i"))
    kmem = read_arrays(
        folder / "memcgs.parquet", dict.fromkeys(("t0", "t1", "memcg", "kmem_usage"), "i")
    )
    if int(kmem["memcg"].max(initial=-1)) >= len(groups):
        raise UsageProblem(
            f"{folder / 'memcgs.parquet'}: column memcg holds {int(kmem['memcg'].max())};"
            f" expected below {len(groups)}"
        )
    known = snaps["cache"] < len(names)
    snaps = {name: values[known] for name, values in snaps.items()}
    item = names[snaps["cache"]]
    sysfs = snaps["t_sysfs"] >= 0
    # the recorder's last reading is made while it is closing down, after its last look at the lists
    end = int(dump_t[-1])
    frames = [
        _readings(SLABS, item, snaps["t"], snaps["num_slabs"], fit, end),
        _readings(ACTIVE, item, snaps["t"], snaps["active_objs"], fit, end),
        _readings(
            PARTIAL, item[sysfs], snaps["t_sysfs"][sysfs], snaps["partial_slabs"][sysfs], fit,
            end,
        ),
        _readings(
            KMEM, groups[kmem["memcg"]], reading_times(kmem["t0"], kmem["t1"]),
            kmem["kmem_usage"], fit_groups, end,
        ),
    ]  # fmt: skip
    aux = read_table(folder / "aux.parquet", {"a0": "i", "ev": "s", "s": "s"})
    events = pl.DataFrame(aux).with_columns(pl.col("ev", "s").cast(pl.String))
    ours = pl.col("s").is_in(list(groups))
    removed = events.filter((pl.col("ev") == "cgroup_rmdir") & ours)["a0"]
    released = events.filter(pl.col("ev") == "cgroup_release")["a0"]
    totals = {
        "t_end": int(dump_t[1]),
        "zombies_end": len(set(removed) - set(released)),
        "t_shrink": manifest.get("t_final_shrink"),
    }
    return Truth(field(path, manifest, "name", str), pl.concat(frames), caches, totals)


def write_truth(truth: Truth, path: str | Path) -> Path:
    """Write the readings beside the trace file `path`; returns where."""
    path = truth_path(path)
    table = truth.readings.to_arrow().cast(
        pa.schema(
            [
                ("kind", pa.dictionary(pa.int32(), pa.string())),
                ("item", pa.dictionary(pa.int32(), pa.string())),
                ("t", pa.int64()),
                ("real", pa.int64()),
                ("scored", pa.bool_()),
            ]
        )
    )
    document = {"name": truth.name, "caches": truth.caches, "totals": truth.totals}
    table = table.replace_schema_metadata({_KEY: json.dumps(document, sort_keys=True)})
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, partial, compression="zstd", compression_level=9)
        os.replace(partial, path)
    except OSError as err:
        raise UsageProblem(f"{path}: cannot be written ({err.strerror or err})") from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_truth(path: str | Path) -> Truth:
    """Readings that belong to a capture folder or to a trace file.

    Raises UsageProblem when there are none, or when the file is not what it should be.
    """
    path = Path(path)
    if path.is_dir():
        return read_capture_truth(path)
    if path.name.endswith(SUFFIX):
        path = truth_path(path)
    table = read_table(path, _COLUMNS | {"scored": "b"})
    with open_parquet(path) as file:
        text = (file.metadata.metadata or {}).get(_KEY)
    try:
        document = json.loads(text)
        name, caches, totals = document["name"], document["caches"], document["totals"]
    except (TypeError, ValueError, KeyError):
        raise UsageProblem(f"{path}: no metadata {_KEY.decode()}; expected readings") from None
    readings = pl.DataFrame(table).with_columns(
        pl.col("kind").cast(pl.String), pl.col("item").cast(pl.String)
    )
    return Truth(name, readings, caches, totals)
