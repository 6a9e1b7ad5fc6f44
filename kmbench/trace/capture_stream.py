"""The event stream of a capture: slab, page, per-CPU and group events merged in time order."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.errors import UsageProblem
from kmbench.trace.buckets import buckets
from kmbench.trace.deferred import deferred_frees
from kmbench.trace.interrupts import before_interrupts
from kmbench.trace.lost_mm import lost_mm_frees
from kmbench.trace.overlap import before_frees
from kmbench.trace.passes import (
    AFTER_GRACE,
    BY_EXEC,
    COLUMNS,
    OWN_VECTOR,
    SlabEvents,
    convert_slab_events,
    ends_of_tasks,
    merge,
)
from kmbench.trace.tables import read_arrays, read_table

# `arg` of SAMPLE: what the recorder read then
SAMPLE_SLABS, SAMPLE_KMEM, SAMPLE_SYSFS, SAMPLE_DUMP = 1, 2, 3, 4
MARKS = {"START": 1, "STOP": 2}
VECTOR_SITE = "alloc_slab_obj_exts"
EXEC_SITE = "mm_alloc"
# free_slab_obj_exts() is inlined there; only vectors are given back by it
VECTOR_FREES = ("__free_slab",)
# in softirq: callbacks of call_rcu(), inlined or by tail call, and what they call
RCU_FREES = (
    "rcu_do_batch", "kernfs_free_rcu", "security_cred_free", "put_pid", "__put_task_struct",
    "put_css_set_locked",
)  # fmt: skip
# charged to the parent: mem_cgroup_css_alloc() runs under set_active_memcg(parent)
PARENT_CALLERS = ("mem_cgroup_css_alloc", "memcg1_alloc_events")
STACK_ORDER = 2  # 16 KiB kernel stacks on x86-64
_CTX_SHIFT = 24
_KMALLOC = 2  # op of events.parquet
_ACCOUNTED, _CHARGED = 1, 2  # its flags


class RawStream(NamedTuple):
    """Events with the recording's object names: input of :func:`handles.assign_handles`."""

    raw: np.ndarray  # EVENT, time order; obj = key
    role: np.ndarray  # u1
    keys: int
    accounted_caches: np.ndarray  # bool per cache: seen charged without __GFP_ACCOUNT
    asked: np.ndarray  # i8 per cache: allocations with __GFP_ACCOUNT, less those without
    first_frees: np.ndarray  # keys of slab objects whose first event is a free (flag 4)
    handles: np.ndarray  # i4 per key of a slab object: the capture's own


def read_slab_events(folder: Path) -> dict[str, np.ndarray]:
    """Columns of events.parquet."""
    return read_arrays(folder / "events.parquet", dict.fromkeys(COLUMNS, "i"))


def _blank(n: int) -> np.ndarray:
    return np.zeros(n, EVENT)


def _context(ctx: np.ndarray) -> np.ndarray:
    return ctx.astype(np.uint32) << np.uint32(_CTX_SHIFT)


def _common(columns: dict[str, np.ndarray]) -> np.ndarray:
    out = _blank(len(columns["t"]))
    out["t"] = columns["t"]
    out["task"] = columns["pid"]
    out["memcg"] = columns["memcg"] + 1
    out["cpu"] = columns["cpu"]
    out["gfp"] = _context(columns["ctx"])
    return out


def from_site(columns: dict[str, np.ndarray], sites: list[str], prefix: str) -> np.ndarray:
    """Which slab operations (bool) were called from a function whose name begins with `prefix`."""
    # one more entry, for site -1: unknown
    named = np.array([site.startswith(prefix) for site in sites] + [False])
    return named[columns["site"]]


def with_buckets(
    columns: dict[str, np.ndarray], sites: list[str], names: list[str]
) -> dict[str, np.ndarray]:
    """`columns` with the kmallocs of messages and user copies in their caches, messages charged."""
    rows = np.flatnonzero(columns["op"] == _KMALLOC)
    of = [columns[name][rows] for name in ("cache", "site", "gfp", "req")]
    found, messages = buckets(*of, sites, names)
    if np.array_equal(found, of[0]):
        return columns
    cache, flags = columns["cache"].astype(np.int32), columns["flags"].copy()
    cache[rows] = found
    flags[rows[messages]] |= _ACCOUNTED | _CHARGED
    return columns | {"cache": cache, "flags": flags}


def slab_events(
    columns: dict[str, np.ndarray], sites: list[str], nr_caches: int, recorder: int
) -> tuple[SlabEvents, np.ndarray]:
    """Slab operations with overtaken allocations put right, and which (bool) of them stand late.

    See passes.convert_slab_events.
    """
    site_role = np.zeros(len(sites), np.uint8)
    for prefix, role in ((VECTOR_SITE, OWN_VECTOR), (EXEC_SITE, BY_EXEC)):
        site_role[[at for at, site in enumerate(sites) if site.startswith(prefix)]] = role
    free_role = np.zeros(len(sites), np.uint8)
    for prefixes, role in ((VECTOR_FREES, OWN_VECTOR), (RCU_FREES, AFTER_GRACE)):
        free_role[[at for at, site in enumerate(sites) if site.startswith(prefixes)]] = role
    slab = convert_slab_events(columns, site_role, free_role, nr_caches, recorder)
    late = before_interrupts(slab.rows, slab.role, len(slab.handles))
    before_frees(slab.rows, late)
    return slab, late


def page_events(folder: Path, base: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Accounted page allocations that are no slabs, with keys from `base`.

    Returns the events, which of them (bool) were not traced but dated when the page was allocated
    again, and the next free key.
    """
    names = ("t", "op", "page", "order", "cpu", "pid", "memcg", "ctx")
    columns = read_arrays(folder / "pages.parquet", dict.fromkeys(names, "i"))
    out = _common(columns)
    out["obj"] = columns["page"] + base
    out["op"] = np.where(columns["op"] == 0, ev.PAGE_ALLOC, ev.PAGE_FREE)
    out["arg"] = columns["order"]
    out["cache"] = ev.PAGES_OTHER
    out["gfp"] |= np.uint32(ev.GFP_KERNEL_ACCOUNT)
    return out, columns["op"] == 2, base + int(columns["page"].max(initial=-1)) + 1


def stack_events(
    aux: pl.DataFrame, slab: np.ndarray, pages: np.ndarray, task_cache: int, base: int
) -> tuple[np.ndarray, int]:
    """Kernel stacks: allocated with the task_struct, returned when the task is done exiting.

    copy_process() takes the stack right after the task_struct (kernel/fork.c:dup_task_struct) and
    charges the forking task's group; do_exit() uncharges it at its very end
    (exit_task_stack_account), after the last event of that task in task context.

    slab, pages: EVENT arrays; task_cache: row of the cache task_struct.  Keys are base + task id.
    """
    forks = aux.filter(pl.col("ev") == "sched_process_fork").sort("t")
    exits = aux.filter(pl.col("ev") == "sched_process_exit").sort("t")
    made = slab[np.flatnonzero(slab["cache"] == task_cache)]
    made = made[made["op"] == ev.ALLOC]
    made = pl.DataFrame({"t": made["t"], "pid": made["task"], "start": made["t"]}).sort("t")
    # sorted by now; polars cannot see that with `by`
    begins = forks.join_asof(made, on="t", by="pid", strategy="backward", check_sortedness=False)
    begins = begins.with_columns(pl.coalesce("start", "t"))
    children = forks["a1"].cast(pl.Int32).to_numpy(), exits["a0"].cast(pl.Int32).to_numpy()
    stop = ends_of_tasks(
        [slab, pages], (exits["t"].to_numpy(), children[1]), (forks["t"].to_numpy(), children[0])
    )
    begin, end = _blank(len(begins)), _blank(len(exits))
    begin["t"], end["t"] = begins["start"].to_numpy(), stop
    begin["task"], end["task"] = begins["pid"].to_numpy(), children[1]
    for out, frame, op, child in (
        (begin, begins, ev.PAGE_ALLOC, children[0]), (end, exits, ev.PAGE_FREE, children[1]),
    ):  # fmt: skip
        out["memcg"] = frame["memcg"].to_numpy() + 1
        out["cpu"] = frame["cpu"].to_numpy()
        out["obj"] = child + base
        out["op"] = op
        out["cache"] = ev.PAGES_STACK
        out["arg"] = STACK_ORDER
        out["gfp"] = ev.GFP_KERNEL_ACCOUNT
    begin["gfp"] |= _context(begins["ctx"].to_numpy())
    out = np.concatenate([begin, end])
    return out[np.argsort(out["t"], kind="stable")], int(out["obj"].max(initial=base - 1)) + 1


def percpu_events(aux: pl.DataFrame, base: int) -> tuple[np.ndarray, int]:
    """Per-CPU allocations; arg = bytes the memory controller charges for them."""
    rows = aux.filter(pl.col("ev").is_in(["percpu_alloc_percpu", "percpu_free_percpu"]))
    is_alloc = (rows["ev"] == "percpu_alloc_percpu").to_numpy()
    columns = {name: rows[name].to_numpy() for name in ("t", "cpu", "pid", "memcg", "ctx")}
    out = _common(columns)
    out["obj"] = rows["a0"].to_numpy() + base
    out["op"] = np.where(is_alloc, ev.PERCPU_ALLOC, ev.PERCPU_FREE)
    out["arg"] = rows["a1"].to_numpy()
    gfp = (rows["a2"].to_numpy() & ((1 << _CTX_SHIFT) - 1)).astype(np.uint32)
    out["gfp"] |= np.where(is_alloc, gfp, np.uint32(0))
    out["memcg"][rows["s"].is_in(PARENT_CALLERS).to_numpy()] = 1
    return out, base + int(rows["a0"].max() if len(rows) else -1) + 1


def group_events(aux: pl.DataFrame, rows: dict[str, int], parents: list[int]) -> np.ndarray:
    """Creation, removal and release of groups, moves of tasks, the recorder's markers."""
    ops = {
        "cgroup_mkdir": ev.CG_CREATE,
        "cgroup_rmdir": ev.CG_OFFLINE,
        "cgroup_release": ev.CG_RELEASE,
        "cgroup_attach_task": ev.ATTACH,
    }
    # paths come back: a release is meant only if that very group was removed in the recording
    removed = aux.filter(pl.col("ev") == "cgroup_rmdir")["a0"]
    meant = (pl.col("ev") != "cgroup_release") | pl.col("a0").is_in(removed.implode())
    kept = aux.filter(pl.col("ev").is_in(list(ops)) & pl.col("s").is_in(list(rows)) & meant)
    out = _blank(len(kept))
    out["t"] = kept["t"].to_numpy()
    out["cpu"] = kept["cpu"].to_numpy()
    out["task"] = kept["pid"].to_numpy()
    out["memcg"] = [rows[path] for path in kept["s"]]
    out["op"] = [ops[name] for name in kept["ev"]]
    create, attach = out["op"] == ev.CG_CREATE, out["op"] == ev.ATTACH
    out["arg"][create] = [parents[row - 1] for row in out["memcg"][create]]
    out["task"][attach] = kept["a0"].to_numpy()[attach]
    out["arg"][attach] = kept["memcg"].to_numpy()[attach] + 1
    marks = aux.filter(pl.col("ev") == "marker")
    mark = _blank(len(marks))
    mark["t"] = marks["t"].to_numpy()
    mark["cpu"] = marks["cpu"].to_numpy()
    mark["task"] = marks["pid"].to_numpy()
    mark["memcg"] = 1
    mark["op"] = ev.MARK
    mark["arg"] = [MARKS.get(name, 0) for name in marks["s"]]
    return np.concatenate([out, mark])


def shrink_events(
    aux: pl.DataFrame, columns: dict[str, np.ndarray], sites: list[str], nr_caches: int
) -> np.ndarray:
    """kmem_cache_shrink of every cache, as the recorder asked for it at the end.

    It writes to ``/sys/kernel/slab/NAME/shrink`` cache by cache, in the manifest's order.  A write
    to sysfs begins with the allocation of a buffer (fs/kernfs/file.c:kernfs_fop_write_iter), so
    as many of those as there are caches date the shrinks; otherwise all happen at the marker.
    """
    marker = aux.filter((pl.col("ev") == "marker") & (pl.col("s") == "SHRINK"))
    if not len(marker):
        return _blank(0)
    t, pid = marker["t"][0], marker["pid"][0]
    begin = int(np.searchsorted(columns["t"], t, "right"))
    columns = {name: values[begin:] for name, values in columns.items()}
    writes = np.flatnonzero(
        from_site(columns, sites, "kernfs_fop_write_iter") & (columns["op"] == _KMALLOC)
        & (columns["pid"] == pid)
    )  # fmt: skip
    if len(writes) != nr_caches:
        out = _blank(1)
        out["t"], out["cpu"] = t, marker["cpu"][0]
    else:
        out = _blank(nr_caches)
        out["t"], out["cpu"] = columns["t"][writes] + 1, columns["cpu"][writes]
        out["cache"] = np.arange(1, nr_caches + 1)
    out["op"], out["memcg"], out["task"] = ev.SHRINK, 1, pid
    return out


def sample_events(folder: Path, dump_times: list[int]) -> np.ndarray:
    """One SAMPLE for every moment at which the recorder read something.

    dump_times: ns; when the recorder walked the slab lists (those before the trace are ignored).
    """
    snaps = read_arrays(folder / "snapshots.parquet", {"t": "i", "t_sysfs": "i"})
    memcgs = read_arrays(folder / "memcgs.parquet", {"t0": "i", "t1": "i", "memcg": "i"})
    parts = []
    sysfs = np.unique(snaps["t_sysfs"][snaps["t_sysfs"] >= 0])
    dumps = np.array([t for t in dump_times if t >= 0], np.int64)
    for times, kind in (
        (np.unique(snaps["t"]), SAMPLE_SLABS), (sysfs, SAMPLE_SYSFS), (dumps, SAMPLE_DUMP),
    ):  # fmt: skip
        part = _blank(len(times))
        part["t"], part["arg"] = times, kind
        parts.append(part)
    part = _blank(len(memcgs["t1"]))
    part["t"], part["arg"] = reading_times(memcgs["t0"], memcgs["t1"]), SAMPLE_KMEM
    parts.append(part)
    out = np.concatenate(parts)
    out["op"], out["memcg"] = ev.SAMPLE, 1
    return out


def reading_times(t0: np.ndarray, t1: np.ndarray) -> np.ndarray:
    """When a memory.kmem.usage_in_bytes read between `t0` and `t1` (ns) counts as taken."""
    return (t0 + t1) // 2


def read_aux(folder: Path) -> pl.DataFrame:
    """aux.parquet with plain text columns and 32-bit task ids."""
    names = ("t", "cpu", "pid", "memcg", "ctx", "a0", "a1", "a2", "a3")
    kinds = dict.fromkeys(names, "i") | {"ev": "s", "s": "s"}
    frame = pl.DataFrame(read_table(folder / "aux.parquet", kinds))
    return frame.with_columns(pl.col("ev", "s").cast(pl.String), pl.col(names).fill_null(-1)).cast(
        {"pid": pl.Int32, "t": pl.Int64}
    )


def read_stream(
    folder: Path, sites: list[str], cache_names: list[str], groups: dict[str, int],
    parents: list[int], aux: pl.DataFrame, dump_times: list[int], sheaves: list[bool],
) -> RawStream:  # fmt: skip
    """Merge everything a capture recorded.  See the module's parts for the rules.

    sheaves: per cache, whether it has them.
    """
    columns = read_slab_events(folder)
    path = folder / "events.parquet"
    limits = {"cache": len(cache_names) + 1, "memcg": len(groups), "site": len(sites)}
    for name, limit in limits.items():
        top = int(columns[name].max(initial=-1))
        if top >= limit:
            raise UsageProblem(f"{path}: column {name} holds {top}; expected below {limit}")
    if (least := int(columns["obj"].min(initial=0))) < 0:
        raise UsageProblem(f"{path}: column obj holds {least}; expected 0 or above")
    if np.any(columns["t"][1:] < columns["t"][:-1]):
        raise UsageProblem(f"{path}: column t goes backwards; expected time order")
    columns = with_buckets(columns, sites, cache_names)
    rows = {name: row for row, name in enumerate(cache_names, 1)}
    marks = aux.filter(pl.col("ev") == "marker")["pid"]
    slab, late = slab_events(columns, sites, len(cache_names), int(marks[0]) if len(marks) else -1)
    stop = int(columns["t"].max(initial=0))
    shrinks = shrink_events(aux, columns, sites, len(cache_names))
    del columns  # as large as the events made of them
    pages, dated_late, base = page_events(folder, len(slab.handles))
    stacks, base = stack_events(aux, slab.rows, pages, rows.get("task_struct", -1), base)
    percpu, base = percpu_events(aux, base)
    lost = lost_mm_frees(
        slab.rows, slab.role == BY_EXEC, rows.get("mm_struct", -1), pages[~dated_late], percpu,
        stacks,
    )  # fmt: skip
    batched = ~np.array([True, *sheaves])
    recorded = [
        lost, percpu, stacks, pages, group_events(aux, groups, parents), shrinks,
        sample_events(folder, dump_times),
    ]  # fmt: skip
    stop = max(stop, *(int(events["t"].max(initial=0)) for events in recorded))
    queued = deferred_frees(slab.rows, slab.site, len(sites), batched)
    others = [*recorded, queued[queued["t"] <= stop]]  # the rest outlives the recording
    raw, role = merge(slab.rows, slab.role, late, others)
    return RawStream(raw, role, base, slab.accounted, slab.asked, slab.first_frees, slab.handles)
