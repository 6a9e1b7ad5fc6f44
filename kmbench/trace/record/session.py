"""One recording: set up, launch, watch, take down.

Order of things: tracing on; a list of all slab pages; every cache shrunk, so that few slabs are on
CPUs; the slab lists walked (time 0); groups made and commands launched; snapshots at intervals;
when the commands have ended, or the time is over, the lists walked, every cache shrunk, the lists
walked again; tracing off.
"""

import gc
import os
import platform
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kmbench.errors import UsageProblem
from kmbench.trace.record import cgroups, guard, kmem, snapshots, tracefs
from kmbench.trace.record.btf import kernel_types
from kmbench.trace.record.raw import Recording
from kmbench.trace.record.slabs import NO_CENSUS, Census, Dump, SlabWalker
from kmbench.trace.record.tasks import running_tasks

SETTLE_S = 0.6  # from the end of the commands to the last walk: RCU and workqueues finish
BUFFER_KB = 256 << 10  # per CPU, where memory allows
WALKED = "walked"  # `initial_slabs` of a manifest; else why the slabs could not be
Progress = Callable[[str], None]


class Plan(NamedTuple):
    """What to record."""

    commands: dict[str, list[str]]  # group name, without kmb_ -> argument list
    duration_s: float | None  # None: until the commands end
    interval_s: float
    buffer_kb: int  # per CPU


class Stopped(KeyboardInterrupt):
    """A signal asks to leave."""


class Machine(NamedTuple):
    """What :func:`check` found."""

    tracing: Path
    hierarchy: cgroups.Hierarchy
    walks: str  # why the slab lists cannot be read; empty when they can
    kmem_item: int  # of the event that tells changes of kernel memory (version 2); 0: none

    @property
    def kmem_source(self) -> str:
        """What tells the kernel memory of a group: as in manifest.json."""
        if self.hierarchy.version == 1:
            return self.hierarchy.kmem_file
        if self.kmem_item:
            return kmem.TRACED
        return kmem.FLUSHED if kmem.cpu_stat_flushes(os.uname().release) else kmem.STALE


def check() -> Machine:
    """Whether this machine can record.  Raises UsageProblem with one line on what is missing."""
    if platform.system() != "Linux":
        raise UsageProblem("recording needs Linux")
    if os.geteuid() != 0:
        raise UsageProblem("recording needs root: tracefs, /proc/slabinfo and cgroups are root's")
    root = tracefs.find_root()
    if root is None:
        raise UsageProblem("tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing")
    wanted = [event for event in tracefs.EVENTS if event.startswith(("kmem/", "sched/", "cgroup/"))]
    missing = [event for event in wanted if not (root / "events" / event).is_dir()]
    if missing:
        raise UsageProblem(f"this kernel has no trace event {', '.join(missing)}")
    if not snapshots.SYSFS.is_dir() or not os.access("/proc/slabinfo", os.R_OK):
        raise UsageProblem("this kernel does not tell about its slabs: /sys/kernel/slab (SLUB)")
    hierarchy, walks = cgroups.find_hierarchy(), ""
    try:
        SlabWalker(snapshots.cache_names()[:1], os.cpu_count() or 1).close()
    except UsageProblem as problem:
        walks = str(problem)
    return Machine(root, hierarchy, walks, _kmem_item(root) if hierarchy.version == 2 else 0)


def _kmem_item(root: Path) -> int:
    """MEMCG_KMEM of this kernel, 0 where changes of it are not traced or its number not known."""
    if not (root / "events" / tracefs.KMEM).is_dir():
        return 0
    with suppress(OSError, ValueError, KeyError):
        return kernel_types().enumerator("MEMCG_KMEM")
    return 0


def default_buffer_kb(available_kb: int, cpus: int) -> int:
    """Trace buffer of each CPU: all of them take a quarter of the free memory at most."""
    return max(1024, min(BUFFER_KB, available_kb // 4 // cpus))


def available_kb() -> int:
    """Memory that can be had without swapping."""
    return _memory().get("MemAvailable:", 0)


def _memory() -> dict[str, int]:
    return snapshots.keyed(Path("/proc/meminfo").read_bytes().replace(b" kB", b""))


class Recorder:
    """Runs one Plan; a context manager that leaves nothing behind."""

    def __init__(self, plan: Plan, say: Progress):
        self._plan, self._say = plan, say
        self.machine = check()
        left, living = guard.sweep()
        if left:
            raise UsageProblem(f"left over from a dead recording: {'; '.join(left)}")
        if living:
            raise UsageProblem(f"another recording is running: process {living[0]}")
        for name in plan.commands:
            path = self.machine.hierarchy.root / f"{cgroups.PREFIX}{name}"
            if path.exists():
                raise UsageProblem(f"{path} exists already; not made by kmbench")
        self._stack = ExitStack()
        self._children: dict[int, str] = {}
        self._ends: dict[str, tuple[int, int]] = {}
        self._chunks: dict[int, bytearray] = {}

    def __enter__(self) -> "Recorder":
        try:
            self._set_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _set_up(self) -> None:
        stack, machine = self._stack, self.machine
        stack.enter_context(_signals())
        self._owned = guard.Belongings(os.getpid())
        home = cgroups.membership(Path("/proc/self/cgroup").read_text(), machine.hierarchy)
        instance = machine.tracing / "instances" / f"{tracefs.PREFIX}{os.getpid()}"
        self._owned.note(home=home, instance=instance)
        watcher = guard.Watcher(self._owned.path)
        stack.callback(watcher.done)
        stack.callback(guard.take_away, self._owned.path, end_processes=True)
        stack.callback(self._end_children)
        self._say("allocating trace buffers")
        self._trace = tracefs.Instance(
            machine.tracing, os.getpid(), self._plan.buffer_kb, machine.kmem_item
        )
        stack.callback(self._trace.remove)
        names = snapshots.cache_names()
        self._caches = snapshots.geometry(names)
        self._names = [row["name"] for row in self._caches]
        self._sampler = snapshots.Sampler(
            self._names, machine.hierarchy, flush=machine.kmem_source == kmem.FLUSHED
        )
        stack.callback(self._sampler.close)
        self._walker = None
        if not machine.walks:
            self._walker = SlabWalker(self._names, os.cpu_count() or 1, _nodes())
            stack.callback(self._walker.close)
        if not cgroups.is_delegated(machine.hierarchy):
            self._owned.note(delegated="memory")
            cgroups.delegate(machine.hierarchy)
        self._control = self._make(cgroups.CONTROL)
        (self._control / "cgroup.procs").write_text(str(os.getpid()))

    def note_file(self, path: Path) -> None:
        """Remove `path` should this process die."""
        self._owned.note(file=path)

    def _make(self, name: str) -> Path:
        self._owned.note(group=self.machine.hierarchy.root / name)
        return cgroups.make(self.machine.hierarchy, name)

    def _end_children(self) -> None:
        hierarchy = self.machine.hierarchy
        for name in self._plan.commands:
            group = hierarchy.root / f"{cgroups.PREFIX}{name}"
            if group.is_dir():
                cgroups.end_members(group)

    # the recording itself

    def run(self) -> Recording:
        """Record."""
        gc.collect()
        gc.disable()
        try:
            return self._record()
        finally:
            gc.enable()

    def _record(self) -> Recording:
        hierarchy, trace, sampler = self.machine.hierarchy, self._trace, self._sampler
        manifest = _describe() | {"before": snapshots.states(self._names)}
        tasks = running_tasks(hierarchy)
        paths = _group_ids(hierarchy)
        started = time.monotonic()
        trace.start()
        self._say("reading the slabs of this kernel")
        if self._walker:
            self._walker.prepare()
            self._walker.dump(self._walker.run())
        census = [self._census()]
        sampler.shrink()
        time.sleep(0.05)
        sampler.shrink()
        raw = [self._walk()]
        sampler.snapshot()
        groups = {name: self._make(f"{cgroups.PREFIX}{name}") for name in self._plan.commands}
        for path in groups.values():
            sampler.watch(path, f"/{path.name}")
        trace.mark("START")
        sampler.snapshot()
        for name, path in groups.items():
            self._launch(name, path)
        self._watch()
        trace.mark("STOP")
        self._follow(time.monotonic() + SETTLE_S, lambda: False)
        raw.append(self._walk())
        final = time.monotonic_ns()
        trace.mark("SHRINK")
        sampler.shrink()
        raw.append(self._walk())
        sampler.snapshot()
        trace.stop()
        census.append(self._census())
        stats = trace.stats()
        for cpu in trace.cpus:
            self._drain(cpu)
        manifest |= {
            "after": snapshots.states(self._names), "t_final_shrink": final,
            "group_end_s": self._ends, "snapshot_interval_s": self._plan.interval_s,
            "wall_s": round(time.monotonic() - started, 3),
            "ring_stats": {str(cpu): {name: str(row.get(name, 0))
                                      for name in ("entries", *tracefs.LOSSES)}
                           for cpu, row in stats.items()},
            "events_lost": tracefs.losses(stats),
            "events_held": sum(row.get("entries", 0) + row.get("read events", 0)
                               for row in stats.values()),
            "kmem_source": self.machine.kmem_source,
            "initial_slabs": WALKED if self._walker else self.machine.walks,
        }  # fmt: skip
        return Recording(
            hierarchy, self._chunks, trace.page_bytes, trace.formats, tasks, paths,
            sampler.snapshots, self._caches, tuple(self._dump(one) for one in raw), tuple(census),
            self._walker.direct_map if self._walker else 0, Path("/proc/kallsyms").read_text(),
            manifest,
        )  # fmt: skip

    def _walk(self) -> np.ndarray | Dump:
        if self._walker:
            self._walker.prepare()
            return self._walker.run()
        from kmbench.trace.record.uniform import uniform_dump

        return uniform_dump(self._caches)

    def _dump(self, raw: np.ndarray | Dump) -> Dump:
        return raw if isinstance(raw, Dump) else self._walker.dump(raw)

    def _census(self) -> Census:
        return self._walker.census() if self._walker else NO_CENSUS

    def _launch(self, name: str, group: Path) -> None:
        procs = os.open(group / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        argv = self._plan.commands[name]
        pid = os.fork()
        if not pid:
            try:
                os.setpgid(0, 0)
                os.write(procs, b"0")
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
                    signal.signal(number, signal.SIG_DFL)
                null = os.open(os.devnull, os.O_RDONLY)
                os.dup2(null, 0)
                os.execvp(argv[0], argv)
            finally:
                os._exit(127)
        os.close(procs)
        self._children[pid] = name

    def _reap(self) -> bool:
        """Whether all commands have ended."""
        for pid in list(self._children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                name = self._children.pop(pid)
                self._ends[name] = time.monotonic_ns(), os.waitstatus_to_exitcode(status)
        return not self._children

    def _watch(self) -> None:
        limit = self._plan.duration_s
        self._follow(time.monotonic() + limit if limit else float("inf"), self._reap)

    def _follow(self, until: float, done: Callable[[], bool]) -> None:
        """Snapshots at intervals, until it is time or `done`."""
        begin = time.monotonic()
        due = begin + self._plan.interval_s
        while time.monotonic() < until:
            if done():
                return
            time.sleep(max(0.0, min(due, until) - time.monotonic()))
            if time.monotonic() < due:
                continue
            self._sampler.snapshot()
            due = max(due + self._plan.interval_s, time.monotonic())
            if len(self._sampler.snapshots) % 10 == 0:
                stats = self._trace.stats()
                for cpu, row in stats.items():
                    if row.get("bytes", 0) > self._trace.buffer_bytes // 2:
                        self._drain(cpu)
                entries = sum(row.get("entries", 0) for row in stats.values())
                lost = tracefs.losses(stats)
                self._say(f"{time.monotonic() - begin:5.0f} s, {entries / 1e6:.1f} M events held"
                          + (f", {lost} LOST" if lost else ""))  # fmt: skip

    def _drain(self, cpu: int) -> None:
        self._trace.drain(cpu, self._chunks.setdefault(cpu, bytearray()))


@contextmanager
def _signals():
    """SIGTERM, SIGHUP and SIGINT end the recording in order, also when they come twice."""

    def leave(number, _frame):
        for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, leave)
              for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}  # fmt: skip
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _nodes() -> int:
    return max(len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))), 1)


def _group_ids(hierarchy: cgroups.Hierarchy) -> dict[int, str]:
    """cgroup id (inode number) -> path, of every group."""
    found = {}
    for folder, _, _ in os.walk(hierarchy.root):
        with suppress(OSError):
            path = "/" + os.path.relpath(folder, hierarchy.root)
            found[os.stat(folder).st_ino] = "/" if path == "/." else path
    return found


def _describe() -> dict[str, Any]:
    """Kernel and machine."""
    uname = os.uname()
    lines = Path("/proc/cpuinfo").read_text().split("\n")
    model = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "kernel": f"{uname.sysname} {uname.nodename} {uname.release} {uname.version}"
        f" {uname.machine}",
        "cpu": model[0] if model else uname.machine,
        "nproc": os.cpu_count() or 1,
        "memtotal_kb": _memory().get("MemTotal:", 0),
        "load_before": Path("/proc/loadavg").read_text().split()[0],
    }
