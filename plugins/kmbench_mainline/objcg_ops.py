"""What obj_cgroup accounting costs an object, in operations, by era.

Counted by hand in the sources, one structure that is visited = one operation: a pointer that leads
to the next structure is a dependent load, whatever is this CPU's own a per-CPU operation (a percpu
reference counts as one, with its RCU section), and repeated visits within one call are free.

Eras differ in four things.  ``task_objcg`` (6.7, Roman Gushchin, "mm: improve performance of
accounted kernel memory allocations", October 2023): the task knows its obj_cgroup, instead of a
look-up under RCU that takes and drops references.  ``stock_irq``: interrupts are off while the
stock is used (not from 6.15 on: local_trylock).  ``vmstat_batch``: see
:mod:`kmbench_mainline.byte_stock`.  ``kmem_stat``: pages are counted in MEMCG_KMEM as well (5.11).
"""

from kmbench.core.ops import Ops


def added(*parts: Ops) -> Ops:
    """Operations of parts that are always passed together."""
    return Ops(*map(sum, zip(*parts, strict=True)))


REFERENCE = Ops(br=1, pcpu=1, rcu=1)  # percpu_ref_get or _put through a pointer known already
NEW_REFERENCE = Ops(br=1, ptr=1, pcpu=1, rcu=1)  # the reference has to be found first
VECTOR = Ops(br=2, ptr=2)  # virt_to_slab, slab_obj_exts
CHARGED_GROUP = Ops(br=3, ptr=2, pcpu=2, rcu=2)  # get_mem_cgroup_from_objcg, css_put
KMEM_STAT = Ops(br=4, ptr=2, pcpu=3, rcu=1)  # mod_memcg_state, memcg_rstat_updated


def object_ops(
    *, task_objcg: bool, stock_irq: bool, vmstat_batch: bool, kmem_stat: bool
) -> dict[str, Ops]:
    """Operations of the paths of an era, by path name."""
    if task_objcg:  # current_obj_cgroup, obj_cgroup_get_many
        owner = added(Ops(br=5, ptr=1), NEW_REFERENCE)
        root = Ops(br=5, ptr=1)
    else:  # memcg_kmem_bypass, get_obj_cgroup_from_current; a reference more, and this one dropped
        owner = added(Ops(br=5, ptr=3, rcu=1), NEW_REFERENCE, REFERENCE, REFERENCE)
        root = Ops(br=6, ptr=3, rcu=1)
    stock = Ops(br=2, pcpu=1, irq=1) if stock_irq else Ops(br=2, pcpu=2)
    batch = Ops(br=3) if vmstat_batch else Ops()  # __account_obj_stock
    statistic = KMEM_STAT if kmem_stat else Ops(ptr=1)
    hit = added(owner, stock, VECTOR, batch)
    slots = Ops(br=2, ptr=1, pcpu=1, irq=1) if stock_irq else Ops(br=4, ptr=1, pcpu=2)
    vmstat = Ops(br=3, ptr=2, pcpu=2, rcu=1, irq=int(stock_irq))
    return {
        "byte_stock_hit": hit,
        "byte_stock_miss": added(hit, CHARGED_GROUP, stock, Ops(br=3)),
        "byte_stock_back": added(VECTOR, Ops(br=1, ptr=1), stock, batch, NEW_REFERENCE),
        # nr_charged_bytes of the old and the new obj_cgroup, and a reference of each
        "byte_stock_drain": added(Ops(br=3, ptr=1, rcu=1, atom=2), NEW_REFERENCE, REFERENCE),
        "byte_stock_pages_back": added(CHARGED_GROUP, statistic),
        "kmem_statistic": statistic,
        # mod_memcg_lruvec_state: this CPU's counters of the group and of its lruvec
        "vmstat_update": added(vmstat, Ops(br=2, ptr=1, pcpu=2) if kmem_stat else Ops()),
        "objcg_of_root": root,
        # mm/memcontrol.c:consume_stock, refill_stock
        "stock_hit": slots,
        "stock_miss": slots,
        "stock_refill": slots,
    }


def ops_of_5_9(parameters: dict) -> dict[str, Ops]:
    """Linux 5.9 to 6.9, by parameters."""
    names = ("task_objcg", "stock_irq", "vmstat_batch")
    return object_ops(**{name: parameters[name] for name in names},
                      kmem_stat=parameters["task_objcg"])  # fmt: skip


def ops_of_6_18(parameters: dict) -> dict[str, Ops]:
    """Linux 6.18."""
    return object_ops(
        task_objcg=True, stock_irq=False, vmstat_batch=parameters["vmstat_batch"], kmem_stat=True
    )
