"""Shrinkers: what a plugin registers to free cached objects, or to act on pressure in userland."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kmbench.core.shrinkers import SHRINKER_HOOKS
from kmbench.core.tables import Table
from kmbench.errors import PluginProblem
from kmbench.parameters import Parameter
from kmbench.strategy import ABI, check_hooks, parameter_tables


@dataclass(frozen=True)
class Shrinker:
    """A policy that frees cached objects when memory is short, or a listener to pressure.

    `hooks` maps names of :mod:`kmbench.core.shrinkers` to plain module-level functions of the same
    arguments; those left out are compiled to nothing.  `tables` are its own state; numeric and
    true/false parameters reach the hooks as ``Q.par[0].name`` (``U.par[0]`` in a listener's).
    `lists` is the number of lists kept for each group, `seeks` and `batch` those of struct
    shrinker.  `prepare(S, Q, setup, parameters)` runs once, as Python, before the first event.
    `listener`: it has the hooks from ``pressure`` on only and runs beside another shrinker.
    A listener's table ``figure``, one record, holds metrics of its own under their names.
    """

    name: str
    description: str
    source: str
    hooks: Mapping[str, Callable] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    lists: int = 1
    seeks: int = 2
    batch: int = 128
    listener: bool = False
    prepare: Callable | None = None
    abi: int = ABI

    def __post_init__(self) -> None:
        check_hooks(f"shrinker {self.name!r}", self.hooks, SHRINKER_HOOKS)
        listens = {
            "pressure", "pressure_tree", "pressure_prio", "stalled", "told", "notified",
        }  # fmt: skip
        misplaced = set(self.hooks) - listens if self.listener else set(self.hooks) & listens
        if misplaced:
            kind = "a listener" if self.listener else "no listener"
            raise PluginProblem(
                f"shrinker {self.name!r}: hook {min(misplaced)!r} in {kind}; expected "
                f"{'only' if self.listener else 'none of'} {', '.join(sorted(listens))}"
            )

    def all_tables(self) -> dict[str, Table]:
        """Its tables and, if it has numeric parameters, the table ``par`` that holds them."""
        return parameter_tables(self.parameters, self.tables)


NO_SHRINKER = Shrinker("none", "nothing is cached that could be freed", "")
