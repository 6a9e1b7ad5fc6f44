"""The page allocator as slab sees it: a buddy system per node, orders 0 to 10.

Source: Linux 6.18 mm/page_alloc.c:__rmqueue_smallest, expand, __free_one_page.  Free lists are
LIFO.  Page frames are numbered through all nodes; each node starts at a multiple of the largest
block, so blocks never merge across nodes.
"""

import numpy as np

from kmbench.core.jit import inlined, outlined
from kmbench.core.paths import PAGE_ALLOCATED, PAGE_FREED, PAGE_MERGE, PAGE_SPLIT
from kmbench.core.state import NR_ORDERS


@inlined
def _insert(pfns, areas, area, pfn, order):
    a = areas[area]
    p = pfns[pfn]
    p.free_order = order + 1
    p.prev = 0
    p.next = a.head
    if a.head > 0:
        pfns[a.head - 1].prev = pfn + 1
    a.head = pfn + 1
    a.nr += 1


@inlined
def _remove(pfns, areas, area, pfn):
    a = areas[area]
    p = pfns[pfn]
    if p.prev > 0:
        pfns[p.prev - 1].next = p.next
    else:
        a.head = p.next
    if p.next > 0:
        pfns[p.next - 1].prev = p.prev
    p.free_order = 0
    a.nr -= 1


@outlined
def alloc_pages(pfns, areas, paths, nr_nodes, node, order):
    """A block of 2**order pages, from `node` or else from the other nodes in turn; pfn or -1."""
    for step in range(nr_nodes):
        n = (node + step) % nr_nodes
        for k in range(order, NR_ORDERS):
            a = areas[n * NR_ORDERS + k]
            if a.nr > 0:
                if a.head > 0:
                    pfn = a.head - 1
                    _remove(pfns, areas, n * NR_ORDERS + k, pfn)
                else:
                    pfn = a.fresh
                    a.fresh += 1 << k
                    a.nr -= 1
                high = k
                while high > order:
                    high -= 1
                    _insert(pfns, areas, n * NR_ORDERS + high, pfn + (1 << high), high)
                paths[PAGE_ALLOCATED].count += 1
                paths[PAGE_SPLIT].count += k - order
                return pfn
    return -1


@outlined
def free_pages(pfns, areas, paths, node, pfn, order):
    """Give a block back and merge it with its free buddies."""
    nr_pfns = len(pfns)
    paths[PAGE_FREED].count += 1
    while order < NR_ORDERS - 1:
        buddy = pfn ^ (1 << order)
        if buddy >= nr_pfns or pfns[buddy].free_order != order + 1:
            break
        _remove(pfns, areas, node * NR_ORDERS + order, buddy)
        pfn = pfn & buddy
        order += 1
        paths[PAGE_MERGE].count += 1
    _insert(pfns, areas, node * NR_ORDERS + order, pfn, order)


@inlined
def node_of(k, pfn, nr_pfns):
    """Node that the page frame lies on."""
    if k.nr_nodes == 1:
        return 0
    return pfn // (nr_pfns // k.nr_nodes)


def free_all(pfns: np.ndarray, areas: np.ndarray, node: int, start: int, nr_pages: int) -> None:
    """Make `nr_pages` pages from the page frame `start` free; lower blocks come first.

    `start` is a multiple of the largest block.  Blocks of the largest order are only counted, so
    that memory which a run never uses costs nothing; what is left over at the end becomes one block
    of each order of its binary expansion.
    """
    largest = NR_ORDERS - 1
    nr = nr_pages >> largest
    row = node * NR_ORDERS
    areas["nr"][row + largest] = nr
    areas["fresh"][row + largest] = start
    for order in range(largest - 1, -1, -1):
        if nr_pages >> order & 1:
            pfn = start + (nr_pages >> (order + 1) << (order + 1))
            pfns["free_order"][pfn] = order + 1
            areas["head"][row + order] = pfn + 1
            areas["nr"][row + order] = 1
