"""Groups of tasks send short messages over socket pairs, each sender to every receiver.

A message is an sk_buff and its data, allocated where the sender runs and freed where the receiver
does; both are accounted (af_unix).  A queue that is full stops its senders, an empty one its
receiver.
"""

from kmbench.core.setup import MOST_GROUPS, GroupSpec
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload
from kmbench_workloads.scripts import (
    Actor,
    Cast,
    Pile,
    at_most,
    drop,
    make,
    perform,
    repeat,
)


def open_hackbench(parameters: dict, host: Host) -> OpenWorkload:
    """`groups` times `fan` senders and as many receivers."""
    at_most("hackbench", parameters, 500, "groups", "fan")
    groups, fan, loops = parameters["groups"], parameters["fan"], parameters["loops"]
    memcgs = min(parameters["memcgs"], groups)
    actors = [
        Actor(role, 2 + g % memcgs, (g * 2 * fan + nr) % host.cpus, g * fan + at, shift)
        for g in range(groups)
        for nr, (role, at, shift) in enumerate(
            [("receiver", i, 0) for i in range(fan)] + [("sender", 0, i) for i in range(fan)]
        )
    ]
    cast = Cast(
        roles={
            "sender": [
                make("process"),
                repeat(loops, repeat(fan, make("queue", turn=fan, depth=1))),
                drop("process"),
            ],
            "receiver": [
                make("process"), make("socket"), repeat(loops * fan, drop("queue", waits=True)),
                drop("socket"), drop("process"),
            ],
        },
        actors=actors,
        piles={
            "queue": Pile("message", parameters["queue"], nr=groups * fan),
            "process": Pile("process"), "socket": Pile("unix socketpair"),
        },
        shared=frozenset(("queue",)),
        groups=(GroupSpec("/", 0), *(GroupSpec(f"/hackbench{i}") for i in range(memcgs))),
    )  # fmt: skip
    return perform(cast, host, "hackbench")


hackbench = Workload(
    name="hackbench",
    description="groups of tasks that send short messages over socket pairs",
    source="hackbench (Rusty Russell, 2001; rt-tests); mix of 6.18",
    open=open_hackbench,
    parameters=(
        Parameter("groups", 5, "groups of tasks", "", 1, maximum=MOST_GROUPS),
        Parameter("fan", 20, "senders of a group, and receivers", "tasks", 1),
        Parameter("loops", 100, "messages of a sender to each receiver", "messages", 1),
        Parameter("queue", 277, "messages that a socket's buffer holds", "messages", 1),
        Parameter("memcgs", 1, "memory cgroups that the groups are in, in turn", "", 1),
    ),
)
