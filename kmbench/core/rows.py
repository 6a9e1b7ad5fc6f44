"""What compiled code sees of a table: a pointer to its records, and how many there are.

numba's own arrays allow negative indices, which costs a multiplication and an addition at every
access, and travel as seven words where these take two.  Measured on the event loop: 1.25 times the
time of C with arrays, 1.13 with these.  With NUMBA_BOUNDSCHECK=1 every index is checked.
"""

import hashlib
import operator
from functools import lru_cache

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_builtin
from numba.core.typing import signature as typing_signature
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_global
from numba.core.typing.typeof import typeof
from numba.extending import (
    NativeValue,
    infer_getattr,
    intrinsic,
    lower_getattr_generic,
    register_model,
    typeof_impl,
    unbox,
)
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


class Tables(types.Type):
    """A set of tables in compiled code: the address of where each table is and how long."""

    def __init__(self, made: type, kinds: tuple[types.Type, ...]):
        self.made, self.kinds = made, kinds
        self.fields = made._fields
        # numba takes types of one name for one type, and names of code hold it: short, but whole
        kind = hashlib.sha256(repr((self.fields, kinds)).encode()).hexdigest()[:16]
        super().__init__(name=f"{made.__name__.partition('__')[0]}({len(kinds)}, {kind})")

    def __reduce__(self):
        return Tables, (self.made, self.kinds)


register_default(Tables)(models.OpaqueModel)


def register_tables(made: type) -> None:
    """Have numba see a set of tables, a NamedTuple class, as Tables."""

    @typeof_impl.register(made)
    def _typeof_tables(value, context):
        return _tables_type(type(value), tuple(map(_typeof_field, value)))


@infer_getattr
class _TablesAttribute(AttributeTemplate):
    key = Tables

    def generic_resolve(self, typ, attr):
        return typ.kinds[typ.fields.index(attr)] if attr in typ.fields else None


def _layout(context, typ):
    return ir.LiteralStructType([context.get_value_type(kind) for kind in typ.kinds])


@lower_getattr_generic(Tables)
def _get_table(context, builder, typ, value, attr):
    """What a set says of one table.

    It never changes while compiled code runs, and LLVM knows: no store makes it load that again.
    """
    at = typ.fields.index(attr)
    address = builder.bitcast(value, _layout(context, typ).as_pointer())
    kind = typ.kinds[at]
    if not isinstance(kind, Rows):
        return _constant(builder, cgutils.gep_inbounds(builder, address, 0, at))
    rows = cgutils.create_struct_proxy(kind)(context, builder)
    rows.data = _constant(builder, cgutils.gep_inbounds(builder, address, 0, at, 0))
    rows.nitems = _constant(builder, cgutils.gep_inbounds(builder, address, 0, at, 1))
    return rows._getvalue()


def _constant(builder, address):
    loaded = builder.load(address)
    loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
    return loaded


@unbox(Tables)
def _unbox_tables(typ, obj, c):
    place = cgutils.alloca_once(c.builder, _layout(c.context, typ))
    failed = cgutils.false_bit
    for at, kind in enumerate(typ.kinds):
        native = c.unbox(kind, c.pyapi.tuple_getitem(obj, at))
        c.builder.store(native.value, cgutils.gep_inbounds(c.builder, place, 0, at))
        failed = c.builder.or_(failed, native.is_error)
    byte = ir.IntType(8).as_pointer()
    # from here on its content counts as constant: where it was written must be out of sight
    hidden = c.builder.asm(
        ir.FunctionType(byte, [byte]), "", "=r,0,~{memory}",
        [c.builder.bitcast(place, byte)], side_effect=True,
    )  # fmt: skip
    return NativeValue(hidden, is_error=failed)


def _typeof_field(field: object) -> types.Type:
    """Records become Rows; nested tables and hook namespaces keep the type they have."""
    if not hasattr(field, "dtype"):
        return typeof(field)
    return _rows_type(field.dtype, field.dtype.isalignedstruct)  # dtypes are equal without


_tables_type = lru_cache(maxsize=256)(Tables)  # asked at every call of compiled code


@lru_cache(maxsize=256)
def _rows_type(dtype, aligned: bool) -> Rows:
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
