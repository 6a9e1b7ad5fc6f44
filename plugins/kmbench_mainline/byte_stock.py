"""obj_cgroup accounting: objects are billed by the byte, through a per-CPU stock of bytes.

Source: Linux 5.9 and 6.18 mm/memcontrol.c:obj_cgroup_charge, consume_obj_stock, refill_obj_stock,
drain_obj_stock, obj_cgroup_release ("The new cgroup slab memory controller", Roman Gushchin, June
2020).  The obj_cgroup of a group has the group's row; after the group is removed it points at an
ancestor (:func:`kmbench.core.ops.holder`).

``P.par[0]`` has the eras and proposals: ``trim`` (5.14+) gives back whole pages above one and keeps
the rest, else a stock that exceeds a page is emptied.  ``vmstat_batch`` (5.14+, Waiman Long, "mm/
memcg: Cache vmstat data in percpu memcg_stock_pcp", April 2021) collects the bytes of slab per node
in the stock, else every object updates the statistics; with it came that nr_charged_bytes is only
exchanged where it is not 0.  ``uncharge_to_stock`` (5.11 to 6.15): pages given back go to the page
stock, also from a stock that is emptied (__memcg_kmem_uncharge calls refill_stock: Roman Gushchin,
5 Jan 2021; no longer: Shakeel Butt, "memcg: decouple drain_obj_stock from local stock", March
2025).  ``obj_slots``: obj_cgroups that a CPU's stock holds bytes for, one up to 6.18.
``per_node``: a group has an obj_cgroup for every node.

struct obj_cgroup is one line (kmalloc-64): nr_charged_bytes, which all CPUs write, lies beside the
reference and the pointer to the group, which they read.  Reads are counted where a function looks
at the obj_cgroup after it did something else: for the reference of an allocation
(get_obj_cgroup_from_current; obj_cgroup_get_many), for the group that is charged or uncharged
(get_mem_cgroup_from_objcg; obj_cgroup_memcg), for the reference of a stock, which comes before
nr_charged_bytes (obj_cgroup_get in refill_obj_stock), and for that of an object (obj_cgroup_get and
mod_objcg_state in memcg_slab_post_alloc_hook, both with obj_cgroup_put in memcg_slab_free_hook).

A *key* stands for an obj_cgroup: the group's row, plus ``nr_groups`` for every node above 0.
"""

from kmbench.core.ops import (
    COUNTER_KMEM,
    COUNTER_MEMORY,
    GFP_NOFAIL,
    LINE,
    ONLINE,
    PLUGIN_PATH,
    SLAB_RECLAIM_ACCOUNT,
    Ops,
    Path,
    by_table,
    count,
    counter_add,
    counter_charge,
    counter_force,
    counter_note,
    counter_uncharge,
    holder,
    inlined,
    next_u32,
    outlined,
    read_line,
    refill_stock,
    table,
    try_charge,
    write_line,
)

MAX_SLOTS = 8
TABLES = {
    # row cpu * MAX_SLOTS + slot: key, its bytes, and slab bytes of `node` that no statistic has yet
    "stock": table(
        "cpu", MAX_SLOTS, objcg="i4", bytes="i4", node="i4", reclaimable="i4", unreclaimable="i4"
    ),
    # row key: left over, on no CPU's stock (nr_charged_bytes), in the line of the obj_cgroup
    "left": table("memcg", "node", bytes="i4", **dict(LINE)),
    # on: the static key, a group other than the root was made; batch: slab bytes that the
    # statistics may lag by
    "mode": table(1, on="i4", batch="i4"),
}
SEVERAL = "several"  # only the proposals of 2026 have this table
# slots of a CPU's stock in use; stride: from the key of a node's obj_cgroup to the next node's
SEVERAL_TABLE = table(1, slots="i4", stride="i4")

(
    STOCK_HIT, STOCK_MISS, BYTES_BACK, STOCK_DRAIN, PAGES_BACK, KMEM_LEVEL, VMSTAT, OBJCG_ROOT,
    PAGE_CHARGED, PAGE_BACK, LIST_LRU, FREE_TEST, NO_OWNER,
) = range(PLUGIN_PATH, PLUGIN_PATH + 13)  # fmt: skip
PATHS = (  # what most cost depends on the era: kmbench_mainline.objcg_ops
    Path("byte_stock_hit", "charge", Ops()),
    Path("byte_stock_miss", "charge", Ops()),
    Path("byte_stock_back", "charge", Ops()),
    Path("byte_stock_drain", "charge", Ops()),
    Path("byte_stock_pages_back", "charge", Ops()),
    Path("kmem_statistic", "charge", Ops()),
    Path("vmstat_update", "charge", Ops()),
    Path("objcg_of_root", "charge", Ops()),
    Path("objcg_page_charged", "charge", Ops()),
    Path("objcg_page_back", "charge", Ops()),
    Path("list_lru_found", "charge", Ops()),
    # mm/slab.h:memcg_slab_free_hook: the slab of an object that nobody pays for has no vector
    Path("free_test", "free", Ops(br=1, ptr=1)),
    Path("objcg_none", "charge", Ops()),
)


@inlined
def charge_pages(S, P, cpu, memcg, nr, gfp):
    """Charge whole pages: the memory counter, then kmem; False when over a limit.

    kmem is a v1 limit of its own up to 5.15 (a failure gives the memory charge back) and a plain
    counter since 5.16.  cgroup v2 has none: what is kept here is the statistic of each CPU.
    """
    if try_charge(S, cpu, memcg, nr, gfp):
        return False
    count(S, KMEM_LEVEL)
    if P.par[0].cgroup_v2:
        counter_note(S, COUNTER_KMEM, memcg, nr)
    elif P.par[0].kmem_limit and counter_charge(S, COUNTER_KMEM, memcg, nr):
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
    count(S, KMEM_LEVEL)
    if P.par[0].cgroup_v2:
        counter_note(S, COUNTER_KMEM, memcg, -nr)
    else:
        counter_uncharge(S, COUNTER_KMEM, memcg, nr, 0)
    if through_stock and memcg > 1:
        refill_stock(S, cpu, memcg, nr)
    else:
        counter_uncharge(S, COUNTER_MEMORY, memcg, nr, 0)


@inlined
def _key_of_group(P, memcg, node):
    return memcg


@inlined
def _key_of_node(P, memcg, node):
    return memcg + node * P.several[0].stride


@inlined
def _group_itself(S, P, key):
    return key


@inlined
def _group_of_key(S, P, key):
    return key % S.k[0].nr_groups if P.several[0].stride else key  # a division is slow


# (P, memcg, node) -> the group's obj_cgroup for memory of a node
key_of = by_table(SEVERAL, _key_of_group, _key_of_node)
# (S, P, key) -> the group whose obj_cgroup it is
group_of = by_table(SEVERAL, _group_itself, _group_of_key, argument=1)


@inlined
def uncharge_objcg(S, P, cpu, objcg, nr, through_stock):
    """Give back whole pages of a group's obj_cgroup, on the counters of who holds it now."""
    memcg = holder(S, objcg)
    S.memcg[memcg].objcg_pages -= nr
    uncharge_pages(S, P, cpu, memcg, nr, through_stock)


@inlined
def release_if_last(S, P, objcg):
    """Give back what a removed group's obj_cgroup left over, once nothing refers to it."""
    g = S.memcg[objcg]
    if g.state != ONLINE and g.objcg_refs <= 0:
        release_left(S, P, objcg)


@outlined
def release_left(S, P, objcg):
    """The same of an obj_cgroup that no object refers to, but perhaps a stock."""
    g = S.memcg[objcg]
    k = S.k[0]
    for row in range(k.nr_cpus * MAX_SLOTS):
        if P.stock[row].objcg > 0 and group_of(S, P, P.stock[row].objcg) == objcg:
            return
    for node in range(k.nr_nodes):
        left = P.left[key_of(P, objcg, node)]
        nr = left.bytes >> k.page_shift
        left.bytes -= nr << k.page_shift
        g.nr_charged_bytes -= nr << k.page_shift
        if nr > 0:
            uncharge_objcg(S, P, 0, objcg, nr, False)


@inlined
def flush_vmstat(S, P, row):
    """Update the statistics with what a stock collected for its node."""
    stock = P.stock[row]
    if stock.reclaimable != 0:
        stock.reclaimable = 0
        count(S, VMSTAT)
    if stock.unreclaimable != 0:
        stock.unreclaimable = 0
        count(S, VMSTAT)


@outlined
def flush_vmstat_of_node(S, P, row, node):
    """The next slab bytes of a stock are another node's."""
    flush_vmstat(S, P, row)
    P.stock[row].node = node


@inlined
def account_vmstat(S, P, row, node, flags, nr_bytes):
    """Count slab bytes of a node (__account_obj_stock); above a page the statistics get them.

    The first bytes stay in the stock even if they are more than a page.
    """
    stock = P.stock[row]
    if stock.node != node:
        flush_vmstat_of_node(S, P, row, node)
    batch = P.mode[0].batch
    reclaimable = flags & SLAB_RECLAIM_ACCOUNT != 0
    held = stock.reclaimable if reclaimable else stock.unreclaimable
    nr = nr_bytes + held
    if (nr > batch or nr < -batch) and (held != 0 or batch == 0):
        nr = 0
        count(S, VMSTAT)
    if reclaimable:
        stock.reclaimable = nr
    else:
        stock.unreclaimable = nr


@inlined
def drain(S, P, cpu, row):
    """Empty a slot of this CPU's byte stock: whole pages to the counter, the rest to the
    obj_cgroup."""
    stock = P.stock[row]
    key = stock.objcg
    if key == 0:
        return
    count(S, STOCK_DRAIN)
    k = S.k[0]
    objcg = group_of(S, P, key)
    nr = stock.bytes >> k.page_shift
    if nr > 0:
        count(S, PAGES_BACK)
        read_line(S, P.left[key])
        uncharge_objcg(S, P, cpu, objcg, nr, P.par[0].uncharge_to_stock)
    rest = stock.bytes & (k.page_size - 1)
    if stock.bytes > 0:
        write_line(S, P.left[key], False)
    P.left[key].bytes += rest
    S.memcg[objcg].nr_charged_bytes += rest
    flush_vmstat(S, P, row)
    stock.objcg = 0
    stock.bytes = 0
    release_if_last(S, P, objcg)


@inlined
def _only_slot(S, P, cpu, key):
    return cpu * MAX_SLOTS


@outlined
def _slot_with(S, P, cpu, key):
    first = cpu * MAX_SLOTS
    for row in range(first, first + P.several[0].slots):
        if P.stock[row].objcg == key:
            return row
    return first


@inlined
def _emptied_slot(S, P, cpu):
    row = cpu * MAX_SLOTS
    drain(S, P, cpu, row)
    return row


@outlined
def _free_slot(S, P, cpu):
    first = cpu * MAX_SLOTS
    slots = P.several[0].slots
    for row in range(first, first + slots):
        if P.stock[row].objcg == 0:
            return row
    row = first + (next_u32(S.k) % slots if slots > 1 else 0)
    drain(S, P, cpu, row)
    return row


# (S, P, cpu, key) -> row of this CPU's stock that holds bytes of an obj_cgroup, else its first one
slot_of = by_table(SEVERAL, _only_slot, _slot_with, argument=1)
# (S, P, cpu) -> row of this CPU's stock that is empty now: an empty or a random one
free_slot = by_table(SEVERAL, _emptied_slot, _free_slot, argument=1)


@inlined
def switch_stock(S, P, cpu, key):
    """Give an obj_cgroup a slot of this CPU's stock; its row.  Its left-over bytes come along."""
    row = free_slot(S, P, cpu)
    stock = P.stock[row]
    left = P.left[key]
    read_line(S, left)
    if left.bytes > 0 or P.mode[0].batch == 0:
        write_line(S, left, False)
    stock.objcg = key
    stock.bytes = left.bytes
    S.memcg[group_of(S, P, key)].nr_charged_bytes -= stock.bytes
    left.bytes = 0
    return row


@outlined
def give_back(S, P, cpu, row, keep):
    """A stock holds more than a page: give pages back, unless it may `keep` them."""
    stock = P.stock[row]
    if P.par[0].trim == 0:
        drain(S, P, cpu, row)
    elif not keep:
        count(S, PAGES_BACK)
        k = S.k[0]
        nr = stock.bytes >> k.page_shift
        stock.bytes &= k.page_size - 1
        read_line(S, P.left[stock.objcg])
        uncharge_objcg(S, P, cpu, group_of(S, P, stock.objcg), nr, True)


@inlined
def refill(S, P, cpu, key, nr_bytes, keep, node, flags, acct):
    """Put charged bytes into this CPU's stock (refill_obj_stock).

    `keep`: the bytes are the rest of a page just charged, so a full page may stay.  `acct` slab
    bytes of `node` came (went, if negative) with it.
    """
    row = slot_of(S, P, cpu, key)
    if P.stock[row].objcg != key:
        row = switch_stock(S, P, cpu, key)
        keep = False
    stock = P.stock[row]
    stock.bytes += nr_bytes
    if acct != 0:
        account_vmstat(S, P, row, node, flags, acct)
    if stock.bytes > S.k[0].page_size:
        give_back(S, P, cpu, row, keep)


@inlined
def charge_miss(S, P, cpu, memcg, key, nr_bytes, gfp, node, flags, acct):
    """Charge the pages that `nr_bytes` needs; the rest of the last one goes to the stock."""
    k = S.k[0]
    count(S, STOCK_MISS)
    read_line(S, P.left[key])
    rest = nr_bytes & (k.page_size - 1)
    nr = (nr_bytes >> k.page_shift) + (rest > 0)
    if not charge_pages(S, P, cpu, memcg, nr, gfp):
        return False
    S.memcg[memcg].objcg_pages += nr
    if rest > 0 or acct != 0:
        refill(S, P, cpu, key, (k.page_size - rest) & (k.page_size - 1), True, node, flags, acct)
    return True


@inlined
def charge_bytes(S, P, cpu, memcg, nr_bytes, gfp, node, flags, acct):
    """Charge `nr_bytes` to the group's obj_cgroup; False when over a limit.

    `acct` slab bytes, of a cache with these flags, are on `node` then.
    """
    key = key_of(P, memcg, node)
    read_line(S, P.left[key])
    row = slot_of(S, P, cpu, key)
    stock = P.stock[row]
    if stock.objcg == key and stock.bytes >= nr_bytes:
        stock.bytes -= nr_bytes
        count(S, STOCK_HIT)
        if acct != 0:
            account_vmstat(S, P, row, node, flags, acct)
        return True
    return charge_miss(S, P, cpu, memcg, key, nr_bytes, gfp, node, flags, acct)


@inlined
def uncharge_bytes(S, P, cpu, objcg, nr_bytes, node, flags, acct):
    """Give `nr_bytes` back to a group's obj_cgroup, through this CPU's stock."""
    count(S, BYTES_BACK)
    key = key_of(P, objcg, node)
    refill(S, P, cpu, key, nr_bytes, False, node, flags, acct)
    read_line(S, P.left[key])


@outlined
def charge_plain(S, P, cpu, memcg, nr_bytes, gfp):
    """Charge bytes that are no slab."""
    return charge_bytes(S, P, cpu, memcg, nr_bytes, gfp, 0, 0, 0)


@outlined
def uncharge_plain(S, P, cpu, objcg, nr_bytes):
    """Give back bytes that are no slab."""
    uncharge_bytes(S, P, cpu, objcg, nr_bytes, 0, 0, 0)


@inlined
def vmstat_later(S, P, cpu, objcg, node, flags, acct):
    """Count slab bytes apart from their charge (mod_objcg_state)."""
    key = key_of(P, objcg, node)
    read_line(S, P.left[key])
    row = slot_of(S, P, cpu, key)
    if P.stock[row].objcg == key:
        account_vmstat(S, P, row, node, flags, acct)
    else:
        count(S, VMSTAT)


def several(given):
    """The table of stocks of several slots and of groups with several obj_cgroups, if asked for."""
    return {SEVERAL: SEVERAL_TABLE} if given["obj_slots"] > 1 or given["per_node"] else {}


def prepare(S, P, setup, given):
    """What the parameters mean for this machine."""
    P.mode["batch"] = setup.machine.page_size if given["vmstat_batch"] else 0
    if several(given):
        P.several["slots"] = given["obj_slots"]
        P.several["stride"] = len(setup.groups) + 1 if given["per_node"] else 0


def cg_create(S, P, memcg):
    """The first group other than the root turns accounting on (memcg_kmem_online_key)."""
    if memcg > 1:
        P.mode[0].on = 1


def sample(S, P):
    """Tell the timeline what the stocks hold."""
    for row in range(S.k[0].nr_cpus * MAX_SLOTS):
        S.memcg[group_of(S, P, P.stock[row].objcg)].byte_stock += P.stock[row].bytes


def flush(S, P):
    """Empty the byte stock of every CPU."""
    for row in range(S.k[0].nr_cpus * MAX_SLOTS):
        drain(S, P, row // MAX_SLOTS, row)
