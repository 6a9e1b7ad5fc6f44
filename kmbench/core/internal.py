"""Operations of the kernel's own that an event causes: run right after it, in order."""

from kmbench.core.jit import inlined


@inlined
def queue_internal(S, op, cpu, cache, obj):
    """Have `op` run right after the current event, as an operation of the kernel's own."""
    k = S.k[0]
    item = S.internal[k.internal_tail & (len(S.internal) - 1)]
    item.op = op
    item.cpu = cpu
    item.cache = cache
    item.obj = obj
    k.internal_tail += 1
