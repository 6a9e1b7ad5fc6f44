"""Which cache an allocation is from, where the kernel's trace point does not say.

Linux 6.18's kmem_cache_alloc names its cache, 6.12's does not (include/trace/events/kmem.h);
kmem_cache_free of both does.  An object's free tells the cache of its allocation, the allocations
of one call site are of the cache that most of them are freed to, and where none is freed, the sizes
may fit one cache only.
"""

import numpy as np

from kmbench.trace.record.stream import CACHE_ALLOC, CACHE_FREE, KFREE, Table


def name_allocations(table: Table, caches: list[dict]) -> None:
    """Fill ``table.name`` of the kmem_cache_alloc events that have none; -1 stays where in doubt.

    caches: rows of a manifest's `caches`.
    """
    rows = np.flatnonzero((table.kind == CACHE_ALLOC) & (table.name < 0))
    if not len(rows):
        return
    objects = np.flatnonzero(table.kind <= KFREE)
    objects = objects[np.argsort(table.ptr[objects], kind="stable")]
    before, after = objects[:-1], objects[1:]
    freed = (table.ptr[before] == table.ptr[after]) & (table.kind[after] == CACHE_FREE)
    table.name[before[freed]] = np.where(
        table.kind[before[freed]] == CACHE_ALLOC, table.name[after[freed]],
        table.name[before[freed]],
    )  # fmt: skip
    keys = np.stack([table.site[rows], table.req[rows], table.size[rows]])
    kinds, key = np.unique(keys, axis=1, return_inverse=True)
    key = key.ravel()
    known = table.name[rows] >= 0
    nr_names = len(table.names) + 1
    votes = np.bincount(key[known] * nr_names + table.name[rows][known],
                        minlength=kinds.shape[1] * nr_names).reshape(-1, nr_names)  # fmt: skip
    found = np.where(votes.sum(1) > 0, votes.argmax(1), -1)
    fitting: dict[tuple[int, int], list[str]] = {}
    for cache in caches:
        fitting.setdefault((cache["object_size"], cache["size"]), []).append(cache["name"])
    for at in np.flatnonzero(found < 0):
        names = fitting.get((int(kinds[1, at]), int(kinds[2, at])), [])
        if len(names) == 1:
            if names[0] not in table.names:
                table.names.append(names[0])
            found[at] = table.names.index(names[0])
    table.name[rows] = np.where(known, table.name[rows], found[key])
