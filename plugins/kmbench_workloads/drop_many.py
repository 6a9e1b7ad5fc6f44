"""Groups fill the caches with files, then most of them are unlinked in an order of their own.

A directory is removed in the order of its hash, which has nothing to do with the order of creation:
slabs are left with holes.  Inodes and dentries are freed by RCU: those that were unlinked in a
grace period go together at its end.
"""

from kmbench.core.setup import MOST_GROUPS, GroupSpec
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload
from kmbench_workloads.scripts import (
    MOST_ACTORS,
    Actor,
    Cast,
    Pile,
    at_most,
    drop,
    make,
    perform,
    repeat,
    shuffle,
    wait,
)


def open_drop_many(parameters: dict, host: Host) -> OpenWorkload:
    """`files` files of each of `groups` groups, `dropped` of them removed."""
    at_most("drop_many", parameters, MOST_ACTORS, "groups")
    files, groups = parameters["files"], parameters["groups"]
    at_most("drop_many", parameters, 1, "dropped")
    together = min(parameters["together"], files)
    rounds, rest = divmod(round(files * parameters["dropped"]), together)
    grace = wait(1000 * parameters["grace_us"])
    script = [
        repeat(files, make("file"), wait(1000 * parameters["every_us"])),
        shuffle("file"),
        repeat(rounds, grace, repeat(together, drop("file"))),
        grace,
        repeat(rest, drop("file")),
    ]
    cast = Cast(
        roles={"task": script},
        actors=[Actor("task", 2 + i, i % host.cpus) for i in range(groups)],
        piles={"file": Pile("file", files)},
        groups=(GroupSpec("/", 0), *(GroupSpec(f"/g{i}") for i in range(groups))),
    )
    return perform(cast, host, "drop_many")


drop_many = Workload(
    name="drop_many",
    description="many files are made and most of them removed, in another order",
    source="rm -r; mix of 6.18",
    open=open_drop_many,
    parameters=(
        Parameter("groups", 20, "groups, each with a task", "groups", 1, maximum=MOST_GROUPS),
        Parameter("files", 2000, "files that each makes", "files", 1),
        Parameter("dropped", 0.9, "share of them that is removed", "", 0),
        Parameter("together", 100, "files that go in one grace period", "files", 1),
        Parameter("every_us", 20, "time between files", "us", 0),
        Parameter("grace_us", 20_000, "a grace period", "us", 0),
    ),
)
