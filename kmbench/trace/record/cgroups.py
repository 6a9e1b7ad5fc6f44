"""Memory cgroups of a recording, version 1 or 2: made, filled, read and removed.

Only directories named ``kmb_*`` right below the root of the hierarchy are ever changed.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kmbench.errors import UsageProblem

PREFIX = "kmb_"
CONTROL = "kmb_ctl"  # the recorder itself
_MOUNTS = Path("/proc/self/mounts")


class Hierarchy(NamedTuple):
    """Where the memory controller is."""

    root: Path
    version: int
    id: int  # as the cgroup trace events name it in `root`; 0 is the unified hierarchy

    @property
    def kmem_file(self) -> str:
        """File with the kernel memory of a group."""
        return "memory.kmem.usage_in_bytes" if self.version == 1 else "memory.stat"

    @property
    def usage_file(self) -> str:
        """File with all memory of a group."""
        return "memory.usage_in_bytes" if self.version == 1 else "memory.current"

    @property
    def fail_file(self) -> str:
        """File that counts hits of the limit."""
        return "memory.failcnt" if self.version == 1 else "memory.events"


def parse_mounts(text: str, groups: str) -> Hierarchy | None:
    """The memory hierarchy, from /proc/self/mounts and /proc/self/cgroup."""
    unified = None
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        if fields[2] == "cgroup" and "memory" in fields[3].split(","):
            for row in groups.splitlines():
                number, controllers, _ = row.split(":", 2)
                if "memory" in controllers.split(","):
                    return Hierarchy(Path(fields[1]), 1, int(number))
        if fields[2] == "cgroup2":
            unified = unified or Hierarchy(Path(fields[1]), 2, 0)
    return unified


def find_hierarchy() -> Hierarchy:
    """The memory hierarchy of this machine.  Raises UsageProblem when there is none."""
    found = parse_mounts(_MOUNTS.read_text(), Path("/proc/self/cgroup").read_text())
    if found is None:
        raise UsageProblem("no cgroup hierarchy is mounted")
    if found.version == 2:
        controllers = (found.root / "cgroup.controllers").read_text().split()
        if "memory" not in controllers:
            raise UsageProblem(f"{found.root} has no memory controller")
        if "\nkernel " not in (found.root / "memory.stat").read_text():
            raise UsageProblem(f"{found.root}/memory.stat has no `kernel`; it came with Linux 5.18")
    elif not (found.root / found.kmem_file).exists():
        raise UsageProblem(f"{found.root} does not account kernel memory")
    return found


def membership(text: str, hierarchy: Hierarchy) -> str:
    """Path of the memory cgroup in a /proc/PID/cgroup."""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(",") if hierarchy.version == 1 else number == "0":
            return path
    return "/"


def is_delegated(hierarchy: Hierarchy) -> bool:
    """Whether groups below the root have the memory controller (on version 1 they always do)."""
    if hierarchy.version == 1:
        return True
    return "memory" in (hierarchy.root / "cgroup.subtree_control").read_text().split()


def delegate(hierarchy: Hierarchy) -> None:
    """Give groups below the root the memory controller (version 2).  Raises UsageProblem."""
    path = hierarchy.root / "cgroup.subtree_control"
    try:
        path.write_text("+memory")
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from None


def take_back(hierarchy: Hierarchy) -> None:
    """Undo :func:`delegate`, unless groups were made meanwhile that may rely on it."""
    if not any(path.is_dir() for path in hierarchy.root.iterdir()):
        with suppress(OSError):
            (hierarchy.root / "cgroup.subtree_control").write_text("-memory")


def make(hierarchy: Hierarchy, name: str) -> Path:
    """Create the group `name`.  Raises UsageProblem."""
    if not name.startswith(PREFIX) or "/" in name:
        raise UsageProblem(f"group {name!r}: expected a plain name that begins with {PREFIX}")
    path = hierarchy.root / name
    try:
        path.mkdir()
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from None
    return path


def members(path: Path) -> list[int]:
    """Processes in a group and below it."""
    found = []
    for folder, _, _ in os.walk(path):
        with suppress(OSError):
            found += [int(pid) for pid in (Path(folder) / "cgroup.procs").read_text().split()]
    return found


def end_members(path: Path, patience_s: float = 2.0) -> None:
    """End the processes of a group: ask, then insist.  They are those started in it."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + patience_s
        for pid in members(path):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, sent)
        while members(path) and time.monotonic() < deadline:
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.02)


def remove(hierarchy: Hierarchy, path: Path, back: str = "/") -> bool:
    """Remove a group and those below; what still runs in it goes to the group `back`."""
    if path.parent != hierarchy.root or not path.name.startswith(PREFIX) or not path.is_dir():
        return not path.exists()
    home = hierarchy.root / back.lstrip("/")
    for _ in range(50):
        for folder, _, _ in os.walk(path, topdown=False):
            for pid in _direct(Path(folder)):
                with suppress(OSError):
                    (home / "cgroup.procs").write_text(str(pid))
            with suppress(OSError):
                os.rmdir(folder)
        if not path.exists():
            return True
        time.sleep(0.02)
    return False


def _direct(folder: Path) -> list[int]:
    with suppress(OSError):
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    return []


def leftovers(hierarchy: Hierarchy) -> list[Path]:
    """Groups named ``kmb_*``."""
    return sorted(path for path in hierarchy.root.glob(f"{PREFIX}*") if path.is_dir())
