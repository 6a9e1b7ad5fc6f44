"""The compiled scanner: lines of trace text to rows of numbers, one pass over the bytes.

All text formats of the kernel's tools agree on what stands around the CPU in brackets::

    bash-1977  (1977) [002] d..1. 17284.993652: kmalloc: call_site=... ptr=...      (ftrace)
    bash-1977         [002]       17284.993652: kmalloc:         call_site=...  (trace-cmd)
    bash  1977/1978   [002]       17284.993652: kmem:kmalloc:    call_site=...       (perf)

The fields are found by name, in any order, so one scanner reads every release: see
include/trace/events/kmem.h of Linux 3.5 (``call_site=%lx``, kmalloc_node with ``node=``), 5.9
(``call_site=%pS``), 5.16 (kmem_cache_free with ``name=``), 6.12 (one event for both kinds of
allocation, ``accounted=``) and what came after 6.18 (kmem_cache_alloc with ``name=``), sched.h
and cgroup.h beside it.
"""

import numpy as np

from kmbench.trace.importers.names import LONGEST, has_room, number_of
from kmbench.trace.importers.words import (
    compiled,
    every,
    find,
    find_either,
    hash_of,
    hash_text,
    inlined,
)

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
_SPACE, _EQUALS, _COLON = 32, 61, 58
_SPACES, _EQUALS_SIGNS, _COLONS, _BRACKETS = every(32), every(61), every(58), every(91)
_DIGITS = np.full(256, 99, np.uint8)  # value of a hexadecimal digit
for _value, _byte in enumerate(b"0123456789abcdef"):
    _DIGITS[_byte] = _DIGITS[ord(chr(_byte).upper())] = _value
_TEXTS = 5  # texts that one line can add


_KMALLOC, _KMALLOC_NODE = hash_text(b"kmalloc"), hash_text(b"kmalloc_node")
_CACHE_ALLOC = hash_text(b"kmem_cache_alloc")
_CACHE_ALLOC_NODE = hash_text(b"kmem_cache_alloc_node")
_KFREE, _CACHE_FREE = hash_text(b"kfree"), hash_text(b"kmem_cache_free")
_PAGE_ALLOC, _PAGE_FREE = hash_text(b"mm_page_alloc"), hash_text(b"mm_page_free")
_PAGE_FREE_DIRECT = hash_text(b"mm_page_free_direct")  # its name before 3.3
_FORK, _EXIT = hash_text(b"sched_process_fork"), hash_text(b"sched_process_exit")
_MKDIR, _RMDIR = hash_text(b"cgroup_mkdir"), hash_text(b"cgroup_rmdir")
_RELEASE, _ATTACH = hash_text(b"cgroup_release"), hash_text(b"cgroup_attach_task")
_CALL_SITE, _PTR, _NAME = hash_text(b"call_site"), hash_text(b"ptr"), hash_text(b"name")
_REQ, _ALLOC, _GFP = hash_text(b"bytes_req"), hash_text(b"bytes_alloc"), hash_text(b"gfp_flags")
_ACCOUNTED, _PFN, _PAGE = hash_text(b"accounted"), hash_text(b"pfn"), hash_text(b"page")
_ORDER, _PID, _CHILD = hash_text(b"order"), hash_text(b"pid"), hash_text(b"child_pid")
_ROOT, _ID, _PATH = hash_text(b"root"), hash_text(b"id"), hash_text(b"path")
_DST_ROOT, _DST_ID = hash_text(b"dst_root"), hash_text(b"dst_id")
_DST_PATH = hash_text(b"dst_path")


@inlined
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
        d = _DIGITS[buf[p]]
        if d > 15:
            break
        value = ((value << 4) | np.int64(d)) & KEY_MASK
        p += 1
    return value if p > first else np.int64(-1)


@inlined
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


@inlined
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


@inlined
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


@inlined
def _head(names, buf, start, end, row):  # pragma: no cover - compiled
    """Task, CPU, context and time; where the event's name begins, -1 when it is no such line."""
    p = find(buf, start + 1, end, _BRACKETS)
    cpu = np.int64(-1)
    while p < end:
        if buf[p - 1] == _SPACE:
            q = p + 1
            cpu = 0
            while q < end and 48 <= buf[q] <= 57 and q - p < 6:
                cpu = cpu * 10 + np.int64(buf[q] - 48)
                q += 1
            if q > p + 1 and q < end and buf[q] == 93:
                break
            cpu = -1
        p = find(buf, p + 1, end, _BRACKETS)
    if cpu < 0 or cpu > 255 or not _task(names, buf, start, p, row):
        return np.int64(-1)
    row.cpu = cpu
    p = find(buf, p, end, _SPACES)
    while p < end and buf[p] == _SPACE:
        p += 1
    row.ctx = 0
    if p < end and not 48 <= buf[p] <= 57:
        q = find(buf, p, end, _SPACES)
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


@inlined
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


@inlined
def _small(value):  # pragma: no cover - compiled
    return value if value < 1 << 31 else np.int64(-1)


@inlined
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


@inlined
def _fields(names, buf, p, end, row):  # pragma: no cover - compiled
    """Read the fields that `row.op` needs."""
    op = row.op
    while p < end:
        if buf[p] == _SPACE:
            p += 1
            continue
        q = find_either(buf, p, end, _EQUALS_SIGNS, _SPACES)
        if q >= end or buf[q] == _SPACE:
            p = q
            continue
        word = hash_of(buf, p, q)
        p = q + 1  # the value begins
        if word == _PTR:
            row.key = _hex(buf, p, end)
            while p < end and buf[p] == _SPACE:
                p += 1
        elif word == _CALL_SITE:
            q = find(buf, p, end, _SPACES)
            if op == CACHE_ALLOC and q - p < LONGEST:
                row.site = number_of(names, buf, p, q)
            p = q
        elif word == _REQ:
            row.req = _small(_number(buf, p, end))
        elif word == _ALLOC:
            row.size = _small(_number(buf, p, end))
        elif word == _GFP:
            q = find(buf, p, end, _SPACES)
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
                q = find(buf, p, end, _SPACES)
                if 0 < q - p < LONGEST:
                    row.name = number_of(names, buf, p, q)
                p = q
        p = find(buf, p, end, _SPACES)


@inlined
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


@inlined
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


@compiled
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
        q = find_either(buf, p, end, _COLONS, _SPACES)
        while q + 1 < end and buf[q] == _COLON and buf[q + 1] != _SPACE:  # kmem:kmalloc: of perf
            p = q + 1
            q = find_either(buf, p, end, _COLONS, _SPACES)
        if q >= end or buf[q] != _COLON:
            counts[UNKNOWN] += 1
            continue
        op = _kind(hash_of(buf, p, q))
        p = q
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
