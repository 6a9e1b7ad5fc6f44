"""What obj_cgroup accounting costs an object, in operations, by era.

Counted by hand in the sources, one structure that is visited = one operation: a pointer that leads
to the next structure is a dependent load, whatever is this CPU's own a per-CPU operation (a percpu
reference counts as one, with its RCU section), and repeated visits within one call are free.  Calls
are those that the compiled Linux 6.18.44 makes (benchmarks/executed.py executes its text: a
function in /proc/kallsyms may be inlined in one that calls it, and one that is jumped to returns
once for both); of 5.9: of functions that are not static with one caller.

Eras differ in six things.  ``task_objcg`` (6.7, Roman Gushchin, "mm: improve performance of
accounted kernel memory allocations", October 2023): the task knows its obj_cgroup, instead of a
look-up under RCU that takes and drops references.  ``stock_irq``: interrupts are off while the
stock is used (not from 6.15 on: local_trylock).  ``vmstat_batch``: see
:mod:`kmbench_mainline.byte_stock`.  ``kmem_stat``: pages are counted in MEMCG_KMEM as well (5.11).
``cgroup_v2``: there is no kmem counter to call.  ``hooks_inline``: mm/slab.h has the hooks (up to
6.9).
"""

from kmbench.core.ops import Ops


def added(*parts: Ops) -> Ops:
    """Operations of parts that are always passed together."""
    return Ops(*map(sum, zip(*parts, strict=True)))


REFERENCE = Ops(br=1, pcpu=1, rcu=1)  # percpu_ref_get or _put through a pointer known already
NEW_REFERENCE = Ops(br=1, ptr=1, pcpu=1, rcu=1)  # the reference has to be found first
VECTOR = Ops(br=2, ptr=2)  # virt_to_slab, slab_obj_exts
OWNER = Ops(br=2, ptr=1)  # the same of a slab that kfree found already: the object's place in it
# a section's __rcu_read_unlock is jumped to: one return less than the section is priced with
JUMPED = Ops(call=-1)
# get_mem_cgroup_from_objcg: a section and css_tryget's within; css_put
CHARGED_GROUP = Ops(br=3, ptr=2, pcpu=2, rcu=3)
# mod_memcg_state (memcg_stats_index, the preempt count, this CPU's counter), memcg_rstat_updated up
# to the first level that waits for a flush, css_rstat_updated
KMEM_STAT = Ops(br=6, ptr=4, pcpu=3, call=2)
# memcg_list_lru_alloc, xa_load, xas_load, xas_start: two levels of lru->xa
LIST_LRU = Ops(br=6, ptr=3, rcu=1, call=4)


def object_ops(
    *,
    task_objcg: bool,
    stock_irq: bool,
    vmstat_batch: bool,
    kmem_stat: bool,
    cgroup_v2: bool,
    hooks_inline: bool,
) -> dict[str, Ops]:
    """Operations of the paths of an era, by path name."""
    if task_objcg:  # current_obj_cgroup, later inlined in the hook; obj_cgroup_get_many
        found = Ops(br=5, ptr=1, call=int(hooks_inline))
        owner = added(found, NEW_REFERENCE)
        root = found
    else:  # memcg_kmem_bypass, get_obj_cgroup_from_current; a reference more, and this one dropped
        owner = added(Ops(br=5, ptr=3, rcu=1, call=1), NEW_REFERENCE, REFERENCE, REFERENCE)
        root = Ops(br=6, ptr=3, rcu=1, call=1)
    hook = Ops(call=int(not hooks_inline))  # __memcg_slab_post_alloc_hook, __memcg_slab_free_hook
    stock = Ops(br=2, pcpu=1, irq=1) if stock_irq else Ops(br=2, pcpu=2)
    batch = Ops(br=3, call=1) if vmstat_batch else Ops()  # __account_obj_stock, mod_objcg_state
    # memcg1_account_kmem, which jumps to page_counter_charge or _uncharge; the counter's function
    counter = Ops(br=1, call=1 if not hooks_inline else int(kmem_stat) + int(not cgroup_v2))
    statistic = added(counter, KMEM_STAT if kmem_stat else Ops(ptr=1))
    hit = added(hook, owner, stock, VECTOR, batch, Ops(call=1))  # obj_cgroup_charge(_account)
    slots = Ops(br=2, ptr=1, pcpu=1, irq=1) if stock_irq else Ops(br=4, ptr=1, pcpu=2)
    vmstat = Ops(br=3, ptr=2, pcpu=2, rcu=1, irq=int(stock_irq), call=2)
    return {
        "byte_stock_hit": hit,
        # obj_cgroup_charge_pages, refill_obj_stock
        "byte_stock_miss": added(hit, CHARGED_GROUP, stock, Ops(br=3, call=2)),
        # refill_obj_stock, and obj_cgroup_uncharge where the hook is inline
        "byte_stock_back": added(
            hook, OWNER, Ops(br=1, ptr=1, call=1 + hooks_inline), stock, batch, NEW_REFERENCE
        ),
        # nr_charged_bytes of the old and the new obj_cgroup, and a reference of each
        "byte_stock_drain": added(
            Ops(br=3, ptr=1, rcu=1, atom=2, call=1), NEW_REFERENCE, REFERENCE
        ),
        # obj_cgroup_uncharge_pages, which 6.18's refill_obj_stock jumps to
        "byte_stock_pages_back": added(CHARGED_GROUP, Ops(call=1) if hooks_inline else JUMPED),
        # __memcg_kmem_charge_page, obj_cgroup_charge_pages; __memcg_kmem_uncharge_page,
        # obj_cgroup_uncharge_pages
        "objcg_page_charged": added(owner, CHARGED_GROUP, Ops(br=1, ptr=1, call=2)),
        "objcg_page_back": added(CHARGED_GROUP, NEW_REFERENCE, Ops(br=1, call=2)),
        "kmem_statistic": statistic,
        # mod_memcg_lruvec_state: this CPU's counters of the group and of its lruvec
        "vmstat_update": added(
            vmstat,
            Ops(br=2, ptr=1, pcpu=2) if kmem_stat else Ops(),
            Ops() if hooks_inline else JUMPED,
        ),
        "objcg_of_root": added(hook, root),
        # memcg_slab_free_hook: the slab has a vector, the object no owner in it
        "objcg_none": added(hook, OWNER),
        # Muchun Song, "mm: introduce kmem_cache_alloc_lru", 5.18
        "list_lru_found": added(CHARGED_GROUP, LIST_LRU) if task_objcg else Ops(),
        # mm/memcontrol.c:try_charge with consume_stock, page_counter_try_charge; refill_stock
        "stock_hit": added(slots, Ops(call=1)),
        "stock_miss": added(slots, Ops(call=2)),
        "stock_refill": added(slots, Ops(call=1)),
    }


def ops_of_5_9(parameters: dict) -> dict[str, Ops]:
    """Linux 5.9 to 6.9, by parameters."""
    names = ("task_objcg", "stock_irq", "vmstat_batch", "cgroup_v2")
    return object_ops(**{name: parameters[name] for name in names},
                      kmem_stat=parameters["task_objcg"], hooks_inline=True)  # fmt: skip


def ops_of_6_18(parameters: dict) -> dict[str, Ops]:
    """Linux 6.18."""
    return object_ops(
        task_objcg=True, stock_irq=False, vmstat_batch=parameters["vmstat_batch"], kmem_stat=True,
        cgroup_v2=parameters["cgroup_v2"], hooks_inline=False,
    )  # fmt: skip
