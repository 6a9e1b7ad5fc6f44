"""Every text a trace repeats (commands, caches, flags, call sites, paths) as a small number.

The compiled scanner looks texts up in an open-addressing table over one arena of bytes; number 0
means "none".  Python reads the texts back and grows the table between two calls.
"""

from typing import NamedTuple

import numpy as np

from kmbench.trace.importers.words import equal, hash_of, inlined

LONGEST = 4096  # bytes of one text; PATH_MAX
_FIRST_ARENA = 1 << 16
_FIRST_SLOTS = 1 << 12


class NameTable(NamedTuple):
    """The arrays of the table, as compiled code sees them."""

    slots: np.ndarray  # i4, a power of two; 0 = free
    starts: np.ndarray  # i8 per number
    lengths: np.ndarray  # i4 per number
    hashes: np.ndarray  # i8 per number
    arena: np.ndarray  # u1
    used: np.ndarray  # i8: [numbers given out + 1, bytes of the arena in use]


@inlined
def has_room(table, texts):  # pragma: no cover - compiled
    """Whether `texts` more texts fit whatever they are."""
    return table.used[0] + texts < len(table.starts) and table.used[1] + (
        texts + 1
    ) * LONGEST < len(table.arena)


@inlined
def number_of(table, buf, start, end):  # pragma: no cover - compiled
    """The number of the text ``buf[start:end]``, a new one when it was never seen.

    `buf` has 8 readable bytes after `end`.
    """
    h = hash_of(buf, start, end)
    mask = len(table.slots) - 1
    at = h & mask
    while True:
        number = table.slots[at]
        if number == 0:
            break
        if table.hashes[number] == h and table.lengths[number] == end - start:
            begin = table.starts[number]
            if equal(buf, start, table.arena, begin, end - start):
                return number
        at = (at + 1) & mask
    number = table.used[0]
    begin = table.used[1]
    table.slots[at] = number
    table.hashes[number] = h
    table.starts[number] = begin
    table.lengths[number] = end - start
    for p in range(start, end):
        table.arena[begin + p - start] = buf[p]
    table.used[0] = number + 1
    table.used[1] = begin + end - start
    return number


def _grown(array: np.ndarray, length: int) -> np.ndarray:
    out = np.zeros(length, array.dtype)
    out[: len(array)] = array
    return out


class Names:
    """Texts of a trace by number."""

    def __init__(self) -> None:
        texts = _FIRST_SLOTS // 2
        self.table = NameTable(
            np.zeros(_FIRST_SLOTS, np.int32), np.zeros(texts, np.int64),
            np.zeros(texts, np.int32), np.zeros(texts, np.int64),
            np.zeros(_FIRST_ARENA, np.uint8), np.array([1, 0], np.int64),
        )  # fmt: skip

    def __len__(self) -> int:
        """Numbers in use, including 0."""
        return int(self.table.used[0])

    def grow(self) -> None:
        """Double the table and the arena."""
        old = self.table
        slots = np.zeros(2 * len(old.slots), np.int32)
        mask = len(slots) - 1
        for number in range(1, len(self)):
            at = int(old.hashes[number]) & mask
            while slots[at]:
                at = (at + 1) & mask
            slots[at] = number
        texts = len(slots) // 2
        self.table = NameTable(
            slots, _grown(old.starts, texts), _grown(old.lengths, texts),
            _grown(old.hashes, texts), _grown(old.arena, 2 * len(old.arena)), old.used,
        )  # fmt: skip

    def add(self, text: str) -> int:
        """The number of `text`."""
        data = np.frombuffer(text.encode() + bytes(8), np.uint8)
        while not has_room(self.table, 4):
            self.grow()
        return int(number_of(self.table, data, 0, len(data) - 8))

    def text(self, number: int) -> str:
        """The text with that number; bytes that are no UTF-8 become U+FFFD."""
        begin = int(self.table.starts[number])
        data = self.table.arena[begin : begin + int(self.table.lengths[number])].tobytes()
        return data.decode("utf-8", "replace")
