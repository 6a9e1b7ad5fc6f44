"""What compiled code sees of a table: a pointer to its records, and how many there are.

numba's own arrays allow negative indices, which costs a multiplication and an addition at every
access, and travel as seven words where these take two.  Measured on the event loop: 1.25 times the
time of C with arrays, 1.13 with these.  With NUMBA_BOUNDSCHECK=1 every index is checked.
"""

import operator
from functools import lru_cache

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.typing import signature as typing_signature
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.core.typing.typeof import typeof
from numba.extending import NativeValue, intrinsic, register_model, typeof_impl, unbox
from numba.np.numpy_support import from_dtype

from kmbench.core.jit import JIT


class Rows(types.Type):
    """A table in compiled code: where its records are and how many; no negative indices."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Rows({dtype})")


@register_model(Rows)
class _RowsModel(models.StructModel):
    def __init__(self, manager, kind):
        super().__init__(
            manager, kind, [("data", types.CPointer(kind.dtype)), ("nitems", types.intp)]
        )


@infer_global(operator.getitem)
class _GetRow(AbstractTemplate):
    def generic(self, args, kws):
        if isinstance(args[0], Rows) and isinstance(args[1], types.Integer):
            return typing_signature(args[0].dtype, *args)
        return None


@lower_builtin(operator.getitem, Rows, types.Integer)
def _get_row(context, builder, sig, args):
    rows = cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0])
    row = context.cast(builder, args[1], sig.args[1], types.intp)
    if context.enable_boundscheck:
        cgutils.do_boundscheck(context, builder, row, rows.nitems)
    return builder.gep(rows.data, [row])


@infer_global(len)
class _LenRows(AbstractTemplate):
    def generic(self, args, kws):
        return typing_signature(types.intp, *args) if isinstance(args[0], Rows) else None


@lower_builtin(len, Rows)
def _len_rows(context, builder, sig, args):
    return cgutils.create_struct_proxy(sig.args[0])(context, builder, value=args[0]).nitems


@unbox(Rows)
def _unbox_rows(kind, obj, c):
    array = types.Array(kind.dtype, 1, "C")
    native = c.unbox(array, obj)
    view = c.context.make_array(array)(c.context, c.builder, native.value)
    rows = cgutils.create_struct_proxy(kind)(c.context, c.builder)
    rows.data = c.builder.bitcast(view.data, rows.data.type)
    rows.nitems = view.nitems
    return NativeValue(rows._getvalue(), is_error=native.is_error)


def register_tables(made: type) -> None:
    """Have numba see a set of tables, a NamedTuple class, as a tuple of Rows."""

    @typeof_impl.register(made)
    def _typeof_tables(value, context):
        return types.NamedTuple([_typeof_field(field) for field in value], type(value))


def _typeof_field(field: object) -> types.Type:
    """Records become Rows; nested tables and hook namespaces keep the type they have."""
    return _rows_type(field.dtype) if hasattr(field, "dtype") else typeof(field)


@lru_cache(maxsize=256)
def _rows_type(dtype) -> Rows:
    return Rows(from_dtype(dtype))


if JIT:

    @intrinsic
    def prefetch(typingctx, table, row):
        """Ask for the cache line of ``table[row]``, for writing; no effect on results."""
        if not isinstance(table, Rows) or not isinstance(row, types.Integer):
            return None

        def codegen(context, builder, signature, args):
            rows = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0])
            where = context.cast(builder, args[1], signature.args[1], types.intp)
            byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
            address = builder.bitcast(builder.gep(rows.data, [where]), byte)
            name, kind = "llvm.prefetch.p0i8", ir.FunctionType(ir.VoidType(), [byte, *[word] * 3])
            known = builder.module.globals
            target = known.get(name) or ir.Function(builder.module, kind, name)
            # for writing, keep in all cache levels, data cache
            builder.call(target, [address, word(1), word(3), word(1)])
            return context.get_dummy_value()

        return types.void(table, row), codegen

else:

    def prefetch(table, row):
        """Ask for the cache line of ``table[row]``; nothing to do without compilation."""
