"""Kmallocs that are served by buckets of their own, which the kernel traces as plain ones.

kmem_buckets_create() (Linux 6.11, mm/slab_common.c) makes a set of caches NAME-8 to NAME-8k.  The
trace point of kmalloc says sizes only, so such an object looks like one of kmalloc-N.  Two sets
exist in 6.18: ipc/msgutil.c makes msg_msg, with SLAB_ACCOUNT; mm/util.c makes memdup_user.
"""

import numpy as np

MESSAGES, COPIES = "msg_msg", "memdup_user"
# functions that call kmem_buckets_alloc() themselves; alloc_msg() is inlined into load_msg()
_CALLERS = {"load_msg": MESSAGES, "alloc_msg": MESSAGES, "memdup_user": COPIES,
            "vmemdup_user": COPIES}  # fmt: skip
# memdup_user() shows its caller; nothing else asks for GFP_USER | __GFP_NOWARN up to a page
# (mm/util.c; kvmalloc adds __GFP_NOWARN above)
_USER_NOWARN = 0x10_2CC0
_PAGE = 4096


def buckets(
    cache: np.ndarray, site: np.ndarray, gfp: np.ndarray, req: np.ndarray,
    sites: list[str], names: list[str],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Caches (i4) of kmallocs with those of buckets put right, and which of them are messages.

    cache, site: rows of `names` and `sites` per kmalloc, -1 unknown; gfp, req: its flags and bytes.
    names: caches; where the machine has no such buckets nothing changes.
    """
    rows = {name: row for row, name in enumerate(names)}
    suffix = ["" if name[:8] != "kmalloc-" else name[8:] for name in names]
    of_set = {
        prefix: np.array(
            [rows.get(f"{prefix}-{end}", row) for row, end in enumerate(suffix)]
            + list(range(len(names), int(cache.max(initial=0)) + 1)) + [-1],
            np.int32,
        )
        for prefix in (MESSAGES, COPIES)
    }  # fmt: skip
    callers = [name.partition("+")[0] for name in sites] + [""]
    out = cache.astype(np.int32)
    chosen = {}
    for prefix, targets in of_set.items():
        mine = np.array([_CALLERS.get(name) == prefix for name in callers])[site]
        if prefix == COPIES:
            mine |= (gfp == _USER_NOWARN) & (req <= _PAGE)
        chosen[prefix] = mine & (targets[cache] != cache)
        out[chosen[prefix]] = targets[cache[chosen[prefix]]]
    return out, chosen[MESSAGES]
