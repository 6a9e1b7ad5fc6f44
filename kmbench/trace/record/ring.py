"""Pages of the kernel's ring buffer, as ``trace_pipe_raw`` hands them out.

Layout: Linux 6.18 include/linux/ring_buffer.h (struct ring_buffer_event) and
kernel/trace/ring_buffer.c (struct buffer_data_page).
"""

from typing import NamedTuple

import numpy as np

from kmbench.core.specialise import cached

_PADDING, _EXTEND, _STAMP = 29, 30, 31
_MISSED = 1 << 31
_LENGTH = (1 << 20) - 1
_TOP_BITS = 0x1F << 59  # of a page's time stamp, completes absolute stamps


class Entries(NamedTuple):
    """Where each event lies in a buffer of pages."""

    t: np.ndarray  # i8, trace clock
    at: np.ndarray  # i8, offset of the event's data
    missed: int  # pages before which events were lost


@cached
def _word(words, at):  # pragma: no cover - compiled
    return np.int64(words[at >> 2])


@cached
def _scan(words, page_bytes, out_t, out_at):  # pragma: no cover - compiled
    n = missed = 0
    for start in range(0, len(words) * 4, page_bytes):
        stamp = _word(words, start) | _word(words, start + 4) << 32
        commit = _word(words, start + 8)
        if commit & _MISSED:
            missed += 1
        at = start + 16
        end = at + min(commit & _LENGTH, page_bytes - 16)
        t = stamp
        while at + 4 <= end:
            head = _word(words, at)
            kind, delta = head & 31, head >> 5
            if kind == _PADDING:
                if delta == 0:
                    break
                t += delta
                at += 4 + _word(words, at + 4)
                continue
            if kind == _EXTEND:
                t += delta + (_word(words, at + 4) << 27)
                at += 8
                continue
            if kind == _STAMP:
                t = (delta + (_word(words, at + 4) << 27)) | (stamp & _TOP_BITS)
                at += 8
                continue
            t += delta
            if kind == 0:
                body, size = at + 8, _word(words, at + 4)
                following = at + 4 + size
            else:
                body, following = at + 4, at + 4 + 4 * kind
            out_t[n] = t
            out_at[n] = body
            n += 1
            at = (following + 3) & ~3
    return n, missed


def parse_pages(data: np.ndarray, page_bytes: int) -> Entries:
    """Events of the pages in `data` (u1, a multiple of `page_bytes`), in their order."""
    words = np.ascontiguousarray(data).view(np.uint32)
    room = len(words) // 2
    t, at = np.empty(room, np.int64), np.empty(room, np.int64)
    n, missed = _scan(words, page_bytes, t, at)
    return Entries(t[:n].copy(), at[:n].copy(), missed)


@cached
def hash_texts(data, at, limit):  # pragma: no cover - compiled
    """FNV-1a (u8) of the zero-terminated texts at the offsets `at`, `limit` bytes at most."""
    out = np.empty(len(at), np.uint64)
    for i in range(len(at)):
        value = np.uint64(0xCBF29CE484222325)
        for k in range(limit):
            if at[i] + k >= len(data):
                break
            byte = data[at[i] + k]
            if byte == 0:
                break
            value = (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)
        out[i] = value
    return out
