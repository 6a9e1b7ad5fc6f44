"""shrink_slab in plain Python: how hard a shrinker is asked to work, by era."""

from .memcg import ROOT

ERAS = ("3.5", "3.8", "3.13", "4.5", "4.19", "5.3", "5.9", "5.16", "6.12", "6.18")
CLUSTER = 32


class ShrinkSlab:
    """The part of ``reclaim.Vm`` that asks the shrinker."""

    def shrink_slab(self, owner, prio, scanned, eligible, gfp):
        bitmap = self.era >= ERAS.index("4.19")
        if bitmap and owner not in self.bits:
            return 0
        self.visit(1 if bitmap else self.r.superblocks)
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

    def visit(self, times):
        self.counts["visits"] += times
        self.cost += times * self.r.visit_ns

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
        total = self.deferred[self.kept_at(owner)] + delta
        if delta < freeable // 4:
            total = min(total, freeable // 2)
        total = min(total, 2 * freeable)
        while total >= self.batch and self._scan(owner, self.batch, gfp):
            total -= self.batch
        self.deferred[self.kept_at(owner)] = total

    def kept_at(self, owner):
        """Costa's posting has one number of deferred work for all groups."""
        return ROOT if self.posted and owner else owner

    def _by_priority(self, owner, freeable, prio, gfp):
        old = self.deferred[self.kept_at(owner)]
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
        if self.era >= ERAS.index("5.16"):
            left = min(left, 2 * freeable)
        self.deferred[self.kept_at(owner)] = left
