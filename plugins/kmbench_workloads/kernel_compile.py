"""make -j: compilers come and go, open headers by popularity and ask for names that do not exist.

Each of `jobs` runs one compiler after the other: a process that opens `headers` files (the popular
ones again and again), misses `misses` names, lives for a lognormal time and leaves one object file.
Headers and negative dentries stay cached; whoever asks first is charged for them.
"""

from kmbench.parameters import Parameter
from kmbench.workload import Host, OpenWorkload, Workload
from kmbench_workloads.scripts import (
    LOGNORMAL,
    MOST_ACTORS,
    Actor,
    Cast,
    Pile,
    at_most,
    drop,
    groups_of,
    look,
    make,
    perform,
    repeat,
    wait,
    walk,
)


def open_kernel_compile(parameters: dict, host: Host) -> OpenWorkload:
    """`compilers` compilers, divided among `jobs` (rounded up)."""
    at_most("kernel_compile", parameters, MOST_ACTORS, "jobs")
    jobs = parameters["jobs"]
    each = -(-parameters["compilers"] // jobs)
    compiler = [
        make("process"),
        repeat(parameters["headers"], look("header"), make("open"), drop("open")),
        repeat(parameters["misses"], walk("missing")),
        wait(parameters["run_ms"] * 10**6, LOGNORMAL),
        make("object"),
        drop("process"),
    ]
    cast = Cast(
        roles={"job": [repeat(each, *compiler)]},
        actors=[Actor("job", 2, i % host.cpus) for i in range(jobs)],
        piles={
            "header": Pile("file", parameters["sources"]),
            "missing": Pile("name", parameters["missing"]),
            "process": Pile("process"), "open": Pile("open"), "object": Pile("written file", each),
        },
        shared=frozenset(("header", "missing")),
        groups=groups_of(parameters, "/make"),
        names="header",
    )  # fmt: skip
    return perform(cast, host, "kernel_compile")


kernel_compile = Workload(
    name="kernel_compile",
    description="compilers that come and go, open headers and ask for names that do not exist",
    source="a kernel build; mix of 6.18",
    open=open_kernel_compile,
    parameters=(
        Parameter("compilers", 1000, "compilers in all", "processes", 1),
        Parameter("jobs", 4, "of them at a time", "", 1),
        Parameter("headers", 300, "files that a compiler opens", "", 0),
        Parameter("sources", 5000, "headers and sources there are", "", 1),
        Parameter("misses", 50, "names that a compiler looks for in vain", "", 0),
        Parameter("missing", 2000, "such names", "", 1),
        Parameter("run_ms", 200, "mean time that a compiler takes", "ms", 1),
        Parameter("limit_pages", 0, "limit of the group; 0 = none", "pages", 0),
    ),
)
