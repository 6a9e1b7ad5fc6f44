"""What a worker of a dask cluster is told before it makes runs: to watch itself less.

Every 10 ms the thread of its event loop looks at what the worker computes, and every 20 ms at
itself. A run is Python, and each look takes the interpreter from it.
"""

from distributed import Worker, WorkerPlugin

WATCHES = ("profile", "profile-cycle", "tick", "ticks")  # periodic callbacks of a worker


class Undisturbed(WorkerPlugin):
    """Takes a worker's statistical profiler and its event loop's ticks away while we use it."""

    name = "kmbench-undisturbed"

    def setup(self, worker: Worker) -> None:
        """Also of a worker that comes later, before it starts what it finds in its table."""
        self.taken = {
            name: worker.periodic_callbacks.pop(name)
            for name in WATCHES
            if name in worker.periodic_callbacks
        }
        for callback in self.taken.values():
            callback.stop()

    def teardown(self, worker: Worker) -> None:
        """Give them back."""
        worker.periodic_callbacks |= self.taken
        worker.start_periodic_callbacks()
