"""Named sets of record arrays: the shape of all state that compiled code sees.

A set is a NamedTuple of one-dimensional structured arrays.  Its class is made from the field names
alone and can be found again by its name, so that compiled code which was cached for it is found by
other processes.
"""

from collections import namedtuple
from typing import NamedTuple

import numpy as np

from kmbench.core.jit import JIT
from kmbench.core.rows import register_tables

_PREFIX = "Tables__"


def __getattr__(name: str) -> type:
    if not name.startswith(_PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = namedtuple(name, name.removeprefix(_PREFIX).split("__"), module=__name__)
    globals()[name] = made
    if JIT:
        register_tables(made)
    return made


def tables_class(fields: tuple[str, ...]) -> type:
    """The NamedTuple class with these fields; the same object for the same fields."""
    name = _PREFIX + "__".join(fields)
    return globals().get(name) or __getattr__(name)


def records(length: int, dtype: np.dtype) -> np.ndarray:
    """`length` zeroed records; pages of memory that are never touched cost nothing.

    A recarray where the model runs as plain Python: there ``array[i].field`` must work too.
    """
    made = np.zeros(length, dtype)
    return made if JIT else made.view(np.recarray)


class Table(NamedTuple):
    """A table that a plugin declares; the host sizes it and sets it to zero.

    `sized_by` is the product of these, each with a row 0 for "none" except ``cpu`` and ``node``:
    ``cpu``, ``node``, ``memcg``, ``cache``, ``slab``, ``object`` or a whole number.  The first
    one varies slowest: the row of ("memcg", "cpu") is ``memcg * nr_cpus + cpu``.
    """

    sized_by: tuple[str | int, ...]
    dtype: np.dtype


def table(*sized_by: str | int, **fields: str) -> Table:
    """``table("cpu", memcg="i4", bytes="i4")``: one record per CPU."""
    if not fields:
        raise TypeError("a table needs at least one field, as name='dtype'")
    return Table(sized_by, np.dtype(list(fields.items()), align=True))
