"""Reclaim in plain Python: watermarks, kswapd, direct and group reclaim, OOM, cached objects.

Written from the kernel's rules as docs/model.md has them, apart from the compiled core.
``memory`` is a kmbench.memory.Memory; the shrinker is known by its name.
"""

from collections import Counter, deque
from math import isqrt

from kmbench.core import events as ev

from .memcg import ROOT, State
from .shrinkers import SHRINKERS, Item

ERAS = ("3.5", "3.8", "3.13", "4.5", "4.19", "5.3", "5.9", "5.16", "6.12", "6.18")
GROUP_SLAB = {"linux-4.5", "linux-5.3", "linux-5.9", "linux-6.18"}
CLUSTER = 32
NEVER = None


class Vm:
    """What a kernel knows of memory that may run out."""

    def __init__(self, host, setup, memory, strategy: str, params: dict):
        self.host = host
        self.setup = setup
        self.r = memory.reclaim
        self.era = ERAS.index(setup.era)
        joint = not params.get("independent", True) or params.get("reclaim", False)
        self.group_slab = strategy in GROUP_SLAB or (strategy == "costa-2012" and joint)
        self.modern = strategy == "linux-6.18"
        self.retries = 16 if self.modern else 5
        self.shrinker = SHRINKERS[memory.shrinker.name](self, memory.parameters)
        self.batch = memory.shrinker.batch
        self.items = {}  # handle -> Item, live cached objects
        self.parents = {}  # handle -> handle of its parent, kept when it dies
        self.evicted = {}  # handle -> (ms, by its own group's reclaim)
        self.pools = {
            (g.row, kind): deque() for g in host.groups for kind in range(3)
        }
        self.carry = Counter()
        self.swapped = Counter()
        self.swap_free = self.r.swap_pages
        self.deferred = Counter()
        self.bits = set()
        self.counts = Counter()
        self.stat = Counter()
        self.cost = self.phase = 0
        self.busy = False
        self.target = 0
        self.kswapd_due = NEVER
        self.kswapd_prio = self.kswapd_failures = 0
        self._watermarks()

    def _watermarks(self):
        pages, size = self.setup.machine.memory_pages, self.setup.machine.page_size
        kilobytes = max(128, min(isqrt(16 * (pages * size // 1024)), 262144))
        self.min = self.r.min_pages or kilobytes * 1024 // size
        gap = self.min // 4
        if self.era >= ERAS.index("4.19"):
            gap = max(gap, pages * 10 // 10000)
        self.low, self.high = self.min + gap, self.min + 2 * gap

    @property
    def free(self):
        return self.host.buddy.free_pages()

    # -- pages -----------------------------------------------------------------------------

    def get_block(self, cpu, order, gfp):
        if self.free - (1 << order) >= self.low:
            block = self.host.buddy.alloc(cpu, order)
            if block:
                return block
        if gfp & ev.GFP_KSWAPD_RECLAIM:
            self.wake_kswapd()
        if self._above_min(order, gfp):
            block = self.host.buddy.alloc(cpu, order)
            if block:
                return block
        may = gfp & (ev.GFP_DIRECT_RECLAIM | ev.GFP_NOFAIL) and not gfp & ev.CTX_MEMALLOC
        if not may or self.busy:
            return None
        self.busy = True
        block = self._direct(cpu, order, gfp)
        self.busy = False
        return block

    def _above_min(self, order, gfp):
        mark = self.min
        if gfp & ev.CTX_MEMALLOC:
            mark = 0
        elif gfp & ev.GFP_HIGH:
            mark -= mark // 2
            if not gfp & ev.GFP_DIRECT_RECLAIM:
                mark -= mark // 4
        return self.free - (1 << order) >= mark

    def _direct(self, cpu, order, gfp):
        idle = 0
        for _ in range(100):
            self.counts["direct_runs"] += 1
            target = max(1 << order, CLUSTER)
            freed = 0
            for prio in range(12, -1, -1):
                if freed >= target:
                    break
                freed += self.shrink_everything(prio, target, gfp)
            block = self.host.buddy.alloc(cpu, order) if self._above_min(order, gfp) else None
            if block or gfp & ev.GFP_NORETRY or order > 3:
                return block
            idle = 0 if freed else idle + 1
            if idle <= (0 if self.era < ERAS.index("4.5") else 16):
                continue
            if gfp & ev.GFP_FS:
                if self.oom(0):
                    idle = 0
                    continue
            elif not gfp & ev.GFP_NOFAIL and self.era >= ERAS.index("4.5"):
                idle = 0
                continue
            return self.host.buddy.alloc(cpu, order) if gfp & ev.GFP_NOFAIL else None
        self.counts["stalls"] += 1
        return None

    def wake_kswapd(self):
        if self.kswapd_due is NEVER and self.kswapd_failures < 16:
            self.kswapd_prio = 12
            self.kswapd_due = self.host.now + self.r.kswapd_delay_ns

    def kswapd(self):
        """The turn that is due now."""
        self.kswapd_due = NEVER
        if self.free >= self.high:
            return
        self.counts["kswapd_turns"] += 1
        before = self.cost
        gfp = ev.GFP_KERNEL | ev.CTX_MEMALLOC
        freed = self.shrink_everything(self.kswapd_prio, max(self.high - self.free, CLUSTER), gfp)
        took, self.cost = self.cost - before, before
        if freed:
            self.kswapd_failures = 0
        if self.free >= self.high:
            return
        if freed < CLUSTER:
            self.kswapd_prio -= 1
            if self.kswapd_prio < 1:
                self.kswapd_failures += 1
                return
        self.kswapd_due = self.host.now + max(took, 10_000)

    # -- scanning --------------------------------------------------------------------------

    def shrink_everything(self, prio, target, gfp):
        self.target = 0
        freed = scanned_in_all = 0
        eligible = sum(self.scannable(g.row) for g in self.host.groups)
        for group in self.host.groups:
            pages = self.scannable(group.row)
            got, scanned = self.shrink_pages(group.row, prio, target, gfp)
            freed += got
            if self.group_slab:
                freed += self.shrink_slab(group.row, prio, scanned, pages, gfp)
            scanned_in_all += scanned
        if not self.group_slab:
            freed += self.shrink_slab(0, prio, scanned_in_all, eligible, gfp)
        return freed

    def reclaim_group(self, row, pages, gfp):
        self.counts["group_runs"] += 1
        target, freed = max(pages, CLUSTER), 0
        for prio in range(12, -1, -1):
            if freed >= target:
                break
            for group in self.host.groups:
                if group.row > ROOT and self.below(group.row, row):
                    self.target = row
                    eligible = self.scannable(group.row)
                    got, scanned = self.shrink_pages(group.row, prio, target, gfp)
                    freed += got
                    if self.group_slab:
                        freed += self.shrink_slab(group.row, prio, scanned, eligible, gfp)
        self.target = 0
        return freed

    def below(self, row, ancestor):
        """`row` is `ancestor` or below it; a group that never came up is nowhere."""
        while row > 0 and row != ancestor:
            row = self.host.groups[row].parent
        return row > 0

    def scannable(self, row):
        anon = len(self.pools[row, ev.USER_ANON]) if self.swap_free else 0
        return len(self.pools[row, 0]) + len(self.pools[row, 1]) + anon

    def shrink_pages(self, row, prio, target, gfp):
        freed = scanned = 0
        for kind in range(3):
            pool = self.pools[row, kind]
            left = len(pool) >> prio
            if kind != ev.USER_CLEAN and not gfp & ev.GFP_IO:
                continue
            while left > 0 and freed < target:
                nr = min(left, CLUSTER, len(pool))
                if nr == 0 or (kind == ev.USER_ANON and not self.swap_free):
                    break
                freed += self._scan_batch(row, kind, nr)
                scanned += nr
                left -= nr
        return freed, scanned

    def _scan_batch(self, row, kind, nr):
        self.counts["scanned_pages"] += nr
        self.cost += nr * self.r.page_ns
        if kind == ev.USER_DIRTY:
            for _ in range(nr):
                self.pools[row, ev.USER_CLEAN].append(self.pools[row, kind].popleft())
            self.counts["written_pages"] += nr
            self.cost += nr * self.r.io_ns
            return 0
        share = nr * self.r.keep_less + self.carry[row, kind]
        self.carry[row, kind] = share % 1000
        freed = share // 1000
        if kind == ev.USER_ANON:
            freed = min(freed, self.swap_free)
            self.swap_free -= freed
            self.swapped[row] += freed
            self.cost += freed * self.r.io_ns
        self.free_user(row, kind, freed)
        self.counts["reclaimed_pages"] += freed
        return freed

    def shrink_slab(self, owner, prio, scanned, eligible, gfp):
        bitmap = self.era >= ERAS.index("4.19")
        if bitmap and owner not in self.bits:
            return 0
        visits = 1 if bitmap else self.r.superblocks
        self.counts["visits"] += visits
        self.cost += visits * self.r.visit_ns
        freeable = self.shrinker.count(owner)
        if freeable == 0:
            self.bits.discard(owner)
            return 0
        before = self._slab_pages()
        if self.era < ERAS.index("4.19"):
            self._by_ratio(owner, freeable, scanned or CLUSTER, eligible, gfp)
        else:
            self._by_priority(owner, freeable, prio, gfp)
        freed = before - self._slab_pages()
        self.counts["freed_slab_pages"] += freed
        return freed

    def _slab_pages(self):
        return sum(slab.block.pages for slab in self.host.all_slabs())

    def _scan(self, owner, nr, gfp):
        scanned = self.shrinker.scan(owner, nr, gfp)
        if scanned is None:
            return False
        self.counts["scanned_objects"] += scanned
        self.cost += scanned * self.r.object_ns
        self.host._settle()
        return True

    def _by_ratio(self, owner, freeable, scanned, eligible, gfp):
        delta = (4 * scanned) // 2 * freeable // (eligible + 1)
        total = self.deferred[owner] + delta
        if delta < freeable // 4:
            total = min(total, freeable // 2)
        total = min(total, 2 * freeable)
        while total >= self.batch and self._scan(owner, self.batch, gfp):
            total -= self.batch
        self.deferred[owner] = total

    def _by_priority(self, owner, freeable, prio, gfp):
        old = self.deferred[owner]
        delta = (freeable >> prio) * 4 // 2
        if self.era >= ERAS.index("5.16"):
            total = min((old >> prio) + delta, 2 * freeable)
        else:
            if self.setup.era == "4.19":
                delta = max(delta, min(freeable, self.batch))
            total = old + delta
            if delta < freeable // 4:
                total = min(total, freeable // 2)
            total = min(total, 2 * freeable)
        done = 0
        while total >= self.batch or total >= freeable:
            nr = min(self.batch, total)
            if not self._scan(owner, nr, gfp):
                break
            total -= nr
            done += nr
        left = max(old + delta - done, 0)
        self.deferred[owner] = min(left, 2 * freeable) if self.era >= ERAS.index("5.16") else left

    # -- a group over its limit ------------------------------------------------------------

    def over_limit(self, call, row, pages, gfp, forces):
        """Reclaim until the charge fits; False when it does not."""
        dying = gfp & ev.CTX_DYING & forces
        if not gfp & ev.GFP_DIRECT_RECLAIM or gfp & ev.CTX_MEMALLOC or dying or self.busy:
            return False
        self.busy = True
        charged = self._until_it_fits(row, pages, gfp)
        self.busy = False
        return charged

    def _until_it_fits(self, row, pages, gfp):
        memory = self.host.groups[row].memory
        full = self._full_level(row, pages)
        tries, drained = self.retries, False
        for _ in range(100):
            freed = self.reclaim_group(full, pages, gfp)
            if not drained and not memory_fits(memory, pages):
                self.host.strategy.flush_stocks(full)
                drained = True
            if memory.try_charge(pages):
                return True
            full = self._full_level(row, pages)
            if gfp & ev.GFP_NORETRY:
                return False
            if freed and pages <= 8:
                continue
            tries -= 1
            if tries:
                continue
            if (not self.modern and not gfp & ev.GFP_FS) or not self.oom(full):
                return False
            tries = self.retries
        self.counts["stalls"] += 1
        return False

    def _full_level(self, row, pages):
        while row > ROOT:
            counter = self.host.groups[row].memory
            if 0 <= counter.limit < counter.usage + pages:
                return row
            row = self.host.groups[row].parent
        return 0

    # -- OOM -------------------------------------------------------------------------------

    def oom(self, target):
        rows = [g.row for g in self.host.groups if g.row > ROOT]
        rows = [row for row in rows if target == 0 or self.below(row, target)]
        bad = {row: len(self.pools[row, ev.USER_ANON]) + self.swapped[row] for row in rows}
        victim = max(rows, key=lambda row: (bad[row], -row), default=0)
        if not victim or bad[victim] == 0:
            return False
        self.counts["oom_kills"] += 1
        self.free_user(victim, ev.USER_ANON, len(self.pools[victim, ev.USER_ANON]))
        self.swap_free += self.swapped.pop(victim, 0)
        for handle, obj in sorted(self.host.objects.items()):
            if obj.owner != victim:
                continue
            item = self.items.get(handle)
            if item:
                while item.held:
                    item.held -= 1
                    self.put(handle)
            elif obj.slab:
                del self.host.objects[handle]
                self.host.free_past_sheaves(obj)
            else:
                self.host.drop(handle, obj)
        self.host._settle()
        return True

    # -- user pages ------------------------------------------------------------------------

    def alloc_user(self, call, kind, nr):
        for _ in range(nr):
            memory = self.host.groups[call.memcg].memory
            if call.memcg > ROOT and not self.host.strategy.charge_user(call, call.memcg):
                return ev.FAIL_LIMIT
            block = self.get_block(call.cpu, 0, call.gfp)
            if block is None:
                if call.memcg > ROOT:
                    memory.uncharge(1)
                return ev.FAIL_PAGES
            self.pools[call.memcg, kind].append(block)
        return 0

    def free_user(self, row, kind, nr):
        for _ in range(nr):
            self.host.buddy.give_back(self.pools[row, kind].popleft())
        if row > ROOT:
            self.host.groups[row].memory.uncharge(nr)

    def user_pages(self, rows):
        return sum(len(pool) for (row, _), pool in self.pools.items() if row in rows)

    # -- cached objects --------------------------------------------------------------------

    def owner_of(self, handle):
        """Whose lists an object belongs on."""
        if not self.group_slab:
            return 0
        obj = self.host.objects[handle]
        payer = self.host.strategy.payer(obj)
        if payer <= 0:
            return ROOT
        return max(self.host.groups.resolve(payer), ROOT)

    def get(self, handle):
        self.items[handle].pins += 1

    def put(self, handle):
        item = self.items[handle]
        item.pins -= 1
        if item.pins == 0:
            self.shrinker.unused(handle, item)

    def evict(self, handle):
        """A shrinker frees an unused object that is on no list any more."""
        obj = self.host.objects[handle]
        size = obj.slab.cache.spec.size
        own = self.target > 0 and self.below(obj.owner, self.target)
        self.counts["freed_objects"] += 1
        self.counts["freed_bytes"] += size
        if self.target:
            self.counts["target_bytes"] += size
            self.counts["own_bytes"] += size * own
        self.evicted[handle] = (self.host.now // 1_000_000, own)
        self.release(handle)

    def release(self, handle):
        """Free such an object."""
        del self.items[handle]
        self.host.free_past_sheaves(self.host.objects.pop(handle))

    def inode_of(self, handle):
        half = self.setup.nr_objects // 2
        return handle + half if self.r.inode_cache and handle < half else 0

    def may_free(self, handle):
        item = self.items.get(handle)
        if item is None:
            return True
        if item.pins:
            return False
        self.shrinker.forget(handle, item)
        del self.items[handle]
        parent = self.parents.pop(handle, 0)
        if parent:
            self.put(parent)
        inode = self.inode_of(handle)
        if inode in self.items:
            self.shrinker.forget(inode, self.items[inode])
            self.release(inode)
        return True

    def _new(self, call, handle, cache):
        obj = self.host._alloc_object(call, cache, 0)
        if obj is None:
            return False
        self.host.objects[handle] = obj
        self.items[handle] = Item(pins=1)
        return True

    def usable(self, handle):
        """Whether a handle may become a cached object: it, and its inode's, is nothing else."""
        if self.r.inode_cache and not self.inode_of(handle):
            return False
        inode = self.inode_of(handle)
        return not any(h in self.host.objects and h not in self.items for h in (handle, inode))

    def _create(self, call, handle, cache):
        if not self.usable(handle):
            self.host.fail = ev.FAIL_NO_GROUP
            return False
        ms, own = self.evicted.pop(handle, (None, True))
        if ms is not None:
            self.stat[call.memcg, self.phase, "returned"] += 1
            if not own and self.host.now // 1_000_000 - ms <= 10_000:
                self.counts["damaged"] += 1
        parent = self.parents.get(handle, 0)
        if parent:
            self.get(parent)
        made = self._new(call, handle, cache)
        inode = self.inode_of(handle)
        if made and inode:
            if inode in self.items:
                self.get(inode)
            else:
                names = [c.spec.name for c in self.host.root_caches]
                inodes = self.host.root_caches[names.index(self.r.inode_cache)]
                if not self._new(call, inode, inodes):
                    made = False
                    self.release(handle)
        if not made:
            if parent:
                self.put(parent)
            return False
        self.put(handle)
        return True

    def _access(self, call, handle, cache, parent):
        self.stat[call.memcg, self.phase, "accesses"] += 1
        if handle in self.items:
            self.stat[call.memcg, self.phase, "hits"] += 1
            self.get(handle)
            self.put(handle)
            return 0
        if not self.usable(handle):
            self.host.counters["skipped"] += 1
            return 0
        self.parents[handle] = parent if parent < handle else 0
        while handle not in self.items:
            missing = handle
            while self.parents.get(missing, 0) and self.parents[missing] not in self.items:
                missing = self.parents[missing]
            self.host.fail = ev.FAIL_LIMIT
            if not self._create(call, missing, cache):
                self.stat[call.memcg, self.phase, "failed"] += 1
                return self.host.fail
        return 0

    # -- events ----------------------------------------------------------------------------

    def event(self, op, call, handle, row, arg):
        if op == ev.MARK:
            self.phase = arg % 4
            return
        if not self.host.groups.exists(call.memcg):
            self.failed(call.memcg, ev.FAIL_NO_GROUP)
            return
        self.cost = fail = 0
        if op == ev.ACCESS:
            hits = self.stat[call.memcg, self.phase, "hits"]
            fail = self._access(call, handle, self.host.root_caches[row - 1], arg)
            hit = self.stat[call.memcg, self.phase, "hits"] > hits
            if not fail and handle in self.items:
                self.items[handle].users.add(max(call.memcg, 1))
            self._book(call.memcg, self.cost + (self.r.hit_ns if hit else self.r.miss_ns))
        elif op == ev.PIN:
            if handle in self.items:
                self.get(handle)
                self.items[handle].held += 1
        elif op == ev.UNPIN:
            if handle in self.items and self.items[handle].held:
                self.items[handle].held -= 1
                self.put(handle)
        elif op == ev.USER_ALLOC:
            fail = self.alloc_user(call, row, arg)
            self._book(call.memcg, self.cost + arg * self.r.fault_ns)
        elif op == ev.USER_FREE:
            self.free_user(call.memcg, row, min(arg, len(self.pools[call.memcg, row])))
        self.counts["stall_ns"] += self.cost
        if fail:
            self.failed(call.memcg, fail)

    def _book(self, row, ns):
        self.stat[row, self.phase, "busy"] += ns

    def failed(self, row, cause):
        """An operation of the stream failed."""
        self.host.counters["failed_allocs"] += 1
        self.note_failure(row, cause)

    def note_failure(self, row, cause):
        """ENOMEM with reclaimable memory?"""
        objects = self.host.objects
        unused = any(i.pins == 0 and objects[h].owner == row for h, i in self.items.items())
        if cause == ev.FAIL_LIMIT and unused:
            self.counts["failed_with_reclaimable"] += 1

    def group_gone(self, row):
        heir = max(self.host.groups.resolve(row), ROOT)
        self.shrinker.hand_over(row, heir)
        self.deferred[heir] += self.deferred.pop(row, 0)

    # -- what it shows ---------------------------------------------------------------------

    def snapshot(self):
        return {
            "counts": {key: value for key, value in self.counts.items() if value},
            "lists": self.shrinker.snapshot(),
            "pools": {key: len(pool) for key, pool in self.pools.items() if pool},
            "swapped": {row: nr for row, nr in self.swapped.items() if nr},
            "deferred": {row: nr for row, nr in self.deferred.items() if nr},
            "stat": {key: value for key, value in self.stat.items() if value},
            "pins": {handle: item.pins for handle, item in self.items.items()},
            "users": {handle: {min(u, 16) for u in i.users} for handle, i in self.items.items()},
            "kswapd": (self.kswapd_due, self.kswapd_failures),
            "bits": sorted(self.bits),
            "phase": self.phase,
            "swap_free": self.swap_free,
        }


def memory_fits(counter, pages):
    """Whether every level has room."""
    return all(level.limit < 0 or level.usage + pages <= level.limit for level in counter.levels())


__all__ = ["State", "Vm"]
