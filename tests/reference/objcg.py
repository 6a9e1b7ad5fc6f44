"""The strategies ``linux-5.9`` and ``linux-6.18``: obj_cgroup, every object charged by its bytes.

Linux 5.9 and 6.18 mm/memcontrol.c, mm/slab.h, mm/slub.c.
"""

from collections import Counter
from typing import NamedTuple

from kmbench.core import events as ev

from .memcg import ROOT, ByteStock, PageStock, Xoshiro128
from .strategies import NoAccounting


class Rules(NamedTuple):
    """What differs between the kernels with obj_cgroup."""

    slots: int  # of the page stock, per CPU
    batch: int  # pages charged ahead
    charge_first: bool  # before the object is allocated
    kmem_limit: bool  # the kmem counter can refuse
    high_forces: bool  # __GFP_HIGH (GFP_ATOMIC) goes over the limit
    dying_forces: bool
    direct_uncharge: bool  # pages go back to the counters, never to the page stock
    drop_above_page: bool  # see ByteStock
    pages_by_objcg: bool  # kernel pages are billed to the obj_cgroup, not the group
    vmstat_batch: bool  # see ByteStock.account
    eager_vectors: bool  # SLAB_ACCOUNT slabs get their vector when they are made


LINUX_5_9 = Rules(1, 32, True, True, False, True, True, True, False, False, False)
LINUX_6_18 = Rules(7, 64, False, False, True, False, False, False, True, True, True)


class ObjCgroup(NoAccounting):
    """``linux-5.9`` and ``linux-6.18``: shared caches, every accounted object charged by bytes.

    Parameter of 5.9: ``as_posted``, an object whose charge fails is handed out unbilled.
    """

    rules: Rules
    has_vectors = True
    zombies_hold_ids = False

    def __init__(self, host, params, seed):
        super().__init__(host, params, seed)
        machine, rules = host.machine, self.rules
        self.page_size = machine.page_size
        self.as_posted = params.get("as_posted", False)
        self.page_stock = PageStock(
            self.groups, machine.cpus, rules.slots, rules.batch, Xoshiro128(seed)
        )
        self.byte_stock = ByteStock(
            self.groups, machine.cpus, self.page_size, self, rules.drop_above_page,
            params.get("obj_slots", 1), self.page_stock.rng, params.get("uncharge_to_stock", False),
        )  # fmt: skip
        self.per_node = params.get("per_node", False)
        if not params.get("vmstat_batch", rules.vmstat_batch):
            self.byte_stock.batched = None

    # -- pages -----------------------------------------------------------------------------

    def charge_pages(self, call, row, pages) -> bool:
        """__memcg_kmem_charge of 5.9, obj_cgroup_charge_pages of 6.18."""
        group = self.groups[row]
        if not self._try_charge(call, row, pages):
            return False
        if not self.rules.kmem_limit:
            group.kmem.charge(pages)
        elif not group.kmem.try_charge(pages):
            if not call.gfp & ev.GFP_NOFAIL:
                group.memory.uncharge(pages)
                return False
            group.kmem.charge(pages)
        return True

    def _try_charge(self, call, row, pages) -> bool:
        """try_charge on the memory counter."""
        if self.page_stock.consume(call.cpu, row, pages):
            return True
        memory = self.groups[row].memory
        batch = max(self.rules.batch, pages)
        if memory.try_charge(batch):
            if batch > pages:
                self.page_stock.refill(call.cpu, row, batch - pages)
            return True
        if batch > pages and memory.try_charge(pages):
            return True
        if self.host.vm:
            forces = ev.CTX_DYING if self.rules.dying_forces else 0
            if self.host.vm.over_limit(call, row, pages, call.gfp, forces):
                return True
        if not self._forced(call.gfp):
            return False
        memory.charge(pages)
        return True

    def charge_user(self, call, row):
        return self._try_charge(call, row, 1)

    def flush_stocks(self, row):
        for cpu in range(self.host.machine.cpus):
            for slot in range(len(self.byte_stock.cpus[cpu])):
                self.byte_stock.drain(cpu, slot)
        self.page_stock.drain_subtree(row)

    def _forced(self, gfp) -> bool:
        force = ev.GFP_NOFAIL | ev.CTX_MEMALLOC
        if self.rules.high_forces:
            force |= ev.GFP_HIGH
        if self.rules.dying_forces:
            force |= ev.CTX_DYING
        return bool(gfp & force)

    def uncharge_pages(self, cpu, row, pages):
        """Pages of group ``row`` (not through its obj_cgroup) go back."""
        if pages == 0:
            return
        self.groups[row].kmem.uncharge(pages)
        if row == ROOT or self.rules.direct_uncharge and not self.byte_stock.to_page_stock:
            self.groups[row].memory.uncharge(pages)
        else:
            self.page_stock.refill(cpu, row, pages)

    def return_pages(self, cpu, row, pages):
        """Pages of the obj_cgroup of ``row`` go back, to the page stock where there is one."""
        self.groups[row].objcg_pages -= pages
        self.uncharge_pages(cpu, self.groups.resolve(row), pages)

    def return_pages_direct(self, row, pages):
        """The same, past the page stock."""
        self.groups[row].objcg_pages -= pages
        group = self.groups[self.groups.resolve(row)]
        group.kmem.uncharge(pages)
        group.memory.uncharge(pages)

    # -- obj_cgroup ------------------------------------------------------------------------

    def current_objcg(self, call):
        """current_obj_cgroup: (row of the obj_cgroup or 0, what to note if it is 0)."""
        if call.memcg <= ROOT:
            return 0, 0
        if call.gfp & ev.CTX_INTERRUPT:
            return 0, -ev.CAUSE_INTERRUPT
        if call.gfp & ev.CTX_KTHREAD:
            return 0, -ev.CAUSE_KTHREAD
        row = self.groups.resolve(call.memcg)
        return (row, 0) if row > ROOT else (0, -ev.CAUSE_DYING)

    def objcg(self, row, node):
        return row, node if self.per_node else 0

    def charge_bytes(self, call, row, nbytes, acct=None) -> bool:
        """obj_cgroup_charge; ``acct`` as in ByteStock.refill."""
        objcg = self.objcg(row, acct[0] if acct else 0)
        if self.byte_stock.consume(call.cpu, objcg, nbytes):
            if acct:
                self.byte_stock.account(call.cpu, objcg, *acct)
            return True
        pages = -(-nbytes // self.page_size)
        self.byte_stock.line_of(objcg).read()  # its group
        if not self.charge_pages(call, row, pages):
            return False
        self.groups[row].objcg_pages += pages
        if nbytes % self.page_size or acct:
            self.byte_stock.refill(
                call.cpu, objcg, pages * self.page_size - nbytes, keep=True, acct=acct
            )
        return True

    def objcg_put(self, cpu, row):
        """obj_cgroup_release once nothing holds the obj_cgroup of a removed group any more."""
        group = self.groups[row]
        if group.objcg_refs or self.byte_stock.caches(row) or self.groups.resolve(row) == row:
            return
        for objcg in [key for key in self.byte_stock.left if key[0] == row]:
            pages, rest = divmod(self.byte_stock.left.pop(objcg), self.page_size)
            assert rest == 0
            self.return_pages_direct(row, pages)

    def cg_offline(self, row, cpu):
        """Whatever obj_cgroups charged to the group is its online ancestor's from now on."""
        target = self.groups[self.groups.resolve(row)]
        pages = sum(
            group.objcg_pages for group in self.groups if self.groups.passes(group.row, row)
        )
        for counter in ("kmem", "memory"):
            until = getattr(target, counter)
            getattr(self.groups[row], counter).uncharge(pages, until)
        self.page_stock.drain_subtree(row)
        self.objcg_put(cpu, row)

    # -- slab objects ----------------------------------------------------------------------

    def select(self, call, cache):
        if not (cache.spec.flags & ev.SLAB_ACCOUNT or call.gfp & ev.GFP_ACCOUNT):
            return cache, self.unbilled(call)
        row, unbilled = self.current_objcg(call)
        return cache, row or unbilled

    def pre_alloc(self, call, cache):
        row = self.select(call, cache)[1]
        if not self.rules.charge_first or row <= 0:
            return True, None
        if self.charge_bytes(call, row, cache.spec.size + 8):
            return True, row
        return self.as_posted, -ev.CAUSE_CHARGE

    def alloc_failed(self, call, cache, billed):
        if billed > 0 and self.rules.charge_first:
            objcg = self.objcg(billed, 0)
            self.byte_stock.refill(call.cpu, objcg, cache.spec.size + 8, keep=False)
            self.byte_stock.line_of(objcg).read()

    def post_alloc(self, call, cache, slab, billed):
        if billed <= 0:
            return True, billed
        self.host.need_vector(slab)
        acct = self.acct(slab, cache.spec.size + 8)
        if self.rules.charge_first:
            objcg = self.objcg(billed, slab.node)
            self.byte_stock.line_of(objcg).read()
            self.byte_stock.account(call.cpu, objcg, *acct)
        elif not self.charge_bytes(call, billed, cache.spec.size + 8, acct):
            return False, 0
        self.groups[billed].objcg_refs += 1
        return True, billed

    def slab_new(self, cache, slab):
        if self.rules.eager_vectors and cache.spec.flags & ev.SLAB_ACCOUNT:
            self.host.need_vector(slab)
        return True

    def acct(self, slab, nbytes):
        return slab.node, bool(slab.cache.spec.flags & ev.SLAB_RECLAIM_ACCOUNT), nbytes

    def obj_free(self, cpu, obj):
        nbytes = obj.slab.cache.spec.size + 8
        self._uncharge_bytes(cpu, obj, nbytes, self.acct(obj.slab, -nbytes))

    def _uncharge_bytes(self, cpu, obj, nbytes, acct=None):
        if obj.billed > 0:
            objcg = self.objcg(obj.billed, acct[0] if acct else 0)
            self.byte_stock.refill(cpu, objcg, nbytes, keep=False, acct=acct)
            self.byte_stock.line_of(objcg).read()  # the object's reference
            self.groups[obj.billed].objcg_refs -= 1
            self.objcg_put(cpu, obj.billed)

    def payer(self, obj):
        return self.groups.resolve(obj.billed) if obj.billed > 0 else obj.billed

    # -- kernel pages and per-CPU areas ----------------------------------------------------

    def pages_alloc(self, call, pages, kind):
        if not call.gfp & ev.GFP_ACCOUNT:
            return True, self.unbilled(call)
        row, unbilled = self.current_objcg(call)
        if not self.rules.pages_by_objcg and unbilled in (0, -ev.CAUSE_DYING):
            row = call.memcg if call.memcg > ROOT else 0  # the group itself, even when removed
        if row == 0:
            return True, unbilled
        if self.rules.pages_by_objcg:
            self.byte_stock.line_of(self.objcg(row, 0)).read()
        if not self.charge_pages(call, row, pages):
            return False, 0
        if self.rules.pages_by_objcg:
            self.groups[row].objcg_pages += pages
            self.groups[row].objcg_refs += 1
        return True, row

    def pages_free(self, cpu, obj):
        if obj.billed <= 0:
            return
        if self.rules.pages_by_objcg:
            self.byte_stock.line_of(self.objcg(obj.billed, 0)).read()
            self.return_pages(cpu, obj.billed, obj.block.pages)
            self.groups[obj.billed].objcg_refs -= 1
            self.objcg_put(cpu, obj.billed)
        else:
            self.uncharge_pages(cpu, obj.billed, obj.block.pages)

    def percpu_alloc(self, call, nbytes):
        if not call.gfp & ev.GFP_ACCOUNT:
            return True, self.unbilled(call)
        row, unbilled = self.current_objcg(call)
        if row == 0:
            return True, unbilled
        if not self.charge_bytes(call, row, nbytes):
            return False, 0
        self.groups[row].objcg_refs += 1
        return True, row

    def percpu_free(self, cpu, obj):
        self._uncharge_bytes(cpu, obj, obj.nbytes)

    def pinned(self, row):
        """5.9: charged kernel pages hold the group itself."""
        return self._direct_pages()[row]

    # -- what it adds up to ----------------------------------------------------------------

    def stocks(self):
        held = [
            {row + node * self.groups.count: nbytes for (row, node), nbytes in filter(None, slots)}
            for slots in self.byte_stock.cpus
        ]
        return [list(slots) for slots in self.page_stock.cpus], held

    def left_over(self, row):
        return self.byte_stock.left_of(row)

    def left_lines(self, row):
        nodes = range(self.host.machine.nodes)
        return [self.byte_stock.line_of((row, node)).observe() for node in nodes]

    def vmstat(self):
        return self.byte_stock.vmstat

    def check(self):
        billed = self._billed_bytes()
        direct = self._direct_pages()
        for group in self.groups:
            stocked = self.byte_stock.held(group.row) + self.byte_stock.left_of(group.row)
            total = billed.get(group.row, 0) + stocked
            assert self.page_size * group.objcg_pages == total, f"obj_cgroup {group.row}"
            assert self.byte_stock.left_of(group.row) >= 0
        for group in list(self.groups)[1:]:
            if self.groups.resolve(group.row) == group.row:
                rows = {below.row for below in self.groups.subtree(group.row)}
                kmem = sum(self.groups[row].objcg_pages + direct.get(row, 0) for row in rows)
                assert group.kmem.usage == kmem, f"kmem of {group.row}"
                pages = kmem + self.page_stock.held(rows) + self.user_pages(group.row)
                assert group.memory.usage == pages

    def _billed_bytes(self):
        """Bytes per obj_cgroup of what it is billed for."""
        billed = Counter()
        for obj in self.host.objects.values():
            if obj.billed > 0 and (obj.block is None or self.rules.pages_by_objcg):
                if obj.slab:
                    billed[obj.billed] += obj.slab.cache.spec.size + 8
                elif obj.block:
                    billed[obj.billed] += obj.block.pages * self.page_size
                else:
                    billed[obj.billed] += obj.nbytes
        return billed

    def _direct_pages(self):
        """Kernel pages per group that are charged past the obj_cgroup."""
        direct = Counter()
        for obj in self.host.objects.values():
            if obj.block and obj.billed > 0 and not self.rules.pages_by_objcg:
                direct[obj.billed] += obj.block.pages
        return direct


class Linux59(ObjCgroup):
    """``linux-5.9``."""

    rules = LINUX_5_9


class Linux618(ObjCgroup):
    """``linux-6.18``."""

    rules = LINUX_6_18
