"""Memory cgroups: hierarchical counters and the per-CPU page stock.

Sources: Linux 3.5 kernel/res_counter.c, 6.18 mm/page_counter.c; mm/memcontrol.c:try_charge,
consume_stock, refill_stock, drain_stock of 3.5 and 6.18.  Counters count pages; the two counter
eras differ in what a level costs (a spin lock or an atomic): each ``_LOCKED`` path stands right
before its ``_ATOMIC`` one.  Charging a
group charges its ancestors up to and including the root.
"""

from kmbench.core.events import COUNTER_MEMORY
from kmbench.core.jit import inlined, outlined
from kmbench.core.lines import write_line
from kmbench.core.paths import (
    COUNTER_CHARGE_ATOMIC,
    COUNTER_FAIL,
    COUNTER_UNCHARGE_ATOMIC,
    STOCK_DRAIN,
    STOCK_HIT,
    STOCK_MISS,
    STOCK_REFILL,
)
from kmbench.core.rng import next_u32


@inlined
def is_below(S, memcg, ancestor):
    """Whether `memcg` is `ancestor` or one of its descendants."""
    while memcg > 0 and memcg != ancestor:
        memcg = S.memcg[memcg].parent
    return memcg > 0


@inlined
def count(S, path):
    """Record one passage of `path` (:mod:`kmbench.core.paths`)."""
    S.path[path].count += 1


@inlined
def counter_charge(S, which, memcg, nr):
    """Add `nr` pages to the counter `which` of `memcg` and of every ancestor.

    At the first level over its limit the levels below are undone and that level's row is returned;
    0 = charged.  (6.18 mm/page_counter.c:page_counter_try_charge)
    """
    locked = S.k[0].counter_locked
    g = memcg
    while g > 0:
        c = S.counter[g * 2 + which]
        S.path[COUNTER_CHARGE_ATOMIC - locked].count += 1
        write_line(S, c, locked)
        if c.usage + nr > c.limit:
            c.failcnt += 1
            S.path[COUNTER_FAIL].count += 1
            undo = memcg
            while undo != g:
                S.counter[undo * 2 + which].usage -= nr
                write_line(S, S.counter[undo * 2 + which], locked)
                S.path[COUNTER_UNCHARGE_ATOMIC - locked].count += 1
                undo = S.memcg[undo].parent
            return g
        c.usage += nr
        if c.usage > c.watermark:
            c.watermark = c.usage
        g = S.memcg[g].parent
    return 0


@outlined
def counter_add(S, which, memcg, nr):
    """Add `nr` pages at every level of a counter without a limit (page_counter_charge)."""
    locked = S.k[0].counter_locked
    g = memcg
    while g > 0:
        c = S.counter[g * 2 + which]
        S.path[COUNTER_CHARGE_ATOMIC - locked].count += 1
        write_line(S, c, locked)
        c.usage += nr
        if c.usage > c.watermark:
            c.watermark = c.usage
        g = S.memcg[g].parent


@outlined
def counter_force(S, which, memcg, nr):
    """Charge `nr` pages at every level, over the limits if need be, and note by how much."""
    counter_add(S, which, memcg, nr)
    over = 0
    g = memcg
    while g > 0:
        c = S.counter[g * 2 + which]
        if c.usage > c.limit:
            c.overshoot = max(c.overshoot, c.usage - c.limit)
            over = 1
        g = S.memcg[g].parent
    S.k[0].forced_pages += over * nr
    S.k[0].nr_absorbed += over


@outlined
def counter_note(S, which, memcg, nr):
    """Keep a counter that costs nothing by itself: per-CPU statistics that readers add up."""
    g = memcg
    while g > 0:
        c = S.counter[g * 2 + which]
        c.usage += nr
        c.watermark = max(c.watermark, c.usage)
        g = S.memcg[g].parent


@inlined
def counter_uncharge(S, which, memcg, nr, stop):
    """Take `nr` pages off `memcg` and its ancestors, up to but excluding row `stop` (0: all)."""
    if nr == 0:
        return
    locked = S.k[0].counter_locked
    g = memcg
    while g > 0 and g != stop:
        S.counter[g * 2 + which].usage -= nr
        write_line(S, S.counter[g * 2 + which], locked)
        S.path[COUNTER_UNCHARGE_ATOMIC - locked].count += 1
        g = S.memcg[g].parent


@outlined
def drain_slot(S, row):
    """Return one slot of the page stock to its counter (drain_stock)."""
    slot = S.stock[row]
    if slot.memcg > 0:
        if slot.nr > 0:
            counter_uncharge(S, COUNTER_MEMORY, slot.memcg, slot.nr, 0)
        S.path[STOCK_DRAIN].count += 1
        slot.memcg = 0
        slot.nr = 0


@inlined
def consume_stock(S, cpu, memcg, nr):
    """Take `nr` pages of this CPU's stock for `memcg`; False if it does not hold as many."""
    slots = S.k[0].stock_slots
    if nr > 1 and S.k[0].stock_single:
        return False
    for row in range(cpu * slots, cpu * slots + slots):
        slot = S.stock[row]
        if slot.memcg == memcg:
            if slot.nr >= nr:
                slot.nr -= nr
                S.path[STOCK_HIT].count += 1
                return True
            return False
    return False


@outlined
def refill_stock(S, cpu, memcg, nr):
    """Put `nr` charged pages into this CPU's stock.

    A slot that would hold more than a batch is returned as a whole.  With no slot free one is
    evicted: the only one, or a random one where there are several (6.16+ mm/memcontrol.c).
    """
    k = S.k[0]
    slots = k.stock_slots
    if slots == 0 or nr > k.stock_batch:
        counter_uncharge(S, COUNTER_MEMORY, memcg, nr, 0)
        return
    S.path[STOCK_REFILL].count += 1
    base = cpu * slots
    empty = -1
    for i in range(slots):
        slot = S.stock[base + i]
        if slot.memcg == memcg:
            slot.nr += nr
            if slot.nr > k.stock_batch:
                drain_slot(S, base + i)
            return
        if slot.memcg == 0 and empty < 0:
            empty = i
    if empty < 0:
        empty = next_u32(S.k) % slots if slots > 1 else 0
        drain_slot(S, base + empty)
    slot = S.stock[base + empty]
    slot.memcg = memcg
    slot.nr = nr


@inlined
def try_charge(S, cpu, memcg, nr, gfp):
    """Charge `nr` pages to the memory counter, through the page stock.

    Returns 0, or the row of the group that was over its limit.  A limit hit reclaims first where
    the run models reclaim (:mod:`kmbench.core.charge`).  Without it, or after, it ends as the NOMEM
    end of Linux 6.18 mm/memcontrol.c:try_charge_memcg; some gfp flags and contexts force the charge
    (by version: ``Accounting.forces``).  The optional batch never forces and never fails the
    charge.
    """
    k = S.k[0]
    if consume_stock(S, cpu, memcg, nr):
        return 0
    S.path[STOCK_MISS].count += 1
    if k.stock_slots > 0 and nr < k.stock_batch:
        if counter_charge(S, COUNTER_MEMORY, memcg, k.stock_batch) == 0:
            refill_stock(S, cpu, memcg, k.stock_batch - nr)
            return 0
    failed = counter_charge(S, COUNTER_MEMORY, memcg, nr)
    if failed:
        failed = S.R.over_limit(S, cpu, memcg, nr, gfp, failed)
        k.nr_absorbed += failed == 0
    if failed and gfp & k.forces:
        counter_force(S, COUNTER_MEMORY, memcg, nr)
        return 0
    return failed


@outlined
def drain_all_stock(S, memcg):
    """Return the page stock that any CPU holds for `memcg` or a group below it."""
    k = S.k[0]
    for row in range(k.nr_cpus * k.stock_slots):
        if is_below(S, S.stock[row].memcg, memcg):
            drain_slot(S, row)
