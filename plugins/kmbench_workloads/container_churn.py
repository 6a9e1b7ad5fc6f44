"""Containers come at random, run some processes, and are removed; cached files outlive them.

Arrivals are a Poisson process of `per_hour`.  A container forks `processes`, writes `files` that
stay in the caches and `scratch` files that it removes again, on one CPU after the other, lives for
an exponential time and is removed.  Some time later reclaim takes its page cache (`cache_pages`,
needs [reclaim]) and its cached files one by one, each with chance `reclaimed`; the others stay to
the end.
"""

from kmbench.core.events import USER_CLEAN
from kmbench.core.setup import MOST_GROUPS, GroupSpec
from kmbench.errors import UsageProblem
from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload
from kmbench_workloads.scripts import (
    EXPONENTIAL,
    MOST_ACTORS,
    Actor,
    Cast,
    Pile,
    at_most,
    create,
    drop_all,
    give,
    hop,
    make,
    offline,
    perform,
    repeat,
    user,
    wait,
    wake,
)

PODS, FIRST = 2, 3  # rows: the parent of all containers, the first container
HOUR = 3600 * 10**9


def open_container_churn(parameters: dict, host: Host) -> OpenWorkload:
    """`containers` containers, one actor each."""
    at_most("container_churn", parameters, MOST_ACTORS, "containers", "per_hour")
    cpus = parameters["cpus_used"] or host.cpus
    if cpus > host.cpus:
        raise UsageProblem(
            f"workload container_churn: cpus_used = {cpus}: expected at most {host.cpus}, the CPUs"
        )
    nr, pages = parameters["containers"], parameters["cache_pages"]
    step = wait(1000 * parameters["step_us"], EXPONENTIAL)
    life = [
        wait(HOUR // parameters["per_hour"], EXPONENTIAL), wake(1, nr), create(PODS),
        repeat(parameters["processes"], make("process"), hop(cpus), step),
        repeat(parameters["files"], make("file"), hop(cpus), step),
        repeat(parameters["scratch"], make("scratch"), hop(cpus), step),
        *([user(pages, USER_CLEAN)] if pages else []),
        wait(parameters["life_ms"] * 10**6, EXPONENTIAL),
        drop_all("scratch", parameters["scratch"]),
        drop_all("process", parameters["processes"]),
        offline(),
        wait(parameters["lag_ms"] * 10**6, EXPONENTIAL),
        *([give(pages, USER_CLEAN)] if pages else []),
        drop_all("file", parameters["files"], parameters["reclaimed"]),
    ]  # fmt: skip
    cast = Cast(
        roles={"container": life},
        actors=[
            Actor("container", FIRST + i, i % host.cpus, start=-1 if i else 0) for i in range(nr)
        ],
        piles={
            "process": Pile("process", max(1, parameters["processes"])),
            "file": Pile("file", max(1, parameters["files"])),
            "scratch": Pile("tmpfs file", max(1, parameters["scratch"])),
        },
        groups=(
            GroupSpec("/", 0), GroupSpec("/pods"),
            *(GroupSpec(f"/pods/{i}", PODS, online=False) for i in range(nr)),
        ),
        user_pages=pages > 0,
    )  # fmt: skip
    return perform(cast, host, "container_churn")


container_churn = Workload(
    name="container_churn",
    description="containers that come at random, live a while and leave cached files behind",
    source="Roman Gushchin, reparenting v7, June 2019; kubernetes issue 61937; mix of 6.18",
    open=open_container_churn,
    parameters=(
        Parameter("containers", 200, "containers in all", "groups", 1, maximum=MOST_GROUPS),
        Parameter("per_hour", 5000, "arrivals", "/h", 1),
        Parameter("processes", 3, "processes of a container", "", 0),
        Parameter("files", 40, "files that stay cached", "", 0),
        Parameter("scratch", 20, "files of tmpfs that are removed at the end", "", 0),
        Parameter("cpus_used", 0, "CPUs that a container runs on, in turn; 0 = all", "cpus", 0),
        Parameter("step_us", 5000, "mean time between these", "us", 0),
        Parameter("life_ms", 5000, "mean life after them", "ms", 1),
        Parameter("lag_ms", 20_000, "mean time from removal until these are reclaimed", "ms", 1),
        Parameter("cache_pages", 0, "pages of clean page cache that stay until then", "pages", 0),
        Parameter("reclaimed", 90, "files that are reclaimed at all", "%", 0),
    ),
)
