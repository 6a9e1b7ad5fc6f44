"""A private instance of the kernel's tracer: its ring buffers, events, markers and losses.

Linux Documentation/trace/ftrace.rst ("Instances"); an instance named ``kmb_PID`` belongs to the
recorder with that process id.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from kmbench.errors import UsageProblem

ROOTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
PREFIX = "kmb_"
EVENTS = (
    "kmem/kmem_cache_alloc", "kmem/kmem_cache_free", "kmem/kmalloc", "kmem/kfree",
    "kmem/mm_page_alloc", "kmem/mm_page_free", "sched/sched_process_fork",
    "sched/sched_process_exit", "cgroup/cgroup_attach_task", "cgroup/cgroup_mkdir",
    "cgroup/cgroup_rmdir", "cgroup/cgroup_release", "vmscan/mm_shrink_slab_start",
    "vmscan/mm_shrink_slab_end", "percpu/percpu_alloc_percpu", "percpu/percpu_free_percpu",
)  # fmt: skip
KMEM = "memcg/mod_memcg_state"  # 6.13 and later: every change of a statistic of a group
LOSSES = ("overrun", "commit overrun", "dropped events")
_PRINT = "ftrace/print"


def find_root() -> Path | None:
    """Where tracefs is mounted."""
    return next((root for root in ROOTS if os.path.isdir(root / "instances")), None)


class Format:
    """One event's fields: name -> (offset, size), from its ``format`` file."""

    def __init__(self, text: str):
        """Raises ValueError when `text` is no such file."""
        head = re.search(r"^name: (\S+)\nID: (\d+)", text)
        if not head:
            raise ValueError("no event format")
        self.name, self.id, self.text = head[1], int(head[2]), text
        pattern = r"field:([^;]*?)(\w+)(?:\[\w*\])?;\s*offset:(\d+);\s*size:(\d+);"
        self.fields = {name: (int(at), int(size))
                       for _, name, at, size in re.findall(pattern, text)}  # fmt: skip


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror or error}") from None


class Instance:
    """A trace instance.  Nothing is recorded before :meth:`start`."""

    def __init__(self, root: Path, pid: int, buffer_kb: int, kmem_item: int = 0):
        """buffer_kb: size of the ring buffer of each CPU.

        kmem_item: number of the statistic whose changes are wanted (event KMEM), 0 for none.

        Raises UsageProblem.
        """
        self.folder = root / "instances" / f"{PREFIX}{pid}"
        self._fds: list[int] = []
        self.formats: dict[str, Format] = {}
        try:
            self.folder.mkdir()
        except OSError as error:
            raise UsageProblem(f"{self.folder}: {error.strerror}") from None
        try:
            self._set_up(root, buffer_kb, kmem_item)
        except BaseException:
            self.remove()
            raise

    def _set_up(self, root: Path, buffer_kb: int, kmem_item: int) -> None:
        _write(self.folder / "tracing_on", "0")
        _write(self.folder / "trace_clock", "mono")
        events = (*EVENTS, KMEM) if kmem_item else EVENTS
        for event in (*events, _PRINT):
            path = root / "events" / event / "format"
            with suppress(OSError, ValueError):
                found = Format(path.read_text())
                self.formats[found.name] = found
        _write(self.folder / "buffer_size_kb", str(buffer_kb))
        got = int((self.folder / "buffer_size_kb").read_text().split()[0])
        if got < buffer_kb * 9 // 10:
            raise UsageProblem(f"the kernel gives a buffer of {got} kB; wanted {buffer_kb} kB")
        self.buffer_bytes = got << 10
        if kmem_item:
            _write(self.folder / "events" / KMEM / "filter", f"item == {kmem_item}")
        for event in events:
            if event.split("/")[1] in self.formats:
                _write(self.folder / "events" / event / "enable", "1")
        self.cpus = sorted(int(path.name[3:]) for path in (self.folder / "per_cpu").glob("cpu*"))
        self._on = self._open(self.folder / "tracing_on", os.O_RDWR)
        self._marker = self._open(self.folder / "trace_marker", os.O_WRONLY)
        per_cpu = self.folder / "per_cpu"
        flags = os.O_RDONLY | os.O_NONBLOCK
        self._raw = {cpu: self._open(per_cpu / f"cpu{cpu}" / "trace_pipe_raw", flags)
                     for cpu in self.cpus}  # fmt: skip
        self._stats = {cpu: self._open(per_cpu / f"cpu{cpu}" / "stats", os.O_RDONLY)
                       for cpu in self.cpus}  # fmt: skip
        sub = self.folder / "buffer_subbuf_size_kb"
        self.page_bytes = int(sub.read_text()) << 10 if sub.exists() else 4096

    def _open(self, path: Path, flags: int) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC)
        self._fds.append(fd)
        return fd

    def start(self) -> None:
        """Switch recording on."""
        os.write(self._on, b"1")

    def stop(self) -> None:
        """Switch recording off."""
        os.write(self._on, b"0")

    def mark(self, text: str) -> None:
        """Put `text` into the stream of events."""
        os.write(self._marker, text.encode())

    def stats(self) -> dict[int, dict[str, int]]:
        """Per CPU: entries, overrun, commit overrun, dropped events, bytes, read events."""
        out = {}
        for cpu, fd in self._stats.items():
            text = os.pread(fd, 4096, 0).decode()
            rows = (line.partition(":") for line in text.splitlines())
            out[cpu] = {key.strip(): int(value) for key, _, value in rows
                        if value.strip().isdigit()}  # fmt: skip
        return out

    def drain(self, cpu: int, into: bytearray) -> None:
        """Move what CPU's buffer holds to the end of `into`."""
        with suppress(BlockingIOError):
            while page := os.read(self._raw[cpu], self.page_bytes):
                into += page

    def remove(self) -> None:
        """Stop and take the instance away."""
        with suppress(OSError):
            (self.folder / "tracing_on").write_text("0")
        for fd in self._fds:
            with suppress(OSError):
                os.close(fd)
        self._fds = []
        remove_folder(self.folder)


def remove_folder(folder: Path) -> None:
    """Remove an instance by its folder; one that is gone already is fine."""
    with suppress(FileNotFoundError):
        folder.rmdir()


def owners(root: Path) -> dict[int, Path]:
    """Process id of the owner -> folder, of every instance of a recorder."""
    found = {}
    for path in (root / "instances").glob(f"{PREFIX}*"):
        if path.name[len(PREFIX) :].isdigit():
            found[int(path.name[len(PREFIX) :])] = path
    return found


def losses(stats: dict[int, dict[str, int]]) -> int:
    """Events that the ring buffers lost."""
    return sum(row.get(name, 0) for row in stats.values() for name in LOSSES)


def read_words(data: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    """Little-endian integers (i8) of `size` bytes at the byte offsets `at` of `data` (u1)."""
    out = np.zeros(len(at), np.uint64)
    for byte in range(size):
        out |= data[at + byte].astype(np.uint64) << np.uint64(8 * byte)
    return out.view(np.int64)
