"""How a run models that memory runs out: the reclaim parameters, a shrinker, a listener."""

from collections.abc import Callable
from typing import Any, NamedTuple

from kmbench.core.build import Accounting, build_tables
from kmbench.core.setup import Setup
from kmbench.core.state import State
from kmbench.core.vm import Reclaim, reclaim_state
from kmbench.errors import unknown
from kmbench.shrinker import NO_SHRINKER, Shrinker


class Memory(NamedTuple):
    """What :class:`kmbench.Simulation` needs to model reclaim.

    `shrinker` frees cached objects; `listener` acts in userland.  Their parameters are complete.
    """

    reclaim: Reclaim = Reclaim()
    shrinker: Shrinker = NO_SHRINKER
    parameters: dict[str, Any] = {}  # noqa: RUF012
    listener: Shrinker = NO_SHRINKER
    listener_parameters: dict[str, Any] = {}  # noqa: RUF012

    def join(
        self, S: State, setup: Setup, accounting: Accounting, hooks: dict[str, Callable], P: tuple
    ) -> tuple:
        """The state of a run with reclaim, from one without and the strategy's hooks and tables.

        Raises UsageProblem for a cache of inodes that the setup lacks.
        """
        wanted = self.reclaim.inode_cache
        names = [cache.name for cache in setup.caches]
        if wanted and wanted not in names:
            raise unknown("cache", wanted, names).within("reclaim.inode_cache")
        Q = _tables(self.shrinker, self.parameters, S)
        U = _tables(self.listener, self.listener_parameters, S)
        listens = self.listener.hooks
        made = reclaim_state(
            S, setup, accounting, self.reclaim, self.shrinker, {**hooks, **listens}, P, Q, U
        )
        for shrinker, tables, given in (
            (self.shrinker, Q, self.parameters),
            (self.listener, U, self.listener_parameters),
        ):
            if shrinker.prepare:
                shrinker.prepare(made, tables, setup, given)
        return made


def _tables(shrinker: Shrinker, given: dict[str, Any], S: State) -> tuple:
    made = build_tables(shrinker.all_tables(), S)
    if "par" in made._fields:
        values = {p.name: p.default for p in shrinker.parameters} | given
        for name in values.keys() & set(made.par.dtype.names):
            made.par[name] = values[name]
    return made
