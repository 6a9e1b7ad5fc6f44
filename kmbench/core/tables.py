"""Named sets of record arrays: the shape of all state that compiled code sees.

A set is a NamedTuple of one-dimensional structured arrays.  Its class is made from the field names
alone and can be found again by its name, so that compiled code which was cached for it is found by
other processes.
"""

import mmap
from collections import namedtuple
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from kmbench.core.jit import JIT
from kmbench.core.rows import register_tables
from kmbench.errors import PluginProblem

NUMBERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")  # dtypes of fields
MAPPED = 1 << 18  # bytes from which a table has a mapping of its own
HUGE = 1 << 22  # and from which huge pages pay, as numpy has found for its own arrays

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
    nbytes = length * np.dtype(dtype).itemsize
    made = _mapped(nbytes).view(dtype) if nbytes >= MAPPED else np.zeros(length, dtype)
    return made if JIT else made.view(np.recarray)


def _mapped(nbytes: int) -> np.ndarray:
    """Zeroed bytes in a mapping of their own.

    From malloc they would, after a first run, be memory that another run gave back, and clearing
    tables of which a short run touches a few pages took longer than the run.
    """
    try:
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{nbytes:,} bytes for a table: {error.strerror}") from None
    if nbytes >= HUGE:
        with suppress(OSError):  # a kernel without transparent huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


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
        raise PluginProblem("a table needs at least one field, as name='dtype'")
    for name, dtype in fields.items():
        if dtype not in NUMBERS:
            raise PluginProblem(
                f"table field {name}: dtype {dtype!r}: expected one of {', '.join(NUMBERS)}"
            )
    return Table(sized_by, np.dtype(list(fields.items()), align=True))
