"""shrink_slab: how hard a shrinker is asked to work, by kernel era.

Sources: Linux 3.5 mm/vmscan.c:shrink_slab (pressure follows the share of user pages scanned; up to
4.15), 4.19 mm/vmscan.c:do_shrink_slab (pressure follows the priority), 6.18
mm/shrinker.c:do_shrink_slab.  What a call leaves undone is deferred to the next one; a shrinker
that always refuses (GFP_NOFS) winds up to a bound.
"""

from kmbench.core.jit import inlined, outlined
from kmbench.core.paths import SHRINKER_ASKED, SHRINKER_BIT, SHRINKER_EMPTY
from kmbench.core.release import settle

LRU_RATIO, PRIORITY_CAPPED, PRIORITY = 0, 1, 2  # rules up to 4.15, 4.16 to 5.12, later
SWAP_CLUSTER_MAX = 32
STOP = -1  # a shrinker's answer: cannot now


@inlined
def freed_by(S, memcg, nr, gfp):
    """Have the shrinker scan `nr` objects; False if it refused.  Slabs left empty go at once."""
    vm = S.vm[0]
    scanned = S.R.scan(S, S.Q, memcg, nr, gfp)
    if scanned == STOP:
        return False
    vm.scanned_objects += scanned
    vm.cost += scanned * vm.object_ns
    settle(S, S.R, S.P, S.k[0].cpu)
    return True


@inlined
def by_lru_ratio(S, d, memcg, freeable, nr_scanned, lru_pages, gfp):
    """Up to 4.15; each shrinker is asked in whole batches, the rest is deferred."""
    vm = S.vm[0]
    delta = 4 * nr_scanned // vm.seeks * freeable // (lru_pages + 1)
    total = d.deferred + delta
    if total < 0:
        total = freeable
    if delta < freeable // 4:
        total = min(total, freeable // 2)
    total = min(total, 2 * freeable)
    while total >= vm.batch:
        if not freed_by(S, memcg, vm.batch, gfp):
            break
        total -= vm.batch
    d.deferred = total


@inlined
def by_priority(S, d, memcg, freeable, prio, gfp):
    """4.16 and later; a list shorter than a batch is scanned once the whole of it is due."""
    vm = S.vm[0]
    before = d.deferred
    delta = freeable // 2
    if vm.seeks > 0:
        delta = (freeable >> prio) * 4 // vm.seeks
    if vm.rules == PRIORITY:
        total = min((before >> prio) + delta, 2 * freeable)
    else:
        if vm.at_least_batch:  # 4.19 alone
            delta = max(delta, min(freeable, vm.batch))
        total = before + delta
        if delta < freeable // 4:
            total = min(total, freeable // 2)
        total = min(total, 2 * freeable)
    scanned = 0
    while total >= vm.batch or total >= freeable:
        nr = min(vm.batch, total)
        if not freed_by(S, memcg, nr, gfp):
            break
        total -= nr
        scanned += nr
    left = max(before + delta - scanned, 0)
    d.deferred = min(left, 2 * freeable) if vm.rules == PRIORITY else left


@inlined
def visit(S, nr):
    """Ask `nr` superblocks for one group."""
    vm = S.vm[0]
    vm.visits += nr
    vm.cost += nr * vm.visit_ns
    S.path[SHRINKER_BIT if vm.bitmap else SHRINKER_ASKED].count += nr


@outlined
def shrink_slab(S, memcg, prio, nr_scanned, lru_pages, gfp):
    """One visit to the shrinker for list owner `memcg` (0: the lists of no group); pages freed.

    Since 4.19 a bit says whether there is anything to visit; before, every superblock's shrinker is
    asked for every group.  As posted in 2012 what is deferred is not kept per group but for all in
    row 1.  nr_scanned, lru_pages: user pages scanned in this round and in all, for
    the older rules.
    """
    vm = S.vm[0]
    if vm.bitmap and S.owner[memcg].bit == 0:
        return 0
    visit(S, 1 if vm.bitmap else vm.superblocks)
    freeable = S.R.count(S, S.Q, memcg)
    if freeable <= 0:
        S.path[SHRINKER_EMPTY].count += vm.bitmap
        S.owner[memcg].bit = 0
        return 0
    d = S.owner[1 if vm.posted_2012 and memcg > 0 else memcg]
    before = S.k[0].nr_slab_pages
    if vm.rules == LRU_RATIO:
        nr_scanned = nr_scanned if nr_scanned > 0 else SWAP_CLUSTER_MAX
        by_lru_ratio(S, d, memcg, freeable, nr_scanned, lru_pages, gfp)
    else:
        by_priority(S, d, memcg, freeable, prio, gfp)
    freed = before - S.k[0].nr_slab_pages
    vm.freed_slab_pages += freed
    return freed
