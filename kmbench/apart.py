"""Compiles a run's engine in a process of its own, so that several are compiled at once.

numba compiles one function at a time in a process.  What the other process made is found on disk
under the fingerprint of its code; if it made nothing, or something else, this process compiles.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from tempfile import TemporaryFile

from kmbench.core.specialise import cache_folder

__all__ = ["compile_apart", "keeps_engines"]

PATIENCE_S = 0.05


def keeps_engines() -> bool:
    """Whether one process finds what another one compiled."""
    folder = cache_folder()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def compile_apart(
    scenario: object, strategy: str, files: Iterable[str], go_on: Callable[[], None]
) -> None:
    """Have another process compile what the run of a strategy needs, and wait for it.

    `files`: local plugin files.  `go_on` is called every now and then; what it raises ends the
    process.  Errors are not told: who needs the engine meets them, too.
    """
    with TemporaryFile() as order:
        pickle.dump((scenario, strategy, tuple(files)), order)
        order.seek(0)
        with subprocess.Popen(
            [sys.executable, "-m", "kmbench.apart"],
            stdin=order, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as other:  # fmt: skip
            try:
                while other.poll() is None:
                    go_on()
                    with suppress(subprocess.TimeoutExpired):
                        other.wait(PATIENCE_S)
                go_on()
            finally:
                other.kill()


def _compile(order: bytes) -> None:
    from kmbench.plugins import load_plugins
    from kmbench.runs import make_plans, replay

    scenario, strategy, files = pickle.loads(order)
    (plan,) = make_plans(scenario, [strategy], load_plugins(files))
    batches = plan.workload.batches  # a generator compiles its own part for the first batch
    first = plan.workload._replace(batches=lambda S: islice(batches(S), 1))
    replay(plan._replace(workload=first))


if __name__ == "__main__":
    _compile(sys.stdin.buffer.read())
