"""From the object names of a recording to dense handles, repairing what was not traced."""

from typing import NamedTuple

import numpy as np

from kmbench.core.events import ALLOC, EVENT, FREE, PAGE_ALLOC, PERCPU_ALLOC, PERCPU_FREE
from kmbench.core.specialise import cached
from kmbench.trace.passes import OWN_VECTOR


class Repairs(NamedTuple):
    """What the pass had to make up or leave out."""

    frees: int  # frees put in before an allocation of an object that was still live
    allocs: int  # allocations put in before a free of an object never seen allocated
    vectors: int  # events of obj_cgroup vectors left out
    unknown: int  # frees of pages, per-CPU memory and stacks from before the recording


class Handles(NamedTuple):
    """Events by handle."""

    events: np.ndarray  # EVENT
    nr_objects: int  # handles are below it
    repairs: Repairs
    vectors: np.ndarray  # i8 per cache row: vectors left out that were made and not given back


@cached
def _assign(
    raw, role, extra, live, first_handle, end, out, left
):  # fmt: skip  # pragma: no cover - compiled
    nr = i = extras = 0
    top = 0
    next_handle = first_handle
    stack = np.empty(len(live) + 1, np.int32)
    frees = allocs = vectors = unknown = 0
    for _ in range(len(raw) + len(extra)):
        if extras < len(extra) and (i == len(raw) or extra[extras].t < raw[i].t):
            event, is_vector = extra[extras], False
            extras += 1
        else:
            event, is_vector = raw[i], role[i] == OWN_VECTOR
            i += 1
        op = event.op
        if op > PERCPU_FREE:
            out[nr] = event
            nr += 1
            continue
        key = event.obj
        handle = live[key]
        if op in (ALLOC, PAGE_ALLOC, PERCPU_ALLOC):
            if handle > 0:
                out[nr] = event
                out[nr].op = op + 1
                out[nr].obj = handle
                nr += 1
                stack[top] = handle
                top += 1
                frees += 1
            if is_vector:
                # one that is still there was given back untraced
                left[event.cache] += (handle >= 0) & (event.t <= end)
                live[key] = -1
                vectors += 1
                continue
            if top:
                top -= 1
                handle = stack[top]
            else:
                handle = next_handle
                next_handle += 1
            live[key] = handle
            out[nr] = event
            out[nr].obj = handle
            nr += 1
            continue
        if handle < 0:
            left[event.cache] -= event.t <= end
            live[key] = 0
            vectors += 1
            continue
        if handle == 0:
            if op != FREE:
                unknown += 1
                continue
            if is_vector:
                vectors += 1
                continue
            allocs += 1
            if top:
                top -= 1
                handle = stack[top]
            else:
                handle = next_handle
                next_handle += 1
            out[nr] = event
            out[nr].op = ALLOC
            out[nr].memcg = 1
            out[nr].obj = handle
            nr += 1
        live[key] = 0
        out[nr] = event
        out[nr].obj = handle
        nr += 1
        stack[top] = handle
        top += 1
    return nr, next_handle, frees, allocs, vectors, unknown


def assign_handles(
    raw: np.ndarray, role: np.ndarray, extra: np.ndarray, keys: int, initial_keys: np.ndarray,
    caches: int, end: int,
) -> Handles:  # fmt: skip
    """Replace the keys in ``obj`` by dense handles, the one freed last used again first.

    raw: EVENT array in time order, ``obj`` a key below `keys` for the ops that name an object.
    role: u1 per event, see passes.py; only OWN_VECTOR matters: such allocations are left out, and
        frees of what was not seen allocated.
    extra: EVENT array in time order; at equal times events of `raw` come first.
    initial_keys: keys live at the start; they get the handles 1, 2, ... in that order.
    caches: how many there are.  end: ns, until when vectors are counted.

    An allocation of a live key means that the free between was not traced: a FREE is put in right
    before it, the latest moment it can have been.  A slab object freed without having been
    allocated was allocated untraced since its slab was made: an ALLOC, owned by nobody, goes in
    right before the FREE.
    """
    live = np.zeros(keys, np.int32)
    live[initial_keys] = np.arange(1, len(initial_keys) + 1, dtype=np.int32)
    out = np.empty(2 * (len(raw) + len(extra)), EVENT)
    left = np.zeros(caches + 1, np.int64)
    nr, nr_objects, *repairs = _assign(
        raw, role, extra, live, len(initial_keys) + 1, end, out, left
    )
    counts = (int(count) for count in repairs)
    return Handles(out[:nr], int(nr_objects), Repairs(*counts), left)
