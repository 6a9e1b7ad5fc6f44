"""Processes that fork two more each, until there are `processes` or a fork fails.

A process is task, stack, memory map, files and page tables as fork and exec of sleep(1) made them
on Linux 6.18: some 93 KB are charged for each.  One of which an allocation fails gives back what it
got and never was.  What was forked lives until `hold_ms` later.
"""

from kmbench.core.events import USER_ANON
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload
from kmbench_workloads.scripts import (
    MOST_ACTORS,
    Actor,
    Cast,
    Pile,
    at_most,
    drop,
    groups_of,
    make,
    perform,
    user,
    wait,
    wake,
)
from kmbench_workloads.server import PARAMETERS, beside

BOMB = 2  # row of the group


def open_fork_bomb(parameters: dict, host: Host) -> OpenWorkload:
    """At most `processes` processes in one group, each on the next CPU."""
    at_most("fork_bomb", parameters, MOST_ACTORS, "processes")
    nr, every = parameters["processes"], 1000 * parameters["fork_us"]
    server = beside(parameters, nr)
    takes = [user(parameters["anon_pages"], USER_ANON)] if server.cast else []
    process = [
        make("process"), *takes, wait(every), wake(1, nr, twice=True), wait(every),
        wake(2, nr, twice=True), wait(parameters["hold_ms"] * 10**6), drop("process"),
    ]  # fmt: skip
    forks = [
        Actor("process", BOMB, i % host.cpus, start=-1 if i else server.starts) for i in range(nr)
    ]
    cast = Cast(
        roles={"process": process, **server.roles},
        actors=[*forks, *server.actors],
        piles={**server.piles, "process": Pile("process", checked=True)},
        shared=frozenset(server.piles),
        groups=groups_of(parameters, "/bomb", *server.groups),
        otherwise={"process": len(process)},
        feedback=256,
        **server.cast,
    )
    return perform(cast, host, "fork_bomb")


fork_bomb = Workload(
    name="fork_bomb",
    description="processes that fork two more each, until there are enough or a fork fails",
    source="the fork bomb of Glauber Costa's and Suleiman Souhlal's postings, 2012; mix of 6.18",
    open=open_fork_bomb,
    parameters=(
        Parameter("processes", 1000, "processes at most", "processes", 1),
        Parameter("fork_us", 200, "time that a fork takes", "us", 1),
        Parameter("hold_ms", 1000, "life of a process after it forked", "ms", 1),
        Parameter("limit_pages", 0, "limit of the bomb's group; 0 = none", "pages", 0),
        Parameter("kmem", False, "the same limit for kernel memory alone"),
        Parameter("anon_pages", 25, "user pages of a process, beside a server", "pages", 0),
        *PARAMETERS,
    ),
)
