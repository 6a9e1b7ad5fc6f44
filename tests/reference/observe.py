"""What the reference model shows of itself, and the sums that must hold after every event."""

from collections import Counter

from kmbench.core import events as ev

from .memcg import ROOT


def snapshot(model) -> dict:
    """The state in terms without ids: shapes of slabs are (objects, inuse), lists head first."""
    page_stock, byte_stock = model.strategy.stocks()
    return {
        "caches": {
            (cache.spec.name, cache.owner): cache.snapshot()
            for cache in model.caches
            if not cache.destroyed
        },
        "memcgs": _memcgs(model),
        "page_stock": page_stock,
        "byte_stock": byte_stock,
        "buddy": model.buddy.free_counts(),
        "counters": {**model.counters, "vmstat": model.strategy.vmstat()},
        "failures": dict(model.failures),
        "unaccounted": _unaccounted(model),
        "metadata_bytes": sum(
            record.bucket
            for slab in model.all_slabs()
            for record in (slab.vector, slab.management)
            if record
        ),
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
            "nr_charged_bytes": model.strategy.left_over(group.row),
            "left_lines": model.strategy.left_lines(group.row),
            "objects": objects[group.row],
            "pinned": model.pinned(group.row),
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
        held.update(cache.parked())
        cache.check()
        for slab in cache.slabs:
            assert slab.cache is cache and 0 <= slab.inuse <= slab.objects
            assert slab.inuse == held[slab] + slab.unknown
    assert not model.internal and not model.discarded


def _check_owners(model) -> None:
    """Every object of a group is either billed to somebody or unaccounted for a reason."""
    for obj in model.objects.values():
        assert obj.owner <= ROOT or model.strategy.payer(obj) != 0
