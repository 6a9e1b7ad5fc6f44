"""Golden values: kernel formulas against published and measured figures, on the compiled core."""

from pathlib import Path

import numpy as np
import pytest

import kmbench
from golden import CPUS, ORDERS
from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.core.geometry import (
    ERAS,
    cpu_partial_objects,
    kmalloc_bucket,
    kmalloc_caches,
    kmalloc_name,
    make_cache,
    min_partial,
    slab_order,
    slot_size,
)
from kmbench.core.sample import CACHE_COLUMNS
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.trace.format import open_trace

RECORDED = Path(__file__).parent.parent / "workloads" / "recorded"


@pytest.mark.parametrize("size", ORDERS)
def test_slab_orders(size):
    found = [slab_order(size, cpus) for cpus in CPUS]
    assert " ".join(f"{order}/{(4096 << order) // size}" for order in found) == ORDERS[size]


@pytest.mark.parametrize(
    ("size", "cpus", "slabs"),
    [(192, 2, 12), (192, 16, 6), (256, 2, 7), (1024, 2, 3), (1128, 2, 4), (5888, 2, 3), (64, 2, 4)],
)
def test_cpu_partial_slabs(size, cpus, slabs):
    assert make_cache("c", size, cpus=cpus, size=size).cpu_partial_slabs == slabs


@pytest.mark.parametrize(
    ("size", "old", "new", "keep"),
    [(8192, 2, 6, 6), (4096, 2, 6, 6), (1024, 6, 24, 5), (256, 13, 52, 5), (255, 30, 120, 5),
     (16384, 2, 6, 7), (1 << 22, 2, 6, 10)],
)  # fmt: skip
def test_list_limits(size, old, new, keep):
    assert cpu_partial_objects(size, ERAS["3.5"]) == old
    assert cpu_partial_objects(size, ERAS["6.18"]) == new
    assert min_partial(size) == keep


@pytest.mark.parametrize(
    ("object_size", "align", "flags", "ctor", "size"),
    [(192, 8, 3, False, 192), (616, 8, 3, True, 624),
     (184, 64, ev.SLAB_HWCACHE_ALIGN | ev.SLAB_TYPESAFE_BY_RCU, False, 192),
     (96, 8, ev.SLAB_TYPESAFE_BY_RCU, False, 104), (1120, 8, 0, True, 1128),
     (24, 8, ev.SLAB_HWCACHE_ALIGN, False, 32), (5, 8, 0, False, 8)],
)  # fmt: skip
def test_slot_sizes(object_size, align, flags, ctor, size):
    assert slot_size(object_size, align, flags, ctor) == size


def test_kmalloc_classes():
    assert [kmalloc_bucket(n) for n in (1, 8, 9, 65, 97, 129, 193, 4097, 8192, 8193)] == [
        8, 8, 16, 96, 128, 192, 256, 8192, 8192, 0,
    ]  # fmt: skip
    assert [kmalloc_name(n) for n in (8, 512, 1024, 8192)] == [
        "kmalloc-8", "kmalloc-512", "kmalloc-1k", "kmalloc-8k",
    ]  # fmt: skip
    objects = [cache.objects for cache in kmalloc_caches()]
    assert objects == [512, 256, 128, 64, 42, 32, 21, 16, 16, 16, 16, 8, 4]


@pytest.mark.parametrize("name", ["churn", "compile", "limit_neg"])
def test_every_cache_of_a_real_kernel(name):
    """The kernel that was recorded laid its caches out as the formulas say, 235 of 235."""
    setup = open_trace(RECORDED / f"{name}.kmtrace.parquet").setup
    assert len(setup.caches) == 235
    for real in setup.caches:
        ours = make_cache(
            real.name, real.object_size, cpus=setup.machine.cpus, size=real.size,
            sheaf_capacity=real.sheaf_capacity, flags=real.flags,
        )  # fmt: skip
        assert ours == real


GROUPS = (GroupSpec("/", 0), GroupSpec("/a"), GroupSpec("/a/b", 2))


def simulation(strategy="linux-6.18", caches=None, groups=GROUPS, objects=400, parameters=None):
    setup = Setup(Machine(memory_pages=1 << 14), "6.18", caches, groups, objects)
    plugins = kmbench.load_plugins()
    return kmbench.Simulation(setup, plugins.strategy(strategy), parameters)


def alloc(sim, first, count, cache=1, memcg=2, gfp=ev.GFP_KERNEL_ACCOUNT, cpu=0):
    events = np.zeros(count, EVENT)
    events["op"], events["cache"], events["memcg"] = ev.ALLOC, cache, memcg
    events["obj"] = range(first, first + count)
    events["gfp"], events["cpu"] = gfp, cpu
    sim.feed(events)


def free(sim, first, count, cpu=0):
    events = np.zeros(count, EVENT)
    events["op"], events["obj"], events["cpu"] = ev.FREE, range(first, first + count), cpu
    sim.feed(events)


def pages_and_stock(sim, memcg=2):
    return int(sim.S.counter["usage"][memcg * 2 + 1]), int(sim.P.stock["bytes"][0])


def test_byte_stock_golden_run():
    """Charges of 200 and 1136 bytes, then uncharges of 200 (slots of 192 and 1128, plus 8)."""
    caches = (make_cache("dentry", 192, size=192), make_cache("inode", 1120, size=1128))
    sim = simulation(caches=caches)
    alloc(sim, 1, 21)
    assert pages_and_stock(sim) == (2, 3992)
    alloc(sim, 101, 5, cache=2)
    assert pages_and_stock(sim) == (3, 2408)
    free(sim, 1, 8)
    assert pages_and_stock(sim) == (3, 4008)
    free(sim, 9, 1)
    assert pages_and_stock(sim) == (2, 112)
    free(sim, 10, 12)
    assert pages_and_stock(sim) == (2, 2512)


@pytest.mark.parametrize(
    ("what", "sizes", "bytes_per_op"),
    [
        ("eventfd", (192, 192), 399.9),
        ("tcp socket", (2368, 832, 192, 192), 3616.3),
        ("udp socket", (1344, 832, 192, 192), 2592.3),
        ("pipe", (1024, 624, 192, 192, 192, 192), 2463.7),
        ("unix socketpair", (1152, 832, 192, 192) * 2, 4799.5),
        ("tmpfs file", (752, 192), 960.0),
        ("ext4 file", (1128, 192), 1336.0),
    ],
)
def test_bytes_billed_per_operation_as_measured_on_6_18(what, sizes, bytes_per_op):
    """memory.kmem.usage_in_bytes per operation, measured with 8,000 operations each."""
    caches = tuple(make_cache(f"c{i}", size, size=size) for i, size in enumerate(sizes))
    operations = 500
    sim = simulation(caches=caches, objects=len(sizes) * operations + 1)
    for i in range(len(sizes)):
        alloc(sim, 1 + i * operations, operations, cache=i + 1)
    usage, stock = pages_and_stock(sim)
    assert (usage * 4096 - stock) / operations == pytest.approx(bytes_per_op, rel=0.002)
    assert (usage * 4096 - stock) == sum(size + 8 for size in sizes) * operations


def counters(sim, which):
    rows = sim.S.counter[which::2]
    return [tuple(int(row[n]) for n in ("usage", "watermark", "failcnt")) for row in rows[2:4]]


def test_a_charge_that_fails_above_is_undone_below():
    """Parent at its limit while the child has room; then the child at its limit."""
    caches = (make_cache("big", 4096, size=4096),)
    groups = (GroupSpec("/", 0), GroupSpec("/a", 1, kmem_limit=16), GroupSpec("/a/b", 2))
    sim = simulation("costa-2012", caches, groups, parameters={"caches": ["big"]})
    alloc(sim, 1, 24, memcg=3)  # slabs of 8 pages: the third does not fit the parent
    assert counters(sim, ev.COUNTER_KMEM) == [(16, 16, 8), (16, 24, 0)]
    assert sim.S.k["nr_failed"][0] == 8
    limit = np.zeros(1, EVENT)
    limit["op"], limit["memcg"], limit["cache"], limit["arg"] = ev.LIMIT_WRITE, 3, 1, 8
    sim.feed(limit)
    free(sim, 1, 16)
    alloc(sim, 101, 24, memcg=3)
    assert counters(sim, ev.COUNTER_KMEM)[1][2] > 0


@pytest.mark.parametrize(
    ("gfp", "served"),
    [
        (ev.GFP_KERNEL_ACCOUNT, False),
        (ev.GFP_ATOMIC | ev.GFP_ACCOUNT, True),
        (ev.GFP_KERNEL_ACCOUNT | ev.GFP_NOFAIL, True),
        (ev.GFP_KERNEL_ACCOUNT | ev.CTX_MEMALLOC, True),
    ],
)
def test_who_may_charge_over_the_limit(gfp, served):
    groups = (GroupSpec("/", 0), GroupSpec("/a", 1, memory_limit=0))
    sim = simulation(caches=(make_cache("c", 64),), groups=groups)
    alloc(sim, 1, 1, gfp=gfp)
    assert bool(sim.S.k["nr_failed"][0]) != served
    assert (sim.S.counter["usage"][4] > 0) == served


@pytest.mark.parametrize(("slots", "batch"), [(1, 64), (7, 64), (7, 32)])
def test_page_stock_charges_in_batches_and_keeps_as_many_groups_as_it_has_slots(slots, batch):
    groups = (GroupSpec("/", 0), *(GroupSpec(f"/{i}") for i in range(8)))
    sim = simulation(
        caches=(make_cache("page", 4088, size=4088),), groups=groups,
        parameters={"stock_slots": slots, "stock_batch": batch},
    )  # fmt: skip
    for i in range(slots):
        alloc(sim, 1 + i, 1, memcg=2 + i)
    usage = sim.S.counter["usage"][4 : 4 + 2 * slots : 2]
    assert usage.tolist() == [batch] * slots
    assert sorted(sim.S.stock["nr"].tolist()) == sorted([batch - 1] * slots + [0] * slots)


def test_slabinfo_counts_everything_off_the_node_lists_as_active():
    """Objects free on CPU slabs and CPU partial lists are reported active."""
    sim = simulation("none", (make_cache("dentry", 192),), objects=2000)
    alloc(sim, 1, 21 * 40)
    free(sim, 1, 21 * 40 - 3)
    sample = np.zeros(1, EVENT)
    sample["op"] = ev.SAMPLE
    sim.feed(sample)
    row = dict(zip(CACHE_COLUMNS, sim.tables()[1][:, -1].tolist(), strict=True))
    on_nodes = 0
    slab = int(sim.S.node["head"][1])
    while slab:
        on_nodes += int(sim.S.slab["objects"][slab] - sim.S.slab["inuse"][slab])
        slab = int(sim.S.slab["next"][slab])
    assert row["live_objs"] == 3
    assert row["num_objs"] == row["num_slabs"] * 21
    assert row["active_objs"] == row["num_objs"] - on_nodes > row["live_objs"]


@pytest.mark.parametrize("strategy", ["none", "costa-2012", "linux-5.9", "linux-6.18"])
def test_a_recorded_kernel_leaves_nothing_charged_after_full_teardown(strategy, tmp_path):
    path = RECORDED / "limit_neg.toml"
    results = kmbench.run(path, [strategy], out=tmp_path, settings={"teardown": "true"})
    run = results.runs.collect().row(0, named=True)
    assert run["leak_bytes"] == 0
    assert run["skipped"] == 0
    assert run["failed_allocs"] == 0
