"""From what was recorded to a capture folder: tables, manifest and truth."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kmbench.trace.buckets import buckets
from kmbench.trace.record import lifetimes as lt
from kmbench.trace.record import stream as st
from kmbench.trace.record.kmem import TRACED, KmemLevels
from kmbench.trace.record.owners import Attribution, Groups, attribute, groups_of
from kmbench.trace.record.raw import Recording
from kmbench.trace.record.slabs import CPU_FREELIST, UNKNOWN, Census, Dump
from kmbench.trace.record.snapshots import (
    failures,
    first_number,
    in_brackets,
    keyed,
    kmem_bytes,
    read_slabinfo,
    user_bytes,
)
from kmbench.trace.record.symbols import Symbols
from kmbench.trace.record.unnamed import name_allocations

LARGE = "kmalloc-large"
LARGEST = 8192  # bytes; kmalloc above that takes pages (KMALLOC_MAX_CACHE_SIZE)
_ACCOUNTED, _CHARGED = 1, 2
# an exiting task sends its parent's SIGCHLD after it has left its group; a new group's own memory
# is charged to its parent (mm/memcontrol.c:mem_cgroup_css_alloc)
_AFTER_EXIT, _FOR_PARENT = "__send_signal_locked", "mem_cgroup_css_alloc"


class Tables(NamedTuple):
    """A capture in memory: Arrow tables by file name, and the manifest."""

    tables: dict[str, pa.Table]
    manifest: dict[str, Any]


def _table(**columns: tuple[Any, str]) -> pa.Table:
    """Arrow table from (values, type name) pairs; "cat" is a dictionary of texts."""
    arrays, names = [], []
    for name, (values, kind) in columns.items():
        if kind == "cat":
            array = pa.array(list(values), pa.string()).dictionary_encode()
        elif isinstance(values, np.ndarray):
            array = pa.array(values.astype(kind))
        else:
            array = pa.array(values, pa.from_numpy_dtype(np.dtype(kind)))
        arrays.append(array)
        names.append(name)
    return pa.Table.from_arrays(arrays, names)


def _table_of_rows(rows: list[tuple], columns: tuple[str, ...], kinds: tuple[str, ...]) -> pa.Table:
    parts = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    typed = zip(parts, kinds, strict=True)
    return _table(**dict(zip(columns, ((list(part), kind) for part, kind in typed), strict=True)))


def _guess_caches(
    table: st.Table, names: list[str], symbols: Symbols
) -> tuple[np.ndarray, np.ndarray]:
    """Cache (i4) of every event by its name or size and caller, and which (rows) are messages.

    -1 is unknown, len(names) a large kmalloc.
    """
    ids = {name: row for row, name in enumerate(names)}
    by_name = np.array([ids.get(name, -1) for name in table.names] + [-1], np.int32)
    out = by_name[table.name]
    rows = np.flatnonzero(table.kind == st.KMALLOC)
    keys = np.stack([table.size[rows], table.gfp[rows] & (0x11 | lt.ACCOUNT)])
    unique, inverse = np.unique(keys, axis=1, return_inverse=True)
    guesses = [ids.get(name, -1) for name in lt.kmalloc_names(unique[0], unique[1])]
    guesses = np.where(unique[0] > LARGEST, len(names), np.array(guesses, np.int32).reshape(-1))
    callers, site = np.unique(table.site[rows], return_inverse=True)
    sites = [symbols.name(int(at) & (1 << 64) - 1) for at in callers]
    out[rows], messages = buckets(
        guesses[inverse.ravel()], site.ravel(), table.gfp[rows], table.req[rows], sites, names
    )
    return out, rows[messages]


def _rename_by_census(slabs: lt.Slabs, census, sizes: np.ndarray) -> None:
    """Slabs still there at the end, whose cache was only guessed from a size."""
    pfn, cache, _ = census
    if not len(pfn):
        return
    order = np.argsort(pfn)
    at = np.minimum(np.searchsorted(pfn[order], slabs.pfn), len(pfn) - 1)
    real = np.where(pfn[order][at] == slabs.pfn, cache[order][at], -1)
    same = (slabs.t_free < 0) & (real >= 0)
    same &= sizes[np.maximum(real, 0)] == sizes[slabs.cache]
    slabs.cache[same] = real[same]


def assemble(recording: Recording) -> Tables:
    """Build all tables of a capture."""
    symbols = Symbols(recording.symbols)
    table = st.build_table(recording.pages, recording.formats, recording.page_bytes)
    name_allocations(table, recording.caches)
    groups = groups_of(table, recording.tasks, recording.paths, recording.hierarchy.id)
    owner = attribute(table, recording.tasks, groups)
    traced = recording.manifest.get("kmem_source") == TRACED
    levels = KmemLevels(table, recording.hierarchy.id) if traced else None
    names = [row["name"] for row in recording.caches]
    sizes = np.array([row["size"] for row in recording.caches], np.int64)
    orders = np.array([row["order"] for row in recording.caches], np.int64)
    direct_map = recording.direct_map or lt.vote_direct_map(table)
    of_page = (table.kind == st.PAGE_ALLOC) | (table.kind == st.PAGE_FREE)
    # kfree(NULL) is traced and means nothing
    null = (table.kind <= st.KFREE) & (table.ptr == 0)
    kind = np.where(null, 255, table.kind).astype(np.uint8)
    cache, messages = _guess_caches(table, names, symbols)
    columns = {
        "t": table.t, "kind": kind, "cpu": table.cpu, "memcg": owner.memcg,
        "phys": np.where(of_page, table.ptr, table.ptr - _signed(direct_map)),
        "order": table.size, "accounted": table.gfp & lt.ACCOUNT != 0,
        "cache": cache,
    }  # fmt: skip
    lives = lt.track(columns, sizes, orders, recording.census[0])
    _rename_by_census(lives.slabs, recording.census[1], sizes)
    zero = recording.dumps[0].start
    sites = _Sites(symbols)
    # the trace point of kmalloc does not tell
    table.a[messages] = 1
    events, handles, quality = _events(recording, table, owner, lives, kind, zero, sites)
    hosts = [at for at, name in enumerate(groups.names) if name.startswith("/host")]
    memcg = events.column("memcg").to_numpy()
    quality["host_share"] = round(float(np.mean(np.isin(memcg, hosts))), 4) if len(memcg) else 0.0
    kept = handles.kept
    memcgs, stale = _memcg_table(recording, groups, zero, levels)
    if stale:
        quality["memory_stat_off_pages_mean"] = round(float(np.mean(np.abs(stale))) / 4096, 3)
        quality["memory_stat_off_pages_worst"] = max(map(abs, stale)) // 4096
    aux = _aux(table, owner, groups, symbols, zero)
    manifest = _manifest(recording, table, owner, groups, lives, events, zero, quality)
    manifest["dropped_null_ptr"] = int(np.count_nonzero(null))
    manifest["sites"] = sites.names
    tables = {
        "events": events,
        "slabs": _slab_table(recording, lives.slabs, kept, handles.first, zero),
        "slabdump": _dump_table(recording.dumps),
        "snapshots": _snapshot_table(recording, names, zero),
        "memcgs": memcgs,
        "pages": _page_table(table, owner, lives.pages, zero),
        "aux": aux,
        "globals": _global_table(recording, zero),
    }
    return Tables(tables, manifest)


def _signed(address: int) -> int:
    return address - (1 << 64) if address >> 63 else address


class _Sites:
    """Call sites in the order in which they are first named."""

    def __init__(self, symbols: Symbols):
        self._symbols = symbols
        self.names: list[str] = []

    def ids(self, addresses: np.ndarray) -> np.ndarray:
        """Index (i4) per address."""
        unique, inverse = np.unique(addresses, return_inverse=True)
        texts = [self._symbols.name(int(at) & (1 << 64) - 1) for at in unique]
        seen = {text: row for row, text in enumerate(dict.fromkeys([*self.names, *texts]))}
        self.names = list(seen)
        return np.array([seen[text] for text in texts], np.int32)[inverse]


class _Handles(NamedTuple):
    kept: np.ndarray  # i4: rows of Slabs that are in the capture, in order
    first: np.ndarray  # i8 per slab row: from when on its cache's events count


def _events(recording, table, owner: Attribution, lives, kind, zero, sites):
    """events.parquet, the handles, and counts for `quality`."""
    caches = len(recording.caches)
    cut = np.append(recording.dumps[0].cache_t, [zero, zero])  # large; unknown is the last
    row = lives.row
    cache = np.where(row >= 0, lives.slabs.cache[np.maximum(row, 0)], -1)
    large = (row < -1) & (kind == st.KMALLOC)
    cache[large] = caches
    freed_large = (row < -1) & np.isin(row, row[large])
    cache[freed_large] = caches
    rows = np.flatnonzero((kind <= st.KFREE) & (table.t >= cut[cache]) & (row != -1))
    kept = np.unique(row[rows])
    kept = kept[kept >= 0]
    # in order of first appearance
    first_seen = np.full(len(lives.slabs.pfn) + 1, len(rows), np.int64)
    of_slab = row[rows] >= 0
    np.minimum.at(first_seen, row[rows][of_slab], np.flatnonzero(of_slab))
    kept = kept[np.argsort(first_seen[kept], kind="stable")]
    number = np.full(len(lives.slabs.pfn) + 1, -1, np.int64)
    number[kept] = np.arange(len(kept))
    mine = row[rows].astype(np.int64)
    other = np.unique(mine[mine < -1])
    obj = np.where(
        mine >= 0,
        number[np.maximum(mine, 0)] << lt.SHIFT | lives.slot[rows],
        (len(kept) << lt.SHIFT) + np.searchsorted(other, mine),
    )
    is_free = kind[rows] & 1 == 1
    flags = lt.object_flags(obj, is_free, int(obj.max(initial=0)) + 1)
    gfp = table.gfp[rows]
    accounted = ~is_free & ((gfp & lt.ACCOUNT != 0) | (table.a[rows] != 0))
    memcg, ctx = owner.memcg[rows], owner.ctx[rows]
    site = sites.ids(table.site[rows])
    charged = accounted & (ctx & 0x0F == 0) & (memcg > 0)
    for prefix, only in ((_AFTER_EXIT, owner.exiting[rows]), (_FOR_PARENT, True)):
        named = np.array([name.startswith(prefix) for name in sites.names] + [False])
        charged &= ~(named[site] & only)
    flags |= np.where(accounted, _ACCOUNTED, 0).astype(np.uint8)
    flags |= np.where(charged, _CHARGED, 0).astype(np.uint8)
    flags |= np.where(cache[rows] < 0, lt.UNKNOWN, 0).astype(np.uint8)
    events = _table(
        t=(table.t[rows] - zero, "i8"), op=(kind[rows], "u1"), cpu=(table.cpu[rows], "u1"),
        pid=(table.pid[rows], "i4"), memcg=(memcg, "i2"), ctx=(ctx, "u1"),
        cache=(cache[rows], "i2"), obj=(obj, "i4"),
        req=(np.where(kind[rows] == st.KMALLOC, table.req[rows], 0), "i4"),
        size=(np.where(is_free, 0, table.size[rows]), "i4"), gfp=(np.where(is_free, 0, gfp), "i4"),
        site=(site, "i2"), flags=(flags, "u1"),
    )  # fmt: skip
    quality = {
        "events_of_known_task": round(float(np.mean(owner.known[rows])), 6) if len(rows) else 1.0,
        "first_event_is_free": int(np.count_nonzero(flags & lt.FIRST_FREE)),
        "untraced_free_before_alloc": int(np.count_nonzero(flags & lt.LOST_FREE)),
        "untraced_alloc_before_free": int(np.count_nonzero(flags & lt.LOST_ALLOC)),
    }  # fmt: skip
    return events, _Handles(kept, cut[lives.slabs.cache]), quality


def _slab_table(recording, slabs: lt.Slabs, kept, first, zero) -> pa.Table:
    before = slabs.t_alloc[kept] < first[kept]
    listed = recording.dumps[0].listed
    listed = listed[listed["where"] != CPU_FREELIST]
    inuse = dict(zip(listed["pfn"].tolist(), listed["inuse"].tolist(), strict=True))
    census = recording.census[0]
    # a slab that is full gets no vector any more; of the listed ones the later look tells
    has = dict(zip(census.pfn.tolist(), census.vector.tolist(), strict=True))
    has |= dict(zip(listed["pfn"].tolist(), listed["vector"].tolist(), strict=True))
    vector = [has.get(int(pfn), UNKNOWN) if old else UNKNOWN
              for pfn, old in zip(slabs.pfn[kept], before, strict=True)]  # fmt: skip
    start = [inuse.get(int(pfn), -1) if old else -1
             for pfn, old in zip(slabs.pfn[kept], before, strict=True)]  # fmt: skip
    return _table(
        slab=(np.arange(len(kept)), "i4"), cache=(slabs.cache[kept], "i2"),
        pfn=(slabs.pfn[kept], "i4"),
        t_alloc=(np.where(before, -1, slabs.t_alloc[kept] - zero), "i8"),
        t_free=(np.where(slabs.t_free[kept] < 0, -1, slabs.t_free[kept] - zero), "i8"),
        cpu=(np.where(before, -1, slabs.cpu[kept]), "i1"),
        memcg=(np.where(before, -1, slabs.memcg[kept]), "i2"), inuse0=(np.array(start), "i2"),
        vector0=(np.array(vector), "i1"),
    )  # fmt: skip


def _dump_table(dumps: tuple[Dump, ...]) -> pa.Table:
    number = np.concatenate([np.full(len(d.listed), at) for at, d in enumerate(dumps)])
    rows = np.concatenate([dump.listed for dump in dumps])
    return _table(
        dump=(number, "u1"), cache=(rows["cache"], "i2"), pfn=(rows["pfn"], "i4"),
        inuse=(rows["inuse"], "i2"), objects=(rows["objects"], "i2"), where=(rows["where"], "u1"),
        cpu=(rows["cpu"], "u1"), vector=(rows["vector"], "i1"),
    )  # fmt: skip


def _snapshot_table(recording: Recording, names: list[str], zero: int) -> pa.Table:
    kinds = ("i4", "i8", "i8", "i2", "i4", "i4", "i4", "i4", "i4", "i4")
    columns = ("snap", "t", "t_sysfs", "cache", "active_objs", "num_objs", "num_slabs",
               "partial_slabs", "cpu_partial_slabs", "cpu_slabs")  # fmt: skip
    rows = []
    for snap, shot in enumerate(recording.snapshots):
        t = (shot.slabinfo.t0 + shot.slabinfo.t1) // 2 - zero
        counts: dict[tuple[int, int], int] = {}
        t_sysfs = None
        if shot.sysfs:
            t_sysfs = (shot.sysfs.t0 + shot.sysfs.t1) // 2 - zero
            for line in shot.sysfs.text.splitlines():
                row, column, text = line.split(b",", 2)
                read = in_brackets if column == b"1" else first_number
                counts[int(row), int(column)] = read(text)
        info = read_slabinfo(shot.slabinfo.text.decode())
        for row, name in enumerate(names):
            active, objects, slabs = info.get(name, (0, 0, 0))
            if objects:
                sysfs = [counts.get((row, column)) for column in range(3)]
                rows.append((snap, t, t_sysfs, row, active, objects, slabs, *sysfs))
    return _table_of_rows(rows, columns, kinds)


def _memcg_table(
    recording: Recording, groups: Groups, zero: int, levels: KmemLevels | None
) -> tuple[pa.Table, list[int]]:
    """Readings of the groups; where `levels` tells the truth, by how much memory.stat is off."""
    version = recording.hierarchy.version
    columns = ("snap", "t0", "t1", "memcg", "kmem_usage", "mem_usage", "failcnt", "rss", "cache",
               "mapped_file")  # fmt: skip
    kinds = ("i4", "i8", "i8", "i2", *["i8"] * 6)
    rows, stale = [], []
    for snap, shot in enumerate(recording.snapshots):
        for path, kmem, usage, fails, stat in shot.groups:
            index = groups.index(path)
            if index < 0:
                continue
            read = kmem_bytes(kmem.text, version)
            real = levels.at(path, (kmem.t0 + kmem.t1) // 2) if levels else None
            if real is None:
                real = read
            else:
                stale.append(read - real)
            rows.append((snap, kmem.t0 - zero, kmem.t1 - zero, index, real, first_number(usage),
                         failures(fails, version), *user_bytes(stat, version)))  # fmt: skip
    return _table_of_rows(rows, columns, kinds), stale


def _page_table(table: st.Table, owner: Attribution, pages: np.ndarray, zero: int) -> pa.Table:
    born = pages[(pages[:, 1] == 0) & (table.t[pages[:, 0]] >= zero)]
    number = np.full(int(pages[:, 2].max(initial=0)) + 1, -1, np.int64)
    number[born[:, 2]] = np.arange(len(born))
    pages = pages[number[pages[:, 2]] >= 0]
    at = pages[:, 0]
    return _table(
        t=(table.t[at] - zero, "i8"), op=(pages[:, 1], "u1"), page=(number[pages[:, 2]], "i4"),
        order=(pages[:, 3], "u1"), cpu=(table.cpu[at], "u1"), pid=(table.pid[at], "i4"),
        memcg=(owner.memcg[at], "i2"), ctx=(owner.ctx[at], "u1"),
    )  # fmt: skip


_AUX_NAMES = {number: name for name, number in st.KINDS.items()}


def _aux(table: st.Table, owner, groups: Groups, symbols: Symbols, zero: int) -> pa.Table:
    rows, percpu, handles = [], {}, 0
    for at in np.flatnonzero(
        (table.kind >= st.FORK) & (table.kind <= st.MARKER) & (table.t >= zero)
    ):
        kind = int(table.kind[at])
        ptr, a, b, size = (int(column[at]) for column in (table.ptr, table.a, table.b, table.size))
        req, text = int(table.req[at]), table.texts.get(int(at), "")
        name = _AUX_NAMES[kind]
        numbers = (a, b, 0, 0)
        if kind in (st.ATTACH, st.MKDIR, st.RMDIR, st.RELEASE):
            if b != groups.hierarchy_id:
                continue
            index = groups.index(text)
            text = groups.names[index] if index >= 0 else text
            numbers = (a, ptr, b, 0) if kind == st.ATTACH else (ptr, b, 0, 0)
        elif kind in (st.SHRINK_START, st.SHRINK_END):
            site = int(table.site[at]) & (1 << 64) - 1
            numbers, text = (a, b, size, req), symbols.name(site).partition("+")[0]
        elif kind == st.PERCPU_ALLOC:
            percpu[ptr], handles = handles, handles + 1
            text = symbols.name(int(table.site[at]) & (1 << 64) - 1).partition("+")[0]
            numbers = (percpu[ptr], size, int(table.gfp[at]), req)
        elif kind == st.PERCPU_FREE:
            if ptr not in percpu:
                continue
            numbers = (percpu.pop(ptr), 0, 0, 0)
        elif kind == st.MARKER:
            name, text, numbers = "marker", text.strip(), (0, 0, 0, 0)
        elif kind == st.EXIT:
            text = ""
        rows.append((int(table.t[at]) - zero, name, int(table.cpu[at]), int(table.pid[at]),
                     int(owner.memcg[at]), int(owner.ctx[at]), *numbers, text))  # fmt: skip
    columns = ("t", "ev", "cpu", "pid", "memcg", "ctx", "a0", "a1", "a2", "a3", "s")
    kinds = ("i8", "cat", "u1", "i4", "i2", "u1", "i8", "i8", "i8", "i8", "cat")
    return _table_of_rows(rows, columns, kinds)


def _global_table(recording: Recording, zero: int) -> pa.Table:
    rows = []
    for snap, shot in enumerate(recording.snapshots):
        text = shot.world.text
        memory = [line.split() for line in text.splitlines() if line.startswith(b"memory\t")]
        known = keyed(text)
        rows.append((snap, shot.world.t0 - zero, shot.world.t1 - zero,
                     int(memory[0][2]) if memory else None, shot.directories,
                     *(known.get(name) for name in (
                         "nr_slab_reclaimable", "nr_slab_unreclaimable", "nr_kernel_stack",
                         "nr_page_table_pages"))))  # fmt: skip
    columns = ("snap", "t0", "t1", "num_memcgs_kernel", "num_memcgs_kmb", "nr_slab_reclaimable",
               "nr_slab_unreclaimable", "nr_kernel_stack_kb", "nr_page_table_pages")  # fmt: skip
    kinds = ("i4", "i8", "i8", "i4", "i4", "i8", "i8", "i8", "i8")
    return _table_of_rows(rows, columns, kinds)


def _manifest(recording, table, owner, groups, lives, events, zero, quality) -> dict[str, Any]:
    known = dict(recording.manifest)
    kinds = np.bincount(table.kind, minlength=len(st.KINDS))
    op = events.column("op").to_numpy()
    shown = {form.name: int(kinds[number]) for form in recording.formats.values()
             for number in [st.KINDS.get(form.name, -1)] if number >= 0}  # fmt: skip
    times = [-1, *(dump.start - zero for dump in recording.dumps[1:])]
    counts = {name: [] for name in recording.dumps[0].totals}
    for number, dump in enumerate(recording.dumps):
        for name, totals in dump.totals.items():
            counts[name].append({"dump": number, **totals})
    for name, number in _vectors(recording.census[0], recording.caches).items():
        counts[name][0]["vectors"] = number
    last = max((shot.slabinfo.t1 for shot in recording.snapshots), default=zero)
    spans = [(shot.slabinfo.t1 - shot.slabinfo.t0) / 1e6 for shot in recording.snapshots]
    known["t_final_shrink"] -= zero
    ends = known.get("group_end_s", {})
    known["group_end_s"] = {name: [(t - zero) / 1e9, code] for name, (t, code) in ends.items()}
    return known | {
        "clock": "CLOCK_MONOTONIC, ns since the lists of slabs were read (dump 0)",
        "duration_s": round((last - zero) / 1e9, 3),
        "snapshots": len(recording.snapshots),
        "snapshot_ms_mean": round(float(np.mean(spans)), 2) if spans else 0.0,
        "snapshot_ms_max": round(float(np.max(spans)), 2) if spans else 0.0,
        "slab_events": len(op), "allocs": int(np.count_nonzero(op & 1 == 0)),
        "frees": int(np.count_nonzero(op & 1)), "trace_events": shown,
        "missed_event_pages": table.missed,
        "unknown_cache_names": sorted(set(table.names) - set(recording.dumps[0].totals)),
        "quality": quality | lives.counts | {"fork_from_unknown_parent": owner.orphan_forks},
        "dumps": counts, "dump_t": times, "memcgs": groups.names,
        "caches": [*recording.caches, {"id": len(recording.caches), "name": LARGE}],
    }  # fmt: skip


def _vectors(census: Census, caches: list[dict]) -> dict[str, int]:
    """Slabs with a vector of obj_cgroups, by cache; none where that is not known."""
    if not len(census.vector) or np.any(census.vector == UNKNOWN):
        return {}
    having = census.cache[(census.vector == 1) & (census.cache >= 0)]
    numbers = np.bincount(having, minlength=len(caches))
    return {row["name"]: int(number) for row, number in zip(caches, numbers, strict=True)}


def write_tables(tables: Tables, folder: Path) -> None:
    """Write every table into `folder`.  Raises OSError."""
    for name, table in tables.tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd", compression_level=9)
