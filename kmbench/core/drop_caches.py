"""/proc/sys/vm/drop_caches: give back what is cached, without any shortage.

Sources: Linux 3.5 fs/drop_caches.c:drop_slab, 4.16 and 6.18 mm/vmscan.c:drop_slab_node, drop_slab.
All objects are on the first node.  Up to 4.18 the others are asked all the same, each as long as
something comes free there, which is once; since then a node without any has no bit set.
"""

from kmbench.core.events import DROP_PAGECACHE, DROP_SLAB, GFP_KERNEL, USER_CLEAN
from kmbench.core.jit import inlined, outlined
from kmbench.core.shrink import PRIORITY, shrink_slab, visit
from kmbench.core.userpages import free_user_pages

SCANNED = 1000  # user pages that up to 4.15 are said to have been scanned, of as many


@inlined
def drop_slab_once(S):
    """Ask every shrinker for every group once, as hard as can be; objects freed."""
    vm = S.vm[0]
    vm.target = 0
    before = vm.freed_objects
    if vm.global_by_group:
        for memcg in range(1, S.k[0].nr_groups):
            shrink_slab(S, memcg, 0, SCANNED, SCANNED, GFP_KERNEL)
    else:
        shrink_slab(S, 0, 0, SCANNED, SCANNED, GFP_KERNEL)
    return vm.freed_objects - before


@outlined
def drop_caches(S, what):
    """A write of `what` (DROP_*): clean page cache, then slab objects until little comes free.

    Up to 5.14 a round that freed more than ten objects is followed by another; since then one must
    free twice as many as the one before it to go on (069c411de40a).
    """
    if what & DROP_PAGECACHE:
        for memcg in range(1, S.k[0].nr_groups):
            free_user_pages(S, memcg, USER_CLEAN, S.pool[memcg * 3 + USER_CLEAN].nr)
    if what & DROP_SLAB:
        rounds = 0
        visits = S.vm[0].visits
        freed = drop_slab_once(S)
        if S.vm[0].bitmap == 0:
            visit(S, (S.vm[0].visits - visits) * (S.k[0].nr_nodes - 1))
        while (freed >> rounds) > (1 if S.vm[0].rules == PRIORITY else 10):
            rounds += S.vm[0].rules == PRIORITY
            freed = drop_slab_once(S)
