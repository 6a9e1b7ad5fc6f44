"""Several runs at a time: compiled code runs without Python's lock, so threads use every CPU."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event, get_ident
from typing import TypeVar

from kmbench.errors import UsageProblem

__all__ = ["default_jobs", "in_threads"]

PATIENCE_S = 0.1  # how late the user's interrupt may be noticed
GRACE_S = 3.0  # for what goes on when it is

T = TypeVar("T")


class Stopped(Exception):
    """Another task has failed, or the user wants to stop."""


class Abandoned(KeyboardInterrupt):
    """The user's interrupt, and ``items`` whose tasks did not end for it; their threads go on."""

    def __init__(self, items: list):
        super().__init__()
        self.items = items


def default_jobs() -> int:
    """``$KMBENCH_JOBS``, else the CPUs that this process may use; UsageProblem for a bad value."""
    given = os.environ.get("KMBENCH_JOBS", "")
    if not given:
        return len(os.sched_getaffinity(0))
    if not given.isdecimal() or int(given) == 0:
        raise UsageProblem(f"KMBENCH_JOBS: {given!r}: expected a whole number from 1")
    return int(given)


def in_threads(
    make: Callable[[T, Callable[[], None]], None], items: Sequence[T], jobs: int
) -> None:
    """``make(item, go_on)`` for each item, `jobs` at a time, in threads of their own: compiled code
    in this one would keep the user's interrupt waiting.

    When one has an error the others end: those that run at their next call of ``go_on()``, which
    raises then, and those that wait do not begin.  The error is raised; of several, the first
    item's.  So it is when the user interrupts; raises Abandoned for tasks that did not end then.
    """
    stop = Event()

    def go_on() -> None:
        if stop.is_set():
            raise Stopped

    running: dict[int, T] = {}  # by thread

    def task(item: T) -> None:
        go_on()
        running[get_ident()] = item
        try:
            make(item, go_on)
        except BaseException:
            stop.set()
            raise
        finally:
            del running[get_ident()]

    pool = ThreadPoolExecutor(jobs)
    try:
        made = [pool.submit(task, item) for item in items]
        while wait(made, PATIENCE_S).not_done:
            pass  # not at one go: with polars' SIGINT handler a wait without end goes on
    except KeyboardInterrupt:
        stop.set()
        until = time.monotonic() + GRACE_S
        while running and time.monotonic() < until:
            time.sleep(PATIENCE_S / 10)
        if running:
            raise Abandoned(list(running.values())) from None
        raise
    finally:
        pool.shutdown(wait=False)
    for error in (one.exception() for one in made):
        if error and not isinstance(error, Stopped):
            raise error
