"""Random numbers for compiled code: xoshiro128++ (Blackman and Vigna, 2019), one stream a concern.

Works on 32-bit words held in int64 with additions, shifts and xor only, so that compiled code and
plain Python draw the same numbers.  A stream is a record array whose first record has the fields
``rng0`` .. ``rng3``.
"""

import numpy as np

from kmbench.core.jit import inlined

_WORD = 0xFFFFFFFF


@inlined
def next_u32(streams):
    """Next draw of the stream in ``streams[0]``: uniform in 0 .. 2**32-1."""
    s = streams[0]
    s0 = s.rng0
    s1 = s.rng1
    s2 = s.rng2
    s3 = s.rng3
    total = (s0 + s3) & 0xFFFFFFFF
    result = ((((total << 7) | (total >> 25)) & 0xFFFFFFFF) + s0) & 0xFFFFFFFF
    s2 ^= s0
    s3 ^= s1
    s.rng1 = s1 ^ s2
    s.rng0 = s0 ^ s3
    s.rng2 = s2 ^ ((s1 << 9) & 0xFFFFFFFF)
    s.rng3 = ((s3 << 11) | (s3 >> 21)) & 0xFFFFFFFF
    return result


@inlined
def below(streams, n):
    """A draw in 0 .. n-1, n up to 2**31; the bias is below n / 2**32 (multiply and shift)."""
    return (next_u32(streams) * n) >> 32


def seed_stream(streams: np.ndarray, seed: int, concern: str) -> None:
    """Seed ``streams[0]`` for one concern, by splitmix64 over the seed and the concern's name."""
    state = seed & (2**64 - 1)
    for byte in concern.encode():
        state = (state * 0x100000001B3 ^ byte) & (2**64 - 1)
    words = []
    for _ in range(2):
        state = (state + 0x9E3779B97F4A7C15) & (2**64 - 1)
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        z ^= z >> 31
        words += [z & _WORD, z >> 32]
    if not any(words):
        words[0] = 1
    for i, word in enumerate(words):
        streams[0][f"rng{i}"] = word
