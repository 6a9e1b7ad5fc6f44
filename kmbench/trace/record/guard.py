"""Taking away what a recorder made, also when it dies: a list on disk, and a process that waits.

The list names the trace instance, the groups and the temporary files of one recorder.  A watcher
process removes them when the recorder is gone without having done so; the next recorder removes
what a watcher could not.
"""

import json
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from kmbench.trace.record import cgroups, tracefs


def state_folder() -> Path:
    """Where the lists are."""
    run = Path("/run")
    return (run if os.access(run, os.W_OK) else Path(tempfile.gettempdir())) / "kmbench-record"


def start_time(pid: int) -> int:
    """When a process began, in ticks since boot (0: there is none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


class Belongings:
    """What one recorder has made."""

    def __init__(self, pid: int):
        self.path = state_folder() / f"{pid}.json"
        self.document = {"pid": pid, "start": start_time(pid), "home": "/", "instance": "",
                         "delegated": "",
                         "groups": [], "files": []}  # fmt: skip

    def note(self, **changes) -> None:
        """Remember one more thing: instance=, home=, delegated=, group= or file=."""
        for key, value in changes.items():
            if key in ("group", "file"):
                self.document[f"{key}s"].append(str(value))
            else:
                self.document[key] = str(value)
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        partial = self.path.with_suffix(".new")
        partial.write_text(json.dumps(self.document))
        partial.replace(self.path)


def take_away(path: Path, *, end_processes: bool = False) -> list[str]:
    """Remove all that the list `path` names, then the list; returns what is left, in words.

    end_processes: end what still runs in the groups: the recorder's own commands.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        with suppress(OSError):
            path.unlink()
        return []
    left = []
    if document.get("instance"):
        folder = Path(document["instance"])
        with suppress(OSError):
            (folder / "tracing_on").write_text("0")
        try:
            if folder.name.startswith(tracefs.PREFIX):
                tracefs.remove_folder(folder)
        except OSError as error:
            left.append(f"{folder}: {error.strerror}")
    if document.get("groups"):
        hierarchy = cgroups.find_hierarchy()
        for name in document["groups"]:
            group = Path(name)
            if end_processes and group.name != cgroups.CONTROL and group.is_dir():
                cgroups.end_members(group)
            if not cgroups.remove(hierarchy, group, document.get("home", "/")):
                left.append(f"{group}: still in use")
        if document.get("delegated"):
            cgroups.take_back(hierarchy)
    for name in document.get("files", []):
        with suppress(OSError):
            shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
    if not left:
        with suppress(OSError):
            path.unlink()
    return left


def sweep() -> tuple[list[str], list[int]]:
    """Remove what dead recorders left.  Returns what could not be, and the living recorders."""
    left, living = [], []
    for path in sorted(state_folder().glob("*.json")):
        try:
            document = json.loads(path.read_text())
        except (OSError, ValueError):
            document = {}
        pid = int(document.get("pid", 0))
        if pid and start_time(pid) == document.get("start"):
            living.append(pid)
        else:
            left += take_away(path, end_processes=True)
    root = tracefs.find_root()
    for pid, folder in tracefs.owners(root).items() if root else ():
        if not start_time(pid):
            with suppress(OSError):
                tracefs.remove_folder(folder)
    return left, living


class Watcher:
    """A child process that cleans up after this one should it die."""

    def __init__(self, path: Path):
        """path: the list of :class:`Belongings`."""
        self._pid = os.getpid()
        reading, self._writing = os.pipe()
        self.child = os.fork()
        if not self.child:
            self._wait(reading, path)
        os.close(reading)

    def _wait(self, reading: int, path: Path) -> None:
        """Life of the child: sleep until the pipe closes."""
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            os.close(self._writing)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            with suppress(InterruptedError):
                os.read(reading, 1)
            if path.exists():
                # the dead recorder's descriptors of the instance may close a moment later
                for _ in range(50):
                    if not take_away(path, end_processes=True):
                        break
                    time.sleep(0.1)
        finally:
            os._exit(0)

    def done(self) -> None:
        """Let the child go; everything is taken away already."""
        with suppress(OSError):
            os.close(self._writing)
        with suppress(ChildProcessError):
            os.waitpid(self.child, 0)
