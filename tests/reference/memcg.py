"""The memory controller: counters, groups, the page stock and the byte stock.

Counters count pages.  The root's own counters are never charged, so a hierarchy ends below it.
"""

from collections import Counter
from enum import Enum

ROOT = 1
MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1


class State(Enum):
    """Life of a group."""

    ABSENT = "absent"  # CG_CREATE has not come yet
    ONLINE = "online"
    OFFLINE = "offline"
    RELEASED = "released"


VISITS = ("opens", "takes", "takes_on", "looks", "looks_on")


class Line:
    """A cache line that several CPUs write; ``host`` tells who is at it, and when.

    One CPU owns it, or its owner and others share it.  Only the owner may write, and only who
    shares it may read; to become either is a fetch, ``near`` from the same node or ``far``, but for
    those who join readers.
    """

    def __init__(self, host):
        self.host = host
        self.last = None  # CPU
        self.when = 0
        self.shared_with = None  # CPU that read it first since
        self.writes = 0
        self.visits = Counter()  # what :mod:`kmbench.core.lines` counts of them, by its names
        self.near = 0
        self.far = 0

    def _visit(self) -> dict:
        """This CPU's visit here, which ends with the operation or at another line."""
        at = self.host.visits.get(self.host.cpu)
        if not at or at["line"] is not self or at["when"] != self.host.now:
            before = at if at and at["line"] is self else None
            at = {"line": self, "when": self.host.now, "wrote": False, "before": before}
            if before:
                before["before"] = None
            self.host.visits[self.host.cpu] = at
        return at

    def write(self) -> None:
        cpu = self.host.cpu
        old = self.host.visits.get(cpu)
        visit = self._visit()
        self.visits["opens"] += visit is not old
        if not visit["wrote"]:
            visit["wrote"] = True
            before = visit["before"]
            self.visits["takes"] += 1
            self.visits["takes_on"] += before is not None and before["wrote"]
        if self.last is not None:
            self._move(self.shared_with if self.last == cpu else self.last)
        self.last = cpu
        self.shared_with = None
        self.writes += 1
        self.when = self.host.now

    def read(self) -> None:
        old = self.host.visits.get(self.host.cpu)
        visit = self._visit()
        if visit is not old:
            self.visits["looks"] += 1
            self.visits["looks_on"] += visit["before"] is not None
        if self.shared_with is None and self.last not in (None, self.host.cpu):
            self._move(self.last)
            self.shared_with = self.host.cpu

    def _move(self, other: int | None) -> None:
        nodes = self.host.machine.nodes
        if other is None:
            return
        if other % nodes == self.host.cpu % nodes:
            self.near += 1
        else:
            self.far += 1

    def observe(self) -> tuple[int | None, ...]:
        visits = (self.visits[name] for name in VISITS)
        return (self.last, self.shared_with, self.when, self.near, self.far, self.writes, *visits)


class PageCounter:
    """mm/page_counter.c: one level, linked to the level above."""

    def __init__(self, line: Line):
        self.line = line
        self.usage = 0
        self.watermark = 0
        self.limit = -1
        self.failcnt = 0
        self.parent = None

    def levels(self, until=None):
        """This level and those above it, up to but not including ``until``."""
        level = self
        while level is not None and level is not until:
            yield level
            level = level.parent

    def try_charge(self, pages: int) -> bool:
        """Charge every level, or none; watermarks that rose on the way stay."""
        charged = []
        for level in self.levels():
            level.line.write()
            if 0 <= level.limit < level.usage + pages:
                level.failcnt += 1
                for below in charged:
                    below.line.write()
                    below.usage -= pages
                return False
            level._add(pages)
            charged.append(level)
        return True

    def charge(self, pages: int) -> None:
        """Charge every level, whatever the limits."""
        for level in self.levels():
            level.line.write()
            level._add(pages)

    def uncharge(self, pages: int, until=None) -> None:
        for level in self.levels(until) if pages else ():
            level.line.write()
            level.usage -= pages
            assert level.usage >= 0, "a counter below zero"

    def _add(self, pages: int) -> None:
        self.usage += pages
        self.watermark = max(self.watermark, self.usage)

    def observe(self) -> tuple:
        return (self.usage, self.watermark, self.failcnt, self.line.observe())


class Group:
    """A memory cgroup with its obj_cgroup."""

    def __init__(self, row: int, spec, host):
        self.row = row
        self.spec = spec
        self.parent = spec.parent
        self.state = State.ABSENT
        self.memory = PageCounter(Line(host))
        self.kmem = PageCounter(Line(host))
        self.memory.limit = spec.memory_limit
        self.kmem.limit = spec.kmem_limit
        # the obj_cgroup
        self.objcg_pages = 0  # pages charged through it and not uncharged yet
        self.objcg_refs = 0  # objects, page blocks and per-CPU areas billed to it


class Groups:
    """The tree; rows are 1-based and row 1 is the root."""

    def __init__(self, specs, host):
        self.rows = [None] + [Group(row, spec, host) for row, spec in enumerate(specs, 1)]
        for group in self.rows[1:]:
            if group.spec.online:
                self.bring_up(group.row, group.spec.parent)

    @property
    def count(self) -> int:
        """Rows, "none" included."""
        return len(self.rows)

    def __getitem__(self, row: int) -> Group:
        return self.rows[row]

    def __iter__(self):
        return iter(self.rows[1:])

    def bring_up(self, row: int, parent: int) -> None:
        group = self.rows[row]
        group.state = State.ONLINE
        group.parent = parent
        if parent:
            group.memory.parent = self.rows[parent].memory
            group.kmem.parent = self.rows[parent].kmem

    def exists(self, row: int) -> bool:
        return row <= ROOT or self.rows[row].state in (State.ONLINE, State.OFFLINE)

    def resolve(self, row: int) -> int:
        """``row`` when it is online, else its nearest online ancestor; the root always is."""
        while row > ROOT and self.rows[row].state is not State.ONLINE:
            row = self.rows[row].parent
        return max(row, ROOT)

    def passes(self, row: int, middle: int) -> bool:
        """Whether what ``row`` stands for came to ``middle`` before that was removed."""
        while row > ROOT and row != middle:
            if self.rows[row].state is State.ONLINE:
                return False
            row = self.rows[row].parent
        return row == middle

    def is_descendant(self, row: int, ancestor: int) -> bool:
        while row > ROOT and row != ancestor:
            row = self.rows[row].parent
        return row == ancestor

    def subtree(self, ancestor: int) -> list[Group]:
        return [group for group in self if self.is_descendant(group.row, ancestor)]


class Xoshiro128:
    """xoshiro128++, seeded by splitmix64: picks the victims of the page stock."""

    def __init__(self, seed: int):
        state = seed & MASK64
        for byte in b"page stock":
            state = (state * 0x100000001B3 & MASK64) ^ byte
        self.s = []
        for _ in range(2):
            state = (state + 0x9E3779B97F4A7C15) & MASK64
            z = state
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
            z ^= z >> 31
            self.s += [z & MASK32, z >> 32]

    @staticmethod
    def _rotl(x: int, k: int) -> int:
        return ((x << k) | (x >> (32 - k))) & MASK32

    def next(self) -> int:
        s = self.s
        result = (self._rotl((s[0] + s[3]) & MASK32, 7) + s[0]) & MASK32
        t = (s[1] << 9) & MASK32
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = self._rotl(s[3], 11)
        return result


class PageStock:
    """Pages charged ahead: ``slots`` of (group, pages) per CPU; row 0 is an empty slot.

    Linux 6.18 mm/memcontrol.c: consume_stock, refill_stock, drain_stock; 5.9 has one slot.
    """

    def __init__(self, groups: Groups, cpus: int, slots: int, batch: int, rng: Xoshiro128):
        self.groups = groups
        self.batch = batch
        self.rng = rng
        self.cpus = [[(0, 0)] * slots for _ in range(cpus)]

    def consume(self, cpu: int, row: int, pages: int) -> bool:
        slots = self.cpus[cpu]
        for i, (cached, held) in enumerate(slots):
            if cached == row and pages <= self.batch and held >= pages:
                slots[i] = (row, held - pages)
                return True
        return False

    def refill(self, cpu: int, row: int, pages: int) -> None:
        if pages > self.batch:
            self.groups[row].memory.uncharge(pages)
            return
        slots = self.cpus[cpu]
        cached = [slot[0] for slot in slots]
        if row in cached:
            i = cached.index(row)
            slots[i] = (row, slots[i][1] + pages)
            if slots[i][1] > self.batch:
                self._drain(cpu, i)
            return
        if 0 in cached:
            i = cached.index(0)
        else:
            i = self.rng.next() % len(slots)
            self._drain(cpu, i)
        slots[i] = (row, pages)

    def drain_subtree(self, ancestor: int) -> None:
        """drain_all_stock: every CPU returns what it holds for groups below ``ancestor``."""
        for cpu, slots in enumerate(self.cpus):
            for i, (row, _) in enumerate(slots):
                if row and self.groups.is_descendant(row, ancestor):
                    self._drain(cpu, i)

    def held(self, rows) -> int:
        """Pages that all CPUs hold for the groups ``rows``."""
        return sum(pages for slots in self.cpus for row, pages in slots if row in rows)

    def _drain(self, cpu: int, i: int) -> None:
        row, pages = self.cpus[cpu][i]
        self.groups[row].memory.uncharge(pages)
        self.cpus[cpu][i] = (0, 0)


class ByteStock:
    """Bytes charged ahead: ``slots`` of [obj_cgroup, bytes] per CPU.

    Linux mm/memcontrol.c: consume_obj_stock, refill_obj_stock, drain_obj_stock.  An obj_cgroup is
    (row of its group, node); without ``per_node`` all nodes are 0.  ``pages`` is the strategy that
    returns whole pages to the counters; ``drop_above_page`` is the rule of 5.9 to 5.13, where a
    stock above one page goes back entirely, even right after a charge.
    """

    def __init__(
        self, groups, cpus, page_size, pages, drop_above_page, slots=1, rng=None,
        to_page_stock=False,
    ):  # fmt: skip
        self.groups = groups
        self.page_size = page_size
        self.pages = pages
        self.drop_above_page = drop_above_page
        self.to_page_stock = to_page_stock  # where pages of an emptied stock go
        self.rng = rng
        self.cpus = [[None] * slots for _ in range(cpus)]
        self.left = Counter()  # nr_charged_bytes: bytes of obj_cgroups that are on no CPU
        self.lines = {}  # obj_cgroup -> the line that these are in
        self.vmstat = 0  # updates of the statistics of slab bytes
        self.batched = {}  # (cpu, slot) -> [node, {reclaimable: bytes}]; None: not batched

    def _find(self, cpu, objcg):
        for i, slot in enumerate(self.cpus[cpu]):
            if slot and slot[0] == objcg:
                return i
        return None

    def consume(self, cpu: int, objcg, nbytes: int) -> bool:
        self.line_of(objcg).read()  # its reference
        i = self._find(cpu, objcg)
        if i is None or self.cpus[cpu][i][1] < nbytes:
            return False
        self.cpus[cpu][i][1] -= nbytes
        return True

    def refill(self, cpu: int, objcg, nbytes: int, keep: bool, acct=None) -> None:
        """Add bytes; ``keep`` (after a charge) forbids to give whole pages back.

        ``acct``: (node, reclaimable, bytes) of slab that comes with it.
        """
        i = self._find(cpu, objcg)
        if i is None:
            i = self._room(cpu)
            brought = self.left.pop(objcg, 0)
            self.line_of(objcg).read()  # its reference
            if brought or self.batched is None:  # since 5.14 nobody exchanges what is 0
                self.line_of(objcg).write()
            self.cpus[cpu][i] = [objcg, brought]
            keep = False
        slot = self.cpus[cpu][i]
        slot[1] += nbytes
        if acct:
            self.account(cpu, objcg, *acct)
        if slot[1] <= self.page_size:
            return
        if self.drop_above_page:
            self.drain(cpu, i)
        elif not keep:
            pages, slot[1] = divmod(slot[1], self.page_size)
            self.line_of(objcg).read()  # its group
            self.pages.return_pages(cpu, objcg[0], pages)

    def _room(self, cpu) -> int:
        slots = self.cpus[cpu]
        if None in slots:
            return slots.index(None)
        i = self.rng.next() % len(slots) if len(slots) > 1 else 0
        self.drain(cpu, i)
        return i

    def account(self, cpu, objcg, node, reclaimable, nbytes) -> None:
        """Slab bytes came or went (__account_obj_stock)."""
        i = self._find(cpu, objcg)
        if self.batched is None or i is None:
            self.vmstat += 1
            return
        held = self.batched.setdefault((cpu, i), [0, Counter()])
        if held[0] != node:
            self._flush_vmstat(cpu, i)
            held[0] = node
        first = not held[1][reclaimable]  # stays here, however much it is
        held[1][reclaimable] += nbytes
        if abs(held[1][reclaimable]) > self.page_size and not first:
            held[1][reclaimable] = 0
            self.vmstat += 1

    def _flush_vmstat(self, cpu, i) -> None:
        if self.batched and (cpu, i) in self.batched:
            held = self.batched[cpu, i][1]
            self.vmstat += sum(nbytes != 0 for nbytes in held.values())
            held.clear()

    def drain(self, cpu: int, i: int) -> None:
        if self.cpus[cpu][i] is None:
            return
        objcg, held = self.cpus[cpu][i]
        self.cpus[cpu][i] = None
        pages, rest = divmod(held, self.page_size)
        if pages:
            self.line_of(objcg).read()
        if self.to_page_stock:
            self.pages.return_pages(cpu, objcg[0], pages)
        else:
            self.pages.return_pages_direct(objcg[0], pages)
        if held:
            self.line_of(objcg).write()
        self.left[objcg] += rest
        self._flush_vmstat(cpu, i)
        self.pages.objcg_put(cpu, objcg[0])

    def line_of(self, objcg) -> Line:
        return self.lines.setdefault(objcg, Line(self.pages.host))

    def held(self, row: int) -> int:
        """Bytes that all CPUs hold for the obj_cgroups of ``row``."""
        return sum(slot[1] for slots in self.cpus for slot in slots if slot and slot[0][0] == row)

    def caches(self, row: int) -> bool:
        return any(slot and slot[0][0] == row for slots in self.cpus for slot in slots)

    def left_of(self, row: int) -> int:
        """Bytes of the group's obj_cgroups that are on no CPU."""
        return sum(nbytes for (owner, _), nbytes in self.left.items() if owner == row)
