"""Recorded events as columns: from ring-buffer pages to one table in time order."""

from typing import NamedTuple

import numpy as np

from kmbench.trace.record.ring import hash_texts, parse_pages
from kmbench.trace.record.tracefs import Format, read_words

# kinds; the first four are the `op` of events.parquet
CACHE_ALLOC, CACHE_FREE, KMALLOC, KFREE, PAGE_ALLOC, PAGE_FREE = range(6)
FORK, EXIT, ATTACH, MKDIR, RMDIR, RELEASE = range(6, 12)
SHRINK_START, SHRINK_END, PERCPU_ALLOC, PERCPU_FREE, MARKER, KMEM = range(12, 18)
KINDS = {
    "kmem_cache_alloc": CACHE_ALLOC, "kmem_cache_free": CACHE_FREE, "kmalloc": KMALLOC,
    "kfree": KFREE, "mm_page_alloc": PAGE_ALLOC, "mm_page_free": PAGE_FREE,
    "sched_process_fork": FORK, "sched_process_exit": EXIT, "cgroup_attach_task": ATTACH,
    "cgroup_mkdir": MKDIR, "cgroup_rmdir": RMDIR, "cgroup_release": RELEASE,
    "mm_shrink_slab_start": SHRINK_START, "mm_shrink_slab_end": SHRINK_END,
    "percpu_alloc_percpu": PERCPU_ALLOC, "percpu_free_percpu": PERCPU_FREE, "print": MARKER,
    "mod_memcg_state": KMEM,
}  # fmt: skip
# columns of a Table taken from an event's fields, per kind: ptr, size, req, gfp, site, a, b
_FIELDS = {
    CACHE_ALLOC: {"ptr": "ptr", "size": "bytes_alloc", "req": "bytes_req", "gfp": "gfp_flags",
                  "site": "call_site", "a": "accounted"},
    CACHE_FREE: {"ptr": "ptr", "site": "call_site"},
    KMALLOC: {"ptr": "ptr", "size": "bytes_alloc", "req": "bytes_req", "gfp": "gfp_flags",
              "site": "call_site"},
    KFREE: {"ptr": "ptr", "site": "call_site"},
    PAGE_ALLOC: {"ptr": "pfn", "size": "order", "gfp": "gfp_flags"},
    PAGE_FREE: {"ptr": "pfn", "size": "order"},
    FORK: {"a": "parent_pid", "b": "child_pid"},
    EXIT: {"a": "pid", "b": "group_dead"},
    ATTACH: {"ptr": "dst_id", "a": "pid", "b": "dst_root"},
    MKDIR: {"ptr": "id", "b": "root"},
    RMDIR: {"ptr": "id", "b": "root"},
    RELEASE: {"ptr": "id", "b": "root"},
    SHRINK_START: {"a": "nr_objects_to_shrink", "b": "cache_items", "size": "total_scan",
                   "req": "priority", "site": "shrink"},
    SHRINK_END: {"a": "unused_scan", "b": "new_scan", "size": "retval", "req": "total_scan",
                 "site": "shrink"},
    PERCPU_ALLOC: {"ptr": "ptr", "size": "bytes_alloc", "req": "size", "gfp": "gfp_flags",
                   "site": "call_site"},
    PERCPU_FREE: {"ptr": "ptr"},
    MARKER: {},
    KMEM: {"ptr": "id", "a": "item", "b": "val"},
}  # fmt: skip
_NAMED = {CACHE_ALLOC: "name", CACHE_FREE: "name"}
_TEXTS = {FORK: "child_comm", ATTACH: "dst_path", MKDIR: "path", RMDIR: "path", RELEASE: "path",
          MARKER: "buf"}  # fmt: skip
_NUMBERS = ("ptr", "size", "req", "gfp", "site", "a", "b")
# common_flags (include/linux/trace_events.h: enum trace_flag_type) -> ctx of events.parquet
_CONTEXT = ((0x08, 1), (0x10, 2), (0x40, 4), (0x80, 16), (0x01, 32))


class Table(NamedTuple):
    """Events of all kinds in time order; unused columns are 0."""

    t: np.ndarray  # i8, CLOCK_MONOTONIC ns
    kind: np.ndarray  # u1
    cpu: np.ndarray  # u1
    pid: np.ndarray  # i4
    ctx: np.ndarray  # u1, without the bit for kernel threads
    ptr: np.ndarray  # i8: object, page frame, cgroup id
    size: np.ndarray  # i8
    req: np.ndarray  # i8
    gfp: np.ndarray  # i8
    site: np.ndarray  # i8
    a: np.ndarray  # i8
    b: np.ndarray  # i8
    name: np.ndarray  # i4, index into `names`, -1 without
    names: list[str]
    texts: dict[int, str]  # row -> text, of the kinds that have one
    missed: int  # pages before which events were lost


def contexts(flags: np.ndarray) -> np.ndarray:
    """ctx bits (u1) of events from their common_flags (u1)."""
    out = np.zeros(len(flags), np.uint8)
    for bit, meaning in _CONTEXT:
        out |= np.where(flags & bit, meaning, 0).astype(np.uint8)
    return out


def _text_at(data: np.ndarray, at: int) -> str:
    end = at
    while end < len(data) and data[end]:
        end += 1
    return data[at:end].tobytes().decode("utf-8", "replace")


def build_table(pages: dict[int, bytes], formats: dict[str, Format], page_bytes: int) -> Table:
    """All events of the ring buffers `pages` (cpu -> pages), merged by time.

    Times are equal to those of the trace clock; events of one CPU keep their order.
    """
    by_id = {form.id: form for form in formats.values() if form.name in KINDS}
    kind_of = np.full(1 << 16, 255, np.uint8)
    for number, form in by_id.items():
        kind_of[number] = KINDS[form.name]
    parts, names, texts, missed, base = [], {}, [], 0, 0
    for cpu, blob in sorted(pages.items()):
        data = np.frombuffer(blob, np.uint8)
        entries = parse_pages(data, page_bytes)
        missed += entries.missed
        kind = kind_of[read_words(data, entries.at, 2)]
        known = kind != 255
        t, at, kind = entries.t[known], entries.at[known], kind[known]
        part = {name: np.zeros(len(t), np.int64) for name in _NUMBERS}
        part |= {"t": t, "kind": kind, "cpu": np.full(len(t), cpu, np.uint8)}
        part["pid"] = read_words(data, at + 4, 4).astype(np.int32)
        part["ctx"] = contexts(data[at + 2])
        part["name"] = np.full(len(t), -1, np.int32)
        for form in by_id.values():
            rows = np.flatnonzero(kind == KINDS[form.name])
            _fill(part, data, at, rows, form, names)
            field = _TEXTS.get(KINDS[form.name])
            if field:
                texts += [(base + int(row), _text_of(data, int(at[row]), form, field))
                          for row in rows]  # fmt: skip
        parts.append(part)
        base += len(t)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["t"], kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    columns = {name: values[order] for name, values in columns.items()}
    return Table(**columns, names=list(names), missed=missed,
                 texts={int(rank[row]): text for row, text in texts})  # fmt: skip


def _text_of(data: np.ndarray, at: int, form: Format, field: str) -> str:
    where, size = form.fields[field]
    if size == 4:  # __data_loc: length and offset of the text
        where = int(read_words(data, np.array([at + where]), 2)[0])
    return _text_at(data, at + where)


def _fill(part, data, at, rows, form: Format, names: dict[str, int]) -> None:
    """Columns of the events `rows`, all of one format; `names` grows."""
    kind = KINDS[form.name]
    for column, field in _FIELDS[kind].items():
        if field in form.fields and len(rows):
            where, size = form.fields[field]
            part[column][rows] = read_words(data, at[rows] + where, size)
    if len(rows) and _NAMED.get(kind) in form.fields:
        where, _ = form.fields[_NAMED[kind]]
        text = at[rows] + read_words(data, at[rows] + where, 2)
        _, first, inverse = np.unique(hash_texts(data, text, 64), return_index=True,
                                      return_inverse=True)  # fmt: skip
        found = [_text_at(data, int(text[row])) for row in first]
        ids = np.array([names.setdefault(name, len(names)) for name in found], np.int32)
        part["name"][rows] = ids[inverse]
