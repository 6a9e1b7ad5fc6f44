"""The compile decorators: every numba flag of the core, once, with its reason.

``_nrt=False``
    The core allocates nothing, so reference counts are pure cost: without this every helper that
    takes the state counts references of dozens of arrays (measured 2-6 x the time of C).
``forceinline=True``
    A helper that is not inlined passes dozens of array structs on the stack.
``no_cpython_wrapper``, ``no_cfunc_wrapper``
    Helpers are called from compiled code only; their wrappers would double the compile time.
``error_model="numpy"``
    Divisors of the model are never zero; saves the branch and its exception.

With ``NUMBA_DISABLE_JIT=1`` the decorators return the plain function and the model runs as Python.
"""

from collections.abc import Callable

from numba.core import config, types
from numba.core.codegen import JITCodeLibrary
from numba.core.dispatcher import Dispatcher
from numba.core.registry import CPUDispatcher

JIT = not config.DISABLE_JIT

_COMMON = {"nopython": True, "nogil": True, "_nrt": False, "error_model": "numpy"}
_HELPER = {**_COMMON, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": False}


class _Part(JITCodeLibrary):
    """Code of a helper: linked into its callers, never optimised or made executable by itself.

    Everything is optimised once, in the engine that it ends up in; doing it for each of some 200
    helpers as well took a third of the compile time.
    """

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


class _Separate(_Part):
    """The same, never inlined either, however little its callers are."""

    def _optimize_functions(self, ll_module):
        super()._optimize_functions(ll_module)
        for function in ll_module.functions:
            inline = any(b"alwaysinline" in attribute for attribute in function.attributes)
            if not function.is_declaration and not inline:
                function.add_function_attribute("noinline")


def _widened(kind: types.Type) -> types.Type:
    kind = types.unliteral(kind)
    return types.int64 if isinstance(kind, types.Integer) else kind


class Helper(CPUDispatcher):
    """A function for compiled callers; called from Python it runs as plain Python.

    A dispatcher compiled without wrappers would crash the interpreter when Python calls it.  All
    whole numbers are passed as int64, so that it is compiled once and not for every mix of widths.
    """

    library = _Part

    def get_call_template(self, args, kws):
        wide = {name: _widened(kind) for name, kind in kws.items()}
        return super().get_call_template(tuple(map(_widened, args)), wide)

    def compile(self, sig):
        context, codegen = self.targetctx, self.targetctx.codegen()
        usual = context.get_executable, codegen._library_class
        context.get_executable = lambda library, fndesc, env: [].append  # a key, never called
        codegen._library_class = self.library
        try:
            return super().compile(sig)
        finally:
            context.get_executable, codegen._library_class = usual

    def __call__(self, *args):
        return self.py_func(*args)


def inlined(func: Callable) -> Callable:
    """Compile `func` into each of its compiled callers (hot paths)."""
    return Helper(py_func=func, targetoptions={**_HELPER, "forceinline": True}) if JIT else func


def outlined(func: Callable) -> Callable:
    """Compile `func` once and call it (rare paths: keeps the engine small to compile)."""
    return Helper(py_func=func, targetoptions=dict(_HELPER)) if JIT else func


class _SeparateHelper(Helper):
    library = _Separate


def separate(func: Callable) -> Callable:
    """Compile `func` once and see that it stays apart: what LLVM would inline all the same, it
    optimises again in every caller (reclaim: half of the compile time)."""
    return _SeparateHelper(py_func=func, targetoptions=dict(_HELPER)) if JIT else func


def entry(func: Callable) -> Dispatcher | Callable:
    """Compile `func` with the wrapper that lets Python call it."""
    options = {**_COMMON, "no_cfunc_wrapper": True}
    return CPUDispatcher(py_func=func, targetoptions=options) if JIT else func
