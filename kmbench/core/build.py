"""Makes the state of a run from its setup: sizes the tables, registers caches, groups and pages."""

from keyword import iskeyword
from typing import NamedTuple

import numpy as np

from kmbench.core.events import CTX_MEMALLOC, GFP_NOFAIL, NR_CAUSES
from kmbench.core.geometry import ERAS, kmalloc_bucket, kmalloc_name
from kmbench.core.joints import no_reclaim
from kmbench.core.pages import free_all
from kmbench.core.paths import MAX_PLUGIN_PATHS, PLUGIN_PATH
from kmbench.core.rng import seed_stream
from kmbench.core.setup import Setup, SlabSpec
from kmbench.core.slab_geometry import ALIEN_LIMIT, RULES, free_limit
from kmbench.core.slab_reap import REAP_CPU, first_reap
from kmbench.core.state import (
    BARN_FULL,
    FIELDS,
    NR_LISTS,
    NR_ORDERS,
    SHEAF_MAX,
    SLAB_FIELDS,
    UNLIMITED,
    State,
)
from kmbench.core.tables import Table, records, tables_class
from kmbench.errors import PluginProblem, did_you_mean

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
    zombies_hold_ids: bool = True  # ids of groups are free again only when nothing pins the group


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
    families = groups if accounting.copies else 1
    on_slab = setup.allocator == "slab"
    managed = on_slab and any(cache.management for cache in setup.caches)
    sizes = {
        "k": 1,
        "obj": setup.nr_objects + slabs * (2 if managed else accounting.vectors),
        "slab": slabs,
        "cpu": caches * machine.cpus,
        "node": caches * machine.nodes,
        "cache": caches,
        "memcg": groups,
        "counter": groups * 2,
        "stock": max(1, machine.cpus * accounting.stock_slots),
        "visit": machine.cpus,
        "child": groups * (roots + 1) if accounting.copies else 1,
        "path": PLUGIN_PATH + MAX_PLUGIN_PATHS,
        "unbilled": NR_CAUSES,
        "pfn": machine.nodes * stride,
        "area": machine.nodes * NR_ORDERS,
        "internal": _power_of_two((4 if managed else 2) * slabs),
        "rcu": _power_of_two(slabs),
        "work": _power_of_two(accounting.work_items + 2 * caches if accounting.work_items else 1),
        "fail": MAX_FAILURES,
        **(_slab_sizes(setup, caches, families) if on_slab else _slub_sizes(setup, families)),
    }
    fields = SLAB_FIELDS if on_slab else FIELDS
    made = {name: records(sizes[name], dtype) for name, dtype in fields.items()}
    made["R"] = no_reclaim()
    S = tables_class(tuple(made))(**made)
    S.visit["line"] = -1
    k = S.k
    k["nr_cpus"], k["nr_nodes"] = machine.cpus, machine.nodes
    k["page_size"], k["rcu_delay"] = machine.page_size, machine.rcu_delay_ns
    k["work_items"], k["work_delay"] = accounting.work_items, accounting.work_delay_ns
    k["max_ids"], k["zombies_hold_ids"] = machine.memcg_ids, accounting.zombies_hold_ids
    k["page_shift"] = machine.page_size.bit_length() - 1
    k["nr_root_caches"], k["nr_objects"] = roots, setup.nr_objects
    k["nr_groups"], k["nr_caches"] = groups, roots + 1
    k["discard_above"], k["partial_in_slabs"] = era.discard_above, era.partial_in_slabs
    k["trims_free"] = on_slab and RULES[era.slab].trims_free
    k["shrink_promotes"] = era.shrink_promotes
    for name in (
        "stock_slots", "stock_batch", "stock_single", "counter_locked", "forces", "vectors",
    ):  # fmt: skip
        k[name] = getattr(accounting, name)
    k["sample_every"] = sample_every
    k["next_sample"] = sample_every if sample_every else UNLIMITED
    k["next_reap"] = REAP_CPU if on_slab else UNLIMITED
    k["next_due"] = min(k["next_sample"], k["next_reap"])
    k["timer_due"] = UNLIMITED
    k["nr_free_pages"] = machine.memory_pages // machine.nodes * machine.nodes
    seed_stream(k, seed, "page stock")
    _caches(S, setup)
    if on_slab:
        _slab_caches(S, setup)
    else:
        _slub_caches(S, setup, era.partial_in_slabs)
    _groups(S, setup)
    for node in range(machine.nodes):
        free_all(S.pfn, S.area, node, node * stride, machine.memory_pages // machine.nodes)
    return S


def _slub_sizes(setup: Setup, families: int) -> dict[str, int]:
    """Rows of the tables that only SLUB has; `families`: sets of caches that there may be."""
    cpus, nodes = setup.machine.cpus, setup.machine.nodes
    sheafed = sum(cache.sheaf_capacity > 0 for cache in setup.caches)
    sheaves = 1 + sheafed * families
    return {
        "sheaf": sheaves * cpus,
        "sheaf_slot": sheaves * cpus * 2 * SHEAF_MAX,
        "barn": sheaves * nodes,
        "barn_slot": sheaves * nodes * BARN_FULL * SHEAF_MAX,
    }


def _slab_sizes(setup: Setup, caches: int, families: int) -> dict[str, int]:
    """The same for SLAB; `caches`: rows of the table of caches."""
    nodes = setup.machine.nodes
    return {
        "list": caches * nodes * NR_LISTS,
        "alien": caches * nodes * nodes,
        "array": families * sum(_array_entries(cache, setup) for cache in setup.caches),
    }


def _array_entries(cache: SlabSpec, setup: Setup) -> int:
    """Entries of all arrays of one cache."""
    cpus, nodes = setup.machine.cpus, setup.machine.nodes
    alien = nodes * nodes * min(ALIEN_LIMIT, cache.limit) if nodes > 1 else 0
    return cpus * cache.limit + nodes * cache.shared_limit + alien


def _caches(S: State, setup: Setup) -> None:
    rows = {cache.name: i for i, cache in enumerate(setup.caches, 1)}
    for i, spec in enumerate(setup.caches, 1):
        c = S.cache[i : i + 1]
        c["slot"], c["slab_flags"] = spec.size, spec.flags
        for name in ("object_size", "objects", "order"):
            c[name] = getattr(spec, name)
        c["min_order"], c["root"] = min(spec.min_order, spec.order), i
        fewest = (setup.machine.page_size << int(c["min_order"][0])) // spec.size
        for prefix, objects in (("", spec.objects), ("min_", fewest)):
            bucket = kmalloc_bucket(8 * objects)
            c[prefix + "vector_bytes"] = bucket or 8 * objects
            c[prefix + "vector_cache"] = rows.get(kmalloc_name(bucket), 0) if bucket else 0


def _slub_caches(S: State, setup: Setup, in_slabs: bool) -> None:
    sheaf = 0
    for i, spec in enumerate(setup.caches, 1):
        c = S.cache[i : i + 1]
        c["min_partial"] = spec.min_partial
        c["cpu_partial"] = spec.cpu_partial_slabs if in_slabs else spec.cpu_partial
        if spec.sheaf_capacity:
            sheaf += 1
            c["sheaf"], c["sheaf_capacity"] = sheaf, spec.sheaf_capacity
    S.k["nr_sheaves"] = sheaf + 1


def _slab_caches(S: State, setup: Setup) -> None:
    machine = setup.machine
    rows = {cache.name: i for i, cache in enumerate(setup.caches, 1) if not cache.management}
    entries = 0
    for i, spec in enumerate(setup.caches, 1):
        c = S.cache[i : i + 1]
        for name in ("limit", "batchcount", "shared_limit"):
            c[name] = getattr(spec, name)
        c["alien_limit"] = min(ALIEN_LIMIT, spec.limit)
        if spec.management:
            bucket = kmalloc_bucket(spec.management)
            c["management"] = bucket or spec.management
            # from a cache that needs no such object itself, or it would never end
            c["management_cache"] = rows.get(kmalloc_name(bucket), 0) if bucket else 0
        c["array"] = entries
        c["shared"] = entries + machine.cpus * spec.limit
        c["alien"] = c["shared"] + machine.nodes * spec.shared_limit
        entries += _array_entries(spec, setup)
        for node in range(machine.nodes):
            n = S.node[i * machine.nodes + node : i * machine.nodes + node + 1]
            cpus = len(range(node, machine.cpus, machine.nodes))
            n["free_limit"] = free_limit(spec.batchcount, spec.objects, cpus)
            n["next_reap"] = first_reap(0, i)
    S.k["array_stride"] = entries


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
        if not name.isidentifier() or iskeyword(name) or "__" in f"_{name}_":
            raise PluginProblem(
                f"table {name!r}: expected a name that Python takes for an attribute, without _ at "
                f"its ends or __"
            )
        rows = 1
        for axis in spec.sized_by:
            if not isinstance(axis, int) and axis not in lengths:
                raise PluginProblem(
                    f"table {name!r}: cannot be sized by {axis!r}{did_you_mean(axis, lengths)}"
                )
            rows *= axis if isinstance(axis, int) else lengths[axis]
        made[name] = records(rows, spec.dtype)
    if not made:
        made["nothing"] = records(1, np.dtype([("nothing", "i4")]))
    return tables_class(tuple(made))(**made)
