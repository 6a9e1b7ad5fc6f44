"""Objects whose allocation was not traced, freed in the open by an RCU callback.

What call_rcu() frees was alive a grace period before (Linux 6.18 kernel/rcu/tree.c:rcu_do_batch).
So its allocation, which is only known to be missing, belongs there and not right before the free:
the cred of an untraced access(), the inodes and dentries of /proc that an untraced task looked at.
"""

import numpy as np

from kmbench.core.events import ALLOC, FREE
from kmbench.core.specialise import cached
from kmbench.trace.deferred import GRACE_NS
from kmbench.trace.passes import AFTER_GRACE

_ALLOC, _FREE = ALLOC, FREE


@cached
def _find(raw, role, live, freed, grace, row, when):  # pragma: no cover - compiled
    n = 0
    for i in range(len(raw)):
        key = raw[i].obj
        if raw[i].op == _ALLOC:
            live[key] = True
        elif raw[i].op == _FREE:
            if not live[key] and role[i] == AFTER_GRACE:
                row[n] = i
                when[n] = raw[i].t - grace
                if freed[key]:
                    when[n] = max(when[n], raw[freed[key] - 1].t + 1)
                n += 1
            live[key] = False
            freed[key] = i + 1
    return n


def alive_before(
    raw: np.ndarray, role: np.ndarray, keys: int, initial_keys: np.ndarray
) -> np.ndarray:
    """ALLOC events, owned by the root, for the objects that such a free shows to have been there.

    raw, role, keys, initial_keys: as for :func:`handles.assign_handles`.  Each is a grace period
    before the free and on its CPU, where call_rcu() was; later if the slot was in use until later.
    """
    live = np.zeros(keys, np.bool_)
    live[initial_keys] = True
    most = int(np.count_nonzero(role == AFTER_GRACE))
    row, when = np.zeros(most, np.int64), np.zeros(most, np.int64)
    freed = np.zeros(keys, np.int32)  # by event, from 1: most keys are never touched
    n = _find(raw, role, live, freed, GRACE_NS, row, when)
    out = raw[row[:n]]
    out["t"], out["op"], out["memcg"], out["gfp"] = np.maximum(when[:n], 0), ALLOC, 1, 0
    return out[np.argsort(out["t"], kind="stable")]
