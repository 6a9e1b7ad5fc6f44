"""obj_cgroup accounting: objects are billed by the byte, through a per-CPU stock of bytes.

Source: Linux 5.9 and 6.18 mm/memcontrol.c:obj_cgroup_charge, consume_obj_stock, refill_obj_stock,
drain_obj_stock, obj_cgroup_release ("The new cgroup slab memory controller", Roman Gushchin, June
2020).  The obj_cgroup of a group has the group's row; after the group is removed it points at an
ancestor (:func:`kmbench.core.ops.holder`).

The two eras differ in ``P.par[0].trim``: 1 (5.14+) gives back whole pages above one and keeps the
rest, 0 empties a stock that exceeds a page.
"""

from kmbench.core.ops import (
    COUNTER_KMEM,
    COUNTER_MEMORY,
    GFP_NOFAIL,
    ONLINE,
    PLUGIN_PATH,
    Ops,
    Path,
    count,
    counter_add,
    counter_charge,
    counter_force,
    counter_uncharge,
    holder,
    inlined,
    outlined,
    refill_stock,
    table,
    try_charge,
)

TABLES = {"stock": table("cpu", objcg="i4", bytes="i4")}

STOCK_HIT, STOCK_MISS, BYTES_BACK, STOCK_DRAIN, PAGES_BACK, KMEM_LEVEL = range(
    PLUGIN_PATH, PLUGIN_PATH + 6
)
PATHS = (
    Path("byte_stock_hit", "charge", Ops(br=3, ptr=2, pcpu=2, irq=1)),
    Path("byte_stock_miss", "charge", Ops(br=3, ptr=2, pcpu=1, irq=1, rcu=1)),
    Path("byte_stock_back", "charge", Ops(br=3, ptr=2, pcpu=2, irq=1)),
    Path("byte_stock_drain", "charge", Ops(br=2, ptr=2, pcpu=1, atom=2)),
    Path("byte_stock_pages_back", "charge", Ops(br=1, ptr=1)),
    Path("kmem_statistic", "charge", Ops(ptr=1)),
)


@outlined
def charge_pages(S, P, cpu, memcg, nr, gfp):
    """Charge whole pages: the memory counter, then kmem; False when over a limit.

    kmem is a v1 limit of its own up to 5.15 (a failure gives the memory charge back) and a plain
    statistic since 5.16.
    """
    if try_charge(S, cpu, memcg, nr, gfp):
        return False
    count(S, KMEM_LEVEL)
    if P.par[0].kmem_limit and counter_charge(S, COUNTER_KMEM, memcg, nr):
        if gfp & GFP_NOFAIL == 0:
            counter_uncharge(S, COUNTER_MEMORY, memcg, nr, 0)
            return False
        counter_force(S, COUNTER_KMEM, memcg, nr)
    elif P.par[0].kmem_limit == 0:
        counter_add(S, COUNTER_KMEM, memcg, nr)
    return True


@outlined
def hand_over(S, memcg, target):
    """What the obj_cgroups charged to a removed group is `target`'s, an ancestor's, from now on.

    The kernel leaves the removed group's own counters as they were; nobody can read them.
    """
    g = S.memcg[memcg]
    counter_uncharge(S, COUNTER_KMEM, memcg, g.objcg_pages, target)
    counter_uncharge(S, COUNTER_MEMORY, memcg, g.objcg_pages, target)
    S.memcg[target].objcg_pages += g.objcg_pages
    g.objcg_pages = 0


@outlined
def uncharge_pages(S, P, cpu, memcg, nr, through_stock):
    """Give whole pages back, into this CPU's page stock or straight to the counter."""
    counter_uncharge(S, COUNTER_KMEM, memcg, nr, 0)
    if through_stock and memcg > 1:
        refill_stock(S, cpu, memcg, nr)
    else:
        counter_uncharge(S, COUNTER_MEMORY, memcg, nr, 0)


@inlined
def uncharge_objcg(S, P, cpu, objcg, nr, through_stock):
    """Give back whole pages of an obj_cgroup, on the counters of the group that holds it now."""
    memcg = holder(S, objcg)
    S.memcg[memcg].objcg_pages -= nr
    uncharge_pages(S, P, cpu, memcg, nr, through_stock)


@outlined
def release_if_last(S, P, objcg):
    """Give back what a removed group's obj_cgroup left over, once nothing refers to it."""
    g = S.memcg[objcg]
    if g.state == ONLINE or g.objcg_refs > 0:
        return
    for cpu in range(S.k[0].nr_cpus):
        if P.stock[cpu].objcg == objcg:
            return
    nr = g.nr_charged_bytes >> S.k[0].page_shift
    g.nr_charged_bytes -= nr << S.k[0].page_shift
    if nr > 0:
        uncharge_objcg(S, P, 0, objcg, nr, False)


@outlined
def drain(S, P, cpu):
    """Empty this CPU's byte stock: whole pages to the counter, the rest to the obj_cgroup."""
    stock = P.stock[cpu]
    objcg = stock.objcg
    if objcg == 0:
        return
    count(S, STOCK_DRAIN)
    k = S.k[0]
    nr = stock.bytes >> k.page_shift
    if nr > 0:
        uncharge_objcg(S, P, cpu, objcg, nr, False)
    S.memcg[objcg].nr_charged_bytes += stock.bytes & (k.page_size - 1)
    stock.objcg = 0
    stock.bytes = 0
    release_if_last(S, P, objcg)


@outlined
def switch_stock(S, P, cpu, objcg):
    """Make this CPU's stock the obj_cgroup's; its left-over bytes come along."""
    drain(S, P, cpu)
    stock = P.stock[cpu]
    stock.objcg = objcg
    stock.bytes = S.memcg[objcg].nr_charged_bytes
    S.memcg[objcg].nr_charged_bytes = 0


@inlined
def refill(S, P, cpu, objcg, nr_bytes, keep):
    """Put charged bytes into this CPU's stock (refill_obj_stock).

    `keep`: the bytes are the rest of a page just charged, so a full page may stay.
    """
    stock = P.stock[cpu]
    k = S.k[0]
    if stock.objcg != objcg:
        switch_stock(S, P, cpu, objcg)
        keep = False
    stock.bytes += nr_bytes
    if stock.bytes > k.page_size:
        if P.par[0].trim == 0:
            drain(S, P, cpu)
        elif not keep:
            count(S, PAGES_BACK)
            nr = stock.bytes >> k.page_shift
            stock.bytes &= k.page_size - 1
            uncharge_objcg(S, P, cpu, objcg, nr, True)


@outlined
def charge_miss(S, P, cpu, memcg, nr_bytes, gfp):
    """Charge the pages that `nr_bytes` needs; the rest of the last one goes to the stock."""
    k = S.k[0]
    count(S, STOCK_MISS)
    rest = nr_bytes & (k.page_size - 1)
    nr = (nr_bytes >> k.page_shift) + (rest > 0)
    if not charge_pages(S, P, cpu, memcg, nr, gfp):
        return False
    S.memcg[memcg].objcg_pages += nr
    if rest > 0:
        refill(S, P, cpu, memcg, k.page_size - rest, True)
    return True


@inlined
def charge_bytes(S, P, cpu, memcg, nr_bytes, gfp):
    """Charge `nr_bytes` to the group's obj_cgroup; False when over a limit."""
    stock = P.stock[cpu]
    if stock.objcg == memcg and stock.bytes >= nr_bytes:
        stock.bytes -= nr_bytes
        count(S, STOCK_HIT)
        return True
    return charge_miss(S, P, cpu, memcg, nr_bytes, gfp)


@inlined
def uncharge_bytes(S, P, cpu, objcg, nr_bytes):
    """Give `nr_bytes` back to the obj_cgroup, through this CPU's stock."""
    count(S, BYTES_BACK)
    refill(S, P, cpu, objcg, nr_bytes, False)


def sample(S, P):
    """Tell the timeline what the stocks hold."""
    for cpu in range(S.k[0].nr_cpus):
        S.memcg[P.stock[cpu].objcg].byte_stock += P.stock[cpu].bytes


def flush(S, P):
    """Empty the byte stock of every CPU."""
    for cpu in range(S.k[0].nr_cpus):
        drain(S, P, cpu)
