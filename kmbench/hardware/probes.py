"""Compiled microbenchmarks: loops of one operation each, for :mod:`kmbench.hardware.calibrate`.

Every probe runs `nr` operations and returns something that depends on all of them, so that nothing
can be left out.  Memory operations are atomic ones of LLVM, also where they need no lock prefix:
the compiler then keeps each load and store.
"""

import platform

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

X86 = platform.machine() in ("x86_64", "AMD64")
binding.initialize_native_asmparser()  # for the probes in assembler
_WORD = ir.IntType(64)
_PATIENCE = 1 << 31  # looks at a line before a partner that never comes is given up


def _element(context, builder, signature, args):
    """Pointer to ``words[i]`` of an int64 array."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


@intrinsic
def _load(typingctx, words, i):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(_element(context, builder, signature, args), "acquire", 8)

    return types.int64(words, types.int64), codegen


@intrinsic
def _store(typingctx, words, i, value):
    def codegen(context, builder, signature, args):
        where = _element(context, builder, signature, args)
        builder.store_atomic(args[2], where, "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), codegen


@intrinsic
def _fetch_add(typingctx, words, i, value):
    def codegen(context, builder, signature, args):
        where = _element(context, builder, signature, args)
        return builder.atomic_rmw("add", where, args[2], "seq_cst")

    return types.int64(words, types.int64, types.int64), codegen


@intrinsic
def _exchange_if(typingctx, words, i, old, new):
    """Atomic compare and exchange; what was there."""

    def codegen(context, builder, signature, args):
        where = _element(context, builder, signature, args)
        pair = builder.cmpxchg(where, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 0)

    return types.int64(words, types.int64, types.int64, types.int64), codegen


@intrinsic
def _own_exchange_if(typingctx, words, i, old, new):
    """Compare and exchange on this CPU's data: on x86 without the lock prefix, and of 16 bytes, as
    SLUB's freelist and tid are."""

    def codegen(context, builder, signature, args):
        where = _element(context, builder, signature, args)
        if not X86:
            pair = builder.cmpxchg(where, args[2], args[3], "monotonic", "monotonic")
            return builder.extract_value(pair, 0)
        both = ir.LiteralStructType([_WORD, _WORD])
        kind = ir.FunctionType(both, [where.type, _WORD, _WORD, _WORD, _WORD])
        constraints = "={rax},={rdx},r,0,1,{rbx},{rcx},~{memory},~{cc}"
        given = [where, args[2], args[2], args[3], args[3]]
        found = builder.asm(kind, "cmpxchg16b ($2)", constraints, given, True)
        return builder.extract_value(found, 0)

    return types.int64(words, types.int64, types.int64, types.int64), codegen


@intrinsic
def _save_flags(typingctx):
    """Save the flags and restore them, past the red zone (x86)."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [])
        text = "leaq -128(%rsp), %rsp; pushfq; popfq; leaq 128(%rsp), %rsp"
        builder.asm(kind, text, "~{memory},~{cc}", [], True)
        return context.get_dummy_value()

    return types.void(), codegen


def _call(returning):
    """A call of a function that does nothing but return, by these instructions (x86)."""

    @intrinsic
    def call(typingctx):
        def codegen(context, builder, signature, args):
            kind = ir.FunctionType(ir.VoidType(), [])
            text = f"""leaq -128(%rsp), %rsp
                call 6f
                jmp 8f
                6: {returning}
                8: leaq 128(%rsp), %rsp"""
            builder.asm(kind, text, "~{memory},~{cc}", [], True)
            return context.get_dummy_value()

        return types.void(), codegen

    return call


_plain_call = _call("ret")
# Linux 6.18 arch/x86/lib/retpoline.S:srso_return_thunk, srso_safe_ret: the return is mispredicted
_safe_call = _call("""call 7f
                int3
                7: leaq 8(%rsp), %rsp
                ret""")


@njit(nogil=True)
def chase(following, nr):
    """Dependent loads around a cycle of int64 indices."""
    at = 0
    for _ in range(nr):
        at = following[at]
    return at


@njit(nogil=True)
def branches(values, nr):
    """Branches on `values`, a power of two of them: predictable or not as they are."""
    mask = len(values) - 1
    words = np.zeros(2, np.int64)
    for i in range(nr):
        if _load(values, i & mask) > 0:
            _store(words, 0, i)
        else:
            _store(words, 1, i)
    return words[0] + words[1]


@njit(nogil=True)
def own(words, nr):
    """Load, add and store one word of one's own."""
    for _ in range(nr):
        _store(words, 0, _load(words, 0) + 1)
    return words[0]


@njit(nogil=True)
def plain_calls(words, nr):
    """Calls that return by a return instruction."""
    for _ in range(nr):
        _plain_call()
    return words[0]


@njit(nogil=True)
def safe_calls(words, nr):
    """Calls that return as the kernel does where it mitigates speculative return stack overflow."""
    for _ in range(nr):
        _safe_call()
    return words[0]


@njit(nogil=True)
def own_exchanges(words, nr):
    """Compare and exchange on words of one's own."""
    value = words[0]
    for _ in range(nr):
        _own_exchange_if(words, 0, value, value + 1)
        value += 1
    return value


@njit(nogil=True)
def sections(words, nr):
    """Preempt count up and down, as an RCU read section without preemption does."""
    for _ in range(nr):
        _store(words, 0, _load(words, 0) + 1)
        _store(words, 0, _load(words, 0) - 1)
    return words[0]


@njit(nogil=True)
def flags(words, nr):
    """Save and restore the flags."""
    for _ in range(nr):
        _save_flags()
    return words[0]


@njit(nogil=True)
def atomics(words, nr):
    """Atomic adds to one word; several threads at once contend."""
    for _ in range(nr):
        _fetch_add(words, 0, 1)
    return words[0]


@njit(nogil=True)
def locks(words, nr):
    """Take and release a free spin lock, with the preempt count around."""
    for _ in range(nr):
        _store(words, 8, _load(words, 8) + 1)
        while _exchange_if(words, 0, 0, 1):
            pass
        _store(words, 0, 0)
        _store(words, 8, _load(words, 8) - 1)
    return words[0]


@njit(nogil=True)
def meet(words, i, threads):
    """Wait for the other threads; False if they do not come."""
    _fetch_add(words, i, 1)
    for _ in range(_PATIENCE):
        if _load(words, i) >= threads:
            break
    return _load(words, i) >= threads


@njit(nogil=True)
def ping_pong(words, nr, me):
    """Two threads write one word in turn: `nr` times each."""
    for i in range(nr):
        for _ in range(_PATIENCE):
            if _load(words, 0) == 2 * i + me:
                break
        _store(words, 0, 2 * i + me + 1)
    return words[0]


@njit(nogil=True)
def hand_over(words, nr):
    """Take a ticket lock that another thread wants as well, `nr` times."""
    for _ in range(nr):
        ticket = _fetch_add(words, 0, 1)
        for _ in range(_PATIENCE):
            if _load(words, 8) == ticket:
                break
        _store(words, 16, _load(words, 16) + 1)
        _store(words, 8, ticket + 1)
    return words[16]
