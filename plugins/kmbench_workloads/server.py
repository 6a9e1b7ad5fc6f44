"""A web server that lives beside what a generator does: the victim of scenarios of isolation.

It looks up names of its own by popularity.  Phases of the run: 0 it fills its cache, 1 it is alone,
2 the other one is there; metrics I1 compare the last two.
"""

from typing import NamedTuple

from kmbench.parameters import Parameter
from kmbench_workloads.scripts import Actor, Pile, Step, cease, look, phase, repeat, wait, wake

VICTIM = 3  # row of its group
FOREVER = 2**30

PARAMETERS = (
    Parameter("names", 0, "names of a web server beside it (needs [reclaim]); 0 = none", "", 0),
    Parameter("think_us", 5, "its time between look-ups", "us", 1),
    Parameter("warm_ms", 2000, "until its cache is full", "ms", 1),
    Parameter("alone_ms", 500, "the server alone", "ms", 1),
    Parameter("crowded_ms", 1000, "with the other one", "ms", 1),
)


class Server(NamedTuple):
    """What it adds to a cast; nothing if it has no names."""

    piles: dict[str, Pile]
    roles: dict[str, list]
    actors: list[Actor]
    starts: int
    """When the other one starts, ns: -1: the server's conductor wakes it."""
    cast: dict
    groups: tuple[str, ...]


def beside(parameters: dict, number: int, starters: int = 1) -> Server:
    """The server, whose first actor is number `number`; it wakes actors 0 to `starters` - 1."""
    if not parameters["names"]:
        return Server({}, {}, [], 0, {}, ())
    ms = 10**6
    woken: list[Step] = [wake(i - number, number) for i in range(starters)]
    roles = {
        "conductor": [
            wait(parameters["warm_ms"] * ms), phase(1), wait(parameters["alone_ms"] * ms), phase(2),
            *woken, wait(parameters["crowded_ms"] * ms), cease(),
        ],
        "server": [repeat(FOREVER, look("web"), wait(1000 * parameters["think_us"]))],
    }  # fmt: skip
    return Server(
        {"web": Pile("name", parameters["names"])},
        roles,
        [Actor("conductor", 1, 0), Actor("server", VICTIM, 0)],
        -1,
        {"names": "web", "cached": True, "victim": VICTIM},
        ("/web",),
    )
