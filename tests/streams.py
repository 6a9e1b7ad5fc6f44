"""Random machines and event streams for comparing two implementations of the model.

One generator serves a seeded numpy source (:func:`seeded_case`) and hypothesis (:func:`cases`).
Slabs are small and limits tight, so that lists overflow, charges fail and memory runs out within
some hundred events.
"""

import numpy as np
from hypothesis import strategies as st

from kmbench.core import events as ev
from kmbench.core.setup import (
    INITIAL_OBJECT,
    INITIAL_SHEAF,
    INITIAL_SLAB,
    CacheSpec,
    GroupSpec,
    Machine,
    Setup,
)
from kmbench.core.slab_geometry import on_slab

ERAS = ("3.5", "3.13", "4.19", "5.9", "6.12", "6.18")
STRATEGIES = (
    ("none", {}),
    ("costa-2012", {"caches": ["dentry", "filp"]}),
    ("costa-2012", {"caches": ["dentry"], "independent": False, "object_growth": 24}),
    ("souhlal-2012-v1", {}),
    ("souhlal-2012-v1", {"independent": True, "charge_to_root": True}),
    ("souhlal-2012-v1", {"charge_to_root": True}),
    ("souhlal-2012-v2", {}),
    ("kamezawa-2012", {}),
    ("ubc-2006", {}),
    ("tcp-memcontrol", {"caches": ["names"]}),
    ("linux-3.8", {}),
    ("linux-3.8", {"all_groups": False, "noaccount": True}),
    ("linux-4.5", {}),
    ("linux-4.5", {"as_posted": True}),
    ("linux-5.3", {}),
    ("linux-5.9", {}),
    ("linux-5.9", {"as_posted": True}),
    ("linux-6.18", {}),
    ("linux-6.18", {"obj_slots": 2, "per_node": True}),
    ("linux-5.9", {"uncharge_to_stock": True}),
)
CPU, CPU_PARTIAL, NODE_PARTIAL, FULL = 1, 2, 3, 4  # field `where` of the initial slabs

ACCOUNT = ev.GFP_KERNEL_ACCOUNT
GFPS = (
    ACCOUNT,
    ACCOUNT,
    ACCOUNT,
    ev.GFP_KERNEL,
    ev.GFP_NOWAIT | ev.GFP_ACCOUNT,
    ev.GFP_ATOMIC | ev.GFP_ACCOUNT,
    ACCOUNT | ev.GFP_NOFAIL,
    ev.GFP_KERNEL | ev.GFP_NOACCOUNT,
)
CONTEXTS = (ev.CTX_HARDIRQ, ev.CTX_SOFTIRQ, ev.CTX_KTHREAD, ev.CTX_DYING, ev.CTX_MEMALLOC)


class Chooser:
    """Draws from ``integer(low, high)``, both ends included; small numbers are the simple ones."""

    def __init__(self, integer):
        self.integer = integer

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent

    def pick(self, choices):
        return choices[self.integer(0, len(choices) - 1)]


def seeded_chooser(seed: int) -> Chooser:
    """A source that depends on ``seed`` alone."""
    rng = np.random.default_rng(seed)
    return Chooser(lambda low, high: int(rng.integers(low, high + 1)))


# -- setups --------------------------------------------------------------------------------


def _cache(choose, name, shapes, flags, era) -> CacheSpec:
    size, order, min_order = choose.pick(shapes)
    return CacheSpec(
        name=name,
        size=size,
        object_size=size - choose.pick((0, 8)),
        order=order,
        objects=(4096 << order) // size,
        min_order=min_order,
        min_partial=choose.pick((1, 0, 2, 5)),
        cpu_partial=choose.pick((2, 0, 6, 13)),
        cpu_partial_slabs=choose.pick((2, 0, 1, 3)),
        sheaf_capacity=choose.pick((0, 0, 1, 2, 4)) if era == "6.18" else 0,
        flags=flags,
    )


def _caches(choose, era) -> tuple[CacheSpec, ...]:
    big = ((1024, 0, 0), (2048, 0, 0), (1360, 0, 0), (2048, 1, 0), (4096, 1, 0), (1024, 1, 0))
    caches = [
        _cache(choose, "dentry", big, ev.SLAB_ACCOUNT | ev.SLAB_RECLAIM_ACCOUNT, era),
        _cache(choose, "filp", big, ev.SLAB_ACCOUNT | ev.SLAB_TYPESAFE_BY_RCU, era),
        _cache(choose, "names", big, choose.pick((0, ev.SLAB_TYPESAFE_BY_RCU)), era),
    ]
    for bucket in ("16", "32", "64"):  # where the vectors of these slabs come from
        if choose.chance(50):
            spec = _cache(choose, f"kmalloc-{bucket}", big, ev.SLAB_KMALLOC, era)
            caches.append(spec._replace(sheaf_capacity=0))
    return tuple(caches)


def _groups(choose, crowded) -> tuple[GroupSpec, ...]:
    """A tree three deep; ``crowded``: more groups than the page stock of 6.18 has slots."""
    groups = [GroupSpec("/", parent=0)]
    depth = [0]
    for row in range(2, 14 if crowded else 3 + choose.integer(0, 5)):
        parent = choose.integer(1, row - 1)
        while depth[parent - 1] == 3:
            parent = groups[parent - 1].parent
        depth.append(depth[parent - 1] + 1)
        online = groups[parent - 1].online and (crowded or not choose.chance(30))
        limits = (-1, -1) if crowded else (_limit(choose), _limit(choose))
        groups.append(GroupSpec(f"g{row}", parent, *limits, online=online))
    return tuple(groups)


def _limit(choose) -> int:
    """Pages; often unlimited, sometimes less than one slab."""
    return choose.pick((-1, -1, -1, 400, 100, 40, 10, 3, 1, 0))


def random_setup(choose: Chooser, initial: bool = True) -> Setup:
    """A small machine; ``initial`` allows slabs and objects at the start."""
    era = choose.pick(ERAS)
    crowded = choose.chance(25)
    machine = Machine(
        cpus=1 if crowded else choose.integer(1, 4),
        nodes=choose.integer(1, 2),
        memory_pages=choose.pick((3000, 1 << 14, 300, 101, 64, 30)),
    )
    caches, groups = _caches(choose, era), _groups(choose, crowded)
    online = sum(group.online for group in groups)
    machine = machine._replace(memcg_ids=online + choose.pick((65535, 0, 0)))
    if choose.chance(20):
        caches = caches[:1]  # all objects in one cache: its lists and sheaves fill up
    setup = Setup(machine, era, caches, groups, nr_objects=choose.pick((30, 120, 300)))
    if initial and machine.memory_pages >= 3000 and choose.chance(40):
        setup = _with_initial(choose, setup)
    return setup


def _with_initial(choose, setup) -> Setup:
    slabs, objects, sheaves = [], [], []
    handle = 1
    owners = [row for row, group in enumerate(setup.groups, 1) if group.online]
    for row, spec in enumerate(setup.caches, 1):
        with_cpu_slab = set()
        for _ in range(choose.integer(0, 6)):
            where, cpu = choose.integer(CPU, FULL), choose.integer(0, setup.machine.cpus - 1)
            if (where == CPU and cpu in with_cpu_slab) or (where != FULL and spec.objects == 1):
                where = FULL
            limit = spec.cpu_partial and spec.cpu_partial_slabs
            partial = [s for s in slabs if s[0] == row and s[4:6] == (CPU_PARTIAL, cpu)]
            if where == CPU_PARTIAL and len(partial) >= min(limit, spec.cpu_partial_slabs):
                where = NODE_PARTIAL
            small = choose.chance(20)
            n = (4096 << spec.min_order) // spec.size if small else spec.objects
            if n == 1:
                where = FULL
            inuse = n if where == FULL else choose.integer(0, n - 1)
            cpu_free = choose.integer(0, n - inuse) if where == CPU else 0
            if where == CPU:
                with_cpu_slab.add(cpu)
            slabs.append((row, n, inuse, cpu_free, where, cpu, choose.chance(50)))
            for _ in range(choose.integer(0, inuse)):
                held = [s for s in sheaves if s[0] == row and s[2] == cpu]
                if len(held) < spec.sheaf_capacity and choose.chance(30):
                    sheaves.append((row, len(slabs), cpu, 0))
                elif handle < setup.nr_objects // 2:
                    owner = choose.pick(owners)
                    objects.append((handle, len(slabs), owner, spec.object_size))
                    handle += 1
    return setup._replace(
        initial_slabs=np.array(slabs, INITIAL_SLAB),
        initial_objects=np.array(objects, INITIAL_OBJECT),
        initial_sheaves=np.array(sheaves, INITIAL_SHEAF),
    )


def to_slab(setup: Setup, events: np.ndarray, seed: int) -> tuple[Setup, np.ndarray]:
    """The same stream on SLAB, slower, so that caches are reaped, with small arrays."""
    choose = seeded_chooser(seed)
    setup = on_slab(setup)
    caches = []
    for cache in setup.caches:
        limit = choose.pick((4, 1, 2, 7, 20, cache.limit))
        batch = choose.integer(1, limit)
        shared = batch * choose.pick((1, 0, 2, 8))
        caches.append(cache._replace(limit=limit, batchcount=batch, shared_limit=shared))
    events = events.copy()
    events["t"] *= choose.pick((10, 1, 100))
    return setup._replace(caches=tuple(caches)), events


def then_freed(events: np.ndarray, cpus: int) -> np.ndarray:
    """The stream and then a free of everything it allocated, on CPUs in turn: lists fill up."""
    made = events[events["op"] == ev.ALLOC]
    frees = made.copy()
    frees["op"], frees["gfp"], frees["cache"], frees["arg"] = ev.FREE, 0, 0, 0
    frees["t"] = events["t"][-1] if len(events) else 0
    frees["cpu"] = np.arange(len(frees)) // 8 % cpus
    return np.concatenate([events, frees])


# -- events --------------------------------------------------------------------------------

FREE_OF = {ev.ALLOC: ev.FREE, ev.PAGE_ALLOC: ev.PAGE_FREE, ev.PERCPU_ALLOC: ev.PERCPU_FREE}


class StreamWriter:
    """Writes events that mostly make sense, by keeping the book of what should be live."""

    def __init__(self, choose: Chooser, setup: Setup):
        self.choose = choose
        self.setup = setup
        self.t = 0
        self.live = {int(row["obj"]): ev.ALLOC for row in setup.initial_objects}
        self.unused = [h for h in range(setup.nr_objects - 1, 0, -1) if h not in self.live]
        # True: online, False: not created yet, None: removed, "released"
        self.state = {row: g.online for row, g in enumerate(setup.groups, 1)}
        self.parent = {row: g.parent for row, g in enumerate(setup.groups, 1)}
        self.growing = True
        self.focus = None  # (cpu, memcg, cache) of a burst

    def write(self, count: int) -> np.ndarray:
        """``count`` records of EVENT."""
        events = np.zeros(count, ev.EVENT)
        for event in events:
            self.t += self.choose.pick((1000, 0, 10, 100_000, 3_000_000, 25_000_000))
            event["t"] = self.t
            event["cpu"] = self.choose.integer(0, self.setup.machine.cpus - 1)
            event["memcg"] = self.choose.pick(self._tasks_groups())
            event["task"] = self.choose.integer(1, 5)
            self._fill(event)
        return events

    def _tasks_groups(self) -> list[int]:
        """Groups that tasks may be in: all that exist, also removed ones."""
        return [row for row, state in self.state.items() if state in (True, None)]

    def _fill(self, event) -> None:
        choose = self.choose
        if choose.chance(2):
            self.growing = not self.growing
        if choose.chance(10):
            self.focus = None
            if choose.chance(70):
                row = choose.integer(1, len(self.setup.caches))
                self.focus = (int(event["cpu"]), int(event["memcg"]), row)
        if choose.chance(7):
            self._control(event)
        elif not self.live or choose.chance(80 if self.growing else 25):
            self._allocate(event)
        else:
            self._free(event)

    def _allocate(self, event) -> None:
        choose = self.choose
        kind = choose.pick((ev.ALLOC,) * 9 + (ev.PAGE_ALLOC, ev.PERCPU_ALLOC))
        event["op"] = kind
        event["gfp"] = choose.pick(GFPS) | (choose.pick(CONTEXTS) if choose.chance(15) else 0)
        if kind == ev.ALLOC:
            event["cache"] = choose.integer(1, len(self.setup.caches))
            event["arg"] = choose.pick((0, 1, 8))
            if self.focus and choose.chance(85):
                event["cpu"], event["memcg"], event["cache"] = self.focus
        elif kind == ev.PAGE_ALLOC:
            event["cache"] = choose.integer(0, len(ev.PAGE_KINDS) - 1)
            event["arg"] = choose.pick((0, 0, 0, 1, 1, 2, 5, 0, 7))
        else:
            event["arg"] = choose.pick((8, 64, 500, 4096, 5000, 20_000))
        if not self.unused or choose.chance(1):
            event["obj"] = choose.integer(1, self.setup.nr_objects - 1)  # perhaps a live one
        else:
            event["obj"] = self.unused.pop()
        if int(event["obj"]) not in self.live:
            self.live[int(event["obj"])] = kind
            if int(event["obj"]) in self.unused:
                self.unused.remove(int(event["obj"]))

    def _free(self, event) -> None:
        choose = self.choose
        event["gfp"] = choose.pick(CONTEXTS) if choose.chance(10) else 0
        event["op"] = ev.FREE
        if self.focus and choose.chance(70):
            event["cpu"] = self.focus[0]
        if choose.chance(1):
            event["obj"] = choose.integer(1, self.setup.nr_objects - 1)  # perhaps not live
            if int(event["obj"]) not in self.live:
                return
        else:
            event["obj"] = choose.pick(list(self.live))
        handle = int(event["obj"])
        event["op"] = FREE_OF[self.live.pop(handle)]
        self.unused.append(handle)

    def _control(self, event) -> None:
        choose = self.choose
        absent = [row for row, state in self.state.items() if state is False]
        online = [row for row, state in self.state.items() if state is True and row > 1]
        removed = [row for row, state in self.state.items() if state is None]
        ops = (ev.SHRINK, ev.CG_CREATE, ev.CG_OFFLINE, ev.LIMIT_WRITE, ev.CG_RELEASE, ev.ATTACH)
        op = choose.pick(ops)
        event["op"] = op
        if op == ev.SHRINK:
            event["cache"] = choose.integer(0, len(self.setup.caches))
        elif op == ev.CG_CREATE and absent:
            row = choose.pick(absent)
            event["memcg"], event["arg"] = row, self.parent[row]
            if self.state[self.parent[row]] is True:
                self.state[row] = True
                return
            event["op"] = ev.MARK
        elif op == ev.CG_OFFLINE and online:
            row = choose.pick(online)
            event["memcg"] = row
            if any(self.state[child] is True for child, up in self.parent.items() if up == row):
                event["op"] = ev.MARK
                return
            self.state[row] = None
        elif op == ev.CG_RELEASE and removed and choose.chance(50):
            event["memcg"] = choose.pick(removed)
            self.state[int(event["memcg"])] = "released"
            self.focus = None
        elif op == ev.ATTACH:
            event["arg"] = choose.pick(self._tasks_groups())
            event["cache"] = choose.integer(0, 1)
        elif op == ev.LIMIT_WRITE and online:
            event["memcg"] = choose.pick(online)
            event["cache"] = choose.pick((ev.COUNTER_MEMORY, ev.COUNTER_KMEM))
            event["arg"] = _limit(choose)
        else:
            event["op"] = ev.SAMPLE


def wave_case(seed: int, waves: int = 4) -> tuple[Setup, np.ndarray]:
    """Waves of allocations and frees of one cache with sheaves: its barns fill up and overflow."""
    choose = seeded_chooser(seed)
    machine = Machine(
        choose.integer(1, 3), choose.integer(1, 2), memory_pages=choose.pick((3000, 40))
    )
    cache = _cache(choose, "dentry", ((1024, 0, 0), (512, 1, 0)), ev.SLAB_ACCOUNT, "6.18")
    cache = cache._replace(sheaf_capacity=choose.integer(1, 3))
    groups = (GroupSpec("/", parent=0), GroupSpec("g2", 1))
    setup = Setup(machine, "6.18", (cache,), groups, nr_objects=150)
    rows = []
    for _ in range(waves):
        cpus = [choose.integer(0, machine.cpus - 1) for _ in range(2)]
        handles = list(range(1, choose.integer(60, 150)))
        for handle in handles:
            gfp = choose.pick((ACCOUNT, ACCOUNT, ev.GFP_NOWAIT))
            rows.append((0, handle, 0, 2, gfp, 0, 1, ev.ALLOC, choose.pick(cpus)))
        while handles:
            handle = handles.pop(choose.integer(0, len(handles) - 1))
            rows.append((0, handle, 0, 2, 0, 0, 0, ev.FREE, choose.pick(cpus)))
        if choose.chance(30):
            rows.append((0, 0, 0, 1, 0, 0, 1, ev.SHRINK, cpus[0]))
    return setup, np.array(rows, ev.EVENT)


def teardown(setup: Setup, events: np.ndarray) -> np.ndarray:
    """Events that free every handle, remove every group, wait for RCU, and shrink every cache."""
    handles = np.arange(1, setup.nr_objects)
    t = int(events["t"][-1]) if len(events) else 0
    tail = []
    for op in (ev.FREE, ev.PAGE_FREE, ev.PERCPU_FREE):
        tail += [(t, handle, 0, 1, 0, 0, 0, op, 0) for handle in handles]
    for row in range(len(setup.groups), 1, -1):
        tail.append((t, 0, 0, row, 0, 0, 0, ev.CG_OFFLINE, 0))
    for _ in range(3):  # pages of the caches' vectors come free one round later
        t += 10 * setup.machine.rcu_delay_ns
        tail.append((t, 0, 0, 1, 0, 0, 0, ev.SHRINK, 0))
    tail.append((t + 10 * setup.machine.rcu_delay_ns, 0, 0, 1, 0, 0, 0, ev.SAMPLE, 0))
    return np.concatenate([events, np.array(tail, ev.EVENT)])


def seeded_case(seed: int, count: int = 400, initial: bool = True) -> tuple[Setup, np.ndarray]:
    """A setup and ``count`` events that depend on ``seed`` alone."""
    choose = seeded_chooser(seed)
    setup = random_setup(choose, initial)
    return setup, StreamWriter(choose, setup).write(count)


@st.composite
def cases(draw, max_events: int = 60, initial: bool = True):
    """Hypothesis strategy of (Setup, EVENT array)."""
    choose = Chooser(lambda low, high: draw(st.integers(low, high)))
    setup = random_setup(choose, initial)
    return setup, StreamWriter(choose, setup).write(draw(st.integers(1, max_events)))
