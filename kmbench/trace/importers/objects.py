"""Rows of a scanned trace to EVENT records: addresses to dense handles, tasks to groups.

Rules, each with its count:

* An address that is allocated while it is live was freed untraced: a FREE goes in right before.
* A free of an address that was never allocated in the trace belongs to an object from before; its
  cache and owner are unknown, so it is left out.  The same holds for a second free of an address.
  Addresses of freed objects are forgotten when the table of addresses is rebuilt, so a late second
  free may count as one of an object never seen.
* The handle freed last is used again first, as in a recording (:mod:`kmbench.trace.handles`).
* A time before that of the line above becomes the time of the line above.
"""

import numpy as np

from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.trace.importers.gfp import GFP_COMP, GFP_MOVABLE
from kmbench.trace.importers.scan import (
    CACHE_ALLOC,
    CACHE_FREE,
    EXIT,
    FORK,
    KMALLOC,
    MAX_PID,
    MKDIR,
    PAGE_ALLOC,
    PAGE_FREE,
    RELEASE,
    RMDIR,
)
from kmbench.trace.importers.words import compiled, inlined

BY_NONE, BY_COMM, BY_PID, BY_CGROUP = 0, 1, 2, 3

# places in `state`
NEXT, TOP, LAST_T, STARTED, FIRST_T, USED, LIVE, NEXT_GROUP, NEW_GROUPS, MAX_CPU = range(10)
# counts, in `state` too; the names are those of the summary
COUNTED = (
    "freed_untraced", "never_allocated", "freed_twice", "pages_left_out", "tasks_from_before",
    "time_backwards", "sites_learned",
)  # fmt: skip
_FREES, _UNSEEN, _TWICE, _PAGES, _TASKS, _BACK, _LEARNED = range(10, 17)
_NR_STATE = 17

_PAGE_KEY, _TASK_KEY = 1 << 60, 1 << 61  # beside addresses in one table
_STACK_GFP = ev.GFP_KERNEL_ACCOUNT
_ACCOUNT, _KTHREAD = ev.GFP_ACCOUNT, ev.CTX_KTHREAD >> 24
_ALLOC, _FREE, _PAGE_ALLOC, _PAGE_FREE = ev.ALLOC, ev.FREE, ev.PAGE_ALLOC, ev.PAGE_FREE
_STACK, _LARGE, _OTHER = ev.PAGES_STACK, ev.PAGES_KMALLOC, ev.PAGES_OTHER
_CREATE, _OFFLINE, _RELEASE, _ATTACH = ev.CG_CREATE, ev.CG_OFFLINE, ev.CG_RELEASE, ev.ATTACH
_FIRST_KEYS = 1 << 18
LARGE_ROW = -1  # cache row of what the page allocator serves


@inlined
def place(keys, key):  # pragma: no cover - compiled
    mask = len(keys) - 1
    h = key ^ (key >> 32)
    h = (h * 0x9E3779B97F4A7C1) & ((1 << 60) - 1)
    at = (h >> 20) & mask
    while keys[at] != -1 and keys[at] != key:
        at = (at + 1) & mask
    return at


@compiled
def _rebuild(keys, handles, new_keys, new_handles):  # pragma: no cover - compiled
    nr = 0
    for i in range(len(keys)):
        if keys[i] != -1 and handles[i] > 0:
            at = place(new_keys, keys[i])
            new_keys[at] = keys[i]
            new_handles[at] = handles[i]
            nr += 1
    return nr


@inlined
def _group(row, mode, state, tasks, groups, commands, kthread, dots, new):
    # pragma: no cover - compiled
    """Memory group of the task of `row`; its CTX_KTHREAD goes into the row."""
    comm = row.comm
    if comm == dots:
        comm = commands[row.pid]
    else:
        commands[row.pid] = comm
    if row.pid == 0 or kthread[comm] or tasks[row.pid] < 0:
        row.ctx |= _KTHREAD
        return 1
    if mode == BY_NONE or (mode == BY_COMM and comm == 0):
        return 1
    if mode == BY_CGROUP:
        return max(tasks[row.pid], 1)
    found = groups[comm] if mode == BY_COMM else tasks[row.pid]
    if found == 0:
        found = state[NEXT_GROUP]
        state[NEXT_GROUP] += 1
        new[state[NEW_GROUPS]] = comm if mode == BY_COMM else row.pid
        state[NEW_GROUPS] += 1
        if mode == BY_COMM:
            groups[comm] = found
        else:
            tasks[row.pid] = found
    return found


@compiled
def convert(
    rows, cache_row, gfp, mode, stack_order, dots, tasks, groups, commands, kthread,
    keys, handles, stack, cache_of, learned, new, state, out,
):  # fmt: skip  # pragma: no cover - compiled
    """Convert `rows` into `out` (twice as long); return the number of events.

    cache_row: i4 per row: row of the cache, -1 for large kmalloc.  gfp: u4 per row.
    tasks: i4 per pid, group (-1: kernel thread).  groups: i4 per command.  commands: i4 per pid.
    keys, handles: table of addresses.  stack: free handles.  cache_of: cache row per handle.
    learned: i4 per cache row: name that a free of one of its objects told.
    new: commands or pids that became groups in this call.
    """
    n = 0
    state[NEW_GROUPS] = 0
    for i in range(len(rows)):
        row = rows[i]
        op = row.op
        if not state[STARTED]:
            state[STARTED] = 1
            state[FIRST_T] = row.t
        t = row.t - state[FIRST_T]
        if t < state[LAST_T]:
            state[_BACK] += 1
            t = state[LAST_T]
        state[LAST_T] = t
        if row.cpu > state[MAX_CPU]:
            state[MAX_CPU] = row.cpu
        e = out[n]
        e.t = t
        e.obj = 0
        e.task = row.pid
        e.memcg = _group(row, mode, state, tasks, groups, commands, kthread, dots, new)
        e.gfp = np.uint32(row.ctx) << np.uint32(24)
        e.arg = 0
        e.cache = 0
        e.cpu = row.cpu
        if op >= MKDIR:
            if mode != BY_CGROUP or row.site <= 0:
                continue
            if op == MKDIR:
                e.op = _CREATE
                e.arg = row.gfp
                e.memcg = row.site
            elif op == RMDIR:
                e.op = _OFFLINE
                e.memcg = row.site
            elif op == RELEASE:
                e.op = _RELEASE
                e.memcg = row.site
            else:
                e.op = _ATTACH
                e.task = row.req
                e.arg = max(tasks[row.req], 1)
                e.memcg = row.site
                if tasks[row.req] >= 0:
                    tasks[row.req] = row.site
            n += 1
            continue
        key = row.key
        if op == FORK:
            if row.pid == 2:  # kthreadd
                tasks[row.req] = -1
            elif mode == BY_CGROUP:
                tasks[row.req] = max(tasks[row.pid], 0)
            elif tasks[row.req] < 0:
                tasks[row.req] = 0
            key = _TASK_KEY | np.int64(row.req)
        elif op == EXIT:
            key = _TASK_KEY | np.int64(row.req)
        elif op == PAGE_ALLOC:
            if not gfp[i] & _ACCOUNT or gfp[i] & (GFP_COMP | GFP_MOVABLE):
                state[_PAGES] += 1
                continue
            key = _PAGE_KEY | key
        elif op == PAGE_FREE:
            key = _PAGE_KEY | key
        at = place(keys, key)
        if op == KMALLOC or op == CACHE_ALLOC or op == PAGE_ALLOC or op == FORK:
            if keys[at] == -1:
                keys[at] = key
                handles[at] = 0
                state[USED] += 1
            elif handles[at] > 0:
                handle = handles[at]
                e.obj = handle
                e.op = _PAGE_FREE if cache_of[handle] == LARGE_ROW else _FREE
                stack[state[TOP]] = handle
                state[TOP] += 1
                state[LIVE] -= 1
                state[_FREES] += 1
                n += 1
                out[n] = e
                e = out[n]
            if state[TOP]:
                state[TOP] -= 1
                handle = stack[state[TOP]]
            else:
                handle = np.int32(state[NEXT])
                state[NEXT] += 1
            handles[at] = handle
            state[LIVE] += 1
            e.obj = handle
            if op == FORK:
                e.op, e.cache, e.arg = _PAGE_ALLOC, _STACK, stack_order
                e.gfp |= np.uint32(_STACK_GFP)
                cache_of[handle] = LARGE_ROW
            elif op == PAGE_ALLOC:
                e.op, e.cache, e.arg = _PAGE_ALLOC, _OTHER, row.req
                e.gfp |= gfp[i]
                cache_of[handle] = LARGE_ROW
            elif cache_row[i] == LARGE_ROW:
                order = 0
                while order < 10 and 4096 << order < row.size:
                    order += 1
                e.op, e.cache, e.arg = _PAGE_ALLOC, _LARGE, order
                e.gfp |= gfp[i]
                cache_of[handle] = LARGE_ROW
            else:
                e.op, e.cache = _ALLOC, cache_row[i]
                e.arg = min(row.req, row.size) if op == KMALLOC else 0
                e.gfp |= gfp[i]
                cache_of[handle] = cache_row[i]
            n += 1
            continue
        if keys[at] == -1 or handles[at] == 0:
            if op == PAGE_FREE:
                state[_PAGES] += 1
            elif op == EXIT:
                state[_TASKS] += 1
            elif keys[at] == -1:
                state[_UNSEEN] += 1
            else:
                state[_TWICE] += 1
            continue
        handle = handles[at]
        handles[at] = 0
        state[LIVE] -= 1
        stack[state[TOP]] = handle
        state[TOP] += 1
        e.obj = handle
        e.op = _PAGE_FREE if cache_of[handle] == LARGE_ROW else _FREE
        if op == CACHE_FREE and row.name > 0 and cache_of[handle] > 0:
            if learned[cache_of[handle]] == 0:
                state[_LEARNED] += 1
                learned[cache_of[handle]] = row.name
        n += 1
    return n


class Objects:
    """The tables behind :func:`convert`, grown as the trace needs."""

    def __init__(self, mode: int, stack_order: int, max_caches: int):
        self.mode, self.stack_order = mode, stack_order
        self.tasks = np.zeros(MAX_PID + 1, np.int32)
        self.commands = np.zeros(MAX_PID + 1, np.int32)
        self.keys = np.full(_FIRST_KEYS, -1, np.int64)
        self.handles = np.zeros(_FIRST_KEYS, np.int32)
        self.stack = np.zeros(_FIRST_KEYS, np.int32)
        self.cache_of = np.zeros(_FIRST_KEYS, np.int32)
        self.learned = np.zeros(max_caches + 1, np.int32)
        self.state = np.zeros(_NR_STATE, np.int64)
        self.state[NEXT], self.state[NEXT_GROUP] = 1, 2

    def _make_room(self, rows: int) -> None:
        if 2 * (int(self.state[USED]) + rows) > len(self.keys):
            size = _FIRST_KEYS
            while size < 4 * (int(self.state[LIVE]) + rows):
                size *= 2
            keys, handles = np.full(size, -1, np.int64), np.zeros(size, np.int32)
            self.state[USED] = _rebuild(self.keys, self.handles, keys, handles)
            self.keys, self.handles = keys, handles
        need = int(self.state[NEXT]) + rows + 1
        if need > len(self.stack):
            for name in ("stack", "cache_of"):
                old = getattr(self, name)
                made = np.zeros(2 * need, np.int32)
                made[: len(old)] = old
                setattr(self, name, made)

    def events(
        self, rows: np.ndarray, cache_row: np.ndarray, gfp: np.ndarray, groups: np.ndarray,
        kthread: np.ndarray, dots: int,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """EVENT records of `rows`, and the commands or pids that became groups, in order."""
        self._make_room(len(rows))
        new = np.zeros(len(rows) + 1, np.int32)
        out = np.zeros(2 * len(rows), EVENT)
        nr = convert(
            rows, cache_row, gfp, self.mode, self.stack_order, dots, self.tasks, groups,
            self.commands, kthread, self.keys, self.handles, self.stack, self.cache_of,
            self.learned, new, self.state, out,
        )  # fmt: skip
        return out[:nr], new[: int(self.state[NEW_GROUPS])]

    def counts(self) -> dict[str, int]:
        """What was repaired or left out."""
        return {name: int(self.state[_FREES + at]) for at, name in enumerate(COUNTED)}
