"""The rows of docs/designs.md that are counted: what a design adds to the kernel's fast paths."""

from design_run import PLUGINS, of_every_design, per_design
from kmbench.fastpath import fast_path, spoken

ALLOC = per_design(
    costa_2012="br 1, ptr 2, rcu 1, call 1", souhlal_2012_v1="br 4, ptr 3, rcu 1, call 1",
    souhlal_2012_v2="br 4, ptr 3, rcu 1, call 1", kamezawa_2012="br 3, ptr 3, rcu 1, call 1",
    ubc_2006="br 3, ptr 2, irq 1, spin 1, call 2", tcp_memcontrol="br 3, ptr 2, atom 1, call 1",
    linux_3__8="br 4, ptr 4, rcu 1, call 1",
    linux_5__9="br 15, ptr 8, pcpu 6, rcu 5, irq 2, call 4",
    linux_6__18="br 22, ptr 9, pcpu 5, rcu 5, call 7",  # a dentry, of which an LRU is looked up
    others="br 3, ptr 3, pcpu 2, rcu 1, call 2",
)  # fmt: skip
FREE = per_design(
    costa_2012="0", souhlal_2012_v1="br 1, ptr 1, atom 2", souhlal_2012_v2="br 1, ptr 1, atom 2",
    ubc_2006=ALLOC["ubc-2006"], tcp_memcontrol=ALLOC["tcp-memcontrol"],
    linux_5__9="br 9, ptr 5, pcpu 4, rcu 2, irq 2, call 4",
    linux_6__18="br 9, ptr 3, pcpu 3, rcu 1, call 3",
    others="br 1, ptr 1",
)  # fmt: skip


@of_every_design
def test_alloc_path(name):
    assert spoken(fast_path(PLUGINS.strategy(name)).alloc) == ALLOC[name]


@of_every_design
def test_free_path(name):
    assert spoken(fast_path(PLUGINS.strategy(name)).free) == FREE[name]


@of_every_design
def test_unused(name):
    """No group but the root: nothing where a static key is off, and in Costa's fast path."""
    cost = fast_path(PLUGINS.strategy(name))
    tested = {
        "souhlal-2012-v1": ("br 4, ptr 2, rcu 1, call 1",) * 2,
        "souhlal-2012-v2": ("br 4, ptr 2, rcu 1, call 1", "0"),
        "kamezawa-2012": ("br 3, ptr 2, rcu 1, call 1", "0"),
        "costa-2012": ("br 1, ptr 2, rcu 1, call 1", "0"),  # the lookup in d_alloc
    }
    assert (spoken(cost.unused), spoken(cost.unused_other)) == tested.get(name, ("0", "0"))
    assert spoken(cost.unused_slab) == ("br 1, ptr 1" if name == "costa-2012" else "0")
