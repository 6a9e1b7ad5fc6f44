"""One task opens TCP sockets, as many as it gets, and keeps them for a while.

Suleiman Souhlal's test of 2012: 100,000 sockets from a line of perl.  On Linux 6.18 a socket is
3640 bytes of slab, of which a group is charged 3616 with obj_cgroup's pointers.
"""

from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload
from kmbench_workloads.scripts import (
    Actor,
    Cast,
    Pile,
    drop_all,
    groups_of,
    make,
    perform,
    repeat,
    wait,
)
from kmbench_workloads.server import PARAMETERS, beside

FLOOD = 2  # row of the group
HOLD = 3  # step of the script at which a task goes on that gets no more


def open_sock_flood(parameters: dict, host: Host) -> OpenWorkload:
    """At most `sockets` sockets of one task."""
    nr = parameters["sockets"]
    server = beside(parameters, 1)
    script = [
        repeat(nr, make("socket"), wait(1000 * parameters["every_us"])),
        wait(parameters["hold_ms"] * 10**6), drop_all("socket", nr),
    ]  # fmt: skip
    cast = Cast(
        roles={"flood": script, **server.roles},
        actors=[Actor("flood", FLOOD, host.cpus - 1, start=server.starts), *server.actors],
        piles={**server.piles, "socket": Pile("tcp socket", nr, checked=True)},
        shared=frozenset(server.piles),
        groups=groups_of(parameters, "/flood", *server.groups),
        otherwise={"flood": HOLD},
        feedback=2048,
        **server.cast,
    )
    return perform(cast, host, "sock_flood")


sock_flood = Workload(
    name="sock_flood",
    description="one task opens TCP sockets until it has enough or gets no more",
    source="Suleiman Souhlal, memcg: Kernel Memory Accounting, 27 Feb 2012; mix of 6.18",
    open=open_sock_flood,
    parameters=(
        Parameter("sockets", 20_000, "sockets at most", "sockets", 1),
        Parameter("every_us", 10, "time between sockets", "us", 0),
        Parameter("hold_ms", 500, "time that they are kept", "ms", 1),
        Parameter("limit_pages", 0, "limit of the group; 0 = none", "pages", 0),
        Parameter("kmem", False, "the same limit for kernel memory alone"),
        *PARAMETERS,
    ),
)
