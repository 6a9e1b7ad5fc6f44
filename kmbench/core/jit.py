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
from numba.core.dispatcher import Dispatcher
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic

JIT = not config.DISABLE_JIT

_COMMON = {"nopython": True, "nogil": True, "_nrt": False, "error_model": "numpy"}
_HELPER = {**_COMMON, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class Helper(CPUDispatcher):
    """A function for compiled callers; called from Python it runs as plain Python.

    A dispatcher compiled without wrappers would crash the interpreter when Python calls it.
    """

    def __call__(self, *args):
        return self.py_func(*args)


def inlined(func: Callable) -> Callable:
    """Compile `func` into each of its compiled callers (hot paths)."""
    return Helper(py_func=func, targetoptions={**_HELPER, "forceinline": True}) if JIT else func


def outlined(func: Callable) -> Callable:
    """Compile `func` once and call it (rare paths: keeps the engine small to compile)."""
    return Helper(py_func=func, targetoptions=dict(_HELPER)) if JIT else func


def entry(func: Callable) -> Dispatcher | Callable:
    """Compile `func` with the wrapper that lets Python call it."""
    options = {**_COMMON, "no_cfunc_wrapper": True}
    return CPUDispatcher(py_func=func, targetoptions=options) if JIT else func


if JIT:

    @intrinsic
    def prefetch(typingctx, array, index):
        """Ask for the cache line of ``array[index]``, for writing; no effect on results."""
        if not isinstance(array, types.Array) or not isinstance(index, types.Integer):
            return None

        def codegen(context, builder, signature, args):
            from llvmlite import ir
            from numba.np.arrayobj import make_array

            view = make_array(signature.args[0])(context, builder, args[0])
            where = context.cast(builder, args[1], signature.args[1], types.intp)
            address = builder.bitcast(builder.gep(view.data, [where]), ir.IntType(8).as_pointer())
            word = ir.IntType(32)
            signature_ir = ir.FunctionType(
                ir.VoidType(), [ir.IntType(8).as_pointer(), word, word, word]
            )
            target = builder.module.globals.get("llvm.prefetch.p0i8") or ir.Function(
                builder.module, signature_ir, "llvm.prefetch.p0i8"
            )
            # for writing, keep in all cache levels, data cache
            builder.call(target, [address, word(1), word(3), word(1)])
            return context.get_dummy_value()

        return types.void(array, index), codegen

else:

    def prefetch(array, index):
        """Ask for the cache line of ``array[index]``; nothing to do without compilation."""
