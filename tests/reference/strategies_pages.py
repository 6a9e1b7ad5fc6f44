"""The strategies with per-memcg copies made late: 2012's, Linux 3.8, 4.5 and 5.3.

Each charges slabs by the page and differs in who is accounted, when the copy is made, which
counters are charged in which order, and what a removed group leaves.
"""

from fnmatch import fnmatchcase

from kmbench.core import events as ev

from .memcg import ROOT, State
from .page_unit import PageUnit


class Dropped(PageUnit):
    """2012: a removed group's charge is dropped, or goes to the root; its copies die."""

    by_mm = True
    before_pages = True
    single_page_stock = True
    queues_once = True

    def __init__(self, host, params, seed):
        if params.get("independent"):
            self.counters = ("kmem",)
        super().__init__(host, params, seed)

    def accounts_pages(self, call, kind):
        return False

    def accounts(self, call, cache):
        patterns = self.params.get("caches", self.caches)
        return any(fnmatchcase(cache.spec.name, pattern) for pattern in patterns)

    def shrink(self, copy):
        """SLAB's timers do that."""
        if not self.host.next_reap:
            super().shrink(copy)

    def cg_offline(self, row, cpu):
        for copy in self.copies_paid_by(row):
            self.hand_over(copy, ROOT if self.params.get("charge_to_root") else 0)
            self.die(copy)
            del self.host.copies[copy.spec.name, row]
            self.look_later(copy)
        self.drain_stock(row)


class Souhlal2012V1(Dropped):
    """``souhlal-2012-v1``.  Parameters: ``independent``, ``charge_to_root``."""

    caches = ("*",)
    exempt = ev.CTX_INTERRUPT | ev.CTX_KTHREAD | ev.GFP_NOFAIL | ev.GFP_NOACCOUNT
    creates_inside = True

    def __init__(self, host, params, seed):
        super().__init__(host, params, seed)
        self.bypassed = [0] * (len(list(self.groups)) + 1)

    def charge_memory(self, call, row, pages, gfp):
        if gfp & ev.CTX_DYING:
            self.bypassed[row] += pages
            return True
        return super().charge_memory(call, row, pages, gfp)

    def uncharge_one(self, which, row, pages, until=None):
        if which == "memory":
            spared = min(self.bypassed[row], pages)
            self.bypassed[row] -= spared
            pages -= spared
            heir = next((g.row for g in self.groups if until and g.memory is until), 0)
            self.bypassed[heir] += spared if heir else 0
        super().uncharge_one(which, row, pages, until)

    def spared(self, row):
        return self.bypassed[row]


class Souhlal2012V2(Dropped):
    """``souhlal-2012-v2``.  Parameters: those of v1 and ``caches`` (patterns)."""

    caches = ("dentry", "kmalloc-*")
    exempt = ev.CTX_INTERRUPT | ev.CTX_KTHREAD | ev.GFP_NOFAIL
    forces = ev.CTX_DYING


class Kamezawa2012(Dropped):
    """``kamezawa-2012``.  Parameter: ``caches`` (patterns)."""

    caches = ("dentry", "*inode*")
    forces = ev.CTX_DYING | ev.GFP_NOFAIL
    creates_inside = True


class Linux38(PageUnit):
    """``linux-3.8``.  Parameters: ``all_groups``, ``noaccount``."""

    counters = ("kmem", "memory")
    by_mm = True
    before_pages = True
    single_page_stock = True
    slabs_pin = True
    exempt = ev.CTX_INTERRUPT | ev.CTX_KTHREAD | ev.GFP_NOFAIL | ev.CTX_DYING

    def __init__(self, host, params, seed):
        if params.get("noaccount"):
            self.exempt |= ev.GFP_NOACCOUNT
        super().__init__(host, params, seed)

    def cg_create(self, row):
        group = self.groups[row]
        inherited = group.parent in self.active
        if self.params.get("all_groups", True) or inherited or group.kmem.limit >= 0:
            self.active.add(row)

    def limit_write(self, row, which, limit):
        children = [g for g in self.groups if g.parent == row and g.state is State.ONLINE]
        if which == ev.COUNTER_KMEM and limit >= 0 and not children:
            self.active.add(row)

    def accounts(self, call, cache):
        return True

    def accounts_pages(self, call, kind):
        return kind in (ev.PAGES_STACK, ev.PAGES_KMALLOC)

    def cg_offline(self, row, cpu):
        for copy in self.copies_paid_by(row):
            self.die(copy)
            self.look_later(copy)
        self.drain_stock(row)


class Linux45(PageUnit):
    """``linux-4.5``.  Parameter: ``as_posted``."""

    slabs_pin = True
    forces = ev.GFP_NOFAIL | ev.CTX_DYING | ev.CTX_MEMALLOC

    def __init__(self, host, params, seed):
        self.nofail_beats_kmem = not params.get("as_posted", False)
        self.zombies_hold_ids = params.get("zombies_hold_ids", self.zombies_hold_ids)
        super().__init__(host, params, seed)

    def group_of(self, call):
        return self.groups.resolve(call.memcg)

    def die(self, copy):
        """Deactivated: it keeps no slabs that it does not need."""
        super().die(copy)
        copy.deactivate()

    def cg_offline(self, row, cpu):
        for copy in self.copies_paid_by(row):
            self.die(copy)
            self.shrink(copy)
        self.drain_stock(row)
        self.end(row)

    def end(self, row):
        """A removed group without charged pages is freed, and its copies with it."""
        if self.groups[row].state is not State.ONLINE and self.charged(row) == 0:
            for copy in self.copies_paid_by(row):
                self.destroy(copy)

    def last_slab_gone(self, copy):
        self.end(copy.pays)

    def pages_free(self, cpu, obj):
        super().pages_free(cpu, obj)
        if obj.billed > 0:
            self.end(obj.billed)


class Linux53(Linux45):
    """``linux-5.3``.  Parameter: ``as_posted``."""

    slabs_pin = False
    zombies_hold_ids = False

    def cg_offline(self, row, cpu):
        heir = self.groups.resolve(row)
        for copy in self.copies_paid_by(row):
            inherited = copy.dead
            self.hand_over(copy, heir)
            self.die(copy)
            if not inherited:
                self.look_later(copy)
        self.drain_stock(row)

    def end(self, row):
        """Copies outlive their group."""

    def last_slab_gone(self, copy):
        self.look_later(copy)
