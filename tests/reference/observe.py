"""What the reference model shows of itself, and the sums that must hold after every event."""

from collections import Counter

from kmbench.core import events as ev

from .memcg import ROOT
from .slub import Where


def snapshot(model) -> dict:
    """The state in terms without ids: shapes of slabs are (objects, inuse), lists head first."""
    page_stock, byte_stock = model.strategy.stocks()
    return {
        "caches": {
            (cache.spec.name, cache.owner): _cache(cache)
            for cache in model.caches
            if not cache.destroyed
        },
        "memcgs": _memcgs(model),
        "page_stock": page_stock,
        "byte_stock": byte_stock,
        "buddy": model.buddy.free_counts(),
        "counters": dict(model.counters),
        "failures": dict(model.failures),
        "unaccounted": _unaccounted(model),
        "metadata_bytes": sum(s.vector.bucket for s in model.all_slabs() if s.vector),
    }


def _cache(cache) -> dict:
    num_objs = sum(slab.objects for slab in cache.slabs)
    partial_free = sum(slab.free for partial in cache.node_partial for slab in partial)
    inuse = sum(slab.inuse for slab in cache.slabs)
    return {
        "num_slabs": len(cache.slabs),
        "num_objs": num_objs,
        "active_objs": num_objs - partial_free,
        "live": inuse - len(cache.sheaf_objects()),
        "node_partial": [[slab.shape for slab in partial] for partial in cache.node_partial],
        "cpu_slab": [(*c.slab.shape, c.free) if c.slab else None for c in cache.cpus],
        "cpu_partial": [[slab.shape for slab in c.partial] for c in cache.cpus],
        "sheaves": [(len(c.main), len(c.spare)) for c in cache.cpus],
        "barn_full": [len(barn) for barn in cache.barns],
        "slabs_made": cache.slabs_made,
        "slabs_gone": cache.slabs_gone,
    }


def _memcgs(model) -> dict:
    true_slab, true_pages, billed_slab, objects = Counter(), Counter(), Counter(), Counter()
    for obj in model.objects.values():
        if obj.slab:
            objects[obj.owner] += 1
            slot = obj.slab.cache.spec.size
            true_slab[obj.owner] += slot
            payer = model.strategy.payer(obj)
            if payer > 0:
                billed_slab[payer] += slot
        else:
            pages = obj.block.pages * model.machine.page_size if obj.block else obj.nbytes
            true_pages[obj.owner] += pages
    return {
        group.row: {
            "state": group.state.value,
            "memory": group.memory.observe(),
            "kmem": group.kmem.observe(),
            "true_slab": true_slab[group.row],
            "true_pages": true_pages[group.row],
            "billed_slab": billed_slab[group.row],
            "nr_charged_bytes": group.nr_charged_bytes,
            "objects": objects[group.row],
            "css_pages": model.strategy.pinned(group.row),
        }
        for group in model.groups
    }


def _unaccounted(model) -> dict:
    """Slot bytes of slab objects that belong to a group and are billed to nobody, by cause."""
    unaccounted = dict.fromkeys(ev.CAUSE_NAMES[1:], 0)
    for obj in model.objects.values():
        payer = model.strategy.payer(obj) if obj.slab else 0
        if payer < 0:
            unaccounted[ev.CAUSE_NAMES[-payer]] += obj.slab.cache.spec.size
    return unaccounted


def check(model) -> None:
    """Assert that pages, objects, lists and charges add up."""
    _check_pages(model)
    _check_slabs(model)
    _check_owners(model)
    model.strategy.check()


def _check_pages(model) -> None:
    slabs = sum(slab.block.pages for slab in model.all_slabs())
    kernel = sum(obj.block.pages for obj in model.objects.values() if obj.block)
    kernel += sum(len(pool) for pool in model.vm.pools.values()) if model.vm else 0
    assert slabs + kernel + model.buddy.free_pages() == model.buddy.total_pages
    for blocks in (node.free for node in model.buddy.nodes):
        for order, pfns in enumerate(blocks[:-1]):
            assert not any(pfn ^ (1 << order) in pfns for pfn in pfns), "buddies left apart"


def _check_slabs(model) -> None:
    held = Counter()
    for obj in [*model.objects.values(), *model.internal_objects]:
        if obj.slab:
            held[obj.slab] += 1
    for cache in model.caches:
        held.update(cache.sheaf_objects())
        placed = {Where.CPU: [c.slab for c in cache.cpus if c.slab]}
        placed[Where.CPU_PARTIAL] = [slab for c in cache.cpus for slab in c.partial]
        placed[Where.NODE_PARTIAL] = [slab for part in cache.node_partial for slab in part]
        for where, slabs in placed.items():
            assert set(slabs) == {slab for slab in cache.slabs if slab.where is where}
            assert len(set(slabs)) == len(slabs)
        for c in cache.cpus:
            assert 0 <= c.free <= (c.slab.free if c.slab else 0)
            assert max(len(c.main), len(c.spare)) <= cache.capacity
        for slab in cache.slabs:
            assert slab.cache is cache and 0 <= slab.inuse <= slab.objects
            assert slab.inuse == held[slab] + slab.unknown
            assert slab.where is not Where.FULL or slab.free == 0
            assert slab.where not in (Where.CPU_PARTIAL, Where.NODE_PARTIAL) or slab.free
        for node, partial in enumerate(cache.node_partial):
            assert all(slab.node == node for slab in partial)
    assert not model.internal and not model.discarded


def _check_owners(model) -> None:
    """Every object of a group is either billed to somebody or unaccounted for a reason."""
    for obj in model.objects.values():
        assert obj.owner <= ROOT or model.strategy.payer(obj) != 0
