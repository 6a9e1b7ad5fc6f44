"""What designs with per-memcg copies, made late and charged by the page, have in common."""

from kmbench.core import events as ev

from .memcg import ROOT, PageStock, State, Xoshiro128
from .strategies import NoAccounting

BATCH = 32  # pages of the page stock


class PageUnit(NoAccounting):
    """What the designs have in common; subclasses choose."""

    tries_smaller = True
    counters = ("memory", "kmem")  # in the order of charging
    before_pages = False
    exempt = ev.CTX_INTERRUPT | ev.CTX_KTHREAD
    forces = 0  # of the memory counter
    nofail_beats_kmem = True
    single_page_stock = False
    creates_inside = False  # where the allocation may sleep
    queues_once = False
    slabs_pin = False

    def __init__(self, host, params, seed):
        super().__init__(host, params, seed)
        self.params = params
        self.stock = PageStock(self.groups, host.machine.cpus, 1, BATCH, Xoshiro128(seed))
        self.waiting = []  # (group, cache name) of copies that are to be made
        self.looked_at = set()  # dead copies that a work item will look at
        self.active = set()
        for group in self.groups:
            if group.row > ROOT and self.groups.resolve(group.row) == group.row:
                self.cg_create(group.row)

    def cg_create(self, row):
        self.active.add(row)

    # -- which cache -----------------------------------------------------------------------

    def accounts(self, call, cache) -> bool:
        """Whether objects of this root cache are accounted in this call."""
        return bool(cache.spec.flags & ev.SLAB_ACCOUNT or call.gfp & ev.GFP_ACCOUNT)

    def excuse(self, call) -> int:
        """Why this context is not accounted, a CAUSE_*, or 0."""
        reasons = (
            (ev.GFP_NOACCOUNT, ev.CAUSE_NOT_SELECTED),
            (ev.CTX_INTERRUPT, ev.CAUSE_INTERRUPT),
            (ev.CTX_KTHREAD, ev.CAUSE_KTHREAD),
            (ev.GFP_NOFAIL, ev.CAUSE_NOFAIL),
            (ev.CTX_DYING, ev.CAUSE_DYING),
        )
        return next((why for bits, why in reasons if call.gfp & self.exempt & bits), 0)

    def group_of(self, call) -> int:
        """The group whose copies serve a call."""
        return call.memcg

    def select(self, call, cache):
        if not self.accounts(call, cache):
            return cache, self.unbilled(call)
        if call.memcg <= ROOT:
            return cache, -ev.CAUSE_MM_OWNER
        if why := self.excuse(call):
            return cache, -why
        row = self.group_of(call)
        copy = self.host.copies.get((cache.spec.name, row))
        if copy is None:
            online = row > ROOT and self.groups[row].state is State.ONLINE
            if online and row not in self.active:
                return cache, self.unbilled(call)
            copy, why = self.miss(call, cache, row)
        return (copy, copy.owner) if copy else (cache, -why)

    def miss(self, call, cache, row):
        """There is no copy yet: (the copy if it is made now, else why not)."""
        if row <= ROOT or self.groups[row].state is not State.ONLINE:
            return None, ev.CAUSE_DYING
        if self.creates_inside and call.gfp & ev.GFP_KERNEL == ev.GFP_KERNEL:
            return self.host.add_copy(cache, row), 0
        wanted = (row, cache.spec.name)
        if not (self.queues_once and wanted in self.waiting):
            if self.host.defer_work(lambda: self.make_copy(cache, row)):
                self.waiting.append(wanted)
        return None, ev.CAUSE_PENDING

    def make_copy(self, cache, row):
        """A work item: make the copy that somebody missed."""
        self.waiting.remove((row, cache.spec.name))
        if (cache.spec.name, row) in self.host.copies:
            self.host.counters["work_duplicates"] += 1
        elif self.groups[row].state is State.ONLINE:
            self.host.add_copy(cache, row)

    # -- charging --------------------------------------------------------------------------

    def charge(self, call, row, pages, gfp=None) -> bool:
        """Charge every counter of the design, or none."""
        gfp = call.gfp if gfp is None else gfp
        done = []
        for which in self.counters:
            if which == "memory":
                fits = self.charge_memory(call, row, pages, gfp)
            else:
                fits = self.charge_kmem(row, pages, gfp)
            if not fits:
                for earlier in done:
                    self.uncharge_one(earlier, row, pages)
                return False
            done.append(which)
        return True

    def charge_kmem(self, row, pages, gfp) -> bool:
        kmem = self.groups[row].kmem
        if kmem.try_charge(pages):
            return True
        if self.counters[-1] == self.counters[0] or self.counters[0] == "kmem":
            return False
        if gfp & ev.GFP_NOFAIL and self.nofail_beats_kmem:
            kmem.charge(pages)
            return True
        return False

    def charge_memory(self, call, row, pages, gfp) -> bool:
        """try_charge: stock, batch, exactly, then after reclaim, then over the limit."""
        if pages == 1 or not self.single_page_stock:
            if self.stock.consume(call.cpu, row, pages):
                return True
        memory = self.groups[row].memory
        if pages < BATCH and memory.try_charge(BATCH):
            self.stock.refill(call.cpu, row, BATCH - pages)
            return True
        if memory.try_charge(pages):
            return True
        vm = self.host.vm
        if vm and vm.over_limit(call, row, pages, gfp, self.forces):
            return True
        if gfp & self.forces:
            memory.charge(pages)
            return True
        return False

    def charge_user(self, call, row):
        return PageUnit.charge_memory(self, call, row, 1, call.gfp)

    def flush_stocks(self, row):
        self.stock.drain_subtree(row)

    def uncharge_one(self, which, row, pages, until=None):
        getattr(self.groups[row], which).uncharge(pages, until)

    def uncharge(self, row, pages, until=None):
        """3.8 memcg_uncharge_kmem: res before kmem; up to ``until``, an ancestor group."""
        for which in sorted(self.counters, reverse=True) if row else ():
            top = getattr(until, which) if until else None
            self.uncharge_one(which, row, pages, top)

    def slab_gfp(self, cache, order):
        """allocate_slab tries the large order without __GFP_NOFAIL."""
        gfp = self.host.call.gfp
        return gfp & ~ev.GFP_NOFAIL if order != cache.spec.min_order else gfp

    def before_slab(self, cache, order):
        if not self.before_pages or cache.pays == 0:
            return True
        return self.charge(self.host.call, cache.pays, 1 << order, self.slab_gfp(cache, order))

    def no_pages(self, cache, order):
        if self.before_pages:
            self.uncharge(cache.pays, 1 << order)

    def slab_new(self, cache, slab):
        if self.before_pages or cache.pays == 0:
            return True
        order = slab.block.order
        return self.charge(self.host.call, cache.pays, 1 << order, self.slab_gfp(cache, order))

    def slab_gone(self, slab):
        cache = slab.cache
        if cache.owner == 0:
            return
        self.uncharge(cache.pays, slab.block.pages)
        if cache.dead and self.slab_pages(cache) == 0:
            self.last_slab_gone(cache)

    def slab_pages(self, cache) -> int:
        slabs = self.host.all_slabs()
        return sum(slab.block.pages for slab in slabs if slab.cache is cache)

    # -- kernel pages ----------------------------------------------------------------------

    def accounts_pages(self, call, kind) -> bool:
        return bool(call.gfp & ev.GFP_ACCOUNT)

    def pages_alloc(self, call, pages, kind):
        if call.memcg <= ROOT or not self.accounts_pages(call, kind):
            return True, self.unbilled(call)
        if why := self.excuse(call):
            return True, -why
        if call.memcg not in self.active:
            return True, self.unbilled(call)
        return self.charge(call, call.memcg, pages), call.memcg

    def pages_free(self, cpu, obj):
        if obj.billed > 0:
            self.uncharge(obj.billed, obj.block.pages)

    # -- removal ---------------------------------------------------------------------------

    def die(self, copy):
        """A copy's group was removed."""
        copy.dead = True

    def look_later(self, copy):
        """Have a work item shrink or destroy the dead copy."""
        if copy not in self.looked_at:
            self.looked_at.add(copy)
            self.host.schedule_work(lambda: self.look_at(copy))

    def look_at(self, copy):
        self.looked_at.discard(copy)
        if copy.destroyed:
            return
        if self.slab_pages(copy):
            self.shrink(copy)
        else:
            self.destroy(copy)

    def shrink(self, copy):
        copy.shrink(self.host.cpu)
        copy.capacity = 0  # no sheaves any more

    def destroy(self, copy):
        copy.destroyed = True
        key = (copy.spec.name, copy.owner)
        if self.host.copies.get(key) is copy:
            del self.host.copies[key]

    def last_slab_gone(self, copy):
        self.look_later(copy)

    def copies_paid_by(self, row):
        return [c for c in self.host.caches if c.owner and c.pays == row and not c.destroyed]

    def hand_over(self, copy, row):
        """The charge of a copy goes to an ancestor ``row``; 0 is nobody."""
        self.uncharge(copy.pays, self.slab_pages(copy), self.groups[row] if row else None)
        copy.pays = row

    def drain_stock(self, row):
        """Every CPU returns the pages that it holds for a group and those below."""
        self.stock.drain_subtree(row)

    # -- what it adds up to ----------------------------------------------------------------

    def payer(self, obj):
        if obj.slab is None or obj.billed <= 0:
            return obj.billed
        return obj.slab.cache.pays or -ev.CAUSE_REMOVED

    def stocks(self):
        return [list(slots) for slots in self.stock.cpus], super().stocks()[1]

    def kernel_pages(self, row):
        objects = self.host.objects.values()
        return sum(obj.block.pages for obj in objects if obj.block and obj.billed == row)

    def charged(self, row):
        """Pages that the group itself, not its descendants, is charged for."""
        slabs = [s for s in self.host.all_slabs() if s.cache.owner and s.cache.pays == row]
        return sum(slab.block.pages for slab in slabs) + self.kernel_pages(row)

    def pinned(self, row):
        return self.charged(row) if self.slabs_pin and row > ROOT else self.kernel_pages(row)

    def spared(self, row):
        """Charged pages that the memory counter does not have."""
        return 0

    def check(self):
        for group in list(self.groups)[1:]:
            rows = {below.row for below in self.groups.subtree(group.row)}
            pages = sum(self.charged(row) for row in rows)
            assert group.kmem.usage == pages
            pages += self.user_pages(group.row)
            if "memory" in self.counters:
                spared = sum(self.spared(row) for row in rows)
                assert group.memory.usage == pages + self.stock.held(rows) - spared
            else:
                assert group.memory.usage == self.user_pages(group.row)
