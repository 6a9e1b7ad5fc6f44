"""User pages in plain Python: pools per group, scanned a share at a time."""

from kmbench.core import events as ev

from .memcg import ROOT

CLUSTER = 32


class UserPages:
    """The part of ``reclaim.Vm`` that knows user pages."""

    def scannable(self, row):
        anon = len(self.pools[row, ev.USER_ANON]) if self.swap_free else 0
        return len(self.pools[row, 0]) + len(self.pools[row, 1]) + anon

    def shrink_pages(self, row, prio, target, gfp):
        freed = scanned = 0
        direct = self.target == 0 and not gfp & ev.CTX_MEMALLOC
        if prio == 12 and (self.old_scanning or direct):
            target = float("inf")
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
