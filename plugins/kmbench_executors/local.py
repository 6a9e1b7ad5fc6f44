"""Executors of this machine: one task after another, or processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait

from kmbench.errors import UsageProblem
from kmbench.executor import ExecutorPlugin, Place, Pool


class Serial(Executor):
    """Runs a task where and when it is submitted."""

    def submit(self, fn, /, *args, **kwargs) -> Future:
        """A future that is done already."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def open_serial(place: Place) -> Iterator[Pool]:
    """One worker: the calling process."""
    _refuse_scheduler("serial", place)
    yield Pool(Serial(), lambda: 1)


def _refuse_scheduler(name: str, place: Place) -> None:
    if place.scheduler:
        raise UsageProblem(f"executor {name} runs on this machine; --scheduler goes with dask")


def start_worker() -> None:
    """Keep a worker to its core, to the life of its parent, and to the parent's answer to ^C."""
    os.environ["POLARS_MAX_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and they would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


@contextmanager
def open_processes(place: Place) -> Iterator[Pool]:
    """New interpreters, so that nothing but names and parameters reaches them."""
    _refuse_scheduler("processes", place)
    workers = place.workers or len(os.sched_getaffinity(0))
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, initializer=start_worker)
    try:
        yield Pool(pool, lambda: workers)
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise


serial = ExecutorPlugin(
    "serial", "in this process, one point after another", open_serial, contained=False
)
processes = ExecutorPlugin("processes", "processes of this machine", open_processes)
