"""The reference model: takes events one by one, and shows its state in terms without ids."""

from collections import Counter, deque

from kmbench.core import events as ev

from .buddy import Buddy
from .memcg import ROOT, Groups, State
from .objcg import Linux59, Linux618
from .objects import Call, Obj, Vector, freed_by
from .observe import check, snapshot
from .reclaim import Vm
from .slab import CPU_SHIFT, REAP_EVERY, SlabCache
from .slub import Cache, Slab, Where
from .strategies import Costa2012, NoAccounting
from .strategies_bytes import TcpMemcontrol, Ubc2006
from .strategies_pages import (
    Kamezawa2012,
    Linux38,
    Linux45,
    Linux53,
    Souhlal2012V1,
    Souhlal2012V2,
)

STRATEGIES = {
    "none": NoAccounting,
    "costa-2012": Costa2012,
    "kamezawa-2012": Kamezawa2012,
    "souhlal-2012-v1": Souhlal2012V1,
    "souhlal-2012-v2": Souhlal2012V2,
    "ubc-2006": Ubc2006,
    "tcp-memcontrol": TcpMemcontrol,
    "linux-3.8": Linux38,
    "linux-4.5": Linux45,
    "linux-5.3": Linux53,
    "linux-5.9": Linux59,
    "linux-6.18": Linux618,
}


class Reference:
    """The simulated kernel.

    ``setup`` is a kmbench.core.setup.Setup, ``strategy`` a name of STRATEGIES, ``params`` its
    parameters and ``seed`` the run's seed (it picks the victims of the page stock).  ``memory``, a
    kmbench.memory.Memory, has it model reclaim.
    """

    def __init__(
        self, setup, strategy: str, params: dict | None = None, seed: int = 0, memory=None
    ):
        self.machine = setup.machine
        self.buddy = Buddy(self.machine.memory_pages, self.machine.nodes)
        self.groups = Groups(setup.groups, self)
        self.era = setup.era
        self.now = 0
        self.visits = {}  # CPU -> the shared line it used last (memcg.Line)
        self.kind = SlabCache if setup.allocator == "slab" else Cache
        self.nr_caches = 0
        self.root_caches = [self._make_cache(spec) for spec in setup.caches]
        self.caches = list(self.root_caches)
        self.copies = {}  # (root cache name, group row) -> Cache
        self.objects = {}  # handle -> Obj
        self.internal = deque()  # (what to do, Vector), after the event
        self.internal_objects = set()
        self.rcu = deque()  # (due, cpu, Slab): pages that wait for a grace period
        self.discarded = []  # slabs whose pages go back after the event
        self.works = deque()  # (due, what to call): deferred work
        self.counters = Counter(skipped=0, failed_allocs=0, internal_allocs=0, no_id=0)
        self.failures = Counter()
        self.next_reap = (REAP_EVERY, 0, 0) if setup.allocator == "slab" else None
        self.cpu = 0
        self.threads = {}  # task -> group of the owner of its mm, which stayed there
        self.call = Call(0, 0, 0)  # who allocates at the moment
        self.fail = 0  # why the last allocation failed, FAIL_*
        self.ids = {group.row for group in self.groups if group.state is State.ONLINE}
        self.strategy = STRATEGIES[strategy](self, params or {}, seed)
        self.vm = Vm(self, setup, memory, strategy, params or {}) if memory else None
        self._adopt(setup)

    def _make_cache(self, spec, owner=0):
        self.nr_caches += 1
        return self.kind(spec, self, self.era, self.machine, owner, number=self.nr_caches)

    def _adopt(self, setup) -> None:
        """Put the slabs and objects of the start where they were."""
        slabs = []
        for row in setup.initial_slabs:
            cache, cpu = self.root_caches[int(row["cache"]) - 1], int(row["cpu"])
            spec, objects = cache.spec, int(row["objects"])
            order = spec.order if objects == spec.objects else spec.min_order
            block = self.buddy.alloc(cpu, order)
            assert block is not None, "the initial slabs do not fit into memory"
            slab = Slab(cache, block, objects)
            slab.inuse = slab.unknown = int(row["inuse"])
            cache.slabs.append(slab)
            slabs.append(slab)
            if setup.allocator == "slab":
                cache.attach(slab)
                if spec.management:
                    self.need_management(slab, existing=True)
                continue
            slab.where = Where(int(row["where"]))
            if slab.where is Where.CPU:
                cache.cpus[cpu].slab = slab
                cache.cpus[cpu].free = int(row["cpu_free"])
            elif slab.where is Where.CPU_PARTIAL:
                cache.cpus[cpu].partial.append(slab)
            elif slab.where is Where.NODE_PARTIAL:
                cache.node_partial[slab.node].append(slab)
        if setup.allocator == "slub":
            for c in (c for cache in self.root_caches for c in cache.cpus):
                free = 0
                for slab in reversed(c.partial):
                    free += slab.free
                    slab.pobjects = free
        for row in setup.initial_sheaves:
            c = self.root_caches[int(row["cache"]) - 1].cpus[row["cpu"]]
            slab = slabs[row["slab"] - 1]
            (c.spare if row["spare"] else c.main).append(slab)
            slab.unknown -= 1
        for row in setup.initial_objects:
            slab = slabs[row["slab"] - 1]
            owner = int(row["owner"])
            billed = -ev.CAUSE_NOT_SELECTED if owner > ROOT else 0
            slab.unknown -= 1
            self.objects[int(row["obj"])] = Obj(owner, billed, slab=slab, nbytes=int(row["req"]))
        for row, slab in zip(setup.initial_slabs, slabs, strict=True):
            if self.strategy.has_vectors and row["vector"]:
                self.need_vector(slab, existing=True)

    # -- events ----------------------------------------------------------------------------

    def step(self, event) -> None:
        """Process one record of kmbench.core.events.EVENT."""
        self._run_timers(int(event["t"]))
        self.now, self.cpu = int(event["t"]), int(event["cpu"])
        owner, task = int(event["memcg"]), int(event["task"])
        call = Call(self.cpu, self._charged(task, owner), int(event["gfp"]))
        obj, arg, row = int(event["obj"]), int(event["arg"]), int(event["cache"])
        op = int(event["op"])
        if op == ev.ALLOC:
            cache = self.root_caches[row - 1]
            self._alloc(owner, obj, lambda: self._alloc_object(call, cache, arg))
        elif op == ev.PAGE_ALLOC:
            self._alloc(owner, obj, lambda: self._alloc_pages(call, arg, row))
        elif op == ev.PERCPU_ALLOC:
            call = call._replace(memcg=owner)
            self._alloc(owner, obj, lambda: self._alloc_percpu(call, arg))
        elif op == ev.ATTACH:
            self.threads[task] = arg if row else 0
        elif op in (ev.FREE, ev.PAGE_FREE, ev.PERCPU_FREE):
            self._free(op, obj)
        elif op == ev.CG_CREATE:
            self._cg_create(owner, arg)
        elif op == ev.CG_OFFLINE:
            self._cg_change(owner, State.ONLINE, State.OFFLINE)
        elif op == ev.CG_RELEASE:
            self._cg_change(owner, State.OFFLINE, State.RELEASED)
        elif op == ev.LIMIT_WRITE:
            self._limit_write(owner, row, arg)
        elif op == ev.SHRINK:
            for cache in [self.root_caches[row - 1]] if row else list(self.caches):
                cache.shrink(self.cpu)
        elif self.vm and op >= ev.MARK and op != ev.FLUSH:
            self.vm.event(op, call, obj, row, arg)
        self._after_event()

    def _charged(self, task, row) -> int:
        """The group that a task's memory is charged to."""
        owner = self.threads.get(task, 0) if self.strategy.by_mm else 0
        here = owner == ROOT or (owner and self.groups[owner].state is State.ONLINE)
        return owner if here else row

    def _alloc(self, owner, handle, allocate) -> None:
        """Any allocation: ``allocate`` returns an Obj, or None after setting ``fail``."""
        if handle in self.objects:
            self.counters["skipped"] += 1
            return
        self.fail = ev.FAIL_NO_GROUP
        obj = allocate() if self.groups.exists(owner) else None
        if obj is None:
            self.counters["failed_allocs"] += 1
            self.failures[ev.FAIL_NAMES[self.fail]] += 1
            if self.vm:
                self.vm.note_failure(owner, self.fail)
        else:
            self.adopt(handle, obj, owner)

    def adopt(self, handle, obj, owner) -> None:
        """The owner of a new object is known; the root's nobody need pay for."""
        obj.owner = owner
        if owner <= ROOT and obj.billed < 0:
            obj.billed = 0
        elif owner > ROOT and obj.billed == 0:
            obj.billed = -ev.CAUSE_NOT_SELECTED
        self.objects[handle] = obj

    def _free(self, op, handle) -> None:
        obj = self.objects.get(handle)
        refused = obj is not None and obj.slab and self.vm and op == ev.FREE
        if obj is None or op != freed_by(obj) or (refused and not self.vm.may_free(handle)):
            self.counters["skipped"] += 1
            return
        if obj.slab:
            del self.objects[handle]
            self._free_object(obj)
        else:
            self.drop(handle, obj)

    def drop(self, handle, obj) -> None:
        """Free something live that is no slab object."""
        del self.objects[handle]
        if obj.block:
            self.strategy.pages_free(self.cpu, obj)
            self.buddy.give_back(obj.block)
        else:
            self.strategy.percpu_free(self.cpu, obj)

    def _alloc_object(self, call, cache, nbytes) -> Obj | None:
        strategy, self.call = self.strategy, call
        may_go_on, charged = strategy.pre_alloc(call, cache)
        if not may_go_on:
            self.fail = ev.FAIL_LIMIT
            return None
        cache, billed = strategy.select(call, cache)
        if charged is not None:
            billed = charged
        slab = cache.alloc(call.cpu, bool(call.gfp & ev.GFP_DIRECT_RECLAIM))
        if slab is None:
            strategy.alloc_failed(call, cache, billed)
            return None
        keep, billed = strategy.post_alloc(call, cache, slab, billed)
        if not keep:
            self.fail = ev.FAIL_LIMIT
            # the slab's vector comes first, then memcg_alloc_abort_single: past the sheaves
            self.internal.append(("abort", slab))
            return None
        return Obj(call.memcg, billed, slab=slab, nbytes=nbytes or cache.spec.object_size)

    def _free_object(self, obj) -> None:
        self.strategy.before_free(obj)
        self.strategy.obj_free(self.cpu, obj)
        obj.slab.cache.release(self.cpu, obj.slab)

    def free_past_sheaves(self, obj) -> None:
        """Free an object in the middle of another operation; it goes straight to its slab."""
        self.strategy.before_free(obj)
        self.strategy.obj_free(self.cpu, obj)
        obj.slab.cache.free_to_slab(self.cpu, obj.slab)

    def get_block(self, cpu, order, gfp):
        """2**order pages, or None."""
        return self.vm.get_block(cpu, order, gfp) if self.vm else self.buddy.alloc(cpu, order)

    def _alloc_pages(self, call, order, kind) -> Obj | None:
        block = self.get_block(call.cpu, order, call.gfp)
        if block is None:
            self.fail = ev.FAIL_PAGES
            return None
        keep, billed = self.strategy.pages_alloc(call, block.pages, kind)
        if not keep:
            self.buddy.give_back(block)
            self.fail = ev.FAIL_LIMIT
            return None
        return Obj(call.memcg, billed, block=block)

    def _alloc_percpu(self, call, nbytes) -> Obj | None:
        keep, billed = self.strategy.percpu_alloc(call, nbytes)
        if not keep:
            self.fail = ev.FAIL_LIMIT
            return None
        return Obj(call.memcg, billed, nbytes=nbytes)

    def _cg_create(self, row, parent) -> None:
        if self.groups[row].state is not State.ABSENT:
            self.counters["skipped"] += 1
            return
        if len(self.ids) >= self.machine.memcg_ids:
            self.counters["no_id"] += 1
            return
        self.ids.add(row)
        self.groups.bring_up(row, parent or self.groups[row].spec.parent)
        self.strategy.cg_create(row)

    def _cg_change(self, row, old, new) -> None:
        if row <= ROOT or self.groups[row].state is not old:
            self.counters["skipped"] += 1
            return
        self.groups[row].state = new
        if new is State.OFFLINE:
            self.strategy.cg_offline(row, self.cpu)
            if self.vm:
                self.vm.group_gone(row)
            if not self.strategy.zombies_hold_ids:
                self.ids.discard(row)

    def _limit_write(self, row, which, limit) -> None:
        if row <= ROOT or self.groups[row].state is not State.ONLINE:
            self.counters["skipped"] += 1
            return
        group = self.groups[row]
        counter = group.kmem if which == ev.COUNTER_KMEM else group.memory
        counter.limit = limit
        self.strategy.limit_write(row, which, limit)

    # -- what the caches and the strategies ask for ----------------------------------------

    def new_slab(self, cache, cpu) -> Slab | None:
        """A slab of the preferred order, else of the smallest; a charge may fail it, too."""
        spec, strategy = cache.spec, self.strategy
        for order in dict.fromkeys((spec.order, spec.min_order)):
            self.fail = ev.FAIL_LIMIT
            if not strategy.before_slab(cache, order):
                continue
            gfp = self.call.gfp
            if order != spec.min_order:  # allocate_slab tries the large order without reclaim
                gfp &= ~(ev.GFP_NOFAIL | ev.GFP_DIRECT_RECLAIM | ev.GFP_KSWAPD_RECLAIM)
            block = self.get_block(cpu, order, gfp)
            if block is None:
                strategy.no_pages(cache, order)
                self.fail = ev.FAIL_PAGES
                continue
            slab = Slab(cache, block, (self.machine.page_size << block.order) // spec.size)
            if strategy.slab_new(cache, slab):
                return slab
            self.buddy.give_back(block)
            if not strategy.tries_smaller:
                break
        return None

    def discard_slab(self, slab) -> None:
        if slab.cache.spec.flags & ev.SLAB_TYPESAFE_BY_RCU:
            self.rcu.append((self.now + self.machine.rcu_delay_ns, self.cpu, slab))
        else:
            self.discarded.append(slab)

    def _release_slab(self, slab) -> None:
        self.strategy.slab_gone(slab)
        for record in (slab.vector, slab.management):
            if record:
                self.internal.append(("free", record))
        self.buddy.give_back(slab.block)

    def schedule_work(self, what) -> None:
        """``what()`` runs on CPU 0 after the strategy's delay."""
        self.works.append((self.now + self.strategy.work_delay, what))

    def defer_work(self, what) -> bool:
        """The same for an item that needs memory; False when there is none left."""
        if self.buddy.free_pages() == 0:
            self.counters["work_lost"] += 1
            return False
        self.schedule_work(what)
        return True

    def need_vector(self, slab, existing=False) -> None:
        """``existing``: the vector was there at the start, so it is not allocated any more."""
        if slab.vector is None:
            slab.vector = Vector(8 * slab.objects)
            if not existing:
                self.internal.append(("alloc", slab.vector))

    def need_management(self, slab, existing=False) -> None:
        """A slab of SLAB keeps its management outside."""
        slab.management = Vector(slab.cache.spec.management, self_contained=True)
        if not existing:
            self.internal.append(("alloc", slab.management))

    def _reap(self) -> None:
        """SLAB's cache_reap of one CPU; the CPUs have their turns one after the other."""
        self.now, self.cpu, round_ = self.next_reap
        for cache in self.caches:
            if not cache.destroyed:
                cache.reap(self.cpu, round_)
        cpus = self.machine.cpus
        cpu, round_ = (self.cpu + 1) % cpus, round_ + (self.cpu + 1) // cpus
        shift = min(CPU_SHIFT, REAP_EVERY // cpus)
        self.next_reap = ((round_ + 1) * REAP_EVERY + cpu * shift, cpu, round_)

    def _run_timers(self, until) -> None:
        """Grace periods that end, work and reaping that are due: by time, then in this order."""
        while True:
            due = [queue[0][0] for queue in (self.rcu, self.works) if queue]
            due += self.next_reap[:1] if self.next_reap else []
            kswapd = self.vm.kswapd_due if self.vm else None
            if kswapd is not None and kswapd <= until and kswapd < min(due, default=kswapd + 1):
                self.now, self.cpu = kswapd, 0
                self.vm.kswapd()
                self._after_event()
                continue
            if not due or min(due) > until:
                return
            if self.rcu and self.rcu[0][0] == min(due):
                self.now, self.cpu, slab = self.rcu.popleft()
                self._release_slab(slab)
            elif self.works and self.works[0][0] == min(due):
                self.now, what = self.works.popleft()
                self.cpu = 0
                what()
            else:
                self._reap()
            self._after_event()

    def _after_event(self) -> None:
        """Discarded slabs give their pages back, then the kernel's own operations run."""
        self._settle()
        self._free_ids()
        self._run_internal()
        self._free_ids()

    def pinned(self, row) -> int:
        """What keeps a group alive once it is removed."""
        return self.strategy.pinned(row) + (self.vm.pinned(row) if self.vm else 0)

    def _free_ids(self) -> None:
        """Removed groups that nothing keeps alive have no id any more."""
        for row in list(self.ids):
            if self.groups[row].state is not State.ONLINE and not self.pinned(row):
                self.ids.remove(row)

    def _settle(self) -> None:
        while self.discarded:
            self._release_slab(self.discarded.pop(0))

    def _run_internal(self) -> None:
        while self.internal:
            what, vector = self.internal.popleft()
            if what == "free":
                if vector.obj:
                    self.internal_objects.remove(vector.obj)
                    self._free_object(vector.obj)
                    self._settle()
                continue
            if what == "abort":
                vector.cache.free_to_slab(self.cpu, vector)
                self._settle()
                continue
            for cache in self.root_caches:
                if vector.cache_name != cache.spec.name:
                    continue
                if vector.self_contained and cache.spec.management:
                    continue
                self.counters["internal_allocs"] += 1
                vector.obj = self._alloc_object(Call(self.cpu, 0, 0), cache, vector.bucket)
                if vector.obj:
                    self.internal_objects.add(vector.obj)

    def add_copy(self, cache, row) -> Cache:
        copy = self._make_cache(cache.spec, row)
        self.copies[cache.spec.name, row] = copy
        self.caches.append(copy)
        return copy

    def root_cache(self, cache):
        return next(root for root in self.root_caches if root.spec is cache.spec)

    def all_slabs(self) -> list[Slab]:
        """Slabs that hold pages: also those which wait for a grace period."""
        return [slab for cache in self.caches for slab in cache.slabs] + [
            *(slab for *_, slab in self.rcu),
            *self.discarded,
        ]

    # -- what comes out --------------------------------------------------------------------

    def observe(self) -> dict:
        """A snapshot that another implementation can be compared with; see the package."""
        return snapshot(self)

    def check(self) -> None:
        """Assert that nothing was lost: pages, objects, lists and charges add up."""
        check(self)
