"""Whether events fit the machine they are meant for; one clear line for the first that does not."""

from typing import NamedTuple

import numpy as np

from kmbench.core import events as ev
from kmbench.core.setup import Setup
from kmbench.errors import UsageProblem

MAX_ORDER = 10


class Bounds(NamedTuple):
    """How many rows, handles and CPUs a setup has: what events may name."""

    nr_objects: int
    caches: int
    groups: int
    cpus: int
    parents: np.ndarray  # parent's row by group row; row 0 unused


def bounds_of(setup: Setup) -> Bounds:
    """Bounds that `setup` puts on its events."""
    parents = np.array([0, *(group.parent for group in setup.groups)])
    return Bounds(
        setup.nr_objects, len(setup.caches), len(setup.groups), setup.machine.cpus, parents
    )


def _check(where: str, first_row: int, name: str, values, bad, expected: str) -> None:
    if not np.any(bad):
        return
    row = int(np.argmax(bad))
    raise UsageProblem(
        f"{where}: event {first_row + row}: field {name} is {int(values[row])}; expected {expected}"
    )


def _outside(values: np.ndarray, low: int, high: int) -> bool:
    return len(values) and (int(values.min()) < low or int(values.max()) > high)


def check_events(
    columns, bounds: Bounds, where: str, first_row: int = 0, previous_t: int = 0
) -> int:
    """Check events against `bounds`; return the time of the last one.

    columns: EVENT array, or a mapping of its field names to equally long arrays.
    where: how the error names the source.
    first_row, previous_t: number of the first event, and the time that came before it.

    Raises UsageProblem for the first event with a field out of range or a time that goes back.
    """
    t, op, obj, cache, arg = (columns[name] for name in ("t", "op", "obj", "cache", "arg"))
    memcg, cpu = columns["memcg"], columns["cpu"]
    if not len(t):
        return previous_t
    if int(t[0]) < previous_t or np.any(t[1:] < t[:-1]):
        back = np.empty(len(t), bool)
        back[0] = int(t[0]) < previous_t
        back[1:] = t[1:] < t[:-1]
        _check(where, first_row, "t", t, back, "a time not before that of the previous event")
    for name, values, high, expected in (
        ("op", op, ev.NR_OPS - 1, f"0 to {ev.NR_OPS - 1}"),
        ("cpu", cpu, bounds.cpus - 1, f"below the machine's {bounds.cpus} CPUs"),
        ("memcg", memcg, bounds.groups, f"a group row, 0 to {bounds.groups}"),
        ("obj", obj, bounds.nr_objects - 1, f"a handle below {bounds.nr_objects}"),
    ):
        if _outside(values, 0, high):
            _check(where, first_row, name, values, (values < 0) | (values > high), expected)
    needs_object = (op <= ev.PERCPU_FREE) | ((op >= ev.ACCESS) & (op <= ev.UNPIN))
    if int(obj.min()) < 1:
        _check(where, first_row, "obj", obj, needs_object & (obj < 1), "a handle from 1 on")
    cache_limits = (
        (op == ev.ALLOC, 1, bounds.caches, f"a cache row, 1 to {bounds.caches}"),
        (op == ev.PAGE_ALLOC, 0, len(ev.PAGE_KINDS) - 1, "a page kind"),
        (op == ev.SHRINK, 0, bounds.caches, f"a cache row or 0, up to {bounds.caches}"),
        (op == ev.LIMIT_WRITE, 0, 1, "a counter, 0 or 1"),
        (op == ev.ACCESS, 1, bounds.caches, f"a cache row, 1 to {bounds.caches}"),
        (
            (op == ev.USER_ALLOC) | (op == ev.USER_FREE),
            0,
            len(ev.USER_KINDS) - 1,
            "a kind of user pages",
        ),
    )
    for mask, low, high, expected in cache_limits:
        if _outside(cache[mask], low, high):
            bad = mask & ((cache < low) | (cache > high))
            _check(where, first_row, "cache", cache, bad, expected)
    groups_only = (op >= ev.CG_CREATE) & (op <= ev.CG_RELEASE)
    if _outside(memcg[groups_only], 2, bounds.groups):
        bad = groups_only & (memcg < 2)
        _check(where, first_row, "memcg", memcg, bad, "the row of a group below the root")
    largest = np.iinfo(np.int32).max
    arg_limits = (
        (op == ev.ALLOC, 0, largest, "bytes asked, from 0 on"),
        (op == ev.PAGE_ALLOC, 0, MAX_ORDER, f"a page order, 0 to {MAX_ORDER}"),
        (op == ev.PERCPU_ALLOC, 0, largest, "bytes, from 0 on"),
        (op == ev.CG_CREATE, 1, bounds.groups, f"a parent's row, 1 to {bounds.groups}"),
        (op == ev.ATTACH, 0, bounds.groups, f"a group row, 0 to {bounds.groups}"),
        (op == ev.LIMIT_WRITE, -1, largest, "pages, or -1 for no limit"),
        (op == ev.ACCESS, 0, bounds.nr_objects - 1, "a parent's handle, or 0"),
        ((op == ev.USER_ALLOC) | (op == ev.USER_FREE), 0, largest, "pages, from 0 on"),
    )
    for mask, low, high, expected in arg_limits:
        if _outside(arg[mask], low, high):
            bad = mask & ((arg < low) | (arg > high))
            _check(where, first_row, "arg", arg, bad, expected)
    created = op == ev.CG_CREATE
    if np.any(created):
        bad = created & (arg != bounds.parents[memcg])
        _check(where, first_row, "arg", arg, bad, "the parent that the setup gives the group")
    return int(t[-1])


def check_setup(setup: Setup, where: str) -> None:
    """Check that the rows of a setup refer to each other.  Raises UsageProblem."""
    caches, groups, cpus = len(setup.caches), len(setup.groups), setup.machine.cpus

    def complain(field: str, value: int, expected: str) -> None:
        raise UsageProblem(f"{where}: field {field} is {value}; expected {expected}")

    if not 1 <= cpus <= 256:
        complain("machine.cpus", cpus, "1 to 256")
    if setup.nr_objects < 1:
        complain("nr_objects", setup.nr_objects, "1 or more")
    if not groups or setup.groups[0].parent != 0:
        raise UsageProblem(f"{where}: field groups does not start with the root; expected parent 0")
    for row, group in enumerate(setup.groups[1:], 2):
        if not 1 <= group.parent <= groups or group.parent == row:
            complain(f"groups[{row}].parent", group.parent, f"another row, 1 to {groups}")
        for name in ("memory_limit", "kmem_limit"):
            if getattr(group, name) < -1:
                complain(f"groups[{row}].{name}", getattr(group, name), "pages, or -1 for no limit")
    for row in range(2, groups + 1):
        above, steps = row, 0
        while above > 1 and steps <= groups:
            above, steps = setup.groups[above - 1].parent, steps + 1
        if above > 1:
            parent = setup.groups[row - 1].parent
            complain(f"groups[{row}].parent", parent, "a tree: its ancestors go in a circle")
    slabs, objects, sheaves = setup.initial_slabs, setup.initial_objects, setup.initial_sheaves
    for name, values, low, high in (
        ("initial_slabs.cache", slabs["cache"], 1, caches),
        ("initial_slabs.where", slabs["where"], 1, 4),
        ("initial_slabs.cpu", slabs["cpu"], 0, cpus - 1),
        ("initial_objects.obj", objects["obj"], 1, setup.nr_objects - 1),
        ("initial_objects.slab", objects["slab"], 0, len(slabs)),
        ("initial_objects.owner", objects["owner"], 0, groups),
        ("initial_sheaves.cache", sheaves["cache"], 1, caches),
        ("initial_sheaves.slab", sheaves["slab"], 1, len(slabs)),
        ("initial_sheaves.cpu", sheaves["cpu"], 0, cpus - 1),
    ):
        if _outside(values, low, high):
            bad = values[(values < low) | (values > high)][0]
            complain(name, int(bad), f"{low} to {high}")
    used = slabs["inuse"] + slabs["cpu_free"]
    if np.any((slabs["inuse"] < 0) | (slabs["cpu_free"] < 0) | (used > slabs["objects"])):
        raise UsageProblem(f"{where}: field initial_slabs.inuse is above the slab's objects")
