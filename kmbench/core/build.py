"""Makes the state of a run from its setup: sizes the tables, registers caches, groups and pages."""

from typing import NamedTuple

import numpy as np

from kmbench.core.events import CTX_MEMALLOC, GFP_NOFAIL, NR_CAUSES
from kmbench.core.geometry import ERAS, kmalloc_bucket, kmalloc_name
from kmbench.core.joints import no_reclaim
from kmbench.core.pages import free_all
from kmbench.core.rng import seed_stream
from kmbench.core.setup import Setup
from kmbench.core.state import (
    BARN_FULL,
    FIELDS,
    NR_ORDERS,
    SHEAF_MAX,
    UNLIMITED,
    State,
)
from kmbench.core.tables import Table, records, tables_class

MAX_FAILURES = 100_000


class Accounting(NamedTuple):
    """What a strategy asks of the host's memory controller."""

    copies: bool = False  # it makes per-memcg caches
    stock_slots: int = 0  # page stock: slots per CPU and pages a slot
    stock_batch: int = 0
    stock_single: bool = False  # it serves only requests of one page (up to 3.x)
    counter_locked: bool = False  # res_counter era
    forces: int = GFP_NOFAIL | CTX_MEMALLOC  # gfp and context bits that charge over the limit
    vectors: bool = False  # slabs get obj_cgroup vectors
    slab_reclaim: bool = False  # a full memory counter reclaims the group's slab objects too (4.0+)
    charge_retries: int = 5  # rounds of reclaim without progress before a charge fails
    oom_needs_fs: bool = True  # no OOM kill in a group for charges without __GFP_FS (up to 3.x)
    work_items: int = 0  # deferred work: allocated items that may wait, and for how long they do
    work_delay_ns: int = 1_000_000


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 1).bit_length()


def build_state(setup: Setup, accounting: Accounting, seed: int, sample_every: int) -> State:
    """The state before the first event, without initial slabs; every table zeroed but for setup."""
    machine, era = setup.machine, ERAS[setup.era]
    roots, groups = len(setup.caches), len(setup.groups) + 1
    caches = 1 + roots * (groups if accounting.copies else 1)
    slabs = machine.memory_pages + 1
    largest = 1 << (NR_ORDERS - 1)
    stride = -(-machine.memory_pages // machine.nodes // largest) * largest  # frames of a node
    sheafed = sum(c.sheaf_capacity > 0 for c in setup.caches)
    sheaves = 1 + sheafed * (groups if accounting.copies else 1)
    sizes = {
        "k": 1,
        "obj": setup.nr_objects + (slabs if accounting.vectors else 0),
        "slab": slabs,
        "cpu": caches * machine.cpus,
        "node": caches * machine.nodes,
        "cache": caches,
        "memcg": groups,
        "counter": groups * 2,
        "stock": max(1, machine.cpus * accounting.stock_slots),
        "child": groups * (roots + 1) if accounting.copies else 1,
        "path": 64,
        "unbilled": NR_CAUSES,
        "pfn": machine.nodes * stride,
        "area": machine.nodes * NR_ORDERS,
        "internal": _power_of_two(2 * slabs),
        "rcu": _power_of_two(slabs),
        "work": _power_of_two(accounting.work_items + 2 * caches if accounting.work_items else 1),
        "fail": MAX_FAILURES,
        "sheaf": sheaves * machine.cpus,
        "sheaf_slot": sheaves * machine.cpus * 2 * SHEAF_MAX,
        "barn": sheaves * machine.nodes,
        "barn_slot": sheaves * machine.nodes * BARN_FULL * SHEAF_MAX,
    }
    S = State(
        **{name: records(sizes[name], dtype) for name, dtype in FIELDS.items()}, R=no_reclaim()
    )
    k = S.k
    k["nr_cpus"], k["nr_nodes"] = machine.cpus, machine.nodes
    k["page_size"], k["rcu_delay"] = machine.page_size, machine.rcu_delay_ns
    k["work_items"], k["work_delay"] = accounting.work_items, accounting.work_delay_ns
    k["page_shift"] = machine.page_size.bit_length() - 1
    k["nr_root_caches"], k["nr_objects"] = roots, setup.nr_objects
    k["nr_groups"], k["nr_caches"] = groups, roots + 1
    k["discard_above"], k["partial_in_slabs"] = era.discard_above, era.partial_in_slabs
    k["shrink_promotes"] = era.shrink_promotes
    for name in (
        "stock_slots", "stock_batch", "stock_single", "counter_locked", "forces", "vectors",
    ):  # fmt: skip
        k[name] = getattr(accounting, name)
    k["sample_every"] = sample_every
    k["next_sample"] = k["next_due"] = sample_every if sample_every else UNLIMITED
    k["timer_due"] = UNLIMITED
    k["nr_free_pages"] = machine.memory_pages // machine.nodes * machine.nodes
    seed_stream(k, seed, "page stock")
    _caches(S, setup, era.partial_in_slabs)
    _groups(S, setup)
    for node in range(machine.nodes):
        free_all(S.pfn, S.area, node, node * stride, machine.memory_pages // machine.nodes)
    return S


def _caches(S: State, setup: Setup, in_slabs: bool) -> None:
    rows = {cache.name: i for i, cache in enumerate(setup.caches, 1)}
    sheaf = 0
    for i, spec in enumerate(setup.caches, 1):
        c = S.cache[i : i + 1]
        c["slot"], c["slab_flags"] = spec.size, spec.flags
        for name in ("object_size", "objects", "min_partial", "order"):
            c[name] = getattr(spec, name)
        c["min_order"], c["root"] = min(spec.min_order, spec.order), i
        c["cpu_partial"] = spec.cpu_partial_slabs if in_slabs else spec.cpu_partial
        fewest = (setup.machine.page_size << int(c["min_order"][0])) // spec.size
        for prefix, objects in (("", spec.objects), ("min_", fewest)):
            bucket = kmalloc_bucket(8 * objects)
            c[prefix + "vector_bytes"] = bucket or 8 * objects
            c[prefix + "vector_cache"] = rows.get(kmalloc_name(bucket), 0) if bucket else 0
        if spec.sheaf_capacity:
            sheaf += 1
            c["sheaf"], c["sheaf_capacity"] = sheaf, spec.sheaf_capacity
    S.k["nr_sheaves"] = sheaf + 1


def _groups(S: State, setup: Setup) -> None:
    S.memcg["objcg_memcg"] = np.arange(len(S.memcg))
    S.counter["limit"] = UNLIMITED
    for i, group in enumerate(setup.groups, 1):
        S.memcg["parent"][i] = group.parent
        S.counter["limit"][i * 2] = UNLIMITED if group.memory_limit < 0 else group.memory_limit
        S.counter["limit"][i * 2 + 1] = UNLIMITED if group.kmem_limit < 0 else group.kmem_limit


def build_tables(tables: dict[str, Table], S: State) -> tuple:
    """A plugin's own tables, sized for the run and zeroed."""
    lengths = {
        "cpu": int(S.k["nr_cpus"][0]),
        "node": int(S.k["nr_nodes"][0]),
        "memcg": len(S.memcg),
        "cache": len(S.cache),
        "slab": len(S.slab),
        "object": len(S.obj),
    }
    made = {}
    for name, spec in tables.items():
        rows = 1
        for axis in spec.sized_by:
            rows *= axis if isinstance(axis, int) else lengths[axis]
        made[name] = records(rows, spec.dtype)
    if not made:
        made["nothing"] = records(1, np.dtype([("nothing", "i4")]))
    return tables_class(tuple(made))(**made)
