"""From trace text to a trace file: scan, convert, spool, and write once the machine is known.

Memory holds a few MiB of text, the table of live objects and the names; the events go to an
unnamed temporary file beside the output (32 bytes each), because rows, groups and CPUs of the
setup are only known at the end of the text.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.core.setup import Machine, Setup
from kmbench.errors import UsageProblem
from kmbench.trace.format import ROW_GROUP, write_trace
from kmbench.trace.importers import objects as ob
from kmbench.trace.importers import scan as sc
from kmbench.trace.importers.caches import MAX_CACHES, Caches
from kmbench.trace.importers.gfp import gfp_bits
from kmbench.trace.importers.groups import Groups, is_kthread
from kmbench.trace.importers.lines import Head, Piece, detect, opened, pieces
from kmbench.trace.importers.names import Names, has_room
from kmbench.trace.importers.snapshots import Snapshot
from kmbench.trace.importers.truth import sample_events, write_readings

GROUP_BY = {"cgroup": ob.BY_CGROUP, "comm": ob.BY_COMM, "pid": ob.BY_PID, "none": ob.BY_NONE}
ROWS = 1 << 16  # rows converted at once
_EXAMPLE = "'bash-1 [000] d..1. 1.000000: kmalloc: call_site=... ptr=... bytes_req=...'"
_SCANNED = {
    "lines": sc.LINES, "events_read": sc.EVENTS, "other_events": sc.OTHERS,
    "unknown_lines": sc.UNKNOWN, "damaged_events": sc.DAMAGED, "comment_lines": sc.COMMENTS,
    "lost_events": sc.LOST, "without_object": sc.NO_OBJECT,
}  # fmt: skip


class Imported(NamedTuple):
    """What an import found."""

    form: str
    era: str
    events: int  # written
    seconds: float  # of the trace
    cpus: int
    caches: int
    groups: int
    handles: int
    counts: dict[str, int]  # everything read, repaired or left out


class _Reader:
    """State of one import between pieces of text."""

    def __init__(self, head: Head, group_by: str, slabinfo: dict):
        self.head = head
        self.names = Names()
        self.dots = self.names.add("<...>")
        self.caches = Caches(head.era, slabinfo)
        self.groups = Groups()
        self.mode = GROUP_BY[group_by]
        # kernel stacks have 16 KiB since 3.15, x86-64
        stack_order = 1 if head.era in ("3.5", "3.8", "3.13") else 2
        self.objects = ob.Objects(self.mode, stack_order, MAX_CACHES)
        self.counts = np.zeros(sc.NR_COUNTS, np.int64)
        self.unknown_flags = 0
        self._rows = np.zeros(ROWS, sc.ROW)
        self._gfp = np.zeros(0, np.int64)
        self._group_of = np.zeros(0, np.int32)
        self._kthread = np.zeros(0, np.uint8)
        self._looked_at = 1

    def events(self, piece: Piece) -> Iterator[np.ndarray]:
        """EVENT records of the lines of `piece`."""
        line, ends = 0, piece.ends
        while line < len(ends):
            while not has_room(self.names.table, 8):
                self.names.grow()
            begin = int(ends[line - 1]) + 1 if line else 0
            nr, line = sc.scan(
                piece.buf, begin, ends, line, self._rows, self.names.table, self.counts
            )
            if nr:
                yield self._convert(self._rows[:nr])

    def _per_name(self) -> None:
        """Size the columns by number of name; find the kernel threads among new ones."""
        size = len(self.names.table.starts)
        if size > len(self._gfp):
            old = len(self._gfp)
            self._gfp = np.concatenate([self._gfp, np.full(size - old, -1, np.int64)])
            self._group_of = np.concatenate([self._group_of, np.zeros(size - old, np.int32)])
            self._kthread = np.concatenate([self._kthread, np.zeros(size - old, np.uint8)])
        for number in range(self._looked_at, len(self.names)):
            self._kthread[number] = is_kthread(self.names.text(number))
        self._looked_at = len(self.names)

    def _flags(self, rows: np.ndarray) -> np.ndarray:
        gfp = self._gfp[rows["gfp"]]
        if gfp.min(initial=0) < 0:
            self._gfp[0] = 0
            for number in np.unique(rows["gfp"][gfp < 0]):
                if number:
                    bits, known = gfp_bits(self.names.text(int(number)), self.head.layout)
                    self._gfp[number] = bits
                    self.unknown_flags += not known
            gfp = self._gfp[rows["gfp"]]
        return gfp.astype(np.uint32)

    def _convert(self, rows: np.ndarray) -> np.ndarray:
        self._per_name()
        gfp = self._flags(rows)
        cache_row = self.caches.rows_of(rows, gfp, self.names)
        if self.mode == ob.BY_CGROUP:
            self.groups.resolve(rows, self.names)
        events, new = self.objects.events(
            rows, cache_row, gfp, self._group_of, self._kthread, self.dots
        )
        for number in new.tolist():
            name = self.names.text(number) if self.mode == ob.BY_COMM else str(number)
            self.groups.add(name if name.startswith("/") else f"/{name}")
        return events

    def setup(self, cpus: int) -> tuple[Setup, np.ndarray]:
        """The machine of the trace, and the final cache row for every one in the spool."""
        state = self.objects.state
        cpus = max(cpus, int(state[ob.MAX_CPU]) + 1, min(self.head.cpus, 256))
        learned = [
            self.names.text(number) if number else ""
            for number in self.objects.learned[: len(self.caches.seen) + 1].tolist()
        ]
        caches, final = self.caches.finish(learned, cpus)
        setup = Setup(
            Machine(cpus=cpus), self.head.era, caches, tuple(self.groups.specs), int(state[ob.NEXT])
        )
        return setup, final

    def summary(self) -> dict[str, int]:
        """Every count of what was read, repaired or left out."""
        found = {name: int(self.counts[at]) for name, at in _SCANNED.items()}
        found |= self.objects.counts()
        return found | {
            "other_hierarchy": self.groups.other_hierarchy,
            "unknown_flags": self.unknown_flags,
        }


def _read_back(spool: BinaryIO, final: np.ndarray, samples: np.ndarray) -> Iterator[np.ndarray]:
    """The spooled events with final cache rows, samples merged in by time."""
    spool.seek(0)
    done = 0
    while data := spool.read(ROW_GROUP * EVENT.itemsize):
        events = np.frombuffer(data, EVENT).copy()
        slab = events["op"] == ev.ALLOC
        events["cache"][slab] = final[events["cache"][slab]]
        upto = done + int(np.searchsorted(samples["t"][done:], events["t"][-1]))
        if upto > done:
            where = np.searchsorted(events["t"], samples["t"][done:upto])
            events = np.insert(events, where, samples[done:upto])
            done = upto
        yield events
    if done < len(samples):
        yield samples[done:]


def import_trace(
    paths: Sequence[str], out: str | Path, *, form: str = "auto", era: str = "auto",
    group_by: str = "cgroup", slabinfo: Sequence[Snapshot] = (),
    memory_stat: Sequence[Snapshot] = (), cpus: int = 0,
) -> Imported:  # fmt: skip
    """Read trace text, `paths` following each other in time, into the trace file `out`.

    slabinfo: geometry comes from the first; those with a time become readings and samples, as do
    the `memory_stat`.  cpus: at least so many.

    Raises UsageProblem naming file, line and what was expected: no text, cut off, no events.
    """
    out = Path(out)
    reader: _Reader | None = None
    try:
        spool = tempfile.TemporaryFile(dir=out.parent)  # noqa: SIM115 - closed below
    except OSError as err:
        raise UsageProblem(f"{out}: cannot be written ({err.strerror})") from None
    with spool:
        for path in paths:
            before = int(reader.counts[sc.EVENTS]) if reader else 0
            nr_lines = 0
            with opened(path) as file:
                for piece in pieces(path, file):
                    if reader is None:
                        head = detect(piece, form, era)
                        reader = _Reader(head, group_by, slabinfo[0].rows if slabinfo else {})
                    try:
                        for events in reader.events(piece):
                            spool.write(events.tobytes())
                    except UsageProblem as problem:
                        raise problem.within(f"{path}: line {piece.first_line}") from None
                    except OSError as err:
                        raise UsageProblem(f"{out}: cannot spool ({err.strerror})") from None
                    nr_lines += len(piece.ends)
            if reader is None or int(reader.counts[sc.EVENTS]) == before:
                raise UsageProblem(
                    f"{path}: line {nr_lines}: no kmem event up to here; expected lines as "
                    f"{_EXAMPLE}"
                )
        setup, final = reader.setup(cpus)
        start = int(reader.objects.state[ob.FIRST_T])
        samples = sample_events(slabinfo, memory_stat, start)
        counts = reader.summary()
        source = {"importer": reader.head.form, "files": [Path(p).name for p in paths]} | counts
        info = write_trace(
            out, setup, _read_back(spool, final, samples),
            what=f"imported from {reader.head.form} text", source=source,
        )  # fmt: skip
    last = max(int(reader.objects.state[ob.LAST_T]), int(samples["t"].max(initial=0)))
    write_readings(out, info.name, setup, slabinfo, memory_stat, start, last)
    return Imported(
        reader.head.form, reader.head.era, info.events, last / 1e9, setup.machine.cpus,
        len(setup.caches), len(setup.groups), setup.nr_objects, counts,
    )  # fmt: skip
