"""What a plugin may register.  Each hook is called once, when plugins are loaded."""

from collections.abc import Callable

import pluggy

hookspec = pluggy.HookspecMarker("kmbench")
hookimpl = pluggy.HookimplMarker("kmbench")


@hookspec
def kmbench_register_strategies(register: Callable) -> None:
    """Call ``register(strategy)`` for each :class:`kmbench.Strategy`."""


@hookspec
def kmbench_register_shrinkers(register: Callable) -> None:
    """Call ``register(shrinker)`` for each :class:`kmbench.Shrinker`."""


@hookspec
def kmbench_register_workloads(register: Callable) -> None:
    """Call ``register(workload)`` for each :class:`kmbench.Workload`."""


@hookspec
def kmbench_register_executors(register: Callable) -> None:
    """Call ``register(executor)`` for each :class:`kmbench.ExecutorPlugin`: where sweeps run."""


@hookspec
def kmbench_register_compositions(register: Callable) -> None:
    """Call ``register(strategy)`` for each family of designs: a :class:`kmbench.Strategy` that its
    parameters choose.  It runs when it is named, and is what ``kmbench explore`` looks through."""
