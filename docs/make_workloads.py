"""Writes workloads.md: every workload, what it models, its parameters and its scenarios.

    python docs/make_workloads.py [--check]

The words are the docstring of the workload's module.  ``--check`` writes nothing; exit code 1 if
the page is not what would be written.
"""

import inspect
import sys
from pathlib import Path

import kmbench
from kmbench.scenario import scenario_files
from kmbench.workload import Workload
from kmbench_workloads.objects import MEASURED, OPERATIONS, billed_bytes, slab_bytes

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "workloads.md"
REPLAYS = ("replay", "mix")

HEAD = """\
# Workloads

What each workload models, its parameters with their defaults, and the scenarios in `workloads/`
that use it; `python docs/make_workloads.py` writes this page from the plugins, a test compares. A
scenario names its workload and sets parameters in its table `[workload]`;
`--set workload.NAME=VALUE` changes one, and a [sweep](sweeps.md) many.

`workloads/` is grouped by what a scenario is for: `isolation/` (what a neighbour suffers), `waste/`
(slabs that hold little), `churn/` (groups that come and go), `pressure/` (memory runs out),
`overhead/` (what accounting costs), `published/` (figures that others measured) and `recorded/`
(real kernels). Each says at its top what it shows and what to look at:

```sh
kmbench run workloads/waste/webserver_fleet.toml -s none -s linux-6.18
kmbench compare --metric slab_utilisation --metric unaccounted_share
```

Same parameters, same seed: the same events to the last byte, in any process, compiled or not. Every
concern (waiting times, choices, what is reclaimed) draws from a random stream of its own, so a
change of one does not move the others.
"""

OPERATIONS_HEAD = """
## What an operation allocates

Most generators are made of operations: a process, a file, a socket. What each allocates was
measured on Linux 6.18 (x86_64, two CPUs): objects by cache from /proc/slabinfo, and what its group
was charged from memory.kmem.usage_in_bytes. The generators make the objects; the bytes follow from
them, so the measured ones are a check. A count that is not whole adds up over operations.

| operation | objects | slab, B | measured | charged by `linux-6.18`, B | measured |
|---|---|---|---|---|---|"""


def operations_table() -> list[str]:
    """A row an operation."""
    lines = OPERATIONS_HEAD.split("\n")
    for name, items in OPERATIONS.items():
        slab, billed = MEASURED.get(name, (0, 0))
        objects = ", ".join(
            f"{item.what} {item.count:g}" if item.count != 1 else item.what for item in items
        )
        given = [f"{nr:,.0f}" if nr else "" for nr in (slab, billed)]
        ours = [f"{nr:,.0f}" for nr in (slab_bytes(name), billed_bytes(name))]
        lines.append(f"| {name} | {objects} | {ours[0]} | {given[0]} | {ours[1]} | {given[1]} |")
    return lines


def section(workload: Workload, scenarios: list[Path]) -> list[str]:
    """One workload."""
    module = inspect.getmodule(workload.open)
    lines = ["", f"## {workload.name}", "", inspect.getdoc(module).strip(), ""]
    lines += [f"After: {workload.source}.", ""]
    if scenarios:
        names = ", ".join(f"`{path.relative_to(ROOT).as_posix()}`" for path in scenarios)
        lines += [f"Scenarios: {names}.", ""]
    lines += ["| parameter | default | unit | |", "|---|---|---|---|"]
    for p in workload.parameters:
        default = str(p.default).lower() if isinstance(p.default, bool) else p.default
        shown = f"`{default}`" if default not in ("", [], {}) else ""
        lines.append(f"| `{p.name}` | {shown} | {p.unit} | {p.description} |")
    return lines


def page() -> str:
    """The page."""
    workloads = kmbench.load_plugins().workloads
    used: dict[str, list[Path]] = {}
    for path in scenario_files(ROOT / "workloads"):
        used.setdefault(kmbench.load_scenario(path).workload, []).append(path)
    names = sorted(workloads, key=lambda name: (name in REPLAYS, name))
    own = [n for n in names if inspect.getmodule(workloads[n].open).__file__.startswith(str(ROOT))]
    lines = HEAD.rstrip().split("\n")
    for name in own:
        lines += section(workloads[name], used.get(name, []))
    return "\n".join(lines + operations_table()) + "\n"


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv:
        return int(not PAGE.exists() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
