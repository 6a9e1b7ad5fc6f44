"""The strategies that charge objects by their bytes at once: ``ubc-2006``, ``tcp-memcontrol``."""

from fnmatch import fnmatchcase

from kmbench.core import events as ev

from .memcg import ROOT
from .strategies import NoAccounting


class ByteUnit(NoAccounting):
    """A group's counter has the pages that its bytes need."""

    forces = 0

    def __init__(self, host, params, seed):
        super().__init__(host, params, seed)
        self.params = params
        self.held = dict.fromkeys(range(len(list(self.groups)) + 1), 0)

    def accounts(self, call, cache) -> bool:
        """Whether objects of the cache are charged."""
        raise NotImplementedError

    def pages_for(self, nbytes) -> int:
        return -(-nbytes // self.host.machine.page_size)

    def payer_of(self, call, accounted):
        """The group that is to be charged, or what to note."""
        if call.memcg <= ROOT or not accounted:
            return self.unbilled(call)
        if call.gfp & ev.CTX_INTERRUPT:
            return -ev.CAUSE_INTERRUPT
        return -ev.CAUSE_KTHREAD if call.gfp & ev.CTX_KTHREAD else call.memcg

    def charge(self, call, row, nbytes) -> bool:
        more = self.pages_for(self.held[row] + nbytes) - self.pages_for(self.held[row])
        kmem = self.groups[row].kmem
        if more and not kmem.try_charge(more):
            if not call.gfp & self.forces:
                return False
            kmem.charge(more)
        self.held[row] += nbytes
        return True

    def uncharge(self, row, nbytes):
        before = self.pages_for(self.held[row])
        self.held[row] -= nbytes
        self.groups[row].kmem.uncharge(before - self.pages_for(self.held[row]))

    def select(self, call, cache):
        return cache, self.payer_of(call, self.accounts(call, cache))

    def post_alloc(self, call, cache, slab, billed):
        if billed > 0:
            if not self.charge(call, billed, cache.spec.size):
                return False, 0
            if self.has_vectors:
                self.host.need_vector(slab)
        return True, billed

    def obj_free(self, cpu, obj):
        if obj.billed > 0:
            self.uncharge(obj.billed, obj.slab.cache.spec.size)

    def pages_free(self, cpu, obj):
        if obj.billed > 0:
            self.uncharge(obj.billed, obj.block.pages * self.host.machine.page_size)

    def pinned(self, row):
        return self.pages_for(self.held[row])

    def check(self):
        size = self.host.machine.page_size
        held = dict.fromkeys(self.held, 0)
        for obj in self.host.objects.values():
            if obj.billed > 0:
                held[obj.billed] += obj.slab.cache.spec.size if obj.slab else obj.block.pages * size
        assert held == self.held
        for group in list(self.groups)[1:]:
            pages = sum(self.pages_for(held[g.row]) for g in self.groups.subtree(group.row))
            assert (group.kmem.usage, group.memory.usage) == (pages, 0)


class Ubc2006(ByteUnit):
    """``ubc-2006``: flagged caches and pages; slabs hold an array of payers."""

    has_vectors = True
    forces = ev.GFP_NOFAIL

    def accounts(self, call, cache):
        return bool(cache.spec.flags & ev.SLAB_ACCOUNT or call.gfp & ev.GFP_ACCOUNT)

    def slab_new(self, cache, slab):
        if cache.spec.flags & ev.SLAB_ACCOUNT:
            self.host.need_vector(slab)
        return True

    def pages_alloc(self, call, pages, kind):
        row = self.payer_of(call, call.gfp & ev.GFP_ACCOUNT)
        if row <= 0:
            return True, row
        return self.charge(call, row, pages * self.host.machine.page_size), row


class TcpMemcontrol(ByteUnit):
    """``tcp-memcontrol``.  Parameter: ``caches`` (patterns)."""

    def accounts(self, call, cache):
        patterns = self.params.get("caches", ["skbuff_*"])
        return any(fnmatchcase(cache.spec.name, pattern) for pattern in patterns)
