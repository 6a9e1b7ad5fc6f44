"""Eight bytes of a text at once: search, hash and compare for compiled scanners.

The tests for a byte within a word are those of SWAR arithmetic: ``(x - 0x01..) & ~x & 0x80..`` has
its lowest bit set in the first zero byte of ``x`` (little-endian).  Every buffer needs 8 readable
bytes after its last one.
"""

from functools import partial

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from kmbench.core.specialise import cached

# The arrays belong to Python: counting references to them would cost most of the time.
compiled = partial(cached, _nrt=False, error_model="numpy")
inlined = partial(compiled, forceinline=True)

_ONES = np.int64(0x0101010101010101)
_HIGHS = np.int64(-0x7F7F7F7F7F7F7F80)  # 0x80 in every byte
_PRIME = np.int64(0x9E3779B97F4A7C1)
HASH_BITS = 60
_MASK = np.int64((1 << HASH_BITS) - 1)


def every(byte: int) -> np.int64:
    """A word of eight times `byte`."""
    return np.int64(int(_ONES) * byte)


@intrinsic
def load8(typingctx, buf, at):  # pragma: no cover - compiled
    """The 8 bytes at ``buf[at]`` as int64, whatever their alignment; no bounds are checked."""
    if not isinstance(buf, types.Array) or not isinstance(at, types.Integer):
        return None

    def codegen(context, builder, signature, args):
        from llvmlite import ir
        from numba.np.arrayobj import make_array

        view = make_array(signature.args[0])(context, builder, args[0])
        index = context.cast(builder, args[1], signature.args[1], types.intp)
        word = builder.bitcast(builder.gep(view.data, [index]), ir.IntType(64).as_pointer())
        return builder.load(word, align=1)

    return types.int64(buf, at), codegen


@intrinsic
def _first_byte(typingctx, found):  # pragma: no cover - compiled
    """Number of the lowest byte with a bit set; `found` is not 0."""
    if not isinstance(found, types.Integer):
        return None

    def codegen(context, builder, signature, args):
        from llvmlite import ir

        bits = builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))
        return builder.lshr(bits, ir.Constant(ir.IntType(64), 3))

    return types.int64(types.int64), codegen


@inlined
def _zero_bytes(x):  # pragma: no cover - compiled
    return (x - _ONES) & ~x & _HIGHS


@inlined
def find(buf, p, end, word):  # pragma: no cover - compiled
    """Where the byte that `word` repeats stands first in ``buf[p:end]``; `end`: nowhere."""
    while p < end:
        found = _zero_bytes(load8(buf, p) ^ word)
        if found:
            return min(p + _first_byte(found), end)
        p += 8
    return end


@inlined
def find_either(buf, p, end, word, other):  # pragma: no cover - compiled
    """:func:`find` for two bytes."""
    while p < end:
        x = load8(buf, p)
        found = _zero_bytes(x ^ word) | _zero_bytes(x ^ other)
        if found:
            return min(p + _first_byte(found), end)
        p += 8
    return end


@inlined
def tail8(buf, p, length):  # pragma: no cover - compiled
    """The first `length` (1 to 8) bytes at `p`, zeros after them."""
    x = load8(buf, p)
    return x if length >= 8 else x & ((np.int64(1) << (8 * length)) - 1)


@inlined
def hash_of(buf, start, end):  # pragma: no cover - compiled
    """Hash (60 bits) of ``buf[start:end]``."""
    h = np.int64(end - start)
    p = start
    while p < end:
        h = (h ^ tail8(buf, p, end - p)) * _PRIME
        h ^= (h >> 29) & np.int64(0x7FFFFFFFF)
        p += 8
    return h & _MASK


@inlined
def equal(buf, p, other, q, length):  # pragma: no cover - compiled
    """Whether two texts of `length` bytes are the same."""
    while length > 0:
        if tail8(buf, p, length) != tail8(other, q, length):
            return False
        p += 8
        q += 8
        length -= 8
    return True


def hash_text(text: bytes) -> int:
    """:func:`hash_of` for Python: the hash of a constant."""
    return int(hash_of(np.frombuffer(text + bytes(8), np.uint8), 0, len(text)))
