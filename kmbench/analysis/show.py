"""One run as the kernel's own files show it, at any sample: slabinfo and memory.*."""

from __future__ import annotations

import re
from collections.abc import Iterator

import polars as pl

from kmbench.analysis.groups import CHARGED
from kmbench.errors import UsageProblem, unknown
from kmbench.store.dataset import Run

__all__ = [
    "caches_at", "copies_of", "groups_at", "memcg_text", "parse_time", "sample_at", "slabinfo_text",
    "stat_text",
]  # fmt: skip

# Linux 6.18 mm/slab_common.c:print_slabinfo_header, cache_show
SLABINFO_HEADER = (
    "slabinfo - version: 2.1\n"
    "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
    " : tunables <limit> <batchcount> <sharedfactor>"
    " : slabdata <active_slabs> <num_slabs> <sharedavail>"
)
UNLIMITED = 0x7FFFFFFFFFFFF000  # LONG_MAX in whole pages: how memory.*limit_in_bytes reads unset

_SECONDS = {"": 1, "ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|ms|s|m)?")


def parse_time(text: str) -> int:
    """Nanoseconds of ``1.5s``, ``20ms``, ``7us``, ``300ns`` or a plain number of ns."""
    match = _TIME.fullmatch(text.strip())
    if not match:
        raise UsageProblem(f"time {text!r} is not a number with ns, us, ms, s or m")
    return round(float(match[1]) * _SECONDS[match[2] or ""])


def sample_at(run: Run, at: int | None = None) -> tuple[int, int]:
    """``(sample, t)`` of the last sample at or before ``at`` ns; of the last one for ``None``.

    Raises :class:`UsageProblem` when the run has no sample by then.
    """
    times = pl.concat([run.timeline.select("sample", "t"), run.caches.select("sample", "t")])
    with run.reading():
        known = times.unique().sort("sample").collect()
    if not known.height:
        raise UsageProblem(f"run {run.run_id} has no samples")
    found = known if at is None else known.filter(pl.col("t") <= at)
    if not found.height:
        first = known["t"][0]
        raise UsageProblem(f"run {run.run_id} has no sample at {at} ns; the first is at {first} ns")
    return found["sample"][-1], found["t"][-1]


def caches_at(run: Run, sample: int) -> pl.DataFrame:
    """Rows of ``caches`` at ``sample``, in the order of cache rows."""
    return _at(run, run.caches, sample, "cache")


def groups_at(run: Run, sample: int) -> pl.DataFrame:
    """Rows of ``timeline`` at ``sample``, in the order of group rows."""
    return _at(run, run.timeline, sample, "memcg")


def _at(run: Run, frame: pl.LazyFrame, sample: int, order: str) -> pl.DataFrame:
    with run.reading():
        return frame.filter(pl.col("sample") == sample).sort(order).collect()


def slabinfo_text(caches: pl.DataFrame) -> str:
    """The rows of :func:`caches_at` in the format of /proc/slabinfo, no final newline.

    As in the kernel, ``objsize`` is the size of a slot.  On SLUB all slabs count as active and
    tunables are 0; on SLAB slabs without objects in use are not active (3.5 mm/slab.c:s_show).
    """
    lines = [SLABINFO_HEADER]
    for c in caches.iter_rows(named=True):
        lines.append(
            f"{c['name']:<17} {c['active_objs']:6} {c['num_objs']:6} {c['size']:6} "
            f"{c['objs_per_slab']:4} {c['pages_per_slab']:4}"
            f" : tunables {c['limit'] or 0:4} {c['batchcount'] or 0:4} {c['shared_factor'] or 0:4}"
            f" : slabdata {c['num_slabs'] - (c['free_slabs'] or 0):6} {c['num_slabs']:6} "
            f"{c['shared_avail'] or 0:6}"
        )
    return "\n".join(lines)


def copies_of(caches: pl.DataFrame, groups: pl.DataFrame, group: str) -> pl.DataFrame:
    """Those rows of :func:`caches_at` that a group's memory.kmem.slabinfo has, named as their root.

    Linux 3.8 to 5.8 mm/slab_common.c:memcg_slab_show; later kernels share caches, and the file is
    empty.  Raises :class:`UsageProblem` for a group that does not exist at the sample.
    """
    rows = dict(groups.select(pl.col("group").cast(pl.String), "memcg").iter_rows())
    if group not in rows:
        raise unknown("group", group, rows)
    names = dict(caches.select("cache", pl.col("name").cast(pl.String)).iter_rows())
    copies = caches.filter(pl.col("memcg") == rows[group])
    found = [names[row] for row in copies["root"]]
    return copies.with_columns(name=pl.Series(found, dtype=pl.String))


def stat_text(groups: pl.DataFrame, caches: pl.DataFrame, version: int) -> str:
    """memory.stat of every group, after lines ``# SECONDS GROUP``, as far as the model knows it.

    Of cgroup v2 (6.18 mm/memcontrol.c:memcg_stat_format) ``kernel``, whichever counter carries it,
    and ``slab`` with descendants, in bytes: slabs of the groups' copies where there are copies,
    else the slots billed.  The file of v1 has no kernel memory, but ``hierarchical_memory_limit``
    (memcg1_stat_format).  No final newline.
    """
    rows = {row["memcg"]: row for row in groups.with_columns(kernel=CHARGED).iter_rows(named=True)}
    copies = caches.filter(pl.col("memcg") > 0).group_by("memcg").agg(pl.col("slab_bytes").sum())
    slabs = dict(copies.iter_rows()) or {memcg: row["billed_slab"] for memcg, row in rows.items()}
    slab = dict.fromkeys(rows, 0)
    lines = []
    for memcg in rows:
        for above in _upwards(rows, memcg):
            slab[above] += slabs.get(memcg, 0)
    for memcg, row in rows.items():
        lines.append(f"# {row['t'] / 1e9:.9f} {row['group']}")
        if version == 2:
            lines += [f"kernel {row['kernel']}", f"slab {slab[memcg]}"]
        else:
            limits = [rows[above]["memory_limit"] for above in _upwards(rows, memcg)]
            given = [limit for limit in limits if limit is not None and limit >= 0]
            lines.append(f"hierarchical_memory_limit {min(given, default=UNLIMITED)}")
    return "\n".join(lines)


def _upwards(rows: dict[int, dict], memcg: int) -> Iterator[int]:
    """A group and those above it."""
    while memcg in rows:
        yield memcg
        memcg = rows[memcg]["parent"]


# file of the memory controller -> column of `timeline`
_FILES = {
    "memory.usage_in_bytes": "memory_usage",
    "memory.limit_in_bytes": "memory_limit",
    "memory.failcnt": "memory_failcnt",
    "memory.kmem.usage_in_bytes": "kmem_usage",
    "memory.kmem.limit_in_bytes": "kmem_limit",
    "memory.kmem.max_usage_in_bytes": "kmem_max_usage",
    "memory.kmem.failcnt": "kmem_failcnt",
}
_FILES_V2 = {
    "memory.current:": "memory_usage",
    "memory.max:": "memory_limit",
    "memory.events:max ": "memory_failcnt",
}


def memcg_text(groups: pl.DataFrame, version: int = 1) -> str:
    """The rows of :func:`groups_at` as ``grep -r . memory.*`` prints the files: path:value.

    `version`: 1 or 2, of cgroups.  No final newline.  Files whose value was not recorded are left
    out.
    """
    files = {f"{file}:": column for file, column in _FILES.items()} if version == 1 else _FILES_V2
    unset = UNLIMITED if version == 1 else "max"
    lines = []
    for group in groups.iter_rows(named=True):
        path = str(group["group"]).strip("/")
        for file, column in files.items():
            value = group[column]
            if value is not None:
                shown = unset if column.endswith("_limit") and value < 0 else value
                lines.append(f"{path + '/' if path else ''}{file}{shown}")
    return "\n".join(lines)
