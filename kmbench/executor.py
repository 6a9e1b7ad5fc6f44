"""Executors: what a plugin registers as a place where the points of a sweep run."""

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

from kmbench.strategy import ABI


class Place(NamedTuple):
    """What the command line says about the executor."""

    workers: int  # 0: as many as the executor finds
    scheduler: str = ""  # address of a cluster that runs already
    files: tuple[str, ...] = ()  # local plugin files that workers load


class Pool(NamedTuple):
    """A running executor, and how many tasks it works on at this moment."""

    executor: Executor
    workers: Callable[[], int]


@dataclass(frozen=True)
class ExecutorPlugin:
    """A place to run tasks; ``open(place)`` is a context manager that yields a :class:`Pool`.

    Nothing but :class:`concurrent.futures.Executor` is used of it: tasks are functions that can be
    imported by name, with arguments that can be pickled, and a task that is lost raises from its
    future.  `contained`: tasks run in other processes, so one that ends its process by a crash or a
    timeout ends nothing else.
    """

    name: str
    description: str
    open: Callable[[Place], AbstractContextManager[Pool]]
    contained: bool = True
    abi: int = ABI
