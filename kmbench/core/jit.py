"""The compile decorators: every numba flag of the core, once, with its reason.

``_nrt=False``
    The core allocates nothing, so reference counts are pure cost: without this every helper that
    takes the state counts references of dozens of arrays (measured 2-6 x the time of C).
``forceinline=True``
    A helper that is not inlined passes dozens of array structs on the stack.
    Every helper says yes or no: numba hands the flag down to what is first compiled in its caller.
``no_cpython_wrapper``, ``no_cfunc_wrapper``
    Helpers are called from compiled code only; their wrappers would double the compile time.
``error_model="numpy"``
    Divisors of the model are never zero; saves the branch and its exception.

With ``NUMBA_DISABLE_JIT=1`` the decorators return the plain function and the model runs as Python.
"""

from collections.abc import Callable
from contextlib import contextmanager

from numba.core import config, types
from numba.core.codegen import JITCodeLibrary
from numba.core.dispatcher import Dispatcher
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature

JIT = not config.DISABLE_JIT

_COMMON = {"nopython": True, "nogil": True, "_nrt": False, "error_model": "numpy"}
_HELPER = {**_COMMON, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": False}


class _Part(JITCodeLibrary):
    """Code of a helper: never linked, optimised or made executable by itself.

    An engine links all that it reaches once and optimises it once (:class:`_Whole`).  Doing so for
    each of some 200 helpers, with copies of all they call, took over a third of the compile time.
    """

    def finalize(self):
        self._raise_if_finalized()
        self._finalize_dynamic_globals()
        self._finalized = True

    def own_module(self):
        """The module of this helper alone, to be linked in."""
        return super()._get_module_for_linking()

    def _get_module_for_linking(self):
        """For a library of numba's own, which links what it calls and no more."""
        whole = self.own_module().clone()
        for library in _reached(self._linking_libraries):
            whole.link_in(_module_of(library), preserve=True)
        return whole


class _Whole(JITCodeLibrary):
    """Code of an entry, with that of every helper that it reaches.

    Nobody else calls those: LLVM may drop arguments that they do not use.  The state has some
    seventy, and a call passes them one by one.
    """

    def _optimize_final_module(self):
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage.name == "linkonce_odr":
                function.linkage = "internal"
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)

    def finalize(self):
        self._linking_libraries, direct = [], self._linking_libraries
        for library in _reached(direct):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(_module_of(library), preserve=True)
        super().finalize()


def _module_of(library):
    return library.own_module() if isinstance(library, _Part) else library._get_module_for_linking()


def _reached(libraries):
    """All libraries that these need, themselves included, each once."""
    found, left = {}, list(libraries)
    while left:
        library = left.pop(0)
        if library not in found:
            found[library] = True
            if isinstance(library, _Part):
                left += library._linking_libraries
    return list(found)


@contextmanager
def _library_class(codegen, kind):
    """New code goes into libraries of another class."""
    usual = codegen._library_class
    codegen._library_class = kind
    try:
        yield
    finally:
        codegen._library_class = usual


def _widened(kind: types.Type) -> types.Type:
    kind = types.unliteral(kind)
    return types.int64 if isinstance(kind, types.Integer) else kind


class Helper(CPUDispatcher):
    """A function for compiled callers; called from Python it runs as plain Python.

    A dispatcher compiled without wrappers would crash the interpreter when Python calls it.  All
    whole numbers are passed as int64, so that it is compiled once and not for every mix of widths.
    """

    def get_call_template(self, args, kws):
        wide = {name: _widened(kind) for name, kind in kws.items()}
        return super().get_call_template(tuple(map(_widened, args)), wide)

    def compile(self, sig):
        context = self.targetctx
        usual = context.get_executable
        context.get_executable = lambda library, fndesc, env: [].append  # a key, never called
        try:
            with _library_class(context.codegen(), _Part):
                return super().compile(sig)
        finally:
            context.get_executable = usual

    def __call__(self, *args):
        return self.py_func(*args)


def inlined(func: Callable) -> Callable:
    """Compile `func` into each of its compiled callers (hot paths)."""
    return Helper(py_func=func, targetoptions={**_HELPER, "forceinline": True}) if JIT else func


def outlined(func: Callable) -> Callable:
    """Compile `func` once and call it (rare paths: keeps the engine small to compile)."""
    return Helper(py_func=func, targetoptions=dict(_HELPER)) if JIT else func


class _Chosen(Helper):
    """Stands for one of two helpers: which one the tables of an argument say."""

    def __init__(self, func: Callable, which: Callable[[tuple], Helper]):
        super().__init__(py_func=func, targetoptions=dict(_HELPER))
        self.which = which

    def get_call_template(self, args, kws):
        return self.which(args).get_call_template(args, kws)

    def get_overload(self, sig):
        return self.which(normalize_signature(sig)[0]).get_overload(sig)


def by_table(name: str, without: Callable, with_it: Callable, argument: int = 0) -> Callable:
    """One function for callers; `with_it` where the tables it is given have one of this name.

    `argument`: which argument the tables are: 0 is usually the state, 1 a plugin's own.  Tables of
    other names are of another type: which function is meant is known while compiling, and the other
    is not compiled at all.
    """

    def chosen(*args):
        return (with_it if name in args[argument]._fields else without)(*args)

    def which(kinds):
        return with_it if name in kinds[argument].fields else without

    return _Chosen(chosen, which) if JIT else chosen


SLAB_TABLE = "array"  # only the state of an engine on SLAB has this table


def by_allocator(slub: Callable, slab: Callable) -> Callable:
    """One function for callers, `slub` or `slab` for the compiler; both take the state first."""
    return by_table(SLAB_TABLE, slub, slab)


class _Entry(CPUDispatcher):
    """A function that Python calls, made of helpers."""

    def compile(self, sig):
        with _library_class(self.targetctx.codegen(), _Whole):
            return super().compile(sig)


def entry(func: Callable) -> Dispatcher | Callable:
    """Compile `func` with the wrapper that lets Python call it."""
    options = {**_COMMON, "no_cfunc_wrapper": True}
    return _Entry(py_func=func, targetoptions=options) if JIT else func
