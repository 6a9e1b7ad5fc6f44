"""Threads create small files, write, sync and close each of them.

Inode, dentry and extents stay cached; the open file and the journal's head of the metadata buffer
go when the file is synced and closed.
"""

from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload
from kmbench_workloads.scripts import (
    EXPONENTIAL,
    MOST_ACTORS,
    Actor,
    Cast,
    Pile,
    at_most,
    drop,
    groups_of,
    make,
    perform,
    repeat,
    wait,
)


def open_fs_mark(parameters: dict, host: Host) -> OpenWorkload:
    """`files` files of each of `threads` threads."""
    at_most("fs_mark", parameters, MOST_ACTORS, "threads")
    files, threads = parameters["files"], parameters["threads"]
    sync = wait(parameters["sync_us"] * 1000, EXPONENTIAL)
    script = repeat(
        files, make("open"), make("file"), make("journal"), sync, drop("journal"), drop("open")
    )
    cast = Cast(
        roles={"thread": [script]},
        actors=[Actor("thread", 2, i % host.cpus) for i in range(threads)],
        piles={
            "open": Pile("open"), "journal": Pile("journal"), "file": Pile("written file", files),
        },
        groups=groups_of(parameters, "/fs"),
    )  # fmt: skip
    # an open file, four caches of a file (two extents), a journal head; two of them freed
    return perform(cast, host, "fs_mark", nr_events=files * threads * 12)


fs_mark = Workload(
    name="fs_mark",
    description="threads that create, write, sync and close small files",
    source="fs_mark (Ric Wheeler); mix of 6.18",
    open=open_fs_mark,
    parameters=(
        Parameter("files", 10_000, "files of a thread", "files", 1),
        Parameter("threads", 4, "threads", "", 1),
        Parameter("sync_us", 100, "mean time of an fsync", "us", 0),
        Parameter("limit_pages", 0, "limit of the group; 0 = none", "pages", 0),
    ),
)
