"""The compiled passes over a capture's events: conversion, end of tasks, merging."""

from typing import NamedTuple

import numpy as np

from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.core.specialise import cached

PLAIN = 0
OWN_VECTOR = 1  # allocation or free of an obj_cgroup vector: the strategies make their own
BY_EXEC = 2  # allocation of an address space by exec for the task itself
AFTER_GRACE = 3  # free by an RCU callback: the object was alive a grace period before
_ACCOUNTED, _CHARGED, _FIRST_FREE = 1, 2, 4  # flags of events.parquet
_SOFTIRQ = 2  # ctx
_TASK_CONTEXT = 0x0F  # ctx: none of hardirq, softirq, nmi, kernel thread
_GFP_MASK = (1 << 24) - 1
_ACCOUNT, _INTERRUPT = ev.GFP_ACCOUNT, ev.CTX_INTERRUPT
_ALLOC, _FREE, _KMALLOC = ev.ALLOC, ev.FREE, 2
# dtype of every column that the conversion takes, in its order
COLUMNS = {
    "t": "i8", "op": "u1", "cpu": "u1", "pid": "i4", "memcg": "i4", "ctx": "u1", "cache": "i4",
    "obj": "i4", "req": "i4", "gfp": "u4", "site": "i4", "flags": "u1",
}  # fmt: skip


class SlabEvents(NamedTuple):
    """Slab operations of a capture."""

    rows: np.ndarray  # EVENT, time order; obj = key, dense from 1 on
    role: np.ndarray  # u1
    site: np.ndarray  # i4: caller of an allocation; -1 unknown, and for frees
    accounted: np.ndarray  # bool per cache: charged although the caller did not ask for it
    asked: np.ndarray  # i8 per cache: allocations with __GFP_ACCOUNT, less those without
    first_frees: np.ndarray  # i4: keys whose first event is a free
    handles: np.ndarray  # i4 per key, from 1 on: the capture's own


@cached
def _convert(
    t, op, cpu, pid, memcg, ctx, cache, obj, req, gfp, site, flags, site_role, free_role,
    nr_caches, recorder, key_of, out, role, called, accounted, asked, first_frees, handles,
):  # fmt: skip  # pragma: no cover - compiled
    n = nr_first = 0
    nr_keys = 1
    allocated = False
    for i in range(len(t)):
        if cache[i] < 0 or cache[i] >= nr_caches:
            continue
        row = out[n]
        is_free = op[i] & 1
        key = key_of[obj[i]]
        if key == 0:
            key = nr_keys
            key_of[obj[i]] = key
            handles[key] = obj[i]
            nr_keys += 1
        row.t = t[i]
        row.obj = key
        row.task = pid[i]
        row.memcg = memcg[i] + 1
        row.gfp = np.uint32(ctx[i]) << 24
        row.arg = 0
        row.cache = cache[i] + 1
        row.op = _FREE if is_free else _ALLOC
        row.cpu = cpu[i]
        role[n] = PLAIN
        called[n] = -1
        if is_free:
            if site[i] >= 0:
                role[n] = free_role[site[i]]
                if role[n] == AFTER_GRACE and not ctx[i] & _SOFTIRQ:
                    role[n] = PLAIN
            if flags[i] & _FIRST_FREE and (allocated or pid[i] != recorder):
                first_frees[nr_first] = key
                nr_first += 1
        else:
            allocated = True
            row.gfp |= gfp[i] & _GFP_MASK
            asked[cache[i]] += 1 if gfp[i] & _ACCOUNT else -1
            if op[i] == _KMALLOC:
                row.arg = req[i]
            if site[i] >= 0:
                role[n] = site_role[site[i]]
                called[n] = site[i]
            if flags[i] & _ACCOUNTED:
                if not gfp[i] & _ACCOUNT:
                    accounted[cache[i]] = True
                if not flags[i] & _CHARGED and not ctx[i] & _TASK_CONTEXT:
                    row.memcg = 1
        n += 1
    return n, nr_first, nr_keys


def convert_slab_events(
    columns: dict[str, np.ndarray],
    site_role: np.ndarray,
    free_role: np.ndarray,
    nr_caches: int,
    recorder: int,
) -> SlabEvents:
    """Slab operations of a capture as EVENT rows with a key per object in ``obj``.

    A capture's handle names a slot of a slab, one of millions of which few are seen.  Keys number
    those in the order in which they come, so that what is kept per key stays small.

    columns: the columns of events.parquet, COLUMNS at least.
    site_role: u1 per call site: PLAIN, OWN_VECTOR or BY_EXEC, for the allocations made there.
    free_role: the same for frees: PLAIN, OWN_VECTOR or AFTER_GRACE, the last in softirq only.
    recorder: task id of the recorder; -1 unknown.

    Left out: frees of objects of an unknown cache, and the pseudo cache of allocations above
    8 KiB, which comes after the `nr_caches` real ones: its accounted pages are in pages.parquet.

    An allocation that was accounted, but billed to nobody although a task of a group asked, gets
    the root as its group: the task had left its own (the SIGCHLD of do_exit) or acted for the root
    (set_active_memcg).

    The recorder's frees before the first allocation are not among the first frees: they are the
    file by which tracing was switched on, which was opened after it had walked the slab lists.
    """
    arrays = [np.ascontiguousarray(columns[name], kind) for name, kind in COLUMNS.items()]
    count = len(arrays[0])
    out, role = np.empty(count, EVENT), np.empty(count, np.uint8)
    called = np.empty(count, np.int32)
    accounted, asked = np.zeros(nr_caches, np.bool_), np.zeros(nr_caches, np.int64)
    key_of = np.zeros(int(columns["obj"].max(initial=0)) + 1, np.int32)
    first, handles = np.empty(count, np.int32), np.empty(count + 1, np.int32)
    n, nr_first, nr_keys = _convert(
        *arrays, site_role, free_role, nr_caches, recorder, key_of,
        out, role, called, accounted, asked, first, handles,
    )  # fmt: skip
    return SlabEvents(
        out[:n], role[:n], called[:n], accounted, asked, first[:nr_first].copy(),
        handles[:nr_keys].copy(),
    )  # fmt: skip


@cached
def _last_seen(events, change_t, change_task, exit_of, out):  # pragma: no cover - compiled
    current = np.full(change_task.max() + 1, -1, np.int32)
    n = 0
    for i in range(len(events)):
        t, task = events[i].t, events[i].task
        while n < len(change_t) and change_t[n] <= t:
            if change_task[n] >= 0:
                current[change_task[n]] = exit_of[n]
            n += 1
        if events[i].gfp & _INTERRUPT:
            continue
        if 0 <= task < len(current) and current[task] >= 0:
            out[current[task]] = max(out[current[task]], t + 1)


def ends_of_tasks(
    parts: list[np.ndarray], exits: tuple[np.ndarray, np.ndarray],
    forks: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:  # fmt: skip
    """When each exit was over (i8, ns): right after the task's last event in task context.

    parts: EVENT arrays in time order.
    exits, forks: (t i8, task i4) in time order; forks tell when an id is given out anew.
    """
    out = exits[0].copy()
    t, task = (np.concatenate(columns) for columns in zip(exits, forks, strict=True))
    # after a fork the id is somebody else's
    exit_of = np.append(np.arange(len(out)), np.full(len(forks[0]), -1))
    order = np.argsort(t, kind="stable")
    if len(out):
        for events in parts:
            _last_seen(events, t[order], task[order], exit_of[order], out)
    return out


@cached
def _merge(a, role_a, late, b, role_b, out, role):  # pragma: no cover - compiled
    i = j = 0
    for n in range(len(out)):
        while i < len(a) and late[i]:
            i += 1
        if i < len(a) and (j >= len(b) or a[i].t <= b[j].t):
            out[n] = a[i]
            role[n] = role_a[i]
            i += 1
        else:
            out[n] = b[j]
            role[n] = role_b[j]
            j += 1


def merge(
    slab: np.ndarray, role: np.ndarray, late: np.ndarray, others: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """One EVENT array in time order and its roles; at equal times `slab` comes first.

    slab: in time order, but for the rows that are `late` (bool).
    """
    rest = np.concatenate([slab[late], *others])
    rest_role = np.zeros(len(rest), np.uint8)
    rest_role[: np.count_nonzero(late)] = role[late]
    order = np.argsort(rest["t"], kind="stable")
    out = np.empty(len(slab) + sum(map(len, others)), EVENT)
    roles = np.empty(len(out), np.uint8)
    _merge(slab, role, late, rest[order], rest_role[order], out, roles)
    return out, roles
