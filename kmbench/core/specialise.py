"""Joins the event loop with one strategy into one compiled engine.

The loop calls ``H.select(...)``, ``H.post_alloc(...)``: `H` is a value without content whose numba
*type* knows the strategy's functions, so each call is resolved while compiling and inlines.  The
type is named by the fingerprint of the loop and all hooks, and the compiled engine is cached in a
folder of that name: found again by any process, also for plugins of other distributions, and never
used after a change to anything it was compiled from.

With ``NUMBA_DISABLE_JIT=1`` the same object works as plain Python.
"""

import fcntl
import gc
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from numba.core import caching, config, types
from numba.core.datamodel import models, register_default
from numba.core.errors import NumbaError, UnsupportedBytecodeError
from numba.core.registry import CPUDispatcher
from numba.core.typing.templates import AttributeTemplate
from numba.extending import NativeValue, infer_getattr, lower_getattr_generic, typeof_impl, unbox

from kmbench.core import jit, rows
from kmbench.core.complaints import reason_of
from kmbench.core.fingerprint import fingerprint, plain
from kmbench.core.hooks import RETURNS, STRATEGY_HOOKS
from kmbench.core.jit import JIT, entry, inlined
from kmbench.errors import PluginProblem


class HooksType(types.Type):
    """Numba type of a hook namespace; equal when the fingerprint is."""

    def __init__(self, key: str, functions: dict[str, Callable] | None = None):
        self.functions = functions
        super().__init__(name=f"Hooks({key})")
        self.fingerprint = key

    @property
    def key(self):
        return self.name

    def __reduce__(self):
        return HooksType, (self.fingerprint,)


class Hooks:
    """The functions that the loop calls as ``H.name``; plain attributes in Python."""

    def __init__(self, key: str, functions: dict[str, Callable]):
        self.__dict__.update(functions)
        self._numba_type = HooksType(key, functions) if JIT else None
        if JIT:  # types are interned: one that came out of a cache index knows no functions
            self._numba_type.functions = functions


@typeof_impl.register(Hooks)
def _typeof_hooks(value, context):
    return value._numba_type


register_default(HooksType)(models.OpaqueModel)


@unbox(HooksType)
def _unbox_hooks(typ, obj, c):
    return NativeValue(c.context.get_dummy_value())


@infer_getattr
class _HookAttribute(AttributeTemplate):
    key = HooksType

    def generic_resolve(self, typ, attr):
        if typ.functions and attr in typ.functions:
            return types.Dispatcher(typ.functions[attr])
        return None


@lower_getattr_generic(HooksType)
def _lower_hook(context, builder, typ, value, attr):
    return context.get_dummy_value()


def cache_folder() -> Path:
    """Where compiled engines are kept: $KMBENCH_CACHE, else the user's cache folder."""
    if given := os.environ.get("KMBENCH_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kmbench"


class _Locator(caching._CacheLocator):
    """Puts numba's cache files of an engine into the folder of its fingerprint."""

    def __init__(self, folder: Path, key: str):
        self._folder, self._key = folder, key

    def get_cache_path(self):
        return str(self._folder)

    def get_source_stamp(self):
        return self._key

    def get_disambiguator(self):
        return "kmbench"


def _attach_cache(dispatcher, folder: Path, key: str) -> None:
    locator = _Locator(folder, key)

    class Impl(caching.CompileResultCacheImpl):
        _locator_classes = [type("_", (), {"from_function": staticmethod(lambda *_: locator)})]

    class EngineCache(caching.FunctionCache):
        _impl_class = Impl

        def load_overload(self, sig, target_context):
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # a file that a killed process cut short can fail in any way
                with suppress(OSError):
                    self.flush()
                return None

        def save_overload(self, sig, data):
            with suppress(OSError):  # nowhere to keep it: the engine works all the same
                super().save_overload(sig, data)

    dispatcher._cache = EngineCache(dispatcher.py_func)


class Cached(CPUDispatcher):
    """A function for Python callers whose compiled form is kept under its fingerprint too."""

    def compile(self, sig):
        if isinstance(self._cache, caching.NullCache):
            key = fingerprint([self], _lowering(), config.BOUNDSCHECK)
            _attach_cache(self, cache_folder() / key, key)
        with jit.one_at_a_time:  # loading it, too: how code is linked is set for all threads
            return super().compile(sig)


def cached(func: Callable, **options: object) -> Callable:
    """Compile `func`, a loop over plain arrays, at its first call or load it from the cache.

    `options` are numba's, beside ``nopython`` and ``nogil``.
    """
    wanted = {"nopython": True, "nogil": True, **options}
    return Cached(py_func=func, targetoptions=wanted) if JIT else func


class Engine(NamedTuple):
    """A compiled entry and how it came to be."""

    call: Callable
    hooks: Hooks
    fingerprint: str
    dispatcher: object
    folder: Path  # of what was compiled, and of marks for which tables hooks were checked

    def compile_for(self, *args, apart: Callable[[], None] | None = None) -> tuple[float, bool]:
        """Compile or load from the cache for these arguments: seconds taken, and whether cached.

        `apart` has another process compile what is not on disk, and waits for it.  Raises
        PluginProblem when numba cannot compile what the hooks do.
        """
        if not JIT:
            return 0.0, True
        began = time.perf_counter()
        signature = self._signature(args)
        if signature in self.dispatcher.overloads:
            return 0.0, True
        made_here = not self._on_disk(signature)
        if made_here and apart:
            apart()
        tables = signature[0], signature[2]  # what a hook may do depends on those
        named = hashlib.sha256(repr([kind.name for kind in tables]).encode()).hexdigest()[:16]
        checked = self.folder / f"checked.{named}"
        with _alone(self.folder), jit.one_at_a_time, _no_collection():
            if not checked.exists():
                check_hooks(self.hooks, *tables)
            try:
                self.dispatcher.compile(signature)
            except _NUMBAS as error:
                raise PluginProblem(reason_of(error)) from error
            with suppress(OSError):
                checked.touch()
        hit = not made_here and self.dispatcher.stats.cache_hits[signature] > 0
        return time.perf_counter() - began, hit

    def entered_by(self, *args) -> Callable:
        """What :meth:`compile_for` made for these arguments, for callers whose arguments are of the
        same types at every call.

        A dispatcher asks for the types of two sets of tables at each call, which takes a hundred
        times as long as a call; what is called here does not ask: other types crash the process.
        """
        if not JIT:
            return self.call
        return self.dispatcher.overloads[self._signature(args)].entry_point

    def _signature(self, args: tuple) -> tuple:
        return tuple(self.dispatcher.typeof_pyval(a) for a in args)

    def _on_disk(self, signature: tuple) -> bool:
        kept = self.dispatcher._cache
        key = kept._index_key(signature, self.dispatcher.targetctx.codegen())
        try:
            return key in kept._cache_file._load_index()
        except Exception:  # a file that a killed process cut short can fail in any way
            return False


@contextmanager
def _alone(folder: Path):
    """Keep other processes from compiling the same: they wait, then load what this one made."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.with_suffix(".lock"), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # nowhere to keep it, nobody to wait for
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks costs only time
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _no_collection():
    """The compiler makes millions of objects that stay: searching them for cycles is a tenth of its
    time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def check_hooks(hooks: "Hooks", state: types.Type, tables: types.Type) -> None:
    """Compile each hook of the strategy protocol alone and check what it returns.

    Here an error names the plugin's file and line; inside the engine it would name the host's, and
    a wrong return type can pass unnoticed.  Raises PluginProblem.
    """
    for name, default in STRATEGY_HOOKS.items():
        hook = getattr(hooks, name, None)
        if hook is None or plain(hook) is default:
            continue
        code = plain(hook).__code__
        where = f"{name}: {code.co_filename}:{code.co_firstlineno}"
        seen = {"S": state.fields, "P": tables.fields}
        arguments = (state, tables, *(types.int64,) * (code.co_argcount - 2))
        try:
            hook.compile(arguments)
        except KeyError as error:  # numba's answer to a field that a record does not have
            raise PluginProblem(f"{where}: no field {error} in that record") from error
        except (*_NUMBAS, TypeError, ValueError, NotImplementedError) as error:
            reason = reason_of(error, code.co_filename, seen)
            place = "" if reason.startswith(code.co_filename) else f"{where.partition(': ')[2]}: "
            raise PluginProblem(f"{name}: {place}{reason}") from error
        result = hook.overloads[arguments].signature.return_type
        wanted = RETURNS[name]
        if isinstance(result, types.Optional) and wanted != "none":
            raise PluginProblem(
                f"{where}: returns nothing on some paths; expected {_WORDS[wanted]}"
            )
        fits = {
            "none": True,
            "truth": isinstance(result, (types.Boolean, types.Integer)),
            "row": isinstance(result, types.Integer),
        }
        if not fits[wanted]:
            kind = "generator" if isinstance(result, types.Generator) else result
            got = "nothing" if result == types.none else f"a value of type {kind}"
            raise PluginProblem(f"{where}: returns {got}; expected {_WORDS[wanted]}")


_NUMBAS = (NumbaError, UnsupportedBytecodeError)  # the latter is none
_WORDS = {"truth": "true or false", "row": "a whole number"}


@cache
def _lowering() -> str:
    """Hash of the code that decides how the rest is compiled."""
    sources = (Path(module.__file__).read_bytes() for module in (jit, rows))
    return hashlib.sha256(b"".join(sources)).hexdigest()


def as_helper(func: Callable) -> Callable:
    """A hook as the loop calls it: compiled inline, unless its author chose otherwise."""
    return func if hasattr(func, "py_func") or not JIT else inlined(func)


def specialise(
    loop: Callable, hooks: dict[str, Callable], namespace: Hooks | None = None
) -> Engine:
    """One engine of `loop` with `hooks`; compiled at the first call for its arguments.

    `namespace`: use this one, which has the hooks, instead of making one.  The same functions give
    the same engine again: a run of a few events would otherwise spend its time on the hash of what
    it runs.
    """
    given = tuple(sorted(hooks.items()))
    return _specialised(loop, given, cache_folder(), config.BOUNDSCHECK, namespace)


@lru_cache(maxsize=64)
def _specialised(
    loop: Callable, hooks: tuple, within: Path, bounds_checked: bool, namespace: Hooks | None
) -> Engine:
    helpers = {name: as_helper(func) for name, func in hooks}
    key = fingerprint([loop, *helpers.values()], tuple(helpers), _lowering(), bounds_checked)
    made = namespace or Hooks(key, helpers)
    call = entry(loop)
    folder = within / key
    if JIT:
        _attach_cache(call, folder, key)
    return Engine(call, made, key, call, folder)


__all__ = ["Engine", "Hooks", "cache_folder", "cached", "plain", "specialise"]
