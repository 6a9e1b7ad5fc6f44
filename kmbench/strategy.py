"""Strategies: what a plugin registers to account kernel memory its own way."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kmbench.core.build import Accounting
from kmbench.core.hooks import STRATEGY_HOOKS
from kmbench.core.paths import MAX_PLUGIN_PATHS, Ops, Path
from kmbench.core.tables import Table, table
from kmbench.design import ROWS, Fact
from kmbench.errors import PluginProblem, did_you_mean
from kmbench.parameters import Parameter

ABI = 1


@dataclass(frozen=True)
class Strategy:
    """A way to account kernel memory to groups.

    `hooks` maps names of :mod:`kmbench.core.hooks` to plain module-level functions of the same
    arguments; those left out are compiled to nothing.  `tables` are its own state, sized by the
    host and zeroed; `tables_for` says, given the parameters, which it has beside (a function chosen
    by :func:`kmbench.core.ops.by_table` is compiled for those alone); numeric and true/false
    parameters reach the hooks as ``P.par[0].name``.
    `accounting` says, given the parameters, what the memory controller does for it.  `prepare(S, P,
    setup, parameters)` runs once, as Python, before the first event; before that, `growth(setup,
    parameters)` says by cache row how many bytes it adds to each object.  `copy_name` names a copy
    of `cache` for `group` (or its `row`) in results, `dead_suffix` is added once its group is
    removed.  `paths` are counted by ``count(S, PLUGIN_PATH + i)``.  `path_ops` says, given the
    parameters, which paths, also of the host, cost other operations than they are declared with.
    `design` says in few words what it does, by rows of :data:`kmbench.design.ROWS`.
    """

    name: str
    description: str
    source: str
    hooks: Mapping[str, Callable] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    tables_for: Callable[[dict], Mapping[str, Table]] = lambda parameters: {}
    paths: tuple[Path, ...] = ()
    path_ops: Callable[[dict], Mapping[str, Ops]] = lambda parameters: {}
    accounting: Callable[[dict], Accounting] = lambda parameters: Accounting()
    prepare: Callable | None = None
    growth: Callable | None = None
    copy_name: str = "{cache}({group})"
    dead_suffix: str = ""
    design: Mapping[str, Fact] = field(default_factory=dict)
    abi: int = ABI

    def __post_init__(self) -> None:
        check_hooks(f"strategy {self.name!r}", self.hooks, STRATEGY_HOOKS)
        for row in self.design:
            if row not in ROWS:
                raise PluginProblem(
                    f"strategy {self.name!r}: no design row {row!r}{did_you_mean(row, ROWS)}"
                )
        if len(self.paths) > MAX_PLUGIN_PATHS:
            raise PluginProblem(
                f"strategy {self.name!r}: {len(self.paths)} paths, at most {MAX_PLUGIN_PATHS}"
            )

    def resolved_hooks(self) -> dict[str, Callable]:
        """Every hook of the protocol: this strategy's where it has one, else the default."""
        return {**STRATEGY_HOOKS, **self.hooks}

    def all_tables(self, parameters: dict) -> dict[str, Table]:
        """Its tables and, if it has numeric parameters, the table ``par`` that holds them.

        A strategy may declare ``par`` itself, with further fields that ``prepare`` fills in.
        """
        tables = {**self.tables, **self.tables_for(parameters)}
        return parameter_tables(self.parameters, tables)


def parameter_tables(
    parameters: Iterable[Parameter], tables: Mapping[str, Table]
) -> dict[str, Table]:
    """A plugin's `tables` and, if it has numeric parameters, the table ``par`` that holds them."""
    kinds = {bool: "i8", int: "i8", float: "f8"}
    fields = {p.name: kinds[type(p.default)] for p in parameters if type(p.default) in kinds}
    return {**({"par": table(1, **fields)} if fields else {}), **tables}


def check_hooks(who: str, hooks: Mapping[str, Callable], known: Mapping[str, Callable]) -> None:
    """Raise PluginProblem for a hook that is not known, or takes another number of arguments."""
    for name, hook in hooks.items():
        if name not in known:
            raise PluginProblem(f"{who}: no hook {name!r}{did_you_mean(name, known)}")
        wanted, got = (_arguments(f) for f in (known[name], hook))
        if len(wanted) != len(got):
            raise PluginProblem(
                f"{who}: {place(hook)}: {name}({', '.join(got)}): expected "
                f"the arguments ({', '.join(wanted)})"
            )


def _arguments(func: Callable) -> tuple[str, ...]:
    code = getattr(func, "py_func", func).__code__
    return code.co_varnames[: code.co_argcount]


def place(func: Callable) -> str:
    """``file:line`` of a function."""
    code = getattr(func, "py_func", func).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
