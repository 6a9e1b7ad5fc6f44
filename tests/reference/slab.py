"""SLAB: one cache with its arrays of free objects and its three lists of slabs per node.

Linux 3.5 mm/slab.c.  An "object" is the slab that it lies in, as in :mod:`reference.slub`; arrays
are Python lists whose end is the top, lists of slabs have their head at index 0.
"""

from .memcg import Line
from .slub import Slab, Where

HEAD = 48  # struct slab on x86_64
INDEX = 4  # kmem_bufctl_t
BUCKETS = (32, 64, 96, 128, 192, *(1 << shift for shift in range(8, 23)))  # of kmalloc
ALIENS = 12  # objects of each other node that a node may hold
FIRST_BATCH = 16  # of an array that was not used since it was reaped
SECOND = 10**9
REAP_EVERY = 2 * SECOND  # of a CPU
REAP_LISTS_EVERY = 4 * SECOND  # of a node of a cache
CPU_SHIFT = 12 * 10**6  # between the passes of two CPUs: 3 jiffies of 4 ms
CACHE_SHIFT = 4 * 10**6
TRIMS_ERAS = ("4.19", "5.3", "5.9", "5.16")  # 4.7 and later


def round_up(value: int, to: int) -> int:
    return -(-value // to) * to


def fit(size, align, order, off_slab, page_size, head=HEAD, index=INDEX) -> tuple[int, int]:
    """(objects of a slab of that order, bytes left over)."""
    room = page_size << order
    if off_slab:
        return room // size, room % size
    objects = (room - head) // (size + index) if room > head else 0
    while round_up(head + index * objects, align) + objects * size > room:
        objects -= 1
    return objects, room - objects * size - round_up(head + index * objects, align)


def index_of(page_size: int) -> int:
    """Bytes of a freelist_idx_t."""
    return 1 if page_size <= 4096 else 2


def layout(size, align=8, reclaimable=False, page_size=4096, small_machine=False, since="3.5"):
    """(objects, order, bytes of management outside the slab) of a cache; 3.5, 3.13 or 3.15."""
    head = HEAD if since == "3.5" else 0
    index = index_of(page_size) if since == "3.15" else INDEX
    off_slab = size >= page_size // (32 if since == "3.15" else 8)
    most = 256**index - 1 if since == "3.15" else 1 << 62
    found = None
    for order in range(11):
        objects, left = fit(size, align, order, off_slab, page_size, head, index)
        if objects == 0:
            continue
        if objects > most or (off_slab and objects > (size - head) // index):
            break
        found = (objects, order, left)
        wasteful = left * 8 > page_size << order
        if reclaimable or not wasteful or order >= (0 if small_machine else 1):
            break
    objects, order, left = found
    inside = not off_slab or left >= round_up(head + index * objects, align)
    return objects, order, 0 if inside else head + index * objects


def layout_4_6(size, object_size, rewritable, reclaimable=False, page_size=4096, small=False):
    """The same since 4.6: in a free object if it may be written, else outside, else behind."""
    index = index_of(page_size)

    def best(per_object, worth):
        """The last order looked at that will do."""
        kept = None
        for order in range(11):
            objects, left = divmod(page_size << order, size + per_object)
            if objects > 256**index - 1:
                break
            if objects == 0 or not worth(objects):
                continue
            kept = objects, order, left
            if reclaimable or order >= (0 if small else 1) or left * 8 <= page_size << order:
                break
        return kept

    def pays(objects):
        bucket = next(b for b in BUCKETS if b >= objects * index)
        return bucket <= object_size // 2

    if rewritable:
        kept = best(0, lambda objects: True)
        if kept and kept[0] * index <= object_size:
            return (*kept[:2], 0)
    kept = best(0, pays)
    if kept and kept[2] < kept[0] * index:
        return (*kept[:2], kept[0] * index)
    return (*best(index, lambda objects: True)[:2], 0)


def tunables(size, cpus, page_size=4096) -> tuple[int, int, int]:
    """What /proc/slabinfo shows: limit, batchcount, sharedfactor."""
    if size > 131072:
        limit = 1
    elif size > page_size:
        limit = 8
    elif size > 1024:
        limit = 24
    else:
        limit = 54 if size > 256 else 120
    return limit, (limit + 1) // 2, 8 if cpus > 1 and size <= page_size else 0


class Array:
    """An array of free objects."""

    def __init__(self, limit: int):
        self.limit = limit
        self.entries = []
        self.touched = False

    def to_reap(self) -> int:
        """How many objects one reaping takes out of an array that nobody used."""
        nr = (self.limit + 4) // 5
        return nr if nr <= len(self.entries) else (len(self.entries) + 1) // 2

    def take_oldest(self, nr: int) -> list[Slab]:
        taken, self.entries = self.entries[:nr], self.entries[nr:]
        return taken

    def take_newest(self, nr: int) -> list[Slab]:
        """In the order in which they lay there."""
        at = len(self.entries) - nr
        taken, self.entries = self.entries[at:], self.entries[:at]
        return taken


class Node:
    """kmem_list3."""

    def __init__(self, spec, host, cpus: int, first_reap: int):
        self.full = []
        self.partial = []
        self.empty = []
        self.empty_touched = False
        self.shared = Array(spec.shared_limit)
        self.lock = Line(host)
        self.limit = (1 + cpus) * spec.batchcount + spec.objects
        self.next_reap = first_reap

    @property
    def free_objects(self) -> int:
        return sum(slab.free for slab in self.partial + self.empty)

    def put(self, slab: Slab, head: bool) -> None:
        """To the list that the slab belongs on."""
        slab.where = Where.FULL if slab.free == 0 else Where.NODE_PARTIAL
        slabs = self.empty if slab.inuse == 0 else self.partial if slab.free else self.full
        slabs.insert(0 if head else len(slabs), slab)

    def unlink(self, slab: Slab) -> None:
        next(slabs for slabs in self.lists() if slab in slabs).remove(slab)

    def lists(self):
        return self.full, self.partial, self.empty


class SlabCache:
    """A kmem_cache of SLAB; what it shares with ``slub.Cache`` is what the model asks for."""

    def __init__(self, spec, host, era, machine, owner=0, number=0):
        self.spec = spec
        self.host = host
        self.owner = owner
        self.pays = owner
        self.dead = False
        self.destroyed = False
        self.capacity = 0
        self.cpus = [Array(spec.limit) for _ in range(machine.cpus)]
        first = host.now + REAP_LISTS_EVERY + number * CACHE_SHIFT % REAP_LISTS_EVERY
        of_node = [range(node, machine.cpus, machine.nodes) for node in range(machine.nodes)]
        self.nodes = [Node(spec, host, len(cpus), first) for cpus in of_node]
        self.aliens = {
            (here, there): Array(min(ALIENS, spec.limit))
            for here in range(machine.nodes)
            for there in range(machine.nodes)
            if here != there
        }
        self.trims = era in TRIMS_ERAS
        self.slabs = []
        self.slabs_made = 0
        self.slabs_gone = 0

    # -- allocation ------------------------------------------------------------------------

    def alloc(self, cpu: int, may_block: bool) -> Slab | None:
        """____cache_alloc; other nodes' objects come past the array."""
        array = self.cpus[cpu]
        if not array.entries:
            only = self._refill(cpu)
            if not array.entries:
                return only
        array.touched = True
        return array.entries.pop()

    def _refill(self, cpu: int) -> Slab | None:
        """cache_alloc_refill: fills the array, or returns the object of another node."""
        array, home = self.cpus[cpu], self.host.buddy.local_node(cpu)
        node = self.nodes[home]
        batch = self.spec.batchcount
        if not array.touched:
            batch = min(batch, FIRST_BATCH)
        node.lock.write()
        if node.shared.entries:
            array.entries = node.shared.take_newest(min(batch, len(node.shared.entries)))
            node.shared.touched = True
            return None
        while True:
            while len(array.entries) < batch and (slab := self._next_slab(node)):
                node.unlink(slab)
                nr = min(batch - len(array.entries), slab.free)
                array.entries += [slab] * nr
                slab.inuse += nr
                node.put(slab, head=True)
            if array.entries:
                return None
            if len(self.nodes) > 1 and not self._local_pages(home):
                for other in self.host.buddy.zonelist(cpu)[1:]:
                    if slab := self._take_one(self.nodes[other]):
                        return slab
            slab = self.host.new_slab(self, cpu)
            if slab is None:
                return None
            self.slabs.append(slab)
            self.slabs_made += 1
            self.nodes[slab.node].put(slab, head=False)
            if self.spec.management:
                self.host.need_management(slab)
            if slab.node != home:
                return self._take_one(self.nodes[slab.node])

    def _next_slab(self, node: Node) -> Slab | None:
        if node.partial:
            return node.partial[0]
        node.empty_touched = True
        return node.empty[0] if node.empty else None

    def _take_one(self, node: Node) -> Slab | None:
        slab = self._next_slab(node)
        if slab:
            node.unlink(slab)
            slab.inuse += 1
            node.put(slab, head=True)
        return slab

    def _local_pages(self, home: int) -> bool:
        return any(self.host.buddy.nodes[home].free[self.spec.order :])

    # -- free ------------------------------------------------------------------------------

    def release(self, cpu: int, slab: Slab) -> None:
        """__cache_free."""
        home = self.host.buddy.local_node(cpu)
        if slab.node != home:
            alien = self.aliens[home, slab.node]
            if len(alien.entries) == alien.limit:
                self._send_home(home, slab.node)
            alien.entries.append(slab)
            return
        array = self.cpus[cpu]
        if len(array.entries) == array.limit:
            shared = self.nodes[home].shared
            room = shared.limit - len(shared.entries)
            self.nodes[home].lock.write()
            if room:
                shared.entries += array.take_oldest(min(self.spec.batchcount, room))
            else:
                self._free_block(array.take_oldest(self.spec.batchcount))
        array.entries.append(slab)

    free_to_slab = release

    def _free_block(self, objects: list[Slab]) -> None:
        for slab in objects:
            node = self.nodes[slab.node]
            node.unlink(slab)
            slab.inuse -= 1
            too_many = node.free_objects + slab.objects > node.limit
            if slab.inuse == 0 and too_many and not self.trims:
                self._destroy(slab)
            else:
                node.put(slab, head=slab.inuse == 0)
        if objects and self.trims:
            node = self.nodes[objects[0].node]
            while node.empty and node.free_objects > node.limit:
                self._drop_empty(node, 1)

    def _send_home(self, here: int, there: int) -> None:
        """__drain_alien_cache."""
        alien, shared = self.aliens[here, there], self.nodes[there].shared
        room = shared.limit - len(shared.entries)
        if alien.entries:
            self.nodes[there].lock.write()
        shared.entries += alien.take_newest(min(room, len(alien.entries)))
        self._free_block(alien.take_oldest(len(alien.entries)))

    def _destroy(self, slab: Slab) -> None:
        assert slab.inuse == 0
        slab.where = Where.GONE
        self.slabs.remove(slab)
        self.slabs_gone += 1
        self.host.discard_slab(slab)

    def _drop_empty(self, node: Node, nr: int) -> None:
        """drain_freelist."""
        while node.empty and nr:
            self._destroy(node.empty.pop())
            nr -= 1

    # -- reaping and shrinking -------------------------------------------------------------

    def reap(self, cpu: int, round_: int) -> None:
        """The part of a cache in one CPU's cache_reap."""
        home = self.host.buddy.local_node(cpu)
        remote = (home + 1 + round_) % len(self.nodes)
        if remote != home:
            self._send_home(home, remote)
        node = self.nodes[home]
        self._reap_array(self.cpus[cpu], node)
        if self.host.now < node.next_reap:
            return
        node.next_reap = self.host.now + REAP_LISTS_EVERY
        self._reap_array(node.shared, node)
        if node.empty_touched:
            node.empty_touched = False
        else:
            self._drop_empty(node, -(-node.limit // (5 * self.spec.objects)))

    def _reap_array(self, array: Array, node: Node) -> None:
        if array.entries and array.touched:
            array.touched = False
        elif array.entries:
            node.lock.write()
            self._free_block(array.take_oldest(array.to_reap()))

    def flush_all(self, cpu: int) -> None:
        """drain_cpu_caches."""
        for array in self.cpus:
            self._free_block(array.take_oldest(len(array.entries)))
        for here, there in self.aliens:
            self._send_home(here, there)
        for node in self.nodes:
            self._free_block(node.shared.take_oldest(len(node.shared.entries)))

    def shrink(self, cpu: int) -> None:
        """__cache_shrink."""
        self.flush_all(cpu)
        for node in self.nodes:
            self._drop_empty(node, len(node.empty))

    def deactivate(self) -> None:
        """SLAB's __kmemcg_cache_deactivate does no more than to shrink."""

    def detach_all(self) -> list[Slab]:
        """Every slab, off its list."""
        slabs = [slab for node in self.nodes for slabs in node.lists() for slab in slabs]
        for slab in slabs:
            self.nodes[slab.node].unlink(slab)
        return slabs

    def attach(self, slab: Slab) -> None:
        self.nodes[slab.node].put(slab, head=False)

    # -- what it shows ---------------------------------------------------------------------

    def parked(self) -> list[Slab]:
        """One entry for every object that lies in an array."""
        arrays = [*self.cpus, *self.aliens.values(), *(node.shared for node in self.nodes)]
        return [slab for array in arrays for slab in array.entries]

    def snapshot(self) -> dict:
        """Shapes of slabs, arrays and lists; slabs are (objects, inuse)."""
        num_objs = sum(slab.objects for slab in self.slabs)

        def shapes(slabs):
            return [slab.shape for slab in slabs]

        return {
            "num_slabs": len(self.slabs),
            "num_objs": num_objs,
            "active_objs": num_objs - sum(node.free_objects for node in self.nodes),
            "live": sum(slab.inuse for slab in self.slabs) - len(self.parked()),
            "full": [shapes(node.full) for node in self.nodes],
            "partial": [shapes(node.partial) for node in self.nodes],
            "free": [shapes(node.empty) for node in self.nodes],
            "arrays": [(shapes(array.entries), array.touched) for array in self.cpus],
            "shared": [(shapes(n.shared.entries), n.shared.touched) for n in self.nodes],
            "aliens": {at: shapes(array.entries) for at, array in self.aliens.items()},
            "list_lock": [node.lock.observe() for node in self.nodes],
            "timers": [(node.next_reap, node.empty_touched) for node in self.nodes],
            "slabs_made": self.slabs_made,
            "slabs_gone": self.slabs_gone,
        }

    def check(self) -> None:
        """Lists and arrays are what the slabs say."""
        for array in [*self.cpus, *self.aliens.values(), *(node.shared for node in self.nodes)]:
            assert len(array.entries) <= array.limit
        for number, node in enumerate(self.nodes):
            assert all(slab.free == 0 for slab in node.full)
            assert all(0 < slab.inuse < slab.objects for slab in node.partial)
            assert all(slab.inuse == 0 for slab in node.empty)
            assert all(slab.node == number for slabs in node.lists() for slab in slabs)
        listed = [slab for node in self.nodes for slabs in node.lists() for slab in slabs]
        assert len(listed) == len(self.slabs) and set(listed) == set(self.slabs)
