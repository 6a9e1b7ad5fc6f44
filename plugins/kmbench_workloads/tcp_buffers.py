"""Connections whose senders fill their buffers before anybody reads.

A sender queues segments of 1000 bytes until its send buffer is full; what has arrived, on another
CPU and in softirq, fills the receive buffer, until both are read and given back.  Buffers that the
softirq allocates are billed to nobody as slab.
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
    drop_all,
    groups_of,
    make,
    perform,
    repeat,
    wait,
)

SEGMENT = 1000  # bytes


def open_tcp_buffers(parameters: dict, host: Host) -> OpenWorkload:
    """`connections` connections, sender and receiver of each on neighbouring CPUs."""
    at_most("tcp_buffers", parameters, MOST_ACTORS, "connections")
    full = max(1, parameters["buffer_kib"] * 1024 // SEGMENT)
    rounds, hold = parameters["rounds"], wait(parameters["read_us"] * 1000, EXPONENTIAL)
    gap = wait(1000 * parameters["every_us"])

    def side(pile: str) -> list:
        return repeat(rounds, repeat(full, make(pile), gap), hold, drop_all(pile, full))

    cpus = host.cpus
    cast = Cast(
        roles={
            "sender": [make("connection"), side("segment"), drop("connection")],
            "receiver": [side("received")],
        },
        actors=[
            actor
            for i in range(parameters["connections"])
            for actor in (Actor("sender", 2, i % cpus), Actor("receiver", 2, (i + 1) % cpus))
        ],
        piles={
            "connection": Pile("connection"), "segment": Pile("segment", full),
            "received": Pile("received", full),
        },
        groups=groups_of(parameters, "/net"),
    )  # fmt: skip
    return perform(cast, host, "tcp_buffers")


tcp_buffers = Workload(
    name="tcp_buffers",
    description="senders that fill the buffers of their connections before anybody reads",
    source="Glauber Costa, per-cgroup tcp buffers, Dec 2011; mix of 6.18",
    open=open_tcp_buffers,
    parameters=(
        Parameter("connections", 100, "connections", "", 1),
        Parameter("buffer_kib", 64, "size of a send and of a receive buffer", "KiB", 1),
        Parameter("rounds", 10, "times that the buffers are filled", "", 1),
        Parameter("every_us", 10, "time between segments", "us", 0),
        Parameter("read_us", 2000, "mean time until they are read", "us", 0),
        Parameter("limit_pages", 0, "limit of the group; 0 = none", "pages", 0),
    ),
)
