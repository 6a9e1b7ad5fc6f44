"""The shrinkers ``dentry-inode``, ``lru`` and ``clock`` in plain Python; oldest objects first."""

from collections import defaultdict

from kmbench.core import events as ev


class Item:
    """A cached object."""

    def __init__(self, pins):
        self.pins = pins
        self.held = 0
        self.referenced = False
        self.on = None  # key of its list
        self.users = set()  # groups whose look-ups found it


class Lists:
    """LRU lists by (owner, kind), oldest first."""

    def __init__(self, vm, params):
        self.vm = vm
        self.params = params
        self.lists = defaultdict(list)

    def kind(self, handle):
        return 0

    def add(self, handle, item):
        item.on = (self.vm.owner_of(handle), self.kind(handle))
        self.vm.bits.add(item.on[0])
        self.lists[item.on].append(handle)

    def forget(self, handle, item):
        if item.on is not None:
            self.lists[item.on].remove(handle)
            item.on = None

    def rotate(self, handle, item):
        self.lists[item.on].remove(handle)
        self.lists[item.on].append(handle)

    def count(self, owner):
        return sum(len(found) for (row, _), found in self.lists.items() if row == owner)

    def hand_over(self, row, heir):
        for key in [key for key in self.lists if key[0] == row and self.lists[key]]:
            for handle in self.lists[key]:
                self.vm.items[handle].on = (heir, key[1])
            self.lists[heir, key[1]] += self.lists[key]
            self.lists[key] = []
            self.vm.bits.add(heir)

    def snapshot(self):
        items = self.vm.items
        return {
            key: [(handle, items[handle].referenced) for handle in found]
            for key, found in self.lists.items()
            if found
        }

    def walk(self, key, nr):
        """Visit `nr` objects: in use or spared ones do not die; how many were visited."""
        visited = 0
        at = self.lists[key][0] if self.lists[key] else None
        while at is not None and visited < nr:
            here, item = at, self.vm.items[at]
            place = self.lists[key].index(here)
            at = self.lists[key][place + 1] if place + 1 < len(self.lists[key]) else None
            visited += 1
            if item.pins:
                self.forget(here, item)
            elif item.referenced:
                item.referenced = False
                self.rotate(here, item)
            else:
                self.forget(here, item)
                self.dispose(here)
        return visited

    def dispose(self, handle):
        self.vm.evict(handle)


class DentryInode(Lists):
    """``dentry-inode``."""

    @property
    def old(self):
        """Before list_lru (3.12)."""
        return self.vm.setup.era in ("3.5", "3.8")

    def kind(self, handle):
        inode = self.vm.r.inode_cache and handle >= self.vm.setup.nr_objects // 2
        return 1 if inode else 0

    def unused(self, handle, item):
        if item.on is None:
            item.referenced = self.old
            self.add(handle, item)
        else:
            item.referenced = True

    def scan(self, owner, nr, gfp):
        if not gfp & ev.GFP_FS:
            return None
        dentries, inodes = len(self.lists[owner, 0]), len(self.lists[owner, 1])
        if dentries + inodes == 0:
            return 0
        extra = 0 if self.old else 1
        part = [nr * len_ // (dentries + inodes) + extra for len_ in (dentries, inodes)]
        scanned = self.prune_dentries((owner, 0), part[0])
        if self.vm.r.inode_cache:
            scanned += self.walk((owner, 1), part[1] + (1 if self.old else 0))
        return scanned

    def prune_dentries(self, key, nr):
        self.doomed = []
        if self.old:
            visited = self.prune_old(key, nr)
        else:
            self.collecting = True
            visited = self.walk(key, nr)
            self.collecting = False
        while self.doomed:
            self.kill(self.doomed[0])
        return visited

    def prune_old(self, key, nr):
        """Up to 3.11: spared ones do not count, and each is met once."""
        met = list(self.lists[key])
        at = 0
        while nr and at < len(met):
            handle, item = met[at], self.vm.items[met[at]]
            at += 1
            if item.referenced:
                item.referenced = False
                self.rotate(handle, item)
            else:
                nr -= 1
                self.forget(handle, item)
                if not item.pins:
                    self.doomed.append(handle)
        return at

    collecting = False

    def dispose(self, handle):
        if self.collecting:
            self.doomed.append(handle)
        else:
            self.vm.evict(handle)

    def kill(self, handle):
        while handle:
            if handle in self.doomed:
                self.doomed.remove(handle)
            self.forget(handle, self.vm.items[handle])
            parent = self.vm.parents.get(handle, 0)
            self.vm.evict(handle)
            if inode := self.vm.inode_of(handle):
                self.vm.put(inode)
            handle = 0
            if parent:
                self.vm.items[parent].pins -= 1
                if self.vm.items[parent].pins == 0:
                    handle = parent


class CostaShrinkFn(DentryInode):
    """``costa-shrink-fn``: every object is on its group's list and on the superblock's, too."""

    def __init__(self, vm, params):
        super().__init__(vm, params)
        self.superblock = ([], [])

    def add(self, handle, item):
        super().add(handle, item)
        self.superblock[self.kind(handle)].append(handle)
        self.vm.bits.add(0)

    def forget(self, handle, item):
        super().forget(handle, item)
        if handle in self.superblock[self.kind(handle)]:
            self.superblock[self.kind(handle)].remove(handle)

    def count(self, owner):
        if owner == 0:
            return sum(map(len, self.superblock))
        if self.vm.posted:
            return len(self.lists[owner, 0])
        return super().count(owner)

    def scan(self, owner, nr, gfp):
        if owner and self.vm.posted:
            return self.prune_dentries((owner, 0), nr)
        if owner:
            return super().scan(owner, nr, gfp)
        if not gfp & ev.GFP_FS:
            return None
        dentries, inodes = map(len, self.superblock)
        if dentries + inodes == 0:
            return 0
        part = [nr * len_ // (dentries + inodes) for len_ in (dentries, inodes)]
        scanned = self.prune_superblock(0, part[0] + (0 if self.old else 1))
        if self.vm.r.inode_cache:
            scanned += self.prune_superblock(1, part[1] + 1)
        return scanned

    def prune_superblock(self, kind, nr):
        met = self.superblock[kind]
        free_rides = self.old and kind == 0  # spared dentries do not count, and are met once
        most = len(met) if free_rides else nr
        self.doomed = []
        visited = 0
        at = met[0] if met else None
        while at is not None and nr > 0 and visited < most:
            here, item = at, self.vm.items[at]
            place = met.index(here) + 1
            at = met[place] if place < len(met) else None
            visited += 1
            nr -= 1
            if item.referenced and (free_rides or not item.pins):
                item.referenced = False
                met.append(met.pop(place - 1))
                nr += free_rides
                continue
            self.forget(here, item)
            if not item.pins:
                if kind == 0:
                    self.doomed.append(here)
                else:
                    self.vm.evict(here)
        while self.doomed:
            self.kill(self.doomed[0])
        return visited


class Lru(Lists):
    """``lru``.  Parameter: ``capacity``."""

    def unused(self, handle, item):
        if item.on is not None:
            self.used(handle, item)
            return
        item.referenced = False
        self.add(handle, item)
        found = self.lists[item.on]
        if self.params.get("capacity") and len(found) > self.params["capacity"]:
            while self.vm.items[found[0]].referenced:
                self.vm.items[found[0]].referenced = False
                found.append(found.pop(0))
            victim = found[0]
            self.forget(victim, self.vm.items[victim])
            if self.vm.items[victim].pins == 0:
                self.vm.evict(victim)

    def used(self, handle, item):
        self.rotate(handle, item)

    def scan(self, owner, nr, gfp):
        return self.walk((owner, 0), nr)


class Clock(Lru):
    """``clock``.  Parameter: ``capacity``."""

    def used(self, handle, item):
        item.referenced = True


SHRINKERS = {
    "dentry-inode": DentryInode, "costa-shrink-fn": CostaShrinkFn, "lru": Lru, "clock": Clock,
}  # fmt: skip
