"""kmbench: compares designs for accounting kernel memory to control groups.

A compiled model of the kernel's memory hosts accounting strategies and workloads as plugins,
replays generated or recorded events through them, and writes Arrow tables.
"""

TYPE_CHECKING = False  # as type checkers know it; importing typing takes longer than this module

if TYPE_CHECKING:
    from kmbench.core.build import Accounting
    from kmbench.core.vm import Reclaim
    from kmbench.errors import KmbenchError, PluginProblem, UsageProblem
    from kmbench.executor import ExecutorPlugin
    from kmbench.hookspecs import hookimpl
    from kmbench.memory import Memory
    from kmbench.parameters import Parameter
    from kmbench.plugins import load_plugins
    from kmbench.runs import run
    from kmbench.scenario import Scenario, load_scenario
    from kmbench.shrinker import Shrinker
    from kmbench.simulate import Simulation
    from kmbench.store.dataset import open_results
    from kmbench.strategy import Strategy
    from kmbench.workload import Host, OpenWorkload, Workload, generated

_HOME = {
    "Accounting": "kmbench.core.build",
    "ExecutorPlugin": "kmbench.executor",
    "Host": "kmbench.workload",
    "KmbenchError": "kmbench.errors",
    "Memory": "kmbench.memory",
    "OpenWorkload": "kmbench.workload",
    "Parameter": "kmbench.parameters",
    "PluginProblem": "kmbench.errors",
    "Scenario": "kmbench.scenario",
    "Reclaim": "kmbench.core.vm",
    "Shrinker": "kmbench.shrinker",
    "Simulation": "kmbench.simulate",
    "Strategy": "kmbench.strategy",
    "UsageProblem": "kmbench.errors",
    "Workload": "kmbench.workload",
    "generated": "kmbench.workload",
    "hookimpl": "kmbench.hookspecs",
    "load_plugins": "kmbench.plugins",
    "load_scenario": "kmbench.scenario",
    "open_results": "kmbench.store.dataset",
    "run": "kmbench.runs",
}
__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str):
    """Import public names when they are first used: commands that need few start fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'kmbench' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
