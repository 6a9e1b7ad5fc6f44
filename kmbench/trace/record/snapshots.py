"""What the kernel itself says, read at intervals: texts with their times, parsed afterwards.

During the recording the texts are only kept: parsing would disturb what is being measured.
Every time is CLOCK_MONOTONIC, ns: the trace clock.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kmbench.trace.record.cgroups import PREFIX, Hierarchy

SYSFS = Path("/sys/kernel/slab")
SYSFS_COUNTS = ("partial", "slabs_cpu_partial", "cpu_slabs")
_GEOMETRY = ("slab_size", "object_size", "align", "order", "objs_per_slab", "cpu_partial",
             "min_partial", "sheaf_capacity", "reclaim_account", "destroy_by_rcu",
             "hwcache_align")  # fmt: skip
_STATES = ("slabs", "objects", "total_objects", "partial", "slabs_cpu_partial", "cpu_slabs")


class Reading(NamedTuple):
    """One text, and when it was read."""

    t0: int
    t1: int
    text: bytes


class Snapshot(NamedTuple):
    """Everything read at one moment."""

    slabinfo: Reading
    sysfs: Reading | None  # lines "cache index, column, text"
    groups: list[tuple[str, Reading, bytes, bytes, bytes]]  # path, kmem, usage, failures, stat
    world: Reading  # /proc/cgroups, then every fifth time /proc/vmstat
    directories: int


def read_slabinfo(text: str) -> dict[str, tuple[int, int, int]]:
    """/proc/slabinfo: name -> active objects, objects, slabs."""
    rows = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 16 and fields[1].isdigit():
            rows[fields[0]] = int(fields[1]), int(fields[2]), int(fields[14])
    return rows


def first_number(text: bytes) -> int:
    """The number that a file begins with, 0 without one."""
    word = text.split(None, 1)[0] if text.strip() else b"0"
    digits = word.split(b"(")[0]
    return int(digits) if digits.lstrip(b"-").isdigit() else 0


def in_brackets(text: bytes) -> int:
    """The slabs of a slabs_cpu_partial: "objects(slabs)"."""
    inner = text.partition(b"(")[2].partition(b")")[0]
    return int(inner) if inner.isdigit() else 0


def keyed(text: bytes) -> dict[str, int]:
    """A file of lines "name number"."""
    rows = (line.split() for line in text.decode().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def kmem_bytes(text: bytes, version: int) -> int:
    """Kernel memory of a group, from its kmem_file."""
    return first_number(text) if version == 1 else keyed(text).get("kernel", 0)


def failures(text: bytes, version: int) -> int:
    """How often a group hit its limit, from its fail_file."""
    return first_number(text) if version == 1 else keyed(text).get("max", 0)


def user_bytes(stat: bytes, version: int) -> tuple[int | None, int | None, int | None]:
    """rss, cache and mapped_file of a memory.stat (None: not read)."""
    if not stat:
        return None, None, None
    rows = keyed(stat)
    names = ("rss", "cache", "mapped_file") if version == 1 else ("anon", "file", "file_mapped")
    return tuple(rows.get(name, 0) for name in names)


def slab_folders(names: list[str]) -> dict[str, Path]:
    """The folder of each cache; merged caches share one."""
    return {name: SYSFS / name for name in names if (SYSFS / name).is_dir()}


def cache_names() -> list[str]:
    """Caches of this kernel, sorted."""
    return sorted(read_slabinfo(Path("/proc/slabinfo").read_text()))


def geometry(names: list[str]) -> list[dict]:
    """Rows for `caches` of a manifest.  A cache without a folder is left out."""
    folders = slab_folders(names)
    shared: dict[str, list[str]] = {}
    for entry in SYSFS.iterdir():
        if entry.is_symlink():
            shared.setdefault(os.readlink(entry).rpartition("/")[2], []).append(entry.name)
    rows = []
    for name in names:
        if name not in folders:
            continue
        value = {key: first_number(_text(folders[name] / key)) for key in _GEOMETRY}
        aliases = shared.get(folders[name].resolve().name, [])
        rows.append(
            {"id": len(rows), "name": name, "size": value["slab_size"]}
            | {key: value[key] for key in ("object_size", "align", "order", "objs_per_slab",
                                           "cpu_partial", "min_partial", "sheaf_capacity",
                                           "reclaim_account")}
            | {"typesafe_rcu": value["destroy_by_rcu"], "hwcache_align": value["hwcache_align"],
               "aliases": sorted(set(aliases) - {name})}
        )  # fmt: skip
    return rows


def states(names: list[str]) -> dict[str, dict[str, str]]:
    """``before`` and ``after`` of a manifest: counts in sysfs, as they are written there."""
    return {
        name: {key: _text(folder / key).decode().strip() for key in _STATES}
        for name, folder in slab_folders(names).items()
    }


def _text(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""


class Sampler:
    """Opens every file once, and reads them all when told to."""

    def __init__(self, names: list[str], hierarchy: Hierarchy, *, flush: bool = False):
        """names: caches in the order of their ids.

        flush: read a group's cpu.stat before its memory.stat (see kmem.py).
        """
        self._hierarchy, self._flush = hierarchy, flush
        self._fds: list[int] = []
        self._groups: dict[str, tuple[int, ...]] = {}
        self._slabinfo = self._open("/proc/slabinfo")
        self._cgroups = self._open("/proc/cgroups")
        self._vmstat = self._open("/proc/vmstat")
        folders = slab_folders(names)
        self._sysfs = [
            (f"{row},{column},".encode(), self._open(folders[name] / key))
            for row, name in enumerate(names)
            for column, key in enumerate(SYSFS_COUNTS)
        ]
        self._shrink = [self._open(folders[name] / "shrink", os.O_WRONLY) for name in names]
        self.snapshots: list[Snapshot] = []

    def _open(self, path: str | Path, flags: int = os.O_RDONLY) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        """Close all files."""
        for fd in (*self._fds, *(fd for row in self._groups.values() for fd in row)):
            with suppress(OSError):
                os.close(fd)
        self._fds, self._groups = [], {}

    def shrink(self) -> None:
        """kmem_cache_shrink of every cache, in the order of the ids."""
        for fd in self._shrink:
            os.pwrite(fd, b"1", 0)

    def watch(self, folder: Path, path: str) -> None:
        """Read the group `path` (its directory is `folder`) from now on."""
        at = self._hierarchy
        names = [at.kmem_file, at.usage_file, at.fail_file, "memory.stat"]
        if self._flush:
            names.append("cpu.stat")
        with suppress(OSError):
            self._groups[path] = tuple(
                os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC) for name in names
            )

    def _find_groups(self) -> int:
        found = 0
        with os.scandir(self._hierarchy.root) as entries:
            for entry in entries:
                if entry.name.startswith(PREFIX):
                    found += 1
                    if f"/{entry.name}" not in self._groups:
                        self.watch(Path(entry.path), f"/{entry.name}")
        return found

    def snapshot(self) -> None:
        """Read everything once."""
        fifth = len(self.snapshots) % 5 == 0
        t0 = time.monotonic_ns()
        world = os.pread(self._cgroups, 8192, 0)
        if fifth:
            world += _whole(self._vmstat)
        world = Reading(t0, time.monotonic_ns(), world)
        t0 = time.monotonic_ns()
        text = _whole(self._slabinfo)
        slabinfo = Reading(t0, time.monotonic_ns(), text)
        sysfs = None
        if fifth:
            t0 = time.monotonic_ns()
            text = b"".join(head + os.pread(fd, 256, 0) for head, fd in self._sysfs)
            sysfs = Reading(t0, time.monotonic_ns(), text)
        directories = self._find_groups()
        groups = []
        for path, fds in list(self._groups.items()):
            try:
                if self._flush:
                    os.pread(fds[4], 64, 0)
                t0 = time.monotonic_ns()
                kmem = os.pread(fds[0], 8192, 0)
                t1 = time.monotonic_ns()
                usage, fails = os.pread(fds[1], 64, 0), os.pread(fds[2], 512, 0)
                stat = os.pread(fds[3], 8192, 0) if fifth else b""
            except OSError:  # removed
                for fd in self._groups.pop(path):
                    os.close(fd)
                continue
            groups.append((path, Reading(t0, t1, kmem), usage, fails, stat))
        self.snapshots.append(Snapshot(slabinfo, sysfs, groups, world, directories))


def _whole(fd: int) -> bytes:
    """All of a seq_file: it comes in portions of about a page."""
    parts, at = [], 0
    while part := os.pread(fd, 1 << 16, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
