"""Cached objects in plain Python: references, parents, inodes, look-ups."""

from kmbench.core import events as ev

from .memcg import ROOT
from .shrinkers import Item


class CachedObjects:
    """The part of ``reclaim.Vm`` that knows dentries and inodes."""

    def owner_of(self, handle):
        """Whose lists an object belongs on."""
        if not self.group_slab and not self.two_lists:
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
        self.host.adopt(handle, obj, call.memcg)
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
