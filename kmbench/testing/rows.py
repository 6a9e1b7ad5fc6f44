"""Tables as watched hooks see them: every index and every value that is stored is checked.

Plain Python would take negative rows, and of a value that its field cannot hold a part.  Compiled
code reads whole numbers as 64 bits wide and stores what fits of them: so does this.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["Row", "Rows", "checked"]


class Rows(np.recarray):
    """Records whose rows must exist."""

    def __getitem__(self, row):
        if isinstance(row, (float, np.floating)):
            raise IndexError(f"row {row} of a table: expected a whole number")
        if isinstance(row, (int, np.integer)):
            if not 0 <= row < len(self):
                names = ", ".join(self.dtype.names[:4])
                raise IndexError(f"row {row} of a table of {len(self)} rows ({names}, ...)")
            if "columns" in self.__dict__:
                return Row(self, row)
        return super().__getitem__(row)


class Row:
    """One record; ``row.field`` and ``row["field"]`` are the same."""

    __slots__ = ("row", "rows")

    def __init__(self, rows: Rows, row: int):
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "row", row)

    def __getattr__(self, name):
        column = _column(self, name)
        value = column[self.row]
        return np.int64(value) if column.dtype in _NARROW else value

    def __setattr__(self, name, value):
        column = _column(self, name)
        if column.dtype in _NARROW:
            low, high = _NARROW[column.dtype]
            if not low <= value <= high:
                rows = self.rows.__dict__
                rows["tell"](
                    f"stores {value} in {rows['name']}.{name}, "
                    f"which holds {low:,} to {high:,} ({column.dtype.str[1:]})"
                )
                value = np.int64(value).astype(column.dtype)
        column[self.row] = value

    __getitem__, __setitem__ = __getattr__, __setattr__


_NARROW = {
    np.dtype(kind): (int(np.iinfo(kind).min), int(np.iinfo(kind).max))
    for kind in ("i1", "u1", "i2", "u2", "i4", "u4")
}


def _column(record: Row, name: str) -> np.ndarray:
    columns = record.rows.__dict__["columns"]
    if name not in columns:
        raise AttributeError(f"no field {name!r}", name=name, obj=record)
    return columns[name]


def checked(name: str, table: np.ndarray, tell: Callable[[str], None]) -> Rows:
    """The same memory as `table`, checked; `tell` hears what did not fit into the table `name`."""
    rows = table.view(Rows)
    plain = table.view(np.ndarray)
    rows.__dict__.update(
        name=name, tell=tell, columns={field: plain[field] for field in table.dtype.names}
    )
    return rows
