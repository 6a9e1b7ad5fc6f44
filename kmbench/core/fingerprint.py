"""A hash of what a set of functions means: bytecode and constants of everything they can reach.

Compiled code is cached under this hash, so an edit to any reachable function or constant, in
whatever file, compiles anew, and a comment, a moved line or an edit elsewhere does not.
"""

import dis
import enum
import hashlib
import inspect
import types
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
from numba.core.dispatcher import Dispatcher

from kmbench.errors import PluginProblem

# functions of these packages are known by the package's version, which the cache key holds anyway
_OPAQUE = ("numba", "numpy", "llvmlite", "builtins", "math")


def plain(func: Callable) -> Callable:
    """The Python function behind a dispatcher, or `func` itself."""
    return func.py_func if isinstance(func, Dispatcher) else func


class _Walk:
    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.content = bytearray()

    def put(self, *parts: object) -> None:
        for part in parts:
            data = part if isinstance(part, bytes) else repr(part).encode()
            self.content += len(data).to_bytes(8, "little")
            self.content += data

    def function(self, func: Callable) -> None:
        options = sorted(func.targetoptions.items()) if isinstance(func, Dispatcher) else ()
        func = plain(func)
        if id(func) in self.seen:  # also ends recursion
            self.put("seen", self.seen[id(func)])
            return
        self.seen[id(func)] = len(self.seen)
        self.put("function", options, func.__defaults__, func.__kwdefaults__)
        self.code(func.__code__, func)
        for cell in func.__closure__ or ():
            self.value("closure", cell.cell_contents, func)

    def code(self, code: types.CodeType, func: Callable) -> None:
        # bytecode holds names by number: of fields that are stored, of builtins, of what is loaded;
        # those of arguments matter where they are given by name
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        self.put(code.co_code, code.co_names, arguments, code.co_argcount, code.co_exceptiontable)
        # numba clears the flag of optimised locals in functions that run under a profiler
        self.put(code.co_flags & ~inspect.CO_OPTIMIZED)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant, func)
            else:
                self.put("const", None if constant == func.__doc__ else constant)
        cells = dict(zip(func.__code__.co_freevars, func.__closure__ or (), strict=True))
        chain: object = None  # value of the global whose attributes are being loaded
        for load, name in _loads(code):
            if load == "attr" and isinstance(chain, types.ModuleType) and hasattr(chain, name):
                chain = getattr(chain, name)
                self.value(name, chain, func)
                continue
            chain = None
            if load == "global" and name in func.__globals__:
                chain = func.__globals__[name]
                self.value(name, chain, func)
            elif load == "closure" and name in cells:  # hashed with the function
                chain = cells[name].cell_contents

    def value(self, name: str, value: object, func: Callable) -> None:
        self.put("global", name)
        if (getattr(value, "__module__", None) or "").partition(".")[0] in _OPAQUE:
            self.put(type(value).__name__, getattr(value, "__qualname__", name))
        elif isinstance(value, (types.FunctionType, Dispatcher)):
            self.function(value)
        elif isinstance(value, (bool, int, float, complex, str, bytes, type(None), np.generic)):
            self.put(type(value).__name__, value)
        elif isinstance(value, (tuple, frozenset)):
            items = sorted(value, key=repr) if isinstance(value, frozenset) else value
            self.put(type(value).__qualname__, getattr(value, "_fields", ()), len(items))
            for item in items:
                self.value(name, item, func)
        elif isinstance(value, np.dtype):
            self.put(value.descr)
        elif isinstance(value, np.ndarray):
            self.put(value.dtype.descr, value.shape, value.tobytes())
        elif isinstance(value, types.ModuleType):
            self.put(value.__name__)
        elif isinstance(value, type):
            members = [*value.__members__.items()] if issubclass(value, enum.Enum) else ()
            defaults = getattr(value, "_field_defaults", {})
            self.put(value.__qualname__, getattr(value, "_fields", ()), defaults, members)
        elif callable(value) and isinstance(value, types.BuiltinFunctionType):
            self.put(value.__qualname__)
        elif hasattr(value, "_defn"):  # a numba intrinsic: its generator function
            self.function(value._defn)
        else:
            code = func.__code__
            raise PluginProblem(
                f"{code.co_filename}:{code.co_firstlineno}: {func.__name__} uses the global "
                f"{name!r} of type {type(value).__name__}; compiled code may use functions, "
                f"numbers, strings, tuples, dtypes and arrays"
            )


_LOADS = {
    "LOAD_GLOBAL": "global", "LOAD_NAME": "global", "LOAD_ATTR": "attr", "LOAD_METHOD": "attr",
    "LOAD_DEREF": "closure",
}  # fmt: skip
_SILENT = ("CACHE", "PRECALL", "PUSH_NULL", "NOP")


@cache
def _loads(code: types.CodeType) -> tuple[tuple[str, str], ...]:
    """What `code` loads by name, in order; ("", "") stands for any other instructions between."""
    found: list[tuple[str, str]] = []
    for step in dis.get_instructions(code):
        if step.opname in _LOADS:
            found.append((_LOADS[step.opname], step.argval))
        elif step.opname not in _SILENT and found and found[-1][0]:
            found.append(("", ""))
    return tuple(found)


def fingerprint(functions: Iterable[Callable], *extra: object) -> str:
    """32 hex digits that name what `functions` and everything they reach do.

    `extra`: further values that the compiled code depends on.  Raises PluginProblem, with file and
    line, where a function uses a global whose value cannot be hashed.
    """
    walk = _Walk()
    for func in functions:
        walk.function(func)
    walk.put(*extra)
    return hashlib.sha256(walk.content).hexdigest()[:32]
