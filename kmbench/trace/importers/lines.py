"""Trace text in pieces of whole lines, and what its first lines tell about tool and kernel."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from kmbench.errors import UsageProblem
from kmbench.trace.importers.gfp import OLD_NAMES, layout_of_era, layout_of_value

FORMATS = ("ftrace", "trace-cmd", "perf")
EXPECTED = "text of ftrace, `trace-cmd report` or `perf script`"
CHUNK = 4 << 20  # bytes read at once
LONGEST_LINE = 1 << 20
PADDING = 64
_BINARY = {
    b"\x17\x08\x44tracing": "a trace.dat; expected the output of `trace-cmd report`",
    b"PERFILE2": "a perf.data; expected the output of `perf script`",
    b"\x1f\x8b": "gzip data; expected " + EXPECTED,
    b"\x28\xb5\x2f\xfd": "zstd data; expected " + EXPECTED,
}


class Piece(NamedTuple):
    """Whole lines of a file."""

    buf: np.ndarray  # u1, good until the next piece is asked for
    ends: np.ndarray  # i8, places of the newlines
    first_line: int  # number of its first line in the file, from 1


class Head(NamedTuple):
    """What the first lines tell."""

    form: str  # one of FORMATS
    era: str  # nearest model of the kernel that printed it
    layout: str  # of flags in hex, see gfp.py
    cpus: int  # of the header; 0 = not given


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The file `path` for reading bytes, ``-`` for stdin.  Raises UsageProblem."""
    if path == "-":
        yield sys.stdin.buffer
        return
    if Path(path).is_dir():
        raise UsageProblem(f"{path}: is a folder; expected {EXPECTED}")
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise UsageProblem(f"{path}: no such file; expected {EXPECTED}") from None
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or err
        raise UsageProblem(f"{path}: cannot be read ({reason}); expected {EXPECTED}") from None
    with file:
        yield file


def pieces(path: str, file: BinaryIO) -> Iterator[Piece]:
    """The lines of `file` in order, a few MiB at a time.

    Raises UsageProblem, with the number of the line, for what is no text: a NUL byte, a line
    longer than 1 MiB, a last line without its end, nothing at all.
    """
    store = np.zeros(CHUNK + LONGEST_LINE + PADDING, np.uint8)
    line, kept = 1, 0
    while True:
        try:
            nr = file.readinto(memoryview(store)[kept : kept + CHUNK])
        except OSError as err:
            raise UsageProblem(f"{path}: line {line}: cannot be read ({err.strerror})") from None
        if not nr:
            break
        size = kept + nr
        data = store[:size]
        if line == 1 and not kept:
            start = data[:16].tobytes()
            for magic, what in _BINARY.items():
                if start.startswith(magic):
                    raise UsageProblem(f"{path}: line 1: {what}")
        ends = np.flatnonzero(data == 10)
        if not data.min():
            at = line + int(np.searchsorted(ends, np.argmin(data)))
            raise UsageProblem(f"{path}: line {at}: binary data; expected {EXPECTED}")
        lengths = np.diff(ends, prepend=-1, append=size)
        if lengths.max() > LONGEST_LINE:
            at = line + int(np.argmax(lengths > LONGEST_LINE))
            raise UsageProblem(f"{path}: line {at}: longer than 1 MiB; expected {EXPECTED}")
        cut = int(ends[-1]) + 1 if len(ends) else 0
        if len(ends):
            yield Piece(store, ends, line)
            line += len(ends)
        kept = size - cut
        store[:kept] = store[cut:size].copy()
    if kept:
        raise UsageProblem(f"{path}: line {line}: cut off; expected a whole line with its newline")
    if line == 1:
        raise UsageProblem(f"{path}: line 1: the file is empty; expected {EXPECTED}")


_PERF = re.compile(rb"^[ \t]*\S.*? +\d+(?:/\d+)? +\[\d{3}\] +\d+\.\d+: +\w+:\w+:", re.M)
_REPORT = re.compile(rb"^(?:cpus=\d+ *$|version = \d)", re.M)
_PADDED = re.compile(rb"\[\d{3}\] +(?:[^ \d]\S* +)?\d+\.\d+: \w+: {2,}\w+=", re.M)
_CPUS = re.compile(rb"(?:#P:|^cpus=)(\d{1,4})\b", re.M)
_GFP = re.compile(rb"gfp_flags=(\S+)")


def detect_format(text: bytes) -> str:
    """Which tool wrote `text`.  The lines are read alike; the answer is for the summary."""
    if _PERF.search(text):
        return "perf"
    if _REPORT.search(text) or _PADDED.search(text):
        return "trace-cmd"
    return "ftrace"


def detect_era(text: bytes) -> tuple[str, str]:
    """Nearest model era and layout of hex flags for the kernel that printed `text`.

    What include/trace/events/kmem.h and sched.h print tells the release, newest first: name= of an
    allocation or group_dead= of an exit, accounted=, name= of a free, the symbol of the call site,
    ``__GFP_`` before the flags (4.6).
    """
    flags = {part.decode("ascii", "replace") for part in _GFP.findall(text)}
    layout = None
    for flag in sorted(flags):
        if flag[:1].isdigit() and "|" not in flag:
            try:
                layout = layout or layout_of_value(int(flag, 16))
            except ValueError:
                continue
    names = {name for flag in flags for name in flag.split("|")}
    if b" group_dead=" in text or re.search(rb"alloc: .* name=\S+ bytes_req=", text):
        era = "6.18"
    elif b" accounted=" in text:
        era = "6.12"
    elif re.search(rb"kmem_cache_free: .* name=", text):
        era = "5.16"
    elif re.search(rb"call_site=[A-Za-z_]\w*\+0x", text) and layout not in ("3.x", "4.4", "4.10"):
        era = "5.9"
    elif names & set(OLD_NAMES) or layout == "3.x":
        era = "3.13"
    elif layout in ("4.4", "4.10"):
        era = "4.5"
    elif layout == "4.19" or any(name.startswith("__GFP") for name in names):
        era = "4.19"
    elif layout == "5.1" or not flags:
        era = "6.18"
    else:
        era = "3.13"  # hex call sites and no underscores at all
    return era, layout or layout_of_era(era)


def detect(piece: Piece, form: str = "auto", era: str = "auto") -> Head:
    """What the lines of `piece` tell; `form` and `era` override it."""
    text = piece.buf[: int(piece.ends[-1]) + 1].tobytes()[: 1 << 20]
    found, layout = detect_era(text)
    cpus = _CPUS.search(text)
    if era != "auto":
        found, layout = era, layout_of_era(era)
    return Head(
        detect_format(text) if form == "auto" else form, found, layout,
        int(cpus.group(1)) if cpus else 0,
    )  # fmt: skip
