"""SLUB: one cache, its slabs, per-CPU state, node partial lists and sheaves.

An "object" is only the slab that it lies in: all objects of a slab are equal.  Rules are those of
Linux mm/slub.c of the era that the Setup names.
"""

from enum import Enum

from .memcg import Line

OBJECTS_ERAS = ("3.5", "3.8", "3.13", "4.19", "5.3", "5.9")  # cpu_partial counts objects
STRICT_DISCARD_ERAS = ("3.5", "3.8", "3.13")  # an empty slab goes when nr_partial > min_partial
FULL_SORT_ERAS = ("3.5", "3.8", "3.13")  # kmem_cache_shrink sorts the whole list
SHEAF_ERAS = ("6.18",)
SHRINK_PROMOTE_MAX = 32
MAX_FULL_SHEAVES = 10  # of one node's barn


class Where(Enum):
    """The list a slab is on."""

    CPU = 1
    CPU_PARTIAL = 2
    NODE_PARTIAL = 3
    FULL = 4
    GONE = 5


class Slab:
    """One slab; ``inuse`` counts the objects handed out or held by a sheaf."""

    def __init__(self, cache, block, objects):
        self.cache = cache
        self.block = block
        self.objects = objects
        self.inuse = 0
        self.where = Where.FULL
        self.pobjects = 0  # free objects of the CPU partial list from here on, when it was pushed
        self.charged = 0  # group whose counter holds these pages (page-grained strategies)
        self.vector = None  # the obj_cgroup vector
        self.management = None  # SLAB: what it keeps of itself outside
        self.unknown = 0  # objects that were in use at the start and never show in the stream

    @property
    def free(self) -> int:
        return self.objects - self.inuse

    @property
    def node(self) -> int:
        return self.block.node

    @property
    def shape(self) -> tuple[int, int]:
        return (self.objects, self.inuse)


class CpuCache:
    """What one CPU holds of one cache; partial lists have their head at index 0."""

    def __init__(self):
        self.slab = None
        self.free = 0  # objects of ``slab`` on the CPU's own freelist
        self.partial = []
        self.main = []  # sheaves: the last element is popped first
        self.spare = []


class Cache:
    """A kmem_cache.  ``host`` gives and takes slab pages; ``owner`` is the group of a copy."""

    def __init__(self, spec, host, era, machine, owner=0, number=0):
        self.spec = spec
        self.host = host
        self.owner = owner
        self.pays = owner  # the group that its slabs are charged to, 0: nobody
        self.dead = False  # its group was removed
        self.destroyed = False
        self.by_objects = era in OBJECTS_ERAS
        self.strict = era in STRICT_DISCARD_ERAS
        self.full_sort = era in FULL_SORT_ERAS
        self.capacity = spec.sheaf_capacity if era in SHEAF_ERAS else 0
        self.cpus = [CpuCache() for _ in range(machine.cpus)]
        self.node_partial = [[] for _ in range(machine.nodes)]
        self.list_lock = [Line(host) for _ in range(machine.nodes)]
        self.barns = [[] for _ in range(machine.nodes)]  # full sheaves, the newest last
        self.slabs = []  # every slab that is not discarded
        self.slabs_made = 0
        self.slabs_gone = 0

    @property
    def partial_limit(self) -> int:
        return self.spec.cpu_partial if self.by_objects else self.spec.cpu_partial_slabs

    # -- allocation ------------------------------------------------------------------------

    def alloc(self, cpu: int, may_block: bool) -> Slab | None:
        """The slab of a new object, from the sheaves or the slabs; None without memory."""
        if self.capacity:
            main = self._sheaf_to_pop(cpu, may_block)
            if main:
                return main.pop()
        return self.alloc_from_slab(cpu)

    def alloc_from_slab(self, cpu: int) -> Slab | None:
        """slab_alloc_node and ___slab_alloc."""
        c = self.cpus[cpu]
        if not c.free and not self._load_freelist(cpu):
            return None
        c.free -= 1
        c.slab.inuse += 1
        return c.slab

    def _load_freelist(self, cpu: int) -> bool:
        c = self.cpus[cpu]
        if c.slab:
            c.free = c.slab.free  # what other CPUs freed into it meanwhile
            if c.free:
                return True
            c.slab.where = Where.FULL
            c.slab = None
        if c.partial:
            slab = c.partial.pop(0)
        else:
            slab = self._get_partial(cpu) or self._new_slab(cpu)
        if slab is None:
            return False
        slab.where = Where.CPU
        c.slab = slab
        c.free = slab.free
        return True

    def _get_partial(self, cpu: int) -> Slab | None:
        local, *others = self.host.buddy.zonelist(cpu)
        if self.node_partial[local]:
            return self._get_partial_node(cpu, local)
        for node in others:
            if len(self.node_partial[node]) > self.spec.min_partial:
                return self._get_partial_node(cpu, node)
        return None

    def _get_partial_node(self, cpu: int, node: int) -> Slab:
        self.list_lock[node].write()
        partial = self.node_partial[node]
        first = partial.pop(0)
        taken = first.free if self.by_objects else 0
        if self.partial_limit == 0:
            return first
        while partial and taken <= self.partial_limit // 2:
            slab = partial.pop(0)
            self._push_cpu_partial(cpu, slab)
            taken += slab.free if self.by_objects else 1
        return first

    def _new_slab(self, cpu: int) -> Slab | None:
        slab = self.host.new_slab(self, cpu)
        if slab:
            self.slabs.append(slab)
            self.slabs_made += 1
        return slab

    # -- free ------------------------------------------------------------------------------

    def release(self, cpu: int, slab: Slab) -> None:
        """Free one object; sheaves take only objects of the CPU's own node."""
        if self.capacity and slab.node == self.host.buddy.local_node(cpu):
            self._sheaf_to_push(cpu).append(slab)
        else:
            self.free_to_slab(cpu, slab)

    def free_to_slab(self, cpu: int, slab: Slab) -> None:
        """do_slab_free and __slab_free."""
        c = self.cpus[cpu]
        slab.inuse -= 1
        if slab is c.slab:
            c.free += 1
        elif slab.where is Where.FULL:
            if self.partial_limit:
                self._put_cpu_partial(cpu, slab)
            else:
                self.list_lock[slab.node].write()
                self._put_node_partial(slab)
        elif slab.where is Where.NODE_PARTIAL and slab.inuse == 0:
            self.list_lock[slab.node].write()
            if self._is_surplus(slab):
                self.node_partial[slab.node].remove(slab)
                self._discard(slab)

    def _is_surplus(self, slab: Slab) -> bool:
        nr_partial = len(self.node_partial[slab.node])
        enough = nr_partial > self.spec.min_partial
        if not self.strict:
            enough = nr_partial >= self.spec.min_partial
        return slab.inuse == 0 and enough

    def _put_cpu_partial(self, cpu: int, slab: Slab) -> None:
        partial = self.cpus[cpu].partial
        if self.by_objects:
            over = bool(partial) and partial[0].pobjects > self.partial_limit
        else:
            over = len(partial) >= self.partial_limit
        if over:
            self._unfreeze_partials(cpu)
        self._push_cpu_partial(cpu, slab)

    def _push_cpu_partial(self, cpu: int, slab: Slab) -> None:
        partial = self.cpus[cpu].partial
        slab.pobjects = slab.free + (partial[0].pobjects if partial else 0)
        slab.where = Where.CPU_PARTIAL
        partial.insert(0, slab)

    def _unfreeze_partials(self, cpu: int) -> None:
        slabs, self.cpus[cpu].partial = self.cpus[cpu].partial, []
        node = None  # whose list_lock is held
        for slab in slabs:
            if slab.node != node:
                node = slab.node
                self.list_lock[node].write()
            self._put_node_partial(slab)

    def _put_node_partial(self, slab: Slab, head: bool = False) -> None:
        if self._is_surplus(slab):
            self._discard(slab)
            return
        slab.where = Where.NODE_PARTIAL
        partial = self.node_partial[slab.node]
        partial.insert(0 if head else len(partial), slab)

    def _discard(self, slab: Slab) -> None:
        assert slab.inuse == 0
        slab.where = Where.GONE
        self.slabs.remove(slab)
        self.slabs_gone += 1
        self.host.discard_slab(slab)

    # -- sheaves ---------------------------------------------------------------------------

    def _sheaf_to_pop(self, cpu: int, may_block: bool) -> list[Slab]:
        """__pcs_replace_empty_main: the main sheaf, empty when nothing could fill it."""
        c = self.cpus[cpu]
        if c.main:
            return c.main
        barn = self.barns[self.host.buddy.local_node(cpu)]
        if c.spare:
            c.main, c.spare = c.spare, c.main
        elif barn:
            c.main = barn.pop()
        elif may_block:
            while len(c.main) < self.capacity:
                slab = self.alloc_from_slab(cpu)
                if slab is None:
                    break
                c.main.append(slab)
        return c.main

    def _sheaf_to_push(self, cpu: int) -> list[Slab]:
        """__pcs_replace_full_main: a main sheaf with room for one object."""
        c = self.cpus[cpu]
        if len(c.main) < self.capacity:
            return c.main
        barn = self.barns[self.host.buddy.local_node(cpu)]
        if len(c.spare) < self.capacity:
            c.main, c.spare = c.spare, c.main
        elif len(barn) < MAX_FULL_SHEAVES:
            barn.append(c.main)
            c.main = []
        else:
            full, c.spare = c.spare, c.main
            c.main = []
            self._flush_sheaf(cpu, full)
        return c.main

    def _flush_sheaf(self, cpu: int, sheaf: list[Slab]) -> None:
        while sheaf:
            slab = sheaf.pop()
            self.free_to_slab(cpu, slab)

    def flush_sheaves(self, cpu: int) -> None:
        """The main and the spare sheaf of one CPU go back to the slabs; it does so itself."""
        called_on, self.host.cpu = self.host.cpu, cpu
        self._flush_sheaf(cpu, self.cpus[cpu].main)
        self._flush_sheaf(cpu, self.cpus[cpu].spare)
        self.host.cpu = called_on

    def flush_barn(self, node: int, cpu: int) -> None:
        """barn_shrink, running on ``cpu``: the newest full sheaf first."""
        while self.barns[node]:
            self._flush_sheaf(cpu, self.barns[node].pop())

    def parked(self) -> list[Slab]:
        """One entry for every object that a sheaf holds."""
        sheaves = [s for c in self.cpus for s in (c.main, c.spare)]
        sheaves += [sheaf for barn in self.barns for sheaf in barn]
        return [slab for sheaf in sheaves for slab in sheaf]

    # -- flush and shrink ------------------------------------------------------------------

    def flush_cpu(self, cpu: int) -> None:
        """flush_slab and unfreeze_partials: the slabs of one CPU go to the nodes."""
        c = self.cpus[cpu]
        if c.slab:
            slab, c.slab, c.free = c.slab, None, 0
            if slab.free:
                self._put_node_partial(slab, head=True)
            else:
                slab.where = Where.FULL
        self._unfreeze_partials(cpu)

    def flush_all(self, cpu: int) -> None:
        """Nothing stays in sheaves or with a CPU; called on ``cpu``."""
        for each in range(len(self.cpus)):
            self.flush_sheaves(each)
        for node in range(len(self.barns)):
            self.flush_barn(node, cpu)
        for each in range(len(self.cpus)):
            self.flush_cpu(each)

    def shrink(self, cpu: int) -> None:
        """kmem_cache_shrink, called on ``cpu``."""
        for each in range(len(self.cpus)):
            self.flush_sheaves(each)
            self.flush_cpu(each)
        for node in range(len(self.node_partial)):
            self.flush_barn(node, cpu)
            self._shrink_node(node)

    def _shrink_node(self, node: int) -> None:
        empty = [slab for slab in self.node_partial[node] if slab.inuse == 0]
        kept = [slab for slab in self.node_partial[node] if slab.inuse]
        if self.full_sort:
            kept = sorted(kept[::-1], key=lambda slab: -slab.inuse)
        else:
            # list_move to the head of a bucket turns the order inside the bucket round
            few_free = [slab for slab in reversed(kept) if slab.free <= SHRINK_PROMOTE_MAX]
            many_free = [slab for slab in kept if slab.free > SHRINK_PROMOTE_MAX]
            kept = sorted(few_free, key=lambda slab: slab.free) + many_free
        self.node_partial[node] = kept
        for slab in empty:
            self._discard(slab)

    def deactivate(self) -> None:
        """It keeps no slabs that it does not need."""
        self.spec = self.spec._replace(min_partial=0, cpu_partial=0, cpu_partial_slabs=0)

    def detach_all(self) -> list[Slab]:
        """Every slab of the node lists, off its list; full ones are on none."""
        slabs = [slab for partial in self.node_partial for slab in partial]
        self.node_partial = [[] for _ in self.node_partial]
        return slabs

    def attach(self, slab: Slab) -> None:
        self.node_partial[slab.node].append(slab)

    # -- what it shows ---------------------------------------------------------------------

    def snapshot(self) -> dict:
        """Shapes of slabs and lists; slabs are (objects, inuse)."""
        num_objs = sum(slab.objects for slab in self.slabs)
        partial_free = sum(slab.free for partial in self.node_partial for slab in partial)
        inuse = sum(slab.inuse for slab in self.slabs)
        return {
            "num_slabs": len(self.slabs),
            "num_objs": num_objs,
            "active_objs": num_objs - partial_free,
            "live": inuse - len(self.parked()),
            "node_partial": [[slab.shape for slab in partial] for partial in self.node_partial],
            "list_lock": [line.observe() for line in self.list_lock],
            "cpu_slab": [(*c.slab.shape, c.free) if c.slab else None for c in self.cpus],
            "cpu_partial": [[slab.shape for slab in c.partial] for c in self.cpus],
            "sheaves": [(len(c.main), len(c.spare)) for c in self.cpus],
            "barn_full": [len(barn) for barn in self.barns],
            "slabs_made": self.slabs_made,
            "slabs_gone": self.slabs_gone,
        }

    def check(self) -> None:
        """Lists and sheaves are what the slabs say."""
        placed = {Where.CPU: [c.slab for c in self.cpus if c.slab]}
        placed[Where.CPU_PARTIAL] = [slab for c in self.cpus for slab in c.partial]
        placed[Where.NODE_PARTIAL] = [slab for part in self.node_partial for slab in part]
        for where, slabs in placed.items():
            assert set(slabs) == {slab for slab in self.slabs if slab.where is where}
            assert len(set(slabs)) == len(slabs)
        for c in self.cpus:
            assert 0 <= c.free <= (c.slab.free if c.slab else 0)
            assert max(len(c.main), len(c.spare)) <= self.capacity
        for slab in self.slabs:
            assert slab.where is not Where.FULL or slab.free == 0
            assert slab.where not in (Where.CPU_PARTIAL, Where.NODE_PARTIAL) or slab.free
        for node, partial in enumerate(self.node_partial):
            assert all(slab.node == node for slab in partial)
