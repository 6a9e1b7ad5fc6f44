"""Reclaim in plain Python: watermarks, kswapd, direct and group reclaim, OOM.

Written from the kernel's rules as docs/model.md has them, apart from the compiled core.
``memory`` is a kmbench.memory.Memory; the shrinker is known by its name.  What is scanned is told
in ``user_pages``, ``cached``, ``shrink_slab`` and ``shrinkers``.
"""

from collections import Counter, deque
from math import isqrt

from kmbench.core import events as ev

from .cached import CachedObjects
from .memcg import ROOT
from .shrink_slab import ERAS, ShrinkSlab
from .shrinkers import SHRINKERS
from .user_pages import CLUSTER, UserPages

GROUP_SLAB = {"linux-4.5", "linux-5.3", "linux-5.9", "linux-6.18"}
NEVER = None


class Vm(UserPages, CachedObjects, ShrinkSlab):
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
        self.two_lists = memory.shrinker.name == "costa-shrink-fn"
        self.posted = self.two_lists and memory.parameters.get("as_posted", True)
        self.items = {}  # handle -> Item, live cached objects
        self.parents = {}  # handle -> handle of its parent, kept when it dies
        self.evicted = {}  # handle -> (ms, by its own group's reclaim)
        self.pools = {(g.row, kind): deque() for g in host.groups for kind in range(3)}
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
    def old_scanning(self):
        """Up to 3.10 kswapd and scans at the first priority do not stop early."""
        return self.era < ERAS.index("3.13")

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
        self.cost = 0
        gfp = ev.GFP_KERNEL | ev.CTX_MEMALLOC
        target = 10**9 if self.old_scanning else max(self.high, CLUSTER)
        freed = self.shrink_everything(self.kswapd_prio, target, gfp)
        took, self.cost = self.cost, 0
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
            if self.group_slab and not self.two_lists:
                freed += self.shrink_slab(group.row, prio, scanned, pages, gfp)
            scanned_in_all += scanned
        if self.group_slab and not self.two_lists:
            return freed
        if not self.posted or gfp & ev.CTX_MEMALLOC:  # a task would have followed a null pointer
            freed += self.shrink_slab(0, prio, scanned_in_all, eligible, gfp)
        return freed

    def reclaim_group(self, row, pages, gfp):
        self.counts["group_runs"] += 1
        target, freed = max(pages, CLUSTER), 0
        for prio in range(12, -1, -1):
            if freed >= target:
                break
            scanned_in_all = 0
            for group in self.host.groups:
                if group.row > ROOT and self.below(group.row, row):
                    self.target = row
                    eligible = self.scannable(group.row)
                    got, scanned = self.shrink_pages(group.row, prio, target, gfp)
                    freed += got
                    scanned_in_all += scanned
                    if self.group_slab and not self.posted:
                        freed += self.shrink_slab(group.row, prio, scanned, eligible, gfp)
            if self.group_slab and self.posted:
                eligible = sum(self.scannable(g.row) for g in self.host.groups)
                freed += self.shrink_slab(row, prio, scanned_in_all, eligible, gfp)
        self.target = 0
        return freed

    def shrink_group(self, row):
        """Ask a group's shrinkers as if no user pages were scanned, of none."""
        self.target = row
        self.shrink_slab(row, 0, 0, 0, ev.GFP_KERNEL)
        self.target = 0

    def below(self, row, ancestor):
        """`row` is `ancestor` or below it; a group that never came up is nowhere."""
        while row > 0 and row != ancestor:
            row = self.host.groups[row].parent
        return row > 0

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
        elif op == ev.DROP_CACHES:
            self.drop_caches(arg)
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

    def pinned(self, row):
        """User pages keep a removed group alive where each group is reclaimed from."""
        keeps = self.group_slab and not self.two_lists and row > ROOT
        return self.user_pages({row}) if keeps else 0

    def group_gone(self, row):
        if self.posted:
            return
        heir = max(self.host.groups.resolve(row), ROOT)
        self.shrinker.hand_over(row, heir)
        self.deferred[heir] += self.deferred.pop(row, 0)

    def drop_caches(self, what):
        if what & ev.DROP_PAGECACHE:
            for group in self.host.groups:
                self.free_user(group.row, 0, len(self.pools[group.row, 0]))
        rounds, enough = 0, 1 if self.era >= ERAS.index("5.16") else 10
        while what & ev.DROP_SLAB:
            before = self.counts["freed_objects"]
            per_group = self.group_slab and not self.two_lists
            for owner in [g.row for g in self.host.groups] if per_group else [0]:
                visits = self.counts["visits"]
                self.shrink_slab(owner, 0, 1000, 1000, ev.GFP_KERNEL)
                if self.era < ERAS.index("4.19") and not rounds:  # other nodes: nothing there
                    visits = self.counts["visits"] - visits
                    self.visit(visits * (self.host.machine.nodes - 1))
            freed = self.counts["freed_objects"] - before
            if (freed >> rounds if enough == 1 else freed) <= enough:
                break
            rounds += 1

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
            "superblock": [list(part) for part in getattr(self.shrinker, "superblock", ([], []))],
        }


def memory_fits(counter, pages):
    """Whether every level has room."""
    return all(level.limit < 0 or level.usage + pages <= level.limit for level in counter.levels())
