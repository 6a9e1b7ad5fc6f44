"""Rows of docs/designs.md, for every design: what the page says is what a run does.

What is expected stands here by itself, from the patches and the kernel's source; the page links
each of its cells to the test of its row.
"""

import numpy as np
import pytest

import design_run
import kmbench
from design_run import (
    ACCOUNT,
    BYTES,
    COPIES_LATE,
    MS,
    OBJCG,
    PLUGINS,
    WHITELIST,
    Run,
    of_every_design,
    slabs_of,
)  # fmt: skip
from kmbench.core import events as ev
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.core.vm import Reclaim
from kmbench.final import final_figures
from kmbench.memory import Memory
from reference import Reference


@pytest.fixture(autouse=True, params=["slub", "slab"])
def allocator(request, monkeypatch):
    """Every design runs on both."""
    monkeypatch.setattr(design_run, "ALLOCATOR", request.param)
    return request.param


@of_every_design
def test_selection(name):
    caches = [slabs_of(name=n) for n in ("dentry", "ext4_inode_cache")]
    caches += [slabs_of(name=n, flags=0) for n in ("filp", "kmalloc-64", "skbuff_head_cache")]
    run = Run(name, caches, {})
    billed = set()
    for row, spec in enumerate(caches, 1):
        for what, gfp in (("", 0), ("+", ev.GFP_ACCOUNT), ("-", ev.GFP_NOACCOUNT)):
            run.alloc(cache=row, gfp=ev.GFP_KERNEL | gfp)
            run.wait()
            before = int(run.S.memcg["billed_slab"][3])
            run.alloc(cache=row, gfp=ev.GFP_KERNEL | gfp)
            if run.S.memcg["billed_slab"][3] > before:
                billed.add(spec.name + what)
    names = [spec.name for spec in caches]
    every = {n + what for n in names for what in ("", "+", "-")}
    opted_in = {
        "costa-2012": {"dentry"},
        "kamezawa-2012": {"dentry", "ext4_inode_cache"},
        "souhlal-2012-v2": {"dentry", "kmalloc-64"},
        "tcp-memcontrol": {"skbuff_head_cache"},
    }
    if name in WHITELIST:
        flagged = {"dentry", "ext4_inode_cache"}
        wanted = {n + what for n in flagged for what in ("", "+", "-")} | {n + "+" for n in names}
    elif name in opted_in:
        wanted = {n + what for n in opted_in[name] for what in ("", "+", "-")}
    else:
        wanted = {n for n in every if not n.endswith("-")} if "souhlal" in name else every
    assert billed == wanted


def test_opt_out_of_linux_4_1():
    """__GFP_NOACCOUNT of 4.1 to 4.4, a parameter of linux-3.8."""
    run = Run("linux-3.8", parameters={"noaccount": True})
    run.warm()
    run.alloc(gfp=ev.GFP_KERNEL | ev.GFP_NOACCOUNT)
    assert run.unaccounted(ev.CAUSE_NOT_SELECTED) == 1 and run.pages(3) == 0


@of_every_design
def test_owner(name):
    """A thread that was moved without its mm's owner: who pays, and what A3 says."""
    run = Run(name, [slabs_of(1)])
    for memcg in (3, 4):
        run.warm(memcg)
    run.event(ev.ATTACH, task=7, arg=3, memcg=4, cache=1)
    run.alloc(2, memcg=4, task=7)
    run.alloc(1, memcg=4, task=8)
    run.empty_stocks()
    by_mm = name in ("costa-2012", "souhlal-2012-v1", "souhlal-2012-v2", "kamezawa-2012")
    by_mm = by_mm or name == "linux-3.8"
    assert run.S.memcg["objects"][4] == 3
    billed = [int(nr) // 4096 for nr in run.S.memcg["billed_slab"][3:5]]
    assert billed == ([2, 1] if by_mm else [0, 3])
    assert final_figures(run.S, run.P)["misattributed_bytes"] == (2 * 4096 if by_mm else 0)
    run.event(ev.ATTACH, task=7, arg=3, memcg=4)  # its owner follows
    run.alloc(1, memcg=4, task=7)
    assert run.S.memcg["billed_slab"][4] == (2 if by_mm else 4) * 4096
    run.event(ev.ATTACH, task=9, arg=1, memcg=4, cache=1)  # the owner is in the root group
    run.alloc(3, memcg=4, task=9)
    assert run.unaccounted(ev.CAUSE_MM_OWNER) == (3 if by_mm else 0)
    run.event(ev.ATTACH, task=9, arg=3, memcg=4, cache=1)  # in a group that is then removed
    run.event(ev.CG_OFFLINE, memcg=3)
    run.alloc(1, memcg=4, task=9)
    assert run.S.memcg["billed_slab"][4] == (3 if by_mm else 8) * 4096
    assert run.unaccounted(ev.CAUSE_MM_OWNER) == (3 if by_mm else 0)


@of_every_design
def test_unit(name):
    run = Run(name)  # four objects of 1024 bytes a slab
    run.warm()
    run.empty_stocks()
    run.alloc(4)
    run.empty_stocks()
    assert run.pages(3) == (2 if name in OBJCG else 1)  # 4 x 1032 bytes
    run.alloc(1)
    run.empty_stocks()
    assert run.pages(3) == 2
    before = run.pages(3)
    charged = []
    for kind, gfp in ((ev.PAGES_STACK, ev.GFP_KERNEL), (ev.PAGES_TABLE, ACCOUNT)):
        run.alloc(op=ev.PAGE_ALLOC, cache=kind, arg=2, gfp=gfp)
        charged.append(run.pages(3) - before)
        before = run.pages(3)
    accounted = {"linux-3.8": [4, 0], **dict.fromkeys(WHITELIST, [0, 4])}
    assert charged == accounted.get(name, [0, 0])


@of_every_design
def test_caches(name):
    run = Run(name)
    copies = [run.copies()]
    for gfp in (ev.GFP_NOWAIT, ev.GFP_NOWAIT, ev.GFP_KERNEL):
        run.alloc(gfp=gfp | ev.GFP_ACCOUNT)
        copies.append(run.copies())
    queued = run.waiting()
    run.wait()
    copies.append(run.copies())
    if name == "costa-2012":
        assert copies == [3] * 5 and queued == 0  # made with the groups p, c and d
    elif name in BYTES:
        assert copies == [0] * 5 and queued == 0
    elif name in ("souhlal-2012-v1", "kamezawa-2012"):
        assert copies == [0, 0, 0, 1, 1] and queued == 1
    else:
        assert copies == [0, 0, 0, 0, 1] and queued == (1 if name == "souhlal-2012-v2" else 3)


@pytest.mark.parametrize("name", COPIES_LATE)
def test_meanwhile(name):
    run = Run(name)
    run.alloc(2, gfp=ev.GFP_NOWAIT | ev.GFP_ACCOUNT)
    run.wait()
    assert run.unaccounted(ev.CAUSE_PENDING) == 2 and run.pages(3) == 0
    assert run.S.slab["cache"][run.S.obj["slab"][1]] == 1  # in the root's slabs for good
    run.alloc()
    assert run.unaccounted(ev.CAUSE_PENDING) == 2 and run.pages(3) == 1


@of_every_design
def test_contexts(name):
    contexts = {
        "interrupt": ev.CTX_SOFTIRQ, "kthread": ev.CTX_KTHREAD, "nofail": ev.GFP_NOFAIL,
        "dying": ev.CTX_DYING, "memalloc": ev.CTX_MEMALLOC, "atomic": ev.GFP_HIGH,
    }  # fmt: skip
    causes = {
        "interrupt": ev.CAUSE_INTERRUPT, "kthread": ev.CAUSE_KTHREAD,
        "nofail": ev.CAUSE_NOFAIL, "dying": ev.CAUSE_DYING,
    }  # fmt: skip
    left_out = set()
    for context, bits in contexts.items():
        run = Run(name)
        run.warm()
        run.alloc(gfp=ACCOUNT | bits)
        if run.S.memcg["billed_slab"][3] == 0:
            left_out.add(context)
            assert run.unaccounted(causes[context]) == 1
    wanted = {
        "costa-2012": {"kthread"},
        "linux-3.8": {"interrupt", "kthread", "nofail", "dying"},
        "souhlal-2012-v1": {"interrupt", "kthread", "nofail"},
        "souhlal-2012-v2": {"interrupt", "kthread", "nofail"},
    }
    assert left_out == wanted.get(name, {"interrupt", "kthread"})


@of_every_design
def test_charge_point(name):
    run = Run(name)
    run.warm()
    run.event(ev.LIMIT_WRITE, memcg=3, cache=ev.COUNTER_KMEM, arg=0)
    run.event(ev.LIMIT_WRITE, memcg=3, cache=ev.COUNTER_MEMORY, arg=0)
    run.empty_stocks()
    pages, slabs = run.passed("page_alloc"), run.passed("slab_made")
    run.alloc()
    assert run.failed == 1
    pages, slabs = run.passed("page_alloc") - pages, run.passed("slab_made") - slabs
    after_pages = name in ("costa-2012", "linux-4.5", "linux-5.3")
    after_object = name in ("linux-6.18", "ubc-2006", "tcp-memcontrol")
    assert (pages > 0, slabs > 0) == (after_pages or after_object, after_object)


@of_every_design
def test_counters(name):
    run = Run(name, [slabs_of(1)])
    run.warm()
    run.empty_stocks()
    for which in (ev.COUNTER_KMEM, ev.COUNTER_MEMORY):
        run.event(ev.LIMIT_WRITE, memcg=3, cache=which, arg=0)
    run.alloc()
    both = 3 * 2
    memory, kmem = (int(run.S.counter["failcnt"][both + which]) > 0 for which in (0, 1))
    kmem_first = name in ("linux-3.8", "costa-2012", "ubc-2006", "tcp-memcontrol")
    assert (memory, kmem) == ((False, True) if kmem_first else (True, False))
    for which in (ev.COUNTER_KMEM, ev.COUNTER_MEMORY):
        run.event(ev.LIMIT_WRITE, memcg=3, cache=which, arg=-1)
    run.alloc()
    run.empty_stocks()
    usage = run.pages(3, ev.COUNTER_MEMORY), run.pages(3)
    each = 2 if name in OBJCG else 1
    only_kmem = name in ("costa-2012", "ubc-2006", "tcp-memcontrol")
    assert usage == (0 if only_kmem else each, each)


def test_joint_and_independent_accounting_of_2012():
    """Costa charges one counter or the other, Souhlal both or kmem alone."""
    for name, independent, wanted in (
        ("costa-2012", False, (1, 0)), ("costa-2012", True, (0, 1)),
        ("souhlal-2012-v1", False, (1, 1)), ("souhlal-2012-v1", True, (0, 1)),
        ("souhlal-2012-v2", True, (0, 1)),
    ):  # fmt: skip
        run = Run(name, parameters={"independent": independent})
        run.warm()
        run.alloc()
        run.empty_stocks()
        assert (run.pages(3, ev.COUNTER_MEMORY), run.pages(3)) == wanted, name


@of_every_design
def test_counter_kind(name):
    run = Run(name)
    run.warm()
    run.alloc()
    locked = name not in ("linux-4.5", "linux-5.3", *OBJCG)
    assert (run.passed("counter_charge_locked") > 0) == locked
    assert (run.passed("counter_charge_atomic") > 0) != locked


@of_every_design
def test_limit(name):
    """Which allocations a full memory counter (the design's own, if it has none) lets through."""
    bits = {
        "nofail": ev.GFP_NOFAIL, "atomic": ev.GFP_HIGH, "dying": ev.CTX_DYING,
        "memalloc": ev.CTX_MEMALLOC, "plain": 0,
    }  # fmt: skip
    over = set()
    for what, gfp in bits.items():
        run = Run(name, [slabs_of(1)])
        run.warm()
        run.empty_stocks()
        which = ev.COUNTER_KMEM if name in ("costa-2012", *BYTES[:2]) else ev.COUNTER_MEMORY
        run.event(ev.LIMIT_WRITE, memcg=3, cache=which, arg=0)
        run.alloc(gfp=ACCOUNT | gfp)
        if not run.failed and run.S.memcg["billed_slab"][3]:
            over.add(what)
    wanted = {
        "costa-2012": set(),
        "souhlal-2012-v1": {"dying"},  # past the memory counter
        "souhlal-2012-v2": {"dying"},
        "kamezawa-2012": {"nofail", "dying"},
        "linux-3.8": set(),
        "ubc-2006": {"nofail"},
        "tcp-memcontrol": set(),
        "linux-6.18": {"nofail", "memalloc", "atomic"},
    }
    assert over == wanted.get(name, {"nofail", "dying", "memalloc"})


def reclaimed(name, over_memory, user):
    """What a group's charge over a limit has reclaimed: of user pages and slab objects, which.

    The reference model runs; the core equals it (test_reclaim_equals_reference.py).
    """
    flags = ev.SLAB_ACCOUNT | ev.SLAB_RECLAIM_ACCOUNT
    groups = (GroupSpec("/", 0), GroupSpec("g"))
    machine = Machine(1, memory_pages=2000)
    setup = Setup(machine, "4.19", (slabs_of(2, flags=flags),), groups, 400)
    parameters = {"caches": ["dentry"]} if name == "tcp-memcontrol" else {}
    memory = Memory(Reclaim(), PLUGINS.shrinker("dentry-inode"), {})
    model = Reference(setup, name, parameters, 1, memory)
    t = 0

    def event(op, **fields):
        record = np.zeros(1, ev.EVENT)
        record["op"], record["t"], record["memcg"], record["gfp"] = op, t, 2, ACCOUNT
        for field, value in fields.items():
            record[field] = value
        model.step(record[0])

    event(ev.ALLOC, obj=300, cache=1)
    t += 10 * MS
    for obj in range(1, 41):
        event(ev.ACCESS, obj=obj, cache=1)
    event(ev.USER_ALLOC, cache=0, arg=20)
    group = model.groups[2]
    which, counter = (0, group.memory) if over_memory else (1, group.kmem)
    event(ev.LIMIT_WRITE, cache=which, arg=counter.usage + 1)
    if user:
        event(ev.USER_ALLOC, cache=0, arg=80)
    else:
        for obj in range(100, 260):
            event(ev.ALLOC, obj=obj, cache=1)
    kinds = {"scanned_pages": "user pages", "scanned_objects": "slab objects"}
    return {kinds[key] for key in kinds if model.vm.counts[key]}


BOTH, USER = {"user pages", "slab objects"}, {"user pages"}
LATER = ("linux-4.5", "linux-5.3", *OBJCG)  # 4.0 and later


@of_every_design
def test_limit_reclaim(name):
    at_memory = set() if name in ("costa-2012", *BYTES[:2]) else BOTH if name in LATER else USER
    assert reclaimed(name, over_memory=True, user=False) == at_memory
    assert reclaimed(name, over_memory=False, user=False) == set()


@of_every_design
def test_user_reclaim(name):
    assert reclaimed(name, over_memory=True, user=True) == (BOTH if name in LATER else USER)


@of_every_design
def test_stock(name):
    run = Run(name)
    run.warm()
    run.empty_stocks()
    run.alloc(memcg=3)
    held = sorted(run.S.stock["nr"].tolist())[-1]
    batch = 64 if name == "linux-6.18" else 32
    has_none = name in ("costa-2012", "ubc-2006", "tcp-memcontrol")
    assert held == (0 if has_none else batch - 1)
    if not has_none:
        slots = 7 if name == "linux-6.18" else 1
        assert len(run.S.stock) == slots * 2
    wide = Run(name, [slabs_of(1, order=1)])  # two pages a slab
    wide.warm()
    wide.empty_stocks()
    wide.alloc(2)
    hits = wide.passed("stock_hit")
    single = name in ("souhlal-2012-v1", "souhlal-2012-v2", "kamezawa-2012", "linux-3.8")
    assert (hits > 0) != (single or has_none)


@pytest.mark.parametrize("name", OBJCG)
def test_byte_stock(name):
    run = Run(name)
    run.alloc(memcg=3)
    assert run.P.stock["bytes"][0] == 4096 - 1032
    handles = run.alloc(3, memcg=3)  # 4 x 1032 is more than a page
    assert run.P.stock["bytes"][0] == 2 * 4096 - 4 * 1032
    run.free(handles[:1])
    trimmed = 2 * 4096 - 3 * 1032 - 4096
    assert run.P.stock["bytes"][0] == (0 if name == "linux-5.9" else trimmed)
    left = run.S.memcg["nr_charged_bytes"][3]
    assert left == (trimmed if name == "linux-5.9" else 0) and run.pages(3) == 1
    run.alloc(memcg=4)  # another group takes the slot
    assert run.P.stock["objcg"][0] == 4 and run.S.memcg["nr_charged_bytes"][3] > 0


@of_every_design
def test_deletion(name, allocator):
    run = Run(name)
    run.warm()
    handles = run.alloc(10)
    run.empty_stocks()
    held = run.pages(3)
    run.event(ev.CG_OFFLINE, memcg=3)
    run.empty_stocks()
    g = run.S.memcg[3]
    zombie = bool(g["css_pages"] or g["css_refs"])
    if name in ("souhlal-2012-v1", "souhlal-2012-v2", "kamezawa-2012"):
        assert (run.pages(3), run.pages(2), zombie) == (0, 0, False)
        assert run.unaccounted(ev.CAUSE_REMOVED) == 10
    elif name in ("linux-3.8", "linux-4.5", "ubc-2006", "tcp-memcontrol"):
        assert (run.pages(3), run.pages(2), zombie) == (held, held, True)
    elif name == "costa-2012" and allocator == "slub":
        # full slabs, on no list, stay with the copy until an object of theirs is freed
        assert (run.pages(3), run.pages(2), zombie) == (2, held, True)
        assert run.S.memcg["billed_slab"][2] == 2 * 1024  # what the partial slab holds
        run.free(handles[:1])
        assert run.pages(3) == 1
    else:
        assert (run.pages(3), run.pages(2), zombie) == (0, held, False)
        assert run.S.memcg["billed_slab"][2] == 10 * 1024
    run.wait()
    run.free(handles)
    run.event(ev.SHRINK)
    for _ in range(3):
        run.wait()
    run.empty_stocks()
    assert not run.S.counter["usage"].any()
    assert not run.S.memcg["css_pages"].any() and not run.S.memcg["css_refs"][3]


@of_every_design
def test_ids(name, allocator):
    run = Run(name, memcg_ids=5, offline=("e",))
    run.warm()
    handles = run.alloc(4)
    run.event(ev.CG_OFFLINE, memcg=3)
    run.event(ev.CG_CREATE, memcg=5, arg=1)  # ids: the root, p, d and perhaps c
    run.S.k["max_ids"] = 4
    run.event(ev.CG_OFFLINE, memcg=5)
    pinned = name in ("linux-3.8", "linux-4.5", "ubc-2006", "tcp-memcontrol")
    pinned = pinned or (name == "costa-2012" and allocator == "slub")  # by its full slabs
    assert run.S.k["nr_ids"][0] == (4 if pinned else 3)
    run.free(handles)
    run.event(ev.SHRINK)
    run.wait()
    run.empty_stocks()
    assert run.S.k["nr_ids"][0] == 3


@of_every_design
def test_root(name):
    run = Run(name)
    run.alloc(8, memcg=1)
    run.wait()
    run.alloc(8, memcg=1)
    assert not run.S.counter["usage"].any() and run.S.unbilled["objects"].sum() == 16
    assert run.S.unbilled["objects"][0] == 16  # rightly nobody's


def test_root_accounted_by_the_option_of_souhlal_v1():
    run = Run("souhlal-2012-v1", parameters={"acct_root": True})
    run.alloc(8, memcg=1)
    assert run.pages(1) == 2 and run.S.memcg["billed_slab"][1] == 8 * 1024


def test_all_ids_taken_by_zombies():
    """65535 ids: one thread stack each keeps 65534 removed groups of Linux 3.8 alive."""
    groups = 65535
    specs = tuple(kmbench_group(row) for row in range(groups))
    setup = Run.setup([slabs_of()], specs, memory_pages=1 << 19)
    sim = kmbench.Simulation(setup, PLUGINS.strategy("linux-3.8"))
    events = np.zeros((groups, 3), ev.EVENT)
    events["memcg"] = np.arange(2, groups + 2)[:, None]
    events["op"] = ev.CG_CREATE, ev.PAGE_ALLOC, ev.CG_OFFLINE
    events["arg"] = 1, 2, 0
    events["cache"][:, 1] = ev.PAGES_STACK
    events["gfp"], events["t"] = ev.GFP_KERNEL, MS
    events["obj"][:, 1] = np.arange(1, groups + 1)
    sim.feed(events.ravel())
    assert (sim.S.k["nr_no_id"][0], sim.S.k["nr_ids"][0]) == (1, 65535)
    assert sim.S.fail["cause"][0] == ev.FAIL_NO_ID
    free = np.zeros(1, ev.EVENT)
    free["op"], free["obj"], free["t"] = ev.PAGE_FREE, 1, MS
    sim.feed(free)
    assert sim.S.k["nr_ids"][0] == 65534


def kmbench_group(row):
    """A group that comes later."""
    return kmbench.core.setup.GroupSpec(f"g{row}", online=False)
