"""Executor on a dask.distributed cluster: the engine for more than one machine."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kmbench.errors import UsageProblem
from kmbench.executor import ExecutorPlugin, Place, Pool

CONNECT_S = 30


@contextmanager
def open_dask(place: Place) -> Iterator[Pool]:
    """The cluster at ``place.scheduler``, else one of this machine's cores that ends with us.

    Workers need this version of kmbench, its plugins and, unless results are streamed back, the
    folder of the results under the same path.  One thread a worker: the timeout of a point is
    the process's.
    """
    try:
        from distributed import Client, LocalCluster

        from kmbench_executors.dask_worker import Undisturbed
    except ImportError:
        raise UsageProblem(
            "executor dask: dask.distributed is not installed: pip install 'kmbench[dask]'"
        ) from None
    if place.scheduler and not re.match(r"\w+://.", place.scheduler):
        raise UsageProblem(
            f"--scheduler {place.scheduler}: expected an address like tcp://host:8786"
        )
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    cluster = None
    if not place.scheduler:
        workers = place.workers or len(os.sched_getaffinity(0))
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, protocol="tcp"
        )
    try:
        client = Client(cluster or place.scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageProblem(f"executor dask: cannot reach {place.scheduler}: {error}") from None
    undisturbed = Undisturbed()
    try:
        with suppress(Exception):  # without it runs take longer; who cannot load it cannot run
            client.register_plugin(undisturbed)
        # a worker that comes late is counted once the scheduler tells of it
        yield Pool(client.get_executor(pure=False), lambda: sum(client.nthreads().values()))
    finally:
        if client.status == "running":  # also of a sweep that was interrupted: workers are others'
            with suppress(Exception):
                client.unregister_worker_plugin(undisturbed.name)
        client.close()
        if cluster is not None:
            cluster.close()


dask = ExecutorPlugin("dask", "a dask.distributed cluster, local unless --scheduler", open_dask)
