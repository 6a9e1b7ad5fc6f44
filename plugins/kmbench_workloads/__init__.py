"""First-party workloads: replay of recordings, and generators with closed forms."""

from importlib import import_module

import kmbench

NAMES = (
    "container_churn",
    "dentry_bomb",
    "drop_many",
    "find",
    "fork_bomb",
    "fs_mark",
    "hackbench",
    "kernel_compile",
    "many_mounts",
    "memcached",
    "mempressure_test",
    "messages",
    "mix",
    "replay",
    "short_lives",
    "slab_pairs",
    "sock_flood",
    "spread",
    "tcp_buffers",
    "webserver_fleet",
)


@kmbench.hookimpl
def kmbench_register_workloads(register):
    """Register every workload of this package: each is what its module has by its name."""
    for name in NAMES:
        register(getattr(import_module(f"kmbench_workloads.{name}"), name))
