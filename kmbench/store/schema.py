"""Arrow schemas of the result tables, with unit, meaning and direction on every field.

The version changes only when old files can no longer be read as they are.  Columns may be added
without a new version: readers fill what a file lacks with nulls and pass over what they do not
know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from kmbench.core.events import FAIL_NAMES
from kmbench.errors import KmbenchError
from kmbench.store.catalogue import METRICS, STORED

__all__ = [
    "CALLS", "LINE_VECTOR", "SCHEMA_VERSION", "TABLES", "VECTOR", "arrow_schema", "make_row",
    "make_table", "polars_schema", "schema_of",
]  # fmt: skip

SCHEMA_VERSION = 1
VERSION_KEY = b"kmbench.schema"
TABLE_KEY = b"kmbench.table"

INT = pa.int64()
FLOAT = pa.float64()
TEXT = pa.string()
LABEL = pa.dictionary(pa.int32(), pa.string())  # few values, many rows
BOOL = pa.bool_()
TIME = pa.timestamp("us", tz="UTC")


class Field(NamedTuple):
    """One column: its Arrow type and what a reader must know to use it."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    optional: bool = False
    """A writer may leave it out; it then reads as null."""
    direction: str = ""


RUN_ID = Field("run_id", LABEL, "", "content hash of scenario, strategy, seed, versions and trace")

VECTOR = ("br", "ptr", "pcpu", "cas", "rcu", "irq", "atom", "spin", "alloc", "work")
"""Kinds of operations that `ops` counts; together they are one "op" in metrics."""

LINE_VECTOR = ("near", "far", "wait")
"""Kinds of operations that depend on which CPU was there before; they are no "op"."""

CALLS = ("call",)
"""Function calls, which are code and not data: no "op" either, but they have a price."""

_VECTOR_WORDS = {
    "br": "branches", "ptr": "dependent loads", "pcpu": "per-CPU operations",
    "cas": "per-CPU cmpxchg", "rcu": "RCU read sections", "irq": "interrupt off/on pairs",
    "atom": "atomics on shared lines", "spin": "spinlock acquisitions",
    "alloc": "nested allocations", "work": "work items queued",
    "near": "shared lines fetched from another CPU of the node",
    "far": "shared lines fetched from another node", "wait": "locks that had to be waited for",
    "call": "function calls",
}  # fmt: skip

_RUNS = (
    Field("scenario", TEXT, "", "name of the scenario"),
    Field("scenario_params", TEXT, "json", "parameters set on the scenario", optional=True),
    Field("strategy", TEXT, "", "name of the accounting strategy"),
    Field("strategy_params", TEXT, "json", "parameters of the strategy"),
    Field("allocator", TEXT, "", "slab allocator"),
    Field("era", TEXT, "", "kernel release whose allocator and counters are modelled"),
    Field("seed", INT, "", "seed of every random stream of the run"),
    Field("workload", TEXT, "", "name of the workload or trace"),
    Field("workload_hash", TEXT, "", "hash of what the workload does; equal in paired runs"),
    Field("trace_hash", TEXT, "", "hash of the trace file", optional=True),
    Field("versions", TEXT, "json", "versions of kmbench and of the plugins that took part"),
    Field("hardware", TEXT, "", "hardware profile that ns are of: its name and content hash"),
    Field("cpus", INT, "count", "CPUs of the modelled machine"),
    Field("nodes", INT, "count", "its nodes", optional=True),
    Field(
        "running", INT, "count", "CPUs that run the workload at once, if it says so", optional=True
    ),
    Field("think_ns", INT, "ns", "what each of them does besides, per allocation", optional=True),
    Field("busy", INT, "count", "CPUs that they keep busy in all", optional=True),
    Field(
        "lines",
        TEXT,
        "json",
        "where `running` is told, shared lines that moved, those most in demand first; of each, "
        "per allocation: moves within a node, moves between nodes, visits, those that wrote it, "
        "of these right after such a visit of the same CPU, visits that read it first, of these "
        "right after a visit of the same CPU; then the share of CPUs that use it.  The last one "
        "may stand for all others, with no visits and no share",
        optional=True,
    ),
    Field("groups", INT, "count", "memory control groups, the root included"),
    Field("events", INT, "count", "events of the stream"),
    Field("allocs", INT, "count", "allocations that succeeded"),
    Field("frees", INT, "count", "objects freed"),
    Field("failed_allocs", INT, "count", METRICS["failed_allocs"].definition, False, "lower"),
    *(
        Field(f"failed_{cause}", INT, "count", f"operations that failed: {cause}", True, "lower")
        for cause in FAIL_NAMES[1:]
    ),
    Field("skipped", INT, "count", "events that made no sense and were passed over"),
    Field("status", TEXT, "", "ok, or failed"),
    Field("error", TEXT, "", "one line, when failed", optional=True),
    Field("traceback", TEXT, "", "where it failed, as Python tells it", optional=True),
    *(
        Field(m.name, FLOAT, m.unit, m.definition, True, m.direction or "")
        for m in STORED
        if m.name != "failed_allocs"
    ),
    Field("model_ns", INT, "ns", "modelled time from the first to the last event"),
)

_TIMELINE = (
    Field("t", INT, "ns", "model time of the sample"),
    Field("sample", INT, "", "number of the sample, from 0"),
    Field("memcg", INT, "", "row of the group; 1 = root"),
    Field("group", LABEL, "", "path of the group"),
    Field("parent", INT, "", "row of the parent group; 0 for the root"),
    Field(
        "state",
        INT,
        "",
        "0 online, 1 removed, still referenced (zombie), 2 gone but for its objects",
    ),
    Field("kmem_usage", INT, "B", "kmem counter, descendants included"),
    Field("kmem_max_usage", INT, "B", "its highest value so far"),
    Field("kmem_failcnt", INT, "count", "charges it refused", False, "lower"),
    Field("kmem_limit", INT, "B", "its limit; -1 = unlimited", optional=True),
    Field("memory_usage", INT, "B", "memory counter, descendants included"),
    Field("memory_failcnt", INT, "count", "charges it refused", False, "lower"),
    Field("memory_limit", INT, "B", "its limit; -1 = unlimited", optional=True),
    Field("stock", INT, "B", "charged in advance, in the page stocks of CPUs"),
    Field("byte_stock", INT, "B", "charged in advance, in byte stocks and the group's left-overs"),
    Field("true_slab", INT, "B", "slots of live objects its own tasks allocated"),
    Field("true_pages", INT, "B", "kernel pages and per-CPU bytes its own tasks allocated"),
    Field("billed_slab", INT, "B", "slots of live objects billed to it"),
    Field("billed_pages", INT, "B", "kernel pages and per-CPU bytes billed to it", optional=True),
    Field("objects", INT, "count", "live objects its own tasks allocated"),
    Field(
        "memory_kernel",
        INT,
        "B",
        "the memory counter less user pages and page stocks: kernel memory, descendants included",
        optional=True,
    ),
)

_CACHES = (
    Field("t", INT, "ns", "model time of the sample"),
    Field("sample", INT, "", "number of the sample, from 0"),
    Field("cache", INT, "", "row of the cache"),
    Field("name", LABEL, "", "name as in /proc/slabinfo; copies carry their group"),
    Field("root", INT, "", "row of the cache this one copies; 0 = none"),
    Field("memcg", INT, "", "row of the group whose copy this is; 0 = shared"),
    Field("object_size", INT, "B", "bytes of an object"),
    Field("size", INT, "B", "bytes of a slot: object, padding and metadata"),
    Field("objs_per_slab", INT, "count", "objects of a slab of the usual order"),
    Field("pages_per_slab", INT, "pages", "pages of a slab of the usual order"),
    Field("active_objs", INT, "count", "objects not free on a node's lists (slabinfo)"),
    Field("num_objs", INT, "count", "objects of all slabs"),
    Field("num_slabs", INT, "count", "slabs", False, "lower"),
    Field("slab_bytes", INT, "B", "bytes of its slabs, each at the usual order", True, "lower"),
    Field("live_objs", INT, "count", "objects really in use"),
    Field("node_partial", INT, "count", "slabs on node partial lists (slabs_partial of SLAB)"),
    Field("cpu_partial", INT, "count", "slabs on CPU partial lists"),
    Field("cpu_slabs", INT, "count", "slabs in use by a CPU"),
    Field("idle", INT, "B", "free slab memory kept back (metric W7)", False, "lower"),
    Field("requested", INT, "B", "bytes asked for by live objects"),
    Field("slabs_made", INT, "count", "slabs made since the start", optional=True),
    Field("slabs_gone", INT, "count", "slabs given back since the start", optional=True),
    Field("state", INT, "", "0 in use, 1 dead: a copy whose group was removed", optional=True),
    Field("free_slabs", INT, "count", "SLAB: slabs without objects in use, kept", optional=True),
    Field("limit", INT, "count", "SLAB: objects that a CPU's array may hold", optional=True),
    Field("batchcount", INT, "count", "SLAB: objects moved at a time", optional=True),
    Field("shared_factor", INT, "count", "SLAB: batches a shared array may hold", optional=True),
    Field("shared_avail", INT, "count", "SLAB: objects in shared arrays", optional=True),
    Field("partial_nodes", INT, "", "nodes with partial slabs: bit n for node n", optional=True),
)

_OPS = (
    Field("path", LABEL, "", "code path"),
    Field("phase", LABEL, "", "alloc, free, slab, page, charge, line, group or reclaim"),
    Field("count", INT, "count", "times the path was taken"),
    *(
        Field(v, INT, "count", f"{_VECTOR_WORDS[v]}, total over the run", False, "lower")
        for v in VECTOR
    ),
    *(
        Field(v, INT, "count", f"{_VECTOR_WORDS[v]}, total over the run", True, "lower")
        for v in (*LINE_VECTOR, *CALLS)
    ),
    Field("lock_wait", INT, "ns", "waited for locks, total over the run", True, "lower"),
)

_ACCESSES = (
    Field("memcg", INT, "", "row of the group"),
    Field("group", LABEL, "", "path of the group"),
    Field("phase", INT, "", "phase of the run, begun by a mark"),
    Field("accesses", INT, "count", "look-ups of cached objects"),
    Field("hits", INT, "count", "those that found it", False, "higher"),
    Field("failed", INT, "count", "those that failed (ENOMEM)", False, "lower"),
    Field("returned", INT, "count", "misses of objects that reclaim had evicted", False, "lower"),
    Field("busy", INT, "ns", "time of accesses and page faults, stalls included", False, "lower"),
    Field("p50", INT, "ns", "median time of one, to a power of two", False, "lower"),
    Field("p99", INT, "ns", "99th percentile", False, "lower"),
    Field("p999", INT, "ns", "99.9th percentile", False, "lower"),
)

_LATENCY = (
    Field("memcg", INT, "", "row of the group whose task did it; 0: not told"),
    Field("group", LABEL, "", "path of the group"),
    Field("op", LABEL, "", "alloc or free"),
    Field("low", INT, "ns", "least model time that the bucket counts"),
    Field("high", INT, "ns", "and the least that it does not"),
    Field("count", INT, "count", "operations whose counted paths took that long"),
)

_FAILURES = (
    Field("t", INT, "ns", "model time"),
    Field("op", LABEL, "", "operation of the stream"),
    Field("memcg", INT, "", "row of the group"),
    Field("cache", INT, "", "row of the cache, or kind of the pages"),
    Field("gfp", INT, "", "gfp flags and context bits of the event"),
    Field("arg", INT, "", "argument of the event"),
    Field("cause", LABEL, "", "why: " + ", ".join(FAIL_NAMES[1:])),
)

_TIMING = (
    Field("events", INT, "count", "events of the stream"),
    Field("engine_s", FLOAT, "s", "in the compiled engine", False, "lower"),
    Field("reader_s", FLOAT, "s", "reading and decoding events", False, "lower"),
    Field("compile_s", FLOAT, "s", "compiling, or loading compiled code", False, "lower"),
    Field("cache_hit", BOOL, "", "the compiled engine came from the cache on disk"),
    Field("total_s", FLOAT, "s", "whole run, writing included", False, "lower"),
    Field("events_per_s", FLOAT, "events/s", METRICS["events_per_s"].definition, False, "higher"),
    Field("host", TEXT, "", "platform and processor that ran the simulation"),
    Field("when", TIME, "", "when the run ended"),
)

TABLES: dict[str, tuple[Field, ...]] = {
    "timeline": (RUN_ID, *_TIMELINE),
    "caches": (RUN_ID, *_CACHES),
    "ops": (RUN_ID, *_OPS),
    "failures": (RUN_ID, *_FAILURES),
    "accesses": (RUN_ID, *_ACCESSES),
    "latency": (RUN_ID, *_LATENCY),
    "timing": (RUN_ID, *_TIMING),
    "runs": (RUN_ID, *_RUNS),
}
"""Columns of every table.  The order is the order of writing: ``runs`` is the proof, and last."""


@cache
def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of ``table`` with metadata on every field and the version on the whole."""
    return schema_of(table, TABLES[table])


def schema_of(table: str, columns: Sequence[Field]) -> pa.Schema:
    """The Arrow schema of a table ``table`` with these columns."""
    fields = []
    for field in columns:
        words = {"unit": field.unit, "meaning": field.meaning, "direction": field.direction}
        metadata = {key: value for key, value in words.items() if value}
        fields.append(pa.field(field.name, field.type, metadata=metadata))
    version = str(SCHEMA_VERSION).encode()
    return pa.schema(fields, metadata={VERSION_KEY: version, TABLE_KEY: table.encode()})


@cache
def polars_schema(table: str) -> pl.Schema:
    """The polars schema of ``table``; labels are ``Categorical``."""
    return pl.from_arrow(arrow_schema(table).empty_table()).schema  # type: ignore[union-attr]


def make_table(table: str, columns: Mapping[str, Any], run_id: str) -> pa.Table:
    """An Arrow table of ``table`` from columns; int64 and float64 NumPy arrays are not copied.

    ``columns`` maps names to arrays or lists of equal length; a label column may also be a pair
    ``(codes, names)``, names as a list or an Arrow array.  ``run_id`` fills the first column.
    Raises :class:`KmbenchError` when a column is unknown, is missing and not optional, or has
    another length than the rest.
    """
    schema = arrow_schema(table)
    extra = set(columns) - set(schema.names)
    if extra:
        raise KmbenchError(f"table {table}: unknown column {sorted(extra)[0]!r}")
    rows = {name: _length(value) for name, value in columns.items() if name != "run_id"}
    height = next(iter(rows.values()), 0)
    arrays = []
    for field in TABLES[table]:
        if field.name == "run_id":
            codes = pa.nulls(height, pa.int32()).fill_null(0)
            arrays.append(pa.DictionaryArray.from_arrays(codes, pa.array([run_id], TEXT)))
        elif field.name not in columns:
            if not field.optional:
                raise KmbenchError(f"table {table}: column {field.name!r} is missing")
            arrays.append(pa.nulls(height, field.type))
        elif rows[field.name] != height:
            raise KmbenchError(f"table {table}: column {field.name!r} has another length")
        else:
            arrays.append(_array(columns[field.name], field))
    return pa.Table.from_arrays(arrays, schema=schema)


def make_row(table: str, values: Mapping[str, Any], run_id: str) -> pa.Table:
    """The same for one row, from its values by column name: of many columns, made in one go."""
    schema = arrow_schema(table)
    if extra := values.keys() - set(schema.names):
        raise KmbenchError(f"table {table}: unknown column {min(extra)!r}")
    if missing := _needed(table) - values.keys():
        raise KmbenchError(f"table {table}: column {min(missing)!r} is missing")
    columns = pa.array([{**values, "run_id": run_id}], pa.struct(list(schema))).flatten()
    return pa.Table.from_arrays(columns, schema=schema)


@cache
def _needed(table: str) -> frozenset[str]:
    return frozenset(field.name for field in TABLES[table] if not field.optional) - {"run_id"}


def _length(value: Any) -> int:
    return len(value[0]) if isinstance(value, tuple) else len(value)


def _array(value: Any, field: Field) -> pa.Array | pa.ChunkedArray:
    if isinstance(value, tuple):
        codes, names = value
        codes = pa.array(codes).cast(pa.int32())
        names = names if isinstance(names, pa.Array) else pa.array(list(names), TEXT)
        return pa.DictionaryArray.from_arrays(codes, names)
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return value if value.type == field.type else value.cast(field.type)
    if field.type == LABEL:
        return pa.array(value, TEXT).dictionary_encode()
    return pa.array(value, field.type)
