"""What each allocation and free costs in model time: histograms by group, where a run asks for it.

The cost of an event is that of the paths counted from its beginning to that of the next event, or
of a timer: nested allocations belong to the event that needs them, what is put off does not.  The
tables are part of the state of such runs only; engines of others have none of this.
"""

import numpy as np

from kmbench.core.events import ALLOC, FREE
from kmbench.core.jit import by_table, inlined, outlined
from kmbench.core.paths import MAX_PLUGIN_PATHS, PLUGIN_PATH
from kmbench.core.state import State
from kmbench.core.tables import records, tables_class

OPS = ("alloc", "free")
SUB = 8  # buckets of an octave
OCTAVES = 32
BUCKETS = SUB * (OCTAVES + 1)
PRICE_TABLE = "price"
PRICE = np.dtype([("ps", "i8"), ("seen", "i8")])  # row: path; its cost, passages booked so far
SPENT = np.dtype([("nr", "i8")])  # row (memcg * 2 + OPS) * BUCKETS + bucket
PENDING = np.dtype(  # the event that is not booked yet
    [
        ("kind", "i8"),  # 1 + place in OPS; 0: none
        ("memcg", "i8"),
        ("alloc_ps", "i8"),  # paths of every allocation and free: the engine does not count them
        ("free_ps", "i8"),
        ("internal", "i8"),  # nr_internal and nr_skipped of S.k when it began
        ("skipped", "i8"),
    ]
)


@inlined
def bucket_of(ns):
    """Bucket of `ns`: exact below 16, then eight to the octave; the last one is open."""
    octave = 0
    while ns >= 2 * SUB:
        ns >>= 1
        octave += 1
    return min(octave * SUB + ns, BUCKETS - 1)


@inlined
def _nothing(S, op, memcg):
    pass


@outlined
def _next_event(S, op, memcg):
    w = S.pending[0]
    k = S.k[0]
    ps = (k.nr_internal - w.internal) * w.alloc_ps
    for row in range(len(S.price)):
        ps += (S.path[row].count - S.price[row].seen) * S.price[row].ps
        S.price[row].seen = S.path[row].count
    if w.kind != 0 and k.nr_skipped == w.skipped:
        ps += w.alloc_ps if w.kind == 1 else w.free_ps
        first = (w.memcg * 2 + w.kind - 1) * BUCKETS
        S.spent[first + bucket_of(ps // 1000)].nr += 1
    w.kind = 1 if op == ALLOC else 2 if op == FREE else 0
    w.memcg = memcg
    w.internal = k.nr_internal
    w.skipped = k.nr_skipped


next_event = by_table(PRICE_TABLE, _nothing, _next_event)
"""(S, op, memcg): book the event before; one of the stream begins, or with op -1 something else."""


def with_latency(S: State, prices: np.ndarray, alloc: int, free: int) -> tuple:
    """The state with histograms.

    `prices`: float64 ns per path, by row; `alloc` and `free`: the paths that every allocation and
    free pass.
    """
    made = {
        **S._asdict(),
        PRICE_TABLE: records(PLUGIN_PATH + MAX_PLUGIN_PATHS, PRICE),
        "spent": records(len(S.memcg) * 2 * BUCKETS, SPENT),
        "pending": records(1, PENDING),
    }
    ps = np.rint(prices * 1000).astype(np.int64)
    made[PRICE_TABLE]["ps"][: len(ps)] = ps
    made["pending"]["alloc_ps"], made["pending"]["free_ps"] = ps[alloc], ps[free]
    return tables_class(tuple(made))(**made)


def bounds() -> np.ndarray:
    """int64 (BUCKETS + 1): the first ns of every bucket, and the end of the last one."""
    row = np.arange(BUCKETS + 1)
    octave = np.maximum(row // SUB - 1, 0)
    return (row - octave * SUB) << octave
