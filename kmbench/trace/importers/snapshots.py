"""Readings of /proc/slabinfo and memory.stat, one or many after another in a file.

A line ``# SECONDS`` (the trace's clock) may stand before each snapshot; before a memory.stat
``# SECONDS GROUP`` says whose it is.  /proc/slabinfo: Linux 6.18 mm/slab_common.c:cache_show, the
same columns since 2.6.10.  memory.stat: mm/memcontrol.c:memory_stat_format; ``kernel`` is there
since 5.18, before it the parts are summed.  On cgroup v2 it may be up to two seconds behind (see
kmbench/trace/record/kmem.py).
"""

import re
from pathlib import Path
from typing import NamedTuple

from kmbench.errors import UsageProblem

_TIME = re.compile(r"#\s*(?:t=)?(\d{1,12}\.\d+|\d{1,18})(?:\s+(\S+))?\s*$")
_SLAB = re.compile(
    r"(\S.*?)\s+(\d{1,15})\s+(\d{1,15})\s+(\d{1,9})\s+(\d{1,5})\s+(\d{1,4})\s*"
    r"(?::\s*tunables.*?)?(?::\s*slabdata\s+(\d{1,9})\s+(\d{1,9})\s+\d+)?\s*$"
)
_KERNEL_PARTS = ("slab", "kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc")


class SlabRow(NamedTuple):
    """One cache in a slabinfo."""

    active: int  # objects
    total: int
    size: int  # slot, bytes
    objects: int  # a slab
    order: int
    slabs: int  # -1 = not printed


class Snapshot(NamedTuple):
    """One reading: `group` is empty for a slabinfo."""

    t: int  # ns of the trace's clock, -1 = not told
    group: str
    rows: dict


def _lines(path: str | Path, expected: str) -> list[str]:
    try:
        data = Path(path).read_bytes()
    except OSError as err:
        raise UsageProblem(f"{path}: {err.strerror}; expected {expected}") from None
    except ValueError as err:
        raise UsageProblem(f"{path}: {err}; expected {expected}") from None
    if 0 in data:
        line = data.count(b"\n", 0, data.index(0)) + 1
        raise UsageProblem(f"{path}: line {line}: binary data; expected {expected}")
    if not data.strip():
        raise UsageProblem(f"{path}: line 1: the file is empty; expected {expected}")
    return data.decode("utf-8", "replace").split("\n")


def _time(found: re.Match) -> int:
    whole, _, part = found.group(1).partition(".")
    return int(whole[:9]) * 10**9 + int((part + "000000000")[:9])


def read_slabinfo(path: str | Path) -> list[Snapshot]:
    """Snapshots of /proc/slabinfo; rows are name -> SlabRow.

    Raises UsageProblem naming file, line and what was expected.
    """
    expected = "a copy of /proc/slabinfo"
    snapshots: list[Snapshot] = []
    t = -1
    for number, text in enumerate(_lines(path, expected), 1):
        text = text.strip()
        found = _TIME.match(text)
        if found:
            t = _time(found)
        elif text.startswith("slabinfo - version"):
            snapshots.append(Snapshot(t, "", {}))
            t = -1
        elif text and not text.startswith("#"):
            if not snapshots:
                raise UsageProblem(
                    f"{path}: line {number}: no 'slabinfo - version' before; expected {expected}"
                )
            found = _SLAB.match(text)
            values = [int(value or -1) for value in found.groups()[1:]] if found else [0]
            pages = values[4] if found else 0
            if (
                not found or values[2] < 1 or not 0 < values[3] <= 32767
                or not 0 < pages <= 1024 or pages & (pages - 1)
                or values[2] * values[3] > pages << 16
            ):  # fmt: skip
                raise UsageProblem(
                    f"{path}: line {number}: no row of a slabinfo; expected "
                    "'name active total objsize objperslab pagesperslab : ...'"
                )
            name = found.group(1)
            row = SlabRow(*values[:4], pages.bit_length() - 1, values[6])
            snapshots[-1].rows[name] = row
    if not snapshots:
        raise UsageProblem(f"{path}: line 1: no 'slabinfo - version' line; expected {expected}")
    return snapshots


def read_memory_stat(path: str | Path) -> list[Snapshot]:
    """Snapshots of memory.stat files; rows are key -> bytes.  Raises UsageProblem."""
    expected = "copies of memory.stat, each after a line '# SECONDS GROUP'"
    snapshots: list[Snapshot] = []
    for number, text in enumerate(_lines(path, expected), 1):
        found = _TIME.match(text.strip())
        if found and found.group(2):
            snapshots.append(Snapshot(_time(found), found.group(2), {}))
        elif text.strip():
            key, _, value = text.strip().partition(" ")
            digits = 19 if key.endswith("_limit") else 18  # LONG_MAX in whole pages: unset
            if not snapshots or not value.isascii() or not value.isdigit() or len(value) > digits:
                raise UsageProblem(f"{path}: line {number}: {text:.40}; expected {expected}")
            snapshots[-1].rows[key] = int(value)
    if not snapshots:
        raise UsageProblem(f"{path}: line 1: no reading; expected {expected}")
    return snapshots


def kernel_bytes(rows: dict[str, int]) -> int:
    """Kernel memory that a memory.stat shows."""
    if "kernel" in rows:
        return rows["kernel"]
    return sum(rows.get(part, 0) for part in _KERNEL_PARTS)
