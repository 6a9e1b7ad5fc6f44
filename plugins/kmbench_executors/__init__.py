"""First-party executors for sweeps: this process, processes of this machine, a dask cluster."""

import kmbench


@kmbench.hookimpl
def kmbench_register_executors(register):
    """Register every executor of this package."""
    from kmbench_executors import dask, local

    register(local.serial)
    register(local.processes)
    register(dask.dask)
