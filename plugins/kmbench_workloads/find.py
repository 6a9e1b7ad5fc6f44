"""find: one walk over a tree, every name looked up once, a directory held open at a time.

Names that are used once fill the caches.  Beside a web server (`names`) they are the first victims
where a dentry that was touched once is not marked as referenced.
"""

from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload
from kmbench_workloads.scripts import (
    Actor,
    Cast,
    Pile,
    drop,
    groups_of,
    make,
    perform,
    repeat,
    wait,
    walk,
)
from kmbench_workloads.server import PARAMETERS, beside


def open_find(parameters: dict, host: Host) -> OpenWorkload:
    """`directories` directories of `files` files each."""
    directories, files = parameters["directories"], parameters["files"]
    server = beside(parameters, 1)
    gap = wait(1000 * parameters["every_us"])
    script = repeat(directories, make("open"), repeat(files + 1, walk("tree"), gap), drop("open"))
    cast = Cast(
        roles={"find": [script], **server.roles},
        actors=[Actor("find", 2, host.cpus - 1, start=server.starts), *server.actors],
        piles={
            **server.piles,
            "tree": Pile("name" if server.cast else "file", directories * (files + 1)),
            "open": Pile("open"),
        },
        shared=frozenset(("tree", *server.piles)),
        groups=groups_of(parameters, "/find", *server.groups),
        **server.cast,
    )
    return perform(cast, host, "find", extra=["file"])


find = Workload(
    name="find",
    description="one walk over a tree, every name looked up once",
    source="find(1); mix of 6.18",
    open=open_find,
    parameters=(
        Parameter("directories", 1000, "directories", "", 1),
        Parameter("files", 20, "files of each", "", 0),
        Parameter("every_us", 5, "time between names", "us", 0),
        Parameter("limit_pages", 0, "limit of the group; 0 = none", "pages", 0),
        *PARAMETERS,
    ),
)
