"""Several runs at a time: compiled code runs without Python's lock, so threads use every CPU."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

from kmbench.errors import UsageProblem

__all__ = ["default_jobs", "in_threads"]

PATIENCE_S = 0.1  # how late the user's interrupt may be noticed

T = TypeVar("T")


class Stopped(Exception):
    """Another task has failed, or the user wants to stop."""


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
    """``make(item, go_on)`` for each item, `jobs` at a time; one at a time is in this thread.

    When one has an error the others end: those that run at their next call of ``go_on()``, which
    raises then, and those that wait do not begin.  The error is raised; of several, the first
    item's.
    """
    if jobs == 1:
        for item in items:
            make(item, lambda: None)
        return
    stop = Event()

    def go_on() -> None:
        if stop.is_set():
            raise Stopped

    with ThreadPoolExecutor(jobs) as pool:
        try:
            made = [pool.submit(make, item, go_on) for item in items]
            waiting = True
            while waiting:  # not at one go: with polars' SIGINT handler a wait without end goes on
                done, waiting = wait(made, PATIENCE_S, FIRST_EXCEPTION)
                if any(one.exception() for one in done):
                    break
        finally:  # the user's interrupt as well
            stop.set()
            pool.shutdown(cancel_futures=True)
    errors = [one.exception() for one in made if not one.cancelled()]
    for error in errors:
        if error and not isinstance(error, Stopped):
            raise error
