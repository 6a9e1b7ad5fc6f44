"""The buddy page allocator: free blocks of orders 0..10 per node.

Linux 6.18 mm/page_alloc.c: __rmqueue_smallest, expand, __free_one_page.  No watermarks.
"""

from typing import NamedTuple

MAX_PAGE_ORDER = 10


class Block(NamedTuple):
    """Pages handed out: ``1 << order`` of them from ``pfn`` of ``node`` (pfns start at 0 there)."""

    node: int
    pfn: int
    order: int

    @property
    def pages(self) -> int:
        return 1 << self.order


class NodePages:
    """The free lists of one node.  The end of a Python list is the head of the kernel's list."""

    def __init__(self, pages: int):
        self.free = [[] for _ in range(MAX_PAGE_ORDER + 1)]
        blocks = []
        pfn = 0
        while pfn < pages:
            order = MAX_PAGE_ORDER
            while pfn % (1 << order) or pfn + (1 << order) > pages:
                order -= 1
            blocks.append((order, pfn))
            pfn += 1 << order
        for order, pfn in reversed(blocks):  # the lowest pfn ends at the head
            self.free[order].append(pfn)

    def alloc(self, order: int) -> int | None:
        """The pfn of a block, split off the smallest free block that is large enough."""
        for current in range(order, MAX_PAGE_ORDER + 1):
            if self.free[current]:
                pfn = self.free[current].pop()
                while current > order:
                    current -= 1
                    self.free[current].append(pfn + (1 << current))
                return pfn
        return None

    def give_back(self, pfn: int, order: int) -> None:
        """Free a block and merge it with its buddy as long as that one is free, too."""
        while order < MAX_PAGE_ORDER:
            buddy = pfn ^ (1 << order)
            if buddy not in self.free[order]:
                break
            self.free[order].remove(buddy)
            pfn &= ~(1 << order)
            order += 1
        self.free[order].append(pfn)


class Buddy:
    """All nodes; every node has the same number of pages."""

    def __init__(self, memory_pages: int, nodes: int):
        self.pages_per_node = memory_pages // nodes
        self.nodes = [NodePages(self.pages_per_node) for _ in range(nodes)]

    @property
    def total_pages(self) -> int:
        return self.pages_per_node * len(self.nodes)

    def local_node(self, cpu: int) -> int:
        """The node that CPU ``cpu`` belongs to."""
        return cpu % len(self.nodes)

    def zonelist(self, cpu: int) -> list[int]:
        """Nodes in the order in which ``cpu`` tries them: its own, then the others ascending."""
        local = self.local_node(cpu)
        return [local] + [node for node in range(len(self.nodes)) if node != local]

    def alloc(self, cpu: int, order: int) -> Block | None:
        for node in self.zonelist(cpu):
            pfn = self.nodes[node].alloc(order)
            if pfn is not None:
                return Block(node, pfn, order)
        return None

    def give_back(self, block: Block) -> None:
        self.nodes[block.node].give_back(block.pfn, block.order)

    def free_counts(self) -> list[list[int]]:
        """Free blocks per node and order."""
        return [[len(blocks) for blocks in node.free] for node in self.nodes]

    def free_pages(self) -> int:
        return sum(n << order for node in self.free_counts() for order, n in enumerate(node))
