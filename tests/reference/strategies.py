"""The accounting strategies ``none`` and ``costa-2012``, and what every strategy is told.

A strategy is told of every step by the model (``host``); row 0 and row 1 (the root) are never
charged.  ``billed`` of an object is the group whose obj_cgroup or counter pays, 0 when nobody has
to, and -CAUSE_* when its owner escaped.
"""

from kmbench.core import events as ev

from .memcg import ROOT
from .slub import Where


class NoAccounting:
    """``none``: every cache is shared and nobody is billed."""

    has_vectors = False
    tries_smaller = False  # a refused slab is tried at the smallest order
    work_delay = 1_000_000  # ns
    zombies_hold_ids = True
    by_mm = False  # a task's memory is charged to the group of its mm's owner

    def __init__(self, host, params, seed):
        self.host = host
        self.groups = host.groups

    def unbilled(self, call) -> int:
        return -ev.CAUSE_NOT_SELECTED if call.memcg > ROOT else 0

    def cg_create(self, row):
        """A group came up."""

    def cg_offline(self, row, cpu):
        """A group was removed; its state is already offline."""

    def select(self, call, cache):
        """The cache that serves the allocation, and what to note if nobody is billed for it."""
        return cache, self.unbilled(call)

    def pre_alloc(self, call, cache):
        """Charge before the object: (may go on, what is billed or None)."""
        return True, None

    def alloc_failed(self, call, cache, billed):
        """There was no memory for an object that ``pre_alloc`` charged."""

    def post_alloc(self, call, cache, slab, billed):
        """Charge after the object: (keep it, what is billed)."""
        return True, billed

    def limit_write(self, row, which, limit):
        """A limit was written; the counter has it already."""

    def before_slab(self, cache, order) -> bool:
        """Charge for a slab whose pages are to be allocated next."""
        return True

    def no_pages(self, cache, order):
        """There were no pages for what ``before_slab`` charged."""

    def slab_new(self, cache, slab) -> bool:
        """The slab has got its pages; False gives them back."""
        return True

    def slab_gone(self, slab):
        """The pages of the slab go back."""

    def before_free(self, obj):
        """An object is about to be freed."""

    def obj_free(self, cpu, obj):
        """The bill of a freed object."""

    def pages_alloc(self, call, pages, kind):
        """Kernel pages that are no slab: (keep them, what is billed)."""
        return True, self.unbilled(call)

    def pages_free(self, cpu, obj):
        """The bill of freed kernel pages."""

    def percpu_alloc(self, call, nbytes):
        """A per-CPU area: (go on, what is billed)."""
        return True, self.unbilled(call)

    def percpu_free(self, cpu, obj):
        """The bill of a freed per-CPU area."""

    def charge_user(self, call, row) -> bool:
        """A user page of a group: charged to its memory counter by every design."""
        memory = self.groups[row].memory
        if memory.try_charge(1) or self.host.vm.over_limit(call, row, 1, call.gfp, 0):
            return True
        if call.gfp & (ev.GFP_NOFAIL | ev.CTX_MEMALLOC):
            memory.charge(1)
            return True
        return False

    def flush_stocks(self, row):
        """Whatever the CPUs hold in stock for a group's subtree goes back."""

    def user_pages(self, row) -> int:
        """User pages of a group's subtree."""
        rows = {below.row for below in self.groups.subtree(row)}
        return self.host.vm.user_pages(rows) if self.host.vm else 0

    def payer(self, obj) -> int:
        """Who pays for a live object now, in the terms of ``billed``."""
        return obj.billed

    def pinned(self, row) -> int:
        """Charged pages, and other things, that keep the group alive once it is removed."""
        return 0

    def stocks(self):
        """(page stock per CPU, byte stock per CPU)"""
        cpus = self.host.machine.cpus
        return [[] for _ in range(cpus)], []

    def left_lines(self, row) -> list:
        """What the lines of a group's obj_cgroups show, by node."""
        return []

    def left_over(self, row) -> int:
        """Bytes of the group's obj_cgroup that are on no CPU's stock."""
        return 0

    def vmstat(self) -> int:
        """Updates of the statistics of slab bytes."""
        return 0

    def check(self):
        """Every counter but the root's is what the billing identity says; here: zero."""
        for group in list(self.groups)[1:]:
            users = self.user_pages(group.row)
            assert group.memory.usage == users and group.kmem.usage == 0


class Costa2012(NoAccounting):
    """``costa-2012``: eager copies of the caches that opted in, charged by slab pages.

    Parameters: ``caches`` (names), ``independent`` (True: the kmem counter, False: memory).
    """

    by_mm = True

    def __init__(self, host, params, seed):
        super().__init__(host, params, seed)
        names = params.get("caches", ["dentry"])
        self.independent = params.get("independent", True)
        self.reclaims = params.get("reclaim", False)
        self.registered = [cache for cache in host.root_caches if cache.spec.name in names]
        for group in self.groups:
            if group.row > ROOT and self.groups.resolve(group.row) == group.row:
                self.cg_create(group.row)

    def counter(self, row):
        return self.groups[row].kmem if self.independent else self.groups[row].memory

    def cg_create(self, row):
        for cache in self.registered:
            self.host.add_copy(cache, row)

    def copy_for(self, cache, row):
        """The copy of the nearest online group, the root cache at the top."""
        row = self.groups.resolve(row)
        return self.host.copies.get((cache.spec.name, row), cache)

    def select(self, call, cache):
        if cache not in self.registered:
            return cache, -ev.CAUSE_NOT_SELECTED
        if call.gfp & ev.CTX_KTHREAD:
            return cache, -ev.CAUSE_KTHREAD
        if call.memcg <= ROOT:
            return cache, -ev.CAUSE_MM_OWNER
        cache = self.copy_for(cache, call.memcg)
        return cache, cache.owner or -ev.CAUSE_NOT_SELECTED

    def slab_new(self, cache, slab):
        if cache.owner == 0:
            return True
        if not self.charge(cache.owner, slab.block.pages):
            return False
        slab.charged = cache.owner
        return True

    def charge(self, row, pages):
        """Charge a slab; with ``reclaim`` a full group is reclaimed from as long as that helps."""
        if self.counter(row).try_charge(pages):
            return True
        gfp = self.host.call.gfp
        if not self.host.vm or not self.reclaims or not gfp & ev.GFP_DIRECT_RECLAIM:
            return False
        while True:
            freed = self.host.vm.reclaim_group(row, pages, gfp)
            if self.counter(row).try_charge(pages):
                return True
            if not freed:
                return False

    def limit_write(self, row, which, limit):
        """A lower kmem limit has the group's shrinkers run, as long as it is not for nothing."""
        counter = self.groups[row].kmem
        if which != ev.COUNTER_KMEM or not self.independent or not self.host.vm:
            return
        below = [g.row for g in self.groups if self.host.vm.below(g.row, row)]
        tries = 5 * len(below)
        while 0 <= counter.limit < counter.usage and tries:
            before = counter.usage
            self.host.vm.shrink_group(row)
            if counter.usage >= before:
                tries -= 1

    def slab_gone(self, slab):
        if slab.charged:
            self.counter(slab.charged).uncharge(slab.block.pages)

    def cg_offline(self, row, cpu):
        for root_cache in self.registered:
            cache = self.host.copies[root_cache.spec.name, row]
            cache.flush_all(cpu)
            cache.dead = True
            for slab in cache.detach_all():
                self._move_up(slab)
                slab.cache.attach(slab)

    def before_free(self, obj):
        if obj.slab.cache.dead:
            assert obj.slab.where is Where.FULL
            self._move_up(obj.slab)

    def _move_up(self, slab):
        """The slab, and its charge, go to the copy of the nearest group that is online."""
        old = slab.cache
        new = self.copy_for(self.host.root_cache(old), old.owner)
        old.slabs.remove(slab)
        new.slabs.append(slab)
        slab.cache = new
        heir = new.owner or ROOT
        self.counter(slab.charged).uncharge(slab.block.pages, until=self.counter(heir))
        slab.charged = heir

    def payer(self, obj):
        """Billed by the slab: whoever is charged for it now pays for what lies in it."""
        if obj.slab is None or obj.billed <= 0:
            return obj.billed
        return obj.slab.cache.owner or -ev.CAUSE_NOT_SELECTED

    def pinned(self, row):
        """Each copy keeps its group until its last slab is gone."""
        mine = [c for c in self.host.caches if c.owner == row]
        return sum(1 for copy in mine if copy.slabs or not copy.dead)

    def check(self):
        slabs = self.host.all_slabs()
        for group in list(self.groups)[1:]:
            pages = sum(
                slab.block.pages
                for slab in slabs
                if slab.charged and self.groups.is_descendant(slab.charged, group.row)
            )
            counted = (group.kmem.usage, group.memory.usage)
            users = self.user_pages(group.row)
            assert counted == ((pages, users) if self.independent else (0, pages + users))
