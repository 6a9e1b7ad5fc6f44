"""A tiny capture folder, written row by row, for the tests of the importer."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kmbench.core import events as ev

ALLOC, FREE, KMALLOC, KFREE = 0, 1, 2, 3  # ops of events.parquet
ACCOUNT = ev.GFP_ACCOUNT
CACHES = (
    "dentry",
    "task_struct",
    "mm_struct",
    "kmalloc-64",
    "kmalloc-8",
    "eventpoll_epi",
    "ep_head",
)
GROUPS = ("/", "/ctl", "/job")
SITES = (
    "d_alloc",
    "alloc_slab_obj_exts+0x58",
    "kernfs_fop_write_iter+0xe4",
    "mm_alloc+0x16",
    "fork",
    "rcu_do_batch+0x1b7",
    "__free_slab+0x8d",
)
EVENTS = dict.fromkeys(
    ("t", "op", "cpu", "pid", "memcg", "ctx", "cache", "obj", "req", "gfp", "site", "flags"), 0
)
PAGES = dict.fromkeys(("t", "op", "page", "order", "cpu", "pid", "memcg", "ctx"), 0)
AUX = dict.fromkeys(("t", "cpu", "pid", "memcg", "ctx", "a0", "a1", "a2", "a3"), 0) | {
    "ev": "", "s": "",
}  # fmt: skip
SLABS = dict.fromkeys(("slab", "cache", "pfn", "t_alloc"), 0) | {"vector0": -1}
DUMP = dict.fromkeys(("dump", "cache", "pfn", "inuse", "objects", "where", "cpu"), 0) | {
    "vector": -1,
}  # fmt: skip
SNAPS = dict.fromkeys(
    ("t", "t_sysfs", "cache", "active_objs", "num_slabs", "partial_slabs", "cpu_partial_slabs",
     "cpu_slabs"), 0,
)  # fmt: skip
MEMCGS = dict.fromkeys(("t0", "t1", "memcg", "kmem_usage"), 0)
TABLES = {
    "events": EVENTS, "pages": PAGES, "aux": AUX, "slabs": SLABS, "slabdump": DUMP,
    "snapshots": SNAPS, "memcgs": MEMCGS,
}  # fmt: skip


def cache_row(number: int, name: str, sheaf: int = 0) -> dict:
    return {
        "id": number, "name": name, "size": 192, "object_size": 192, "order": 0,
        "objs_per_slab": 21, "cpu_partial": 120, "min_partial": 5, "sheaf_capacity": sheaf,
        "reclaim_account": 0, "typesafe_rcu": 0, "hwcache_align": 0,
    }  # fmt: skip


def write_capture(folder: Path, *, dumps=None, sheaf=0, manifest=None, truth=None, **tables):
    """Write a capture; `tables` holds lists of rows, with what is not given taken as 0."""
    folder.mkdir(parents=True, exist_ok=True)
    empty = {"slabs": 0, "sheaf_objs": 0, "rcu_sheaf_objs": 0, "live": 0}
    document = {
        "name": folder.name,
        "caches": [cache_row(i, name, sheaf if i == 0 else 0) for i, name in enumerate(CACHES)]
        + [{"id": len(CACHES), "name": "kmalloc-large", "size": None}],
        "memcgs": list(GROUPS),
        "sites": list(SITES),
        "dumps": {name: [empty | (dumps or {}).get(name, {})] for name in CACHES},
        "dump_t": [-1, 900_000, 990_000],
        "t_final_shrink": 950_000,
        "nproc": 2,
        "memtotal_kb": 1 << 20,
    } | (manifest or {})
    (folder / "manifest.json").write_text(json.dumps(document))
    (folder / "truth.json").write_text(json.dumps(truth or {"caches": {}, "memcgs": {}}))
    for name, defaults in TABLES.items():
        rows = [defaults | row for row in tables.get(name, [])]
        columns = {
            key: pa.array([row[key] for row in rows], pa.string() if value == "" else pa.int64())
            for key, value in defaults.items()
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def ops(capture):
    """(op, t, handle) of the events that name an object."""
    rows = capture.events[capture.events["op"] <= ev.PERCPU_FREE]
    return [(ev.OP_NAMES[row["op"]], int(row["t"]), int(row["obj"])) for row in rows]


def of_op(capture, op):
    return capture.events[capture.events["op"] == op]
