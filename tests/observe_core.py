"""What the compiled core's state shows, in the terms of ``reference.observe.snapshot``."""

from kmbench.core import events as ev
from kmbench.core.jit import SLAB_TABLE
from kmbench.core.state import FREE_LIST, FULL, NR_LISTS, PARTIAL_LIST, UNLIMITED
from kmbench.final import look_ups
from kmbench_mainline.byte_stock import VMSTAT

STATES = ("absent", "online", "offline", "released")


def observe(simulation) -> dict:
    """Canonical snapshot of a :class:`kmbench.Simulation`: no ids, lists head first."""
    S, P, k = simulation.S, simulation.P, simulation.S.k[0]
    names = [cache.name for cache in simulation.setup.caches]
    caches = {}
    for row in range(1, int(k["nr_caches"])):
        if S.cache[row]["state"] != 2:
            key = (names[S.cache[row]["root"] - 1], int(S.cache[row]["memcg"]))
            caches[key] = _cache(S, k, row)
    has_bytes = "stock" in P._fields
    return {
        "caches": caches,
        "memcgs": {row: _memcg(S, P, row) for row in range(1, len(S.memcg))},
        "page_stock": [
            [
                (int(s["memcg"]), int(s["nr"]))
                for s in S.stock[cpu * k["stock_slots"] : (cpu + 1) * k["stock_slots"]]
            ]
            for cpu in range(k["nr_cpus"])
        ],
        "byte_stock": _byte_stock(P, int(k["nr_cpus"])) if has_bytes else [],
        "buddy": [
            [int(a["nr"]) for a in S.area[node * 11 : node * 11 + 11]]
            for node in range(k["nr_nodes"])
        ],
        "counters": {
            "skipped": int(k["nr_skipped"]),
            "failed_allocs": int(k["nr_failed"] - k["nr_no_id"]),
            "vmstat": int(S.path["count"][VMSTAT]) if has_bytes else 0,
            "no_id": int(k["nr_no_id"]),
            "work_lost": int(k["nr_work_lost"]),
            "work_duplicates": int(k["nr_work_duplicates"]),
        },
        "unaccounted": {
            name: int(S.unbilled[i]["bytes"]) for i, name in enumerate(ev.CAUSE_NAMES) if i
        },
        "metadata_bytes": int(k["metadata"]),
    }


def _byte_stock(P, cpus) -> list[dict]:
    """What each CPU holds: key -> bytes."""
    slots = [(int(s["objcg"]), int(s["bytes"])) for s in P.stock]
    each = len(slots) // cpus
    return [dict(s for s in slots[c * each : (c + 1) * each] if s[0]) for c in range(cpus)]


def _walk(S, slab):
    while slab:
        yield slab
        slab = int(S.slab[slab]["next"])


def _shape(S, slab):
    return int(S.slab[slab]["objects"]), int(S.slab[slab]["inuse"])


def _line(line):
    cpus = (int(line[name]) - 1 for name in ("writer", "reader"))
    names = (
        "written", "near", "far", "writes", "opens", "takes", "takes_on", "looks", "looks_on"
    )  # fmt: skip
    counts = (int(line[name]) for name in names)
    return (*(None if cpu < 0 else cpu for cpu in cpus), *counts)


def _cache(S, k, row) -> dict:
    return (_slab_cache if SLAB_TABLE in S._fields else _slub_cache)(S, k, row)


def _slab_cache(S, k, row) -> dict:
    c, cpus, nodes = S.cache[row], int(k["nr_cpus"]), int(k["nr_nodes"])
    per_cpu = [S.cpu[row * cpus + cpu] for cpu in range(cpus)]
    per_node = [S.node[row * nodes + node] for node in range(nodes)]

    def lists(where):
        ends = [S.list[(row * nodes + node) * NR_LISTS + where] for node in range(nodes)]
        slabs = [list(_walk(S, int(e["head"]))) for e in ends]
        assert [len(s) for s in slabs] == [e["nr"] for e in ends]
        return [[_shape(S, slab) for slab in part] for part in slabs]

    def entries(first, count):
        return [_shape(S, int(e["slab"])) for e in S.array[first : first + int(count)]]

    def alien(here, there):
        held = S.alien[(row * nodes + here) * nodes + there]["avail"]
        return entries(int(c["alien"]) + (here * nodes + there) * int(c["alien_limit"]), held)

    limit, shared = int(c["limit"]), int(c["shared_limit"])
    free = sum(int(n["free_objects"]) for n in per_node)
    return {
        "num_slabs": int(c["nr_slabs"]),
        "num_objs": int(c["num_objs"]),
        "active_objs": int(c["num_objs"]) - free,
        "live": sum(int(pc["live"]) for pc in per_cpu),
        "full": lists(FULL),
        "partial": lists(PARTIAL_LIST),
        "free": lists(FREE_LIST),
        "arrays": [
            (entries(int(c["array"]) + cpu * limit, pc["avail"]), bool(pc["touched"]))
            for cpu, pc in enumerate(per_cpu)
        ],
        "shared": [
            (entries(int(c["shared"]) + i * shared, n["shared_avail"]), bool(n["shared_touched"]))
            for i, n in enumerate(per_node)
        ],
        "aliens": {(i, j): alien(i, j) for i in range(nodes) for j in range(nodes) if i != j},
        "list_lock": [_line(n) for n in per_node],
        "timers": [(int(n["next_reap"]), bool(n["free_touched"])) for n in per_node],
        "slabs_made": int(c["slabs_made"]),
        "slabs_gone": int(c["slabs_gone"]),
    }


def _slub_cache(S, k, row) -> dict:
    c, cpus, nodes = S.cache[row], int(k["nr_cpus"]), int(k["nr_nodes"])
    per_cpu = [S.cpu[row * cpus + cpu] for cpu in range(cpus)]
    on_nodes = [list(_walk(S, int(S.node[row * nodes + n]["head"]))) for n in range(nodes)]
    for n, slabs in enumerate(on_nodes):
        assert len(slabs) == S.node[row * nodes + n]["nr_partial"]
    partial = [list(_walk(S, int(pc["partial"]))) for pc in per_cpu]
    assert [len(p) for p in partial] == [pc["nr_partial"] for pc in per_cpu]
    free = sum(int(S.slab[s]["objects"] - S.slab[s]["inuse"]) for p in on_nodes for s in p)
    sheaf = int(c["sheaf"])
    sheaves = [S.sheaf[sheaf * cpus + cpu] for cpu in range(cpus)]
    return {
        "num_slabs": int(c["nr_slabs"]),
        "num_objs": int(c["num_objs"]),
        "active_objs": int(c["num_objs"]) - free,
        "live": sum(int(pc["live"]) for pc in per_cpu),
        "node_partial": [[_shape(S, s) for s in slabs] for slabs in on_nodes],
        "list_lock": [_line(S.node[row * nodes + n]) for n in range(nodes)],
        "cpu_slab": [
            (*_shape(S, int(pc["slab"])), int(pc["free"])) if pc["slab"] else None for pc in per_cpu
        ],
        "cpu_partial": [[_shape(S, s) for s in slabs] for slabs in partial],
        "sheaves": [(int(s["nr_main"]), int(s["nr_spare"])) if sheaf else (0, 0) for s in sheaves],
        "barn_full": [
            int(S.barn[sheaf * nodes + n]["nr_full"]) if sheaf else 0 for n in range(nodes)
        ],
        "slabs_made": int(c["slabs_made"]),
        "slabs_gone": int(c["slabs_gone"]),
    }


def _memcg(S, P, row) -> dict:
    g = S.memcg[row]
    memory, kmem = (
        (
            *(int(S.counter[row * 2 + which][n]) for n in ("usage", "watermark", "failcnt")),
            _line(S.counter[row * 2 + which]),
        )
        for which in (ev.COUNTER_MEMORY, ev.COUNTER_KMEM)
    )
    left = P.left[row :: len(S.memcg)] if "left" in P._fields else []
    return {
        "left_lines": [_line(line) for line in left if "writer" in line.dtype.names],
        "state": STATES[g["state"]],
        "memory": memory,
        "kmem": kmem,
        "pinned": int(g["css_pages"] + g["css_refs"]),
        **{
            name: int(g[name])
            for name in (
                "true_slab",
                "true_pages",
                "billed_slab",
                "nr_charged_bytes",
                "objects",
            )  # fmt: skip
        },
    }


def check(simulation) -> None:
    """Assert that pages, objects and charges add up in the compiled core's state."""
    S, k = simulation.S, simulation.S.k[0]
    pages = int(k["nr_slab_pages"]) + int(k["nr_kernel_pages"]) + int(k["nr_free_pages"])
    if "vm" in S._fields:
        pages += int(S.vm["nr_user_pages"][0])
        assert (S.item["pins"] >= 0).all() and (S.user["unused"] >= 0).all()
    machine = simulation.setup.machine
    assert pages == machine.memory_pages // machine.nodes * machine.nodes
    free = sum(int(S.area[n * 11 + o]["nr"]) << o for n in range(machine.nodes) for o in range(11))
    assert free == k["nr_free_pages"]
    assert (S.counter["usage"] >= 0).all() and (S.counter["limit"] <= UNLIMITED).all()
    assert (S.unbilled["bytes"] >= 0).all() and (S.memcg["billed_slab"] >= 0).all()


COUNTS = (
    "direct_runs", "group_runs", "kswapd_turns", "scanned_pages", "reclaimed_pages",
    "written_pages", "scanned_objects", "freed_objects", "freed_bytes", "freed_slab_pages",
    "visits", "target_bytes", "own_bytes", "damaged", "oom_kills", "stalls", "stall_ns",
    "failed_with_reclaimable",
)  # fmt: skip


def observe_reclaim(simulation) -> dict:
    """Snapshot of what only a run with reclaim has, in the terms of ``reference.reclaim``."""
    S, vm = simulation.S, simulation.S.vm[0]
    lists = int(vm["lists"])
    live = [int(h) for h in S.item["known"].nonzero()[0] if S.obj[h]["slab"] > 0]
    return {
        "counts": {name: int(vm[name]) for name in COUNTS if vm[name]},
        "lists": {
            divmod(row, lists): _list(S, row) for row in range(len(S.lru)) if S.lru[row]["nr"]
        },
        "pools": {divmod(row, 3): int(p["nr"]) for row, p in enumerate(S.pool) if p["nr"]},
        "swapped": {row: int(u["swapped"]) for row, u in enumerate(S.user) if u["swapped"]},
        "deferred": {row: int(o["deferred"]) for row, o in enumerate(S.owner) if o["deferred"]},
        "stat": {
            (memcg, phase, name): int(row[name])
            for memcg, phases in enumerate(look_ups(S)[0])
            for phase, row in enumerate(phases)
            for name in row.dtype.names
            if row[name]
        },
        "pins": {handle: int(S.item[handle]["pins"]) for handle in live},
        "users": {
            handle: {bit + 1 for bit in range(16) if S.item[handle]["users"] >> bit & 1}
            for handle in live
        },
        "kswapd": (
            None if vm["kswapd_due"] == UNLIMITED else int(vm["kswapd_due"]),
            int(vm["kswapd_failures"]),
        ),
        "bits": sorted(int(row) for row in S.owner["bit"][:-1].nonzero()[0]),
        "phase": int(vm["phase"]),
        "swap_free": int(vm["swap_free"]),
        "superblock": _superblock(S),
    }


def _superblock(S):
    """Handles on the superblock's lists of ``costa-shrink-fn``, oldest first."""
    found = [[], []]
    for kind, head in enumerate(getattr(S.Q, "superblock", ())):
        at = int(head["oldest"])
        while at:
            found[kind].append(at)
            at = int(S.Q.link[at]["next"])
        assert len(found[kind]) == head["nr"]
    return found


def _list(S, row):
    found, at = [], int(S.lru[row]["oldest"])
    while at:
        found.append((at, bool(S.item[at]["referenced"])))
        at = int(S.item[at]["next"])
    assert len(found) == S.lru[row]["nr"]
    return found
