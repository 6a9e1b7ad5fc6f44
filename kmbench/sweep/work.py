"""The worker's side of a sweep: makes the runs of some jobs and stores them, or hands them back.

What arrives are names and parameters; what a run does is looked up among the plugins installed
where the worker runs.
"""

from __future__ import annotations

import faulthandler
import math
import os
import platform
import time
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kmbench.errors import KmbenchError
from kmbench.plugins import Plugins, load_plugins
from kmbench.runs import Plan, failed_row, make_plans, perform
from kmbench.store.dataset import write_runs
from kmbench.sweep.plan import Job, code_of

__all__ = ["TIMED_OUT", "Order", "Report", "greet", "last_words", "run_jobs"]

TIMED_OUT = "Timeout"  # how faulthandler begins what it writes when time is out
ID_DIGITS = 16  # of a run
CELL = 8  # bytes of a value in a table
HELD_BYTES = 64 << 20  # results that a worker keeps before it stores them


class Order(NamedTuple):
    """What holds for every job of a sweep."""

    out: str  # folder of the results
    stream: bool = False  # hand results back instead of storing them
    timeout_s: float = 0.0  # for one run; ends the process (0 = none)
    retries: int = 1  # after an error that another try may not meet
    files: tuple[str, ...] = ()  # local plugin files
    code: tuple[tuple[str, str], ...] = ()  # fingerprints that the worker's code must have


class Report(NamedTuple):
    """How one run went."""

    run_id: str
    error: str  # empty: it is there
    seconds: float  # without compiling
    stored: Any = None  # arguments of write_run, if they are to be handed back


@lru_cache(maxsize=4)
def _plugins(files: tuple[str, ...], stamps: tuple[tuple[int, ...], ...]) -> Plugins:
    """`stamps` change with the files, between the sweeps of a worker that lives on."""
    return load_plugins(files)


def _stamp(file: str) -> tuple[int, ...]:
    try:
        known = os.stat(file)
    except OSError:  # load_plugins says what is wrong
        return ()
    return known.st_mtime_ns, known.st_size, known.st_ino


@lru_cache(maxsize=4)
def _check_code(plugins: Plugins, wanted: tuple[tuple[str, str], ...]) -> None:
    used: dict[str, list[str]] = {}
    for key, _ in wanted:
        kind, _, name = key.removeprefix("code of ").partition(" ")
        used.setdefault(kind, []).append(name)
    here = code_of(plugins, used)
    for key, value in wanted:
        if here.get(key) != value:
            raise KmbenchError(f"a worker on {platform.node()} has other {key}")


def greet() -> None:
    """Nothing: a worker that gets here can import kmbench."""


def run_jobs(jobs: list[Job], order: Order) -> list[Report]:
    """Make every run of `jobs`; one that fails is a row like the others.

    Raises KmbenchError when this worker cannot do the sweep at all: other code, or nowhere to
    store results.
    """
    plugins = _plugins(order.files, tuple(map(_stamp, order.files)))
    _check_code(plugins, order.code)
    with Watch(order) as watch:
        return _run_jobs(jobs, order, plugins, watch)


def _run_jobs(jobs: list[Job], order: Order, plugins: Plugins, watch: Watch) -> list[Report]:
    reports: list[Report] = []
    held: list[tuple] = []
    held_bytes = 0
    for job in jobs:
        plans = make_plans(job.scenario, job.strategies, plugins)
        for plan, run_id in zip(plans, job.run_ids, strict=True):
            if plan.run_id != run_id:
                raise KmbenchError(
                    f"a worker on {platform.node()} has other versions of kmbench or of a plugin"
                )
            stored, error, seconds = _attempt(plan, order, watch)
            held.append(stored)
            held_bytes += sum(CELL * t.num_rows * t.num_columns for t in stored[1].values())
            reports.append(Report(run_id, error, seconds, stored if order.stream else None))
            if not order.stream and held_bytes > HELD_BYTES:
                watch.rest()
                write_runs(order.out, held)
                held, held_bytes = [], 0
    watch.rest()
    if held and not order.stream:
        write_runs(order.out, held)
    return reports


def _attempt(plan: Plan, order: Order, watch: Watch) -> tuple[tuple, str, float]:
    """Make one run: what to store, the error or nothing, and seconds."""
    for tries_left in range(order.retries, -1, -1):
        began = time.perf_counter()
        watch.begin(plan.run_id)
        try:
            stored = perform(plan)
            return stored, "", time.perf_counter() - began - stored[2]["compile_s"]
        except Exception as error:
            if tries_left and not isinstance(error, KmbenchError):
                continue
            text = str(error) if isinstance(error, KmbenchError) else _named(error)
            row = failed_row(plan, text, traceback.format_exc())
            return (row, {}, None), row["error"], time.perf_counter() - began
    raise AssertionError("the last try returns")


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


# --- what a worker leaves behind that ends in the middle of a run ---


def _traces(out: str) -> Path:
    return Path(out) / "sweeps" / "running"


class Watch:
    """Has the process end with a traceback when a run takes too long, or crashes.

    Python's own timers would not interrupt compiled code.  A timer is a thread: a short run takes
    over that of the run before it, so that it may get up to `grace` seconds more.
    """

    def __init__(self, order: Order):
        self.limit = order.timeout_s
        self.grace = min(1.0, self.limit / 10)
        self.folder = _traces(order.out)
        self.armed = -math.inf  # since when

    def __enter__(self) -> Watch:
        self.file = self._file() if self.limit else None
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()
        if self.file is not None:
            faulthandler.disable()
            os.close(self.file)

    def _file(self) -> int | None:
        """This process's file: the run that it is at, and where, should the process end here."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{platform.node()}-{os.getpid()}.txt"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            os.write(file, _line(""))
        except OSError:
            return None
        faulthandler.enable(file)
        return file

    def begin(self, run_id: str) -> None:
        """A run begins."""
        if not self.limit:
            return
        if self.file is not None:
            os.pwrite(self.file, _line(run_id), 0)
        now = time.monotonic()
        if now - self.armed > self.grace:
            options = {} if self.file is None else {"file": self.file}
            faulthandler.dump_traceback_later(self.limit + self.grace, exit=True, **options)
            self.armed = now

    def rest(self) -> None:
        """What comes now may take as long as it likes."""
        faulthandler.cancel_dump_traceback_later()
        self.armed = -math.inf


def _line(run_id: str) -> bytes:
    return f"{run_id:<{ID_DIGITS}}\n".encode()


def last_words(out: str, run_id: str) -> str:
    """What the process that ended in this run left behind; empty if nothing."""
    for path in sorted(_traces(out).glob("*.txt")):
        try:
            first, _, rest = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        except OSError:
            continue
        if first == run_id and rest:
            reason, *threads = rest.partition("Extension modules")[0].strip().split("\n\n")
            return "\n".join([reason.partition("\n")[0], *threads[-1:]])
    return ""
