"""What misses in caches of a processor, when the same is done again and again.

Of caches that replace the least recently used; a line of memory is 64 bytes.
"""

from collections.abc import Iterable, Sequence

LINE = 64
ROUNDS = 6  # of what is repeated: the last has what is kept


def lines(address: int, size: int) -> range:
    """Numbers of the lines that so many bytes from `address` are on."""
    return range(address // LINE, (address + size - 1) // LINE + 1)


def decoded(passed: Iterable[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """Entries of a cache of decoded instructions for (address, size) of those passed, in order.

    An entry is told by its line and where it begins, and holds up to `most` instructions in a row
    that are on the line.
    """
    found: list[tuple[int, int]] = []
    nr, after = 0, -1
    for at, size in passed:
        if nr == most or at != after or at // LINE != found[-1][0]:
            found.append((at // LINE, at))
            nr = 0
        nr, after = nr + 1, at + size
    return found


def misses(entries: Sequence[tuple[int, ...]], sets: int, ways: int) -> int:
    """How many of `entries`, each (its line, what else tells it apart), miss in a round of many."""
    kept: list[list[tuple[int, ...]]] = [[] for _ in range(sets)]
    missed = 0
    for _ in range(ROUNDS):
        missed = 0
        for entry in entries:
            of = kept[entry[0] % sets]
            if entry in of:
                of.remove(entry)
            else:
                missed += 1
                del of[: max(0, len(of) - ways + 1)]
            of.append(entry)
    return missed
