"""The compiled scanner: lines of trace text to rows of numbers, one pass over the bytes.

All text formats of the kernel's tools agree on what stands around the CPU in brackets::

    bash-1977  (1977) [002] d..1. 17284.993652: kmalloc: call_site=... ptr=...      (ftrace)
    bash-1977         [002]       17284.993652: kmalloc:         call_site=...  (trace-cmd)
    bash  1977/1978   [002]       17284.993652: kmem:kmalloc:    call_site=...       (perf)

The fields are found by name, in any order, so one scanner reads every release: see
include/trace/events/kmem.h of Linux 3.5 (``call_site=%lx``, kmalloc_node with ``node=``), 5.5
(``call_site=%pS``), 5.12 (kmem_cache_free with ``name=``), 6.1 (one event for both kinds of
allocation, ``accounted=``) and 6.18, sched.h and cgroup.h beside it.
"""

import numba
import numpy as np

from kmbench.trace.importers.names import LONGEST, has_room, number_of

ROW = np.dtype(
    [
        ("t", "i8"),  # ns of the trace's clock
        ("key", "i8"),  # address, page frame, id of a group, or -1: not given
        ("pid", "i4"),
        ("comm", "i4"),  # number of the command's name
        ("name", "i4"),  # of the cache or the group's path; 0 = not given
        ("site", "i4"),  # of the call site (allocations from a cache that is not named)
        ("gfp", "i4"),  # of the flags' text
        ("req", "i4"),  # bytes asked; the other task of fork and attach; page order
        ("size", "i4"),  # bytes given; hierarchy of a group
        ("op", "u1"),
        ("cpu", "u1"),
        ("ctx", "u1"),  # CTX_* >> 24
        ("accounted", "u1"),  # 1: accounted=true
    ]
)

KMALLOC, CACHE_ALLOC, KFREE, CACHE_FREE, PAGE_ALLOC, PAGE_FREE = 1, 2, 3, 4, 5, 6
FORK, EXIT, MKDIR, RMDIR, RELEASE, ATTACH = 7, 8, 9, 10, 11, 12
OTHER = 100

# places in `counts`
LINES, EVENTS, OTHERS, UNKNOWN, DAMAGED, COMMENTS, LOST, NO_OBJECT = range(8)
NR_COUNTS = 8

MAX_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h
KEY_MASK = (1 << 60) - 1  # kernel addresses differ in the bits below
_HARDIRQ, _SOFTIRQ, _NMI, _BH_OFF, _IRQ_OFF = 1, 2, 4, 16, 32
_SPACE, _NEWLINE, _EQUALS, _COLON = 32, 10, 61, 58
_TEXTS = 5  # texts that one line can add


def _packed(word: bytes) -> int:
    value = 0
    for byte in word:
        value = value * 257 + byte & KEY_MASK
    return value


_KMALLOC, _KMALLOC_NODE = _packed(b"kmalloc"), _packed(b"kmalloc_node")
_CACHE_ALLOC, _CACHE_ALLOC_NODE = _packed(b"kmem_cache_alloc"), _packed(b"kmem_cache_alloc_node")
_KFREE, _CACHE_FREE = _packed(b"kfree"), _packed(b"kmem_cache_free")
_PAGE_ALLOC, _PAGE_FREE = _packed(b"mm_page_alloc"), _packed(b"mm_page_free")
_PAGE_FREE_DIRECT = _packed(b"mm_page_free_direct")  # its name before 3.3
_FORK, _EXIT = _packed(b"sched_process_fork"), _packed(b"sched_process_exit")
_MKDIR, _RMDIR = _packed(b"cgroup_mkdir"), _packed(b"cgroup_rmdir")
_RELEASE, _ATTACH = _packed(b"cgroup_release"), _packed(b"cgroup_attach_task")
_CALL_SITE, _PTR, _NAME = _packed(b"call_site"), _packed(b"ptr"), _packed(b"name")
_REQ, _ALLOC, _GFP = _packed(b"bytes_req"), _packed(b"bytes_alloc"), _packed(b"gfp_flags")
_ACCOUNTED, _PFN, _PAGE = _packed(b"accounted"), _packed(b"pfn"), _packed(b"page")
_ORDER, _PID, _CHILD = _packed(b"order"), _packed(b"pid"), _packed(b"child_pid")
_ROOT, _ID, _PATH = _packed(b"root"), _packed(b"id"), _packed(b"path")
_DST_ROOT, _DST_ID = _packed(b"dst_root"), _packed(b"dst_id")
_DST_PATH = _packed(b"dst_path")


@numba.njit(cache=True)
def _digit(byte):  # pragma: no cover - compiled
    if 48 <= byte <= 57:
        return byte - 48
    if 97 <= byte <= 102:
        return byte - 87
    if 65 <= byte <= 70:
        return byte - 55
    return 99


@numba.njit(cache=True)
def _hex(buf, p, end):  # pragma: no cover - compiled
    """The hexadecimal number at `p`, 0 for ``(null)``; -1: none.  Old %p pads on the left."""
    while p < end and buf[p] == _SPACE:
        p += 1
    if p + 1 < end and buf[p] == 48 and (buf[p + 1] | 32) == 120:
        p += 2
    if p + 1 < end and buf[p] == 40 and buf[p + 1] == 110:
        return 0
    value = np.int64(0)
    first = p
    while p < end:
        d = _digit(buf[p])
        if d > 15:
            break
        value = ((value << 4) | np.int64(d)) & KEY_MASK
        p += 1
    return value if p > first else np.int64(-1)


@numba.njit(cache=True)
def _number(buf, p, end):  # pragma: no cover - compiled
    """The decimal (or 0x hexadecimal) number at `p`; -1: none, or above 2**59."""
    if p + 1 < end and buf[p] == 48 and (buf[p + 1] | 32) == 120:
        return _hex(buf, p, end)
    value = np.int64(0)
    first = p
    while p < end and 48 <= buf[p] <= 57:
        value = value * 10 + np.int64(buf[p] - 48)
        if value >= 1 << 59:
            return np.int64(-1)
        p += 1
    return value if p > first else np.int64(-1)


@numba.njit(cache=True)
def _context(buf, p, end):  # pragma: no cover - compiled
    """CTX_* >> 24 of the latency columns (kernel/trace/trace_output.c:trace_print_lat_fmt)."""
    ctx = 0
    irqs = buf[p]
    if irqs == 100:  # d
        ctx |= _IRQ_OFF
    elif irqs == 98:  # b, since 5.16
        ctx |= _BH_OFF
    elif irqs == 68:  # D
        ctx |= _IRQ_OFF | _BH_OFF
    if p + 2 < end:
        level = buf[p + 2]
        if level == 104:  # h
            ctx |= _HARDIRQ
        elif level == 72:  # H
            ctx |= _HARDIRQ | _SOFTIRQ
        elif level == 115:  # s
            ctx |= _SOFTIRQ
        elif level == 122:  # z
            ctx |= _NMI
        elif level == 90:  # Z
            ctx |= _NMI | _HARDIRQ
    return ctx


@numba.njit(cache=True)
def _task(names, buf, start, p, row):  # pragma: no cover - compiled
    """Command and pid that end before `p`; False when there are none."""
    while p > start and buf[p - 1] == _SPACE:
        p -= 1
    if p > start and buf[p - 1] == 41:  # (tgid)
        while p > start and buf[p - 1] != 40:
            p -= 1
        p -= 1
        while p > start and buf[p - 1] == _SPACE:
            p -= 1
    pid = np.int64(0)
    scale = np.int64(1)
    first = p
    while p > start and 48 <= buf[p - 1] <= 57 and first - p < 8:
        pid += np.int64(buf[p - 1] - 48) * scale
        scale *= 10
        p -= 1
    if p == first or p <= start or pid > MAX_PID:
        return False
    if buf[p - 1] == 47:  # pid/tid
        p -= 1
        while p > start and 48 <= buf[p - 1] <= 57:
            p -= 1
    if p <= start or (buf[p - 1] != 45 and buf[p - 1] != _SPACE):
        return False
    p -= 1
    while p > start and buf[p - 1] == _SPACE:
        p -= 1
    while start < p and buf[start] == _SPACE:
        start += 1
    if p - start > 255:
        return False
    row.pid = pid
    row.comm = number_of(names, buf, start, p) if p > start else 0
    return True


@numba.njit(cache=True)
def _head(names, buf, start, end, row):  # pragma: no cover - compiled
    """Task, CPU, context and time; where the event's name begins, -1 when it is no such line."""
    p = start + 1
    cpu = np.int64(-1)
    while p < end:
        if buf[p] == 91 and buf[p - 1] == _SPACE:
            q = p + 1
            cpu = 0
            while q < end and 48 <= buf[q] <= 57 and q - p < 6:
                cpu = cpu * 10 + np.int64(buf[q] - 48)
                q += 1
            if q > p + 1 and q < end and buf[q] == 93:
                break
            cpu = -1
        p += 1
    if cpu < 0 or cpu > 255 or not _task(names, buf, start, p, row):
        return np.int64(-1)
    row.cpu = cpu
    while p < end and buf[p] != _SPACE:
        p += 1
    while p < end and buf[p] == _SPACE:
        p += 1
    row.ctx = 0
    if p < end and not 48 <= buf[p] <= 57:
        q = p
        while q < end and buf[q] != _SPACE:
            q += 1
        row.ctx = _context(buf, p, q)
        p = q
        while p < end and buf[p] == _SPACE:
            p += 1
    first = p
    t = np.int64(0)
    while p < end and 48 <= buf[p] <= 57 and p - first < 18:
        t = t * 10 + np.int64(buf[p] - 48)
        p += 1
    if p == first or p >= end:
        return np.int64(-1)
    if buf[p] == 46:
        if p - first > 9:
            return np.int64(-1)
        p += 1
        digits = 0
        while p < end and 48 <= buf[p] <= 57:
            if digits < 9:
                t = t * 10 + np.int64(buf[p] - 48)
                digits += 1
            p += 1
        while digits < 9:
            t *= 10
            digits += 1
    if p + 1 >= end or buf[p] != _COLON:
        return np.int64(-1)
    row.t = t
    p += 1
    while p < end and buf[p] == _SPACE:
        p += 1
    return p


@numba.njit(cache=True)
def _kind(word):  # pragma: no cover - compiled
    if word == _KMALLOC or word == _KMALLOC_NODE:
        return KMALLOC
    if word == _KFREE:
        return KFREE
    if word == _CACHE_ALLOC or word == _CACHE_ALLOC_NODE:
        return CACHE_ALLOC
    if word == _CACHE_FREE:
        return CACHE_FREE
    if word == _PAGE_ALLOC:
        return PAGE_ALLOC
    if word == _PAGE_FREE or word == _PAGE_FREE_DIRECT:
        return PAGE_FREE
    if word == _FORK:
        return FORK
    if word == _EXIT:
        return EXIT
    if word == _MKDIR:
        return MKDIR
    if word == _RMDIR:
        return RMDIR
    if word == _RELEASE:
        return RELEASE
    if word == _ATTACH:
        return ATTACH
    return OTHER


@numba.njit(cache=True)
def _word_end(buf, p, end):  # pragma: no cover - compiled
    while p < end and buf[p] != _SPACE:
        p += 1
    return p


@numba.njit(cache=True)
def _small(value):  # pragma: no cover - compiled
    return value if value < 1 << 31 else np.int64(-1)


@numba.njit(cache=True)
def _name_end(buf, p, end):  # pragma: no cover - compiled
    """A cache's name may hold spaces: it ends where the next field or the line ends."""
    while p < end:
        if buf[p] == _SPACE:
            if p + 1 < end and (buf[p + 1] == 98 or buf[p + 1] == 99 or buf[p + 1] == 112):
                q = p + 1
                while q < end and buf[q] != _SPACE and buf[q] != _EQUALS:
                    q += 1
                if q < end and buf[q] == _EQUALS:
                    return p
            elif p + 1 >= end or buf[p + 1] == _SPACE:
                return p
        p += 1
    return p


@numba.njit(cache=True)
def _fields(names, buf, p, end, row):  # pragma: no cover - compiled
    """Read the fields that `row.op` needs."""
    op = row.op
    while p < end:
        if buf[p] == _SPACE:
            p += 1
            continue
        word = np.int64(0)
        while p < end and buf[p] != _EQUALS and buf[p] != _SPACE:
            word = (word * 257 + np.int64(buf[p])) & KEY_MASK
            p += 1
        if p >= end or buf[p] == _SPACE:
            continue
        p += 1  # the value begins
        if word == _PTR:
            row.key = _hex(buf, p, end)
            while p < end and buf[p] == _SPACE:
                p += 1
        elif word == _CALL_SITE:
            q = _word_end(buf, p, end)
            if op == CACHE_ALLOC and q - p < LONGEST:
                row.site = number_of(names, buf, p, q)
            p = q
        elif word == _REQ:
            row.req = _small(_number(buf, p, end))
        elif word == _ALLOC:
            row.size = _small(_number(buf, p, end))
        elif word == _GFP:
            q = _word_end(buf, p, end)
            if q - p < LONGEST:
                row.gfp = number_of(names, buf, p, q)
            p = q
        elif word == _NAME and (op == CACHE_ALLOC or op == CACHE_FREE):
            q = _name_end(buf, p, end)
            if 0 < q - p < LONGEST:
                row.name = number_of(names, buf, p, q)
            p = q
        elif word == _ACCOUNTED:
            row.accounted = p < end and buf[p] == 116
        elif op == PAGE_ALLOC or op == PAGE_FREE:
            if word == _PFN:
                row.key = _number(buf, p, end)
            elif word == _PAGE:
                row.name = _hex(buf, p, end) != 0
                while p < end and buf[p] == _SPACE:
                    p += 1
            elif word == _ORDER:
                row.req = _small(_number(buf, p, end))
        elif op == FORK:
            if word == _CHILD:
                row.req = _small(_number(buf, p, end))
            elif word == _PID:
                row.size = _small(_number(buf, p, end))
        elif op == EXIT:
            if word == _PID:
                row.req = _small(_number(buf, p, end))
        elif op >= MKDIR:
            if word == _ROOT or word == _DST_ROOT:
                row.size = _small(_number(buf, p, end))
            elif word == _ID or word == _DST_ID:
                row.key = _number(buf, p, end)
            elif word == _PID:
                row.req = _small(_number(buf, p, end))
            elif word == _PATH or word == _DST_PATH:
                q = _word_end(buf, p, end)
                if 0 < q - p < LONGEST:
                    row.name = number_of(names, buf, p, q)
                p = q
        p = _word_end(buf, p, end)


@numba.njit(cache=True)
def _complete(row):  # pragma: no cover - compiled
    op = row.op
    if op == KMALLOC or op == CACHE_ALLOC:
        return row.key >= 0 and row.size > 0 and row.req >= 0 and row.gfp > 0
    if op == KFREE or op == CACHE_FREE:
        return row.key >= 0
    if op == PAGE_ALLOC:
        return row.key >= 0 and 0 <= row.req <= 10 and row.gfp > 0
    if op == PAGE_FREE:
        return row.key >= 0
    if op == FORK or op == EXIT:
        return 0 <= row.req <= MAX_PID
    if op == ATTACH and not 0 <= row.req <= MAX_PID:
        return False
    return row.name > 0 and row.key >= 0


@numba.njit(cache=True)
def _lost(buf, p, end):  # pragma: no cover - compiled
    """Events that a line says were lost: ``CPU:1 [LOST 5 EVENTS]``, ``[5 EVENTS DROPPED]``."""
    if end - p < 8 or buf[p] != 67 or buf[p + 1] != 80 or buf[p + 2] != 85 or buf[p + 3] != _COLON:
        return np.int64(-1)
    while p < end and buf[p] != 91:
        p += 1
    if p >= end:
        return np.int64(-1)
    while p < end and not 48 <= buf[p] <= 57:
        p += 1
    return max(_number(buf, p, end), np.int64(1))


@numba.njit(cache=True)
def scan(buf, begin, ends, first_line, rows, names, counts):  # pragma: no cover - compiled
    """Read the lines ``first_line``, ... whose newlines are at `ends` into `rows`.

    begin: where line `first_line` starts.  Stops early when `rows` is full or `names` has no room.
    Returns the rows written and the first line not read.
    """
    nr = 0
    line = first_line
    while line < len(ends) and nr < len(rows) and has_room(names, _TEXTS):
        start = begin
        end = ends[line]
        begin = end + 1
        line += 1
        counts[LINES] += 1
        if end > start and buf[end - 1] == 13:
            end -= 1
        p = start
        while p < end and (buf[p] == _SPACE or buf[p] == 9):
            p += 1
        if p == end or buf[p] == 35:
            counts[COMMENTS] += 1
            continue
        row = rows[nr]
        row.name = row.site = row.gfp = 0
        row.key = row.req = row.size = -1
        row.accounted = 0
        p = _head(names, buf, start, end, row)
        if p < 0:
            lost = _lost(buf, start, end)
            if lost > 0:
                counts[LOST] += lost
            else:
                counts[UNKNOWN] += 1
            continue
        word = np.int64(0)
        while p < end and buf[p] != _SPACE:
            if buf[p] == _COLON:
                if p + 1 >= end or buf[p + 1] == _SPACE:
                    break
                word = np.int64(0)  # kmem:kmalloc: of perf
            else:
                word = (word * 257 + np.int64(buf[p])) & KEY_MASK
            p += 1
        if p >= end or buf[p] != _COLON:
            counts[UNKNOWN] += 1
            continue
        op = _kind(word)
        if op == OTHER:
            counts[OTHERS] += 1
            continue
        row.op = op
        _fields(names, buf, p + 1, end, row)
        if not _complete(row):
            counts[DAMAGED] += 1
            continue
        no_page = op == PAGE_ALLOC and row.name == 0
        if (row.key == 0 and op <= CACHE_FREE) or no_page:
            counts[NO_OBJECT] += 1
            continue
        counts[EVENTS] += 1
        nr += 1
    return nr, line
