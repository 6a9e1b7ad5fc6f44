"""A server with many long-lived connections that answers small requests.

A request comes in by softirq and is freed by the server, whose reply is freed when it was
acknowledged.  Connections hold their sockets and epoll entries.
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


def open_memcached(parameters: dict, host: Host) -> OpenWorkload:
    """`requests` requests of each of `connections` connections."""
    at_most("memcached", parameters, MOST_ACTORS, "connections")
    ack = wait(1000 * parameters["ack_us"])
    request = [
        wait(parameters["every_us"] * 1000, EXPONENTIAL),
        make("request"), make("reply"), drop("request"), ack, drop("reply"),
    ]  # fmt: skip
    cast = Cast(
        roles={
            "connection": [
                make("connection"), repeat(parameters["requests"], *request), drop("connection")
            ]
        },
        actors=[Actor("connection", 2, i % host.cpus) for i in range(parameters["connections"])],
        piles={
            "connection": Pile("accepted"), "request": Pile("received"), "reply": Pile("segment"),
        },
        groups=groups_of(parameters, "/memcached"),
    )  # fmt: skip
    return perform(cast, host, "memcached")


memcached = Workload(
    name="memcached",
    description="long-lived connections with small requests and replies",
    source="memcached; mix of 6.18",
    open=open_memcached,
    parameters=(
        Parameter("connections", 1000, "connections", "", 1),
        Parameter("requests", 100, "requests of each", "", 0),
        Parameter("every_us", 10_000, "mean time between requests of a connection", "us", 1),
        Parameter("ack_us", 50, "time until a reply is acknowledged", "us", 0),
        Parameter("limit_pages", 0, "limit of the group; 0 = none", "pages", 0),
    ),
)
