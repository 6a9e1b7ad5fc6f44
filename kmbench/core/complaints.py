"""What numba objects to, in the words of somebody who writes hooks."""

import re
from collections.abc import Collection, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from kmbench.errors import did_you_mean

__all__ = ["reason_of"]

_NOISE = (
    "Failed in", "During:", "File ", "<source", "No implementation", "There are", "- Of which",
    "Overload", "This is not usually", "- Resolution", "[1]", "[2]",
)  # fmt: skip
# what to look for in numba's words, the first that is found counts; and what it means
_MEANT = (
    (r"Untyped global name '(\w+)':.*<class 'function'>",
     "calls {0!r}, a plain function; helpers of hooks are decorated with @inlined or @outlined"),
    (r"Unknown attribute '(\w+)' of type Module\(<module '(\w+)'",
     "{1}.{0} is not for compiled code"),
    (r"\(STORE_GLOBAL\)|\(DELETE_GLOBAL\)",
     "sets a global; what a strategy remembers belongs into its tables"),
    (r">>> getitem\(Rows\(.*\), (?:Literal\[)?(\w+)",
     "a row of a table is a whole number, not a value of type {0}"),
    (r">>> setitem\(Rows\(", "a row of a table cannot be set as a whole: set its fields"),
    (r"<intrinsic exception_match>", "try and except are not for compiled code"),
    (r"Cannot bind 'args=",
     "calls a helper with other arguments than it has"),
    (r"NRT required|DictType|ListType|reflected list|returning of array passed",
     "makes a list, dict, string or array; compiled code has numbers and records only"),
    (r">>> (\w+)\((.*)\)", "{0} cannot take values of types ({1})"),
)  # fmt: skip
NOTHING: Mapping = MappingProxyType({})
_LONGEST = 200  # letters of what numba says


def reason_of(
    error: Exception, file: str = "", tables: Mapping[str, Collection[str]] = NOTHING
) -> str:
    """What numba objects to, in one line, with the place in the source that it points at.

    `file`: where the hook is, of which numba may know the last part alone; `tables`: those that it
    can see, by the name of the argument that has them.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    place = re.findall(r'File "([^"]+)", line (\d+)', text) or re.findall(r"(/\S+) \((\d+)\)", text)
    reason = _meaning(text, tables)
    if not place:
        return reason
    where, line = place[-1]
    if Path(where).name == Path(file).name:
        where = file
    return f"{where}:{line}: {reason}"


def _meaning(text: str, tables: Mapping[str, Collection[str]]) -> str:
    if found := re.search(r"Unknown attribute '(\w+)' of type Tables", text):
        has = [argument for argument, known in tables.items() if found[1] in known]
        hint = did_you_mean(found[1], chain.from_iterable(tables.values()))
        return f"there is no table {found[1]!r}{f', but in {has[0]}' if has else hint}"
    for pattern, words in _MEANT:
        if found := re.search(pattern, text):
            parts = [part for part in found.groups() if part]
            return words.format(*parts)[:_LONGEST]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(_NOISE)]
    return reasons[0][:_LONGEST] if reasons else "cannot be compiled"
