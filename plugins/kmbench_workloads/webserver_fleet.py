"""Several groups serve the same files: who asks first pays.

Workers of every group open files by popularity (rank**-exponent) and hold each open for the time of
the request.  A file's inode and dentry are charged to the group that brings them in, whoever uses
them later.
"""

from kmbench.core.setup import MOST_GROUPS, GroupSpec
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload
from kmbench_workloads.scripts import (
    EXPONENTIAL,
    Actor,
    Cast,
    Pile,
    at_most,
    drop,
    look,
    make,
    perform,
    repeat,
    wait,
)


def open_webserver_fleet(parameters: dict, host: Host) -> OpenWorkload:
    """`workers` workers in each of `groups` groups."""
    at_most("webserver_fleet", parameters, 10_000, "groups", "workers")
    at_most("webserver_fleet", parameters, 10, "exponent")
    groups, workers = parameters["groups"], parameters["workers"]
    request = [
        look("file"),
        make("open"),
        wait(1000 * parameters["serve_us"], EXPONENTIAL),
        drop("open"),
    ]
    cast = Cast(
        roles={"worker": [repeat(parameters["requests"], *request)]},
        actors=[Actor("worker", 2 + i % groups, i % host.cpus) for i in range(groups * workers)],
        piles={"file": Pile("file", parameters["files"]), "open": Pile("open")},
        shared=frozenset(("file",)),
        groups=(GroupSpec("/", 0), *(GroupSpec(f"/web{i}") for i in range(groups))),
        names="file",
        exponent=parameters["exponent"],
    )
    return perform(cast, host, "webserver_fleet")


webserver_fleet = Workload(
    name="webserver_fleet",
    description="several groups that serve the same files, by popularity",
    source="web servers on a shared file system; mix of 6.18",
    open=open_webserver_fleet,
    parameters=(
        Parameter("groups", 50, "groups", "groups", 1, maximum=MOST_GROUPS),
        Parameter("workers", 2, "workers of each", "tasks", 1),
        Parameter("requests", 500, "requests of a worker", "", 1),
        Parameter("files", 20_000, "files there are", "files", 1),
        Parameter("exponent", 1.0, "of their popularity, 1 / rank**exponent", "", 0),
        Parameter("serve_us", 500, "mean time of a request", "us", 1),
    ),
)
