"""The state of SLUB read from a running kernel: every list of every cache, and all slab pages.

Structures: Linux 6.18 mm/slub.c and mm/slab.h (struct kmem_cache, kmem_cache_cpu, kmem_cache_node,
slab, slub_percpu_sheaves, slab_sheaf, node_barn); offsets come from the kernel's type information.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kmbench.errors import UsageProblem
from kmbench.trace.record.bpf import COPY, ITEM, MAX_ITEMS, Reader, walk_item
from kmbench.trace.record.btf import VMLINUX, Types, kernel_types

PAGE = 4096
NODE_PARTIAL, CPU_SLAB, CPU_PARTIAL, CPU_FREELIST = 0, 1, 2, 3  # `where` of slabdump.parquet
_NODE, _SHEAF, _RCU_SHEAF = 10, 11, 12
_KPF_SLAB, _KPF_TAIL = 7, 16  # include/uapi/linux/kernel-page-flags.h
_LONGEST = 1 << 20
_PUD = 1 << 30  # bases of the direct map and of the page array: multiples of this (mm/kaslr.c)
_IMAGE = 0xFFFFFFFF80000000  # the kernel's own code and data on x86-64

LISTED = np.dtype([("cache", "<i4"), ("slab", "<u8"), ("pfn", "<i8"), ("inuse", "<i4"),
                   ("objects", "<i4"), ("where", "u1"), ("cpu", "u1"),
                   ("vector", "i1")])  # fmt: skip
# the low bits of slab.obj_exts are flags (include/linux/memcontrol.h: OBJEXTS_FLAGS_MASK)
_VECTOR_FLAGS = 7
UNKNOWN = -1  # `vector`: 1 the slab has a vector of obj_cgroups, 0 it has none


class Dump(NamedTuple):
    """One walk over all lists."""

    start: int  # CLOCK_MONOTONIC, ns
    end: int
    cache_t: np.ndarray  # i8 per cache: when its lists were read
    listed: np.ndarray  # LISTED, list order
    totals: dict[str, dict[str, int]]  # as `dumps` of a manifest


class Census(NamedTuple):
    """Every slab of the machine, listed or full."""

    pfn: np.ndarray  # i8, first page
    cache: np.ndarray  # i4, -1: unknown
    vector: np.ndarray  # i1


NO_CENSUS = Census(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int8))


class _Cache(NamedTuple):
    name: str
    address: int
    freelist_offset: int
    random: int
    cpu_slab: int  # per-CPU pointers and node pointers; 0: none
    cpu_sheaves: int
    nodes: tuple[int, ...]
    barns: tuple[int, ...]


class _Layout:
    """The offsets needed, by structure."""

    def __init__(self, types: Types):
        self.types = types
        self.cache = self._of("kmem_cache", "name", "list", "offset", "cpu_slab", "node")
        self.cpu = self._of("kmem_cache_cpu", "freelist", "slab")
        self.node = self._of("kmem_cache_node", "partial", "nr_partial", "nr_slabs",
                             "total_objects")  # fmt: skip
        self.slab = self._of("slab", "slab_cache", "slab_list", "freelist", "inuse")
        # memcg_data until 6.9
        names = [name for name in ("obj_exts", "memcg_data") if types.has("slab", name)]
        self.vector = types.offset("slab", names[0]) if names else None
        self.hardened = types.has("kmem_cache", "random")
        self.random = types.offset("kmem_cache", "random") if self.hardened else 0
        self.has_partial = types.has("kmem_cache_cpu", "partial")
        self.cpu_partial = types.offset("kmem_cache_cpu", "partial") if self.has_partial else 0
        self.next = types.offset("slab", "next") if self.has_partial else 0
        self.has_sheaves = types.has("kmem_cache", "cpu_sheaves")
        if self.has_sheaves:
            self.cpu_sheaves = types.offset("kmem_cache", "cpu_sheaves")
            self.sheaves = self._of("slub_percpu_sheaves", "main", "spare", "rcu_free")
            self.barn = types.offset("kmem_cache_node", "barn")
            self.full = types.offset("node_barn", "sheaves_full")
            self.sheaf = self._of("slab_sheaf", "size", "barn_list")
        self.page = types.size("page")

    def _of(self, name: str, *members: str) -> dict[str, int]:
        return {member: self.types.offset(name, member) for member in members}


class SlabWalker:
    """Reads the slab allocator's lists; a context manager that holds a BPF program."""

    def __init__(self, names: list[str], cpus: int, nodes: int = 1):
        """names: caches in the order of their ids.

        Raises UsageProblem when this kernel cannot be read.
        """
        try:
            types = kernel_types()
            self._layout = _Layout(types)
            pptrs = types.offset("bpf_array", "pptrs")
        except OSError as error:
            raise UsageProblem(f"{error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise UsageProblem(f"{VMLINUX}: {error}") from None
        except KeyError as error:
            raise UsageProblem(
                f"this kernel has no {error.args[0]} (structures are known of SLUB up to 6.18)"
            ) from None
        function = types.function("bpf_get_kmem_cache")  # 6.12 has none
        self._reader = Reader()
        try:
            first, self._offsets = self._reader.roots(pptrs, function, cpus)
            if not first:
                head = address_of("slab_caches", Path("/proc/kallsyms").read_text())
                first = self._reader.pointer(head) - self._layout.cache["list"]
            self._caches = self._find(first, names, nodes)
        except BaseException:
            self.close()
            raise
        self._names = names
        self._items, self._meaning = self._work()
        self.page_array = self.direct_map = 0
        self._address_row = {cache.address: row for row, cache in enumerate(self._caches) if cache}

    def __enter__(self) -> "SlabWalker":
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Give the program back."""
        self._reader.close()

    def _find(self, first: int, names: list[str], nodes: int) -> list[_Cache | None]:
        """The kmem_cache of every name; caches are on one ring, whose head is no cache."""
        at, read = self._layout, self._reader
        head = first + at.cache["list"]
        ring = read.walk([walk_item(head, stop=head, most=100_000)])["at"].tolist()
        caches = [first] + [entry - at.cache["list"] for entry in ring if entry < _IMAGE]
        fields = ["name", "offset", "cpu_slab", "node"]
        wanted = [at.cache[name] for name in fields]
        wanted += [at.random, at.cpu_sheaves if at.has_sheaves else 0]
        rows = read.walk([walk_item(cache + off, direct=True) for cache in caches
                          for off in wanted])  # fmt: skip
        data = np.frombuffer(rows["data"].tobytes(), "<u8").reshape(-1, len(wanted), COPY // 8)
        texts = read.walk([walk_item(int(row[0, 0]), direct=True) for row in data])["data"]
        found: dict[str, _Cache] = {}
        for cache, row, text in zip(caches, data, texts, strict=True):
            name = text.tobytes().split(b"\0")[0].decode("latin-1")
            held = [int(node) for node in row[3, :nodes] if node]
            sheaves = int(row[5, 0]) if at.has_sheaves else 0
            barns = [read.pointer(node + at.barn) for node in held] if sheaves else []
            found[name] = _Cache(
                name, cache, int(row[1, 0]) & 0xFFFFFFFF, int(row[4, 0]) if at.hardened else 0,
                int(row[2, 0]), sheaves, tuple(held), tuple(barn for barn in barns if barn),
            )  # fmt: skip
        return [found.get(name) for name in names]

    def _work(self) -> tuple[np.ndarray, np.ndarray]:
        """The items of a walk, and for each what it means: (cache, where, cpu)."""
        at = self._layout
        items, meaning = [], []
        for row, cache in enumerate(self._caches):
            if cache is None:
                continue

            def add(where: int, cpu: int, item: tuple, row=row) -> None:
                items.append(item)
                meaning.append((row, where, cpu))

            for node in cache.nodes:
                add(_NODE, 0, walk_item(node, direct=True))
                head = node + at.node["partial"]
                add(NODE_PARTIAL, 0, walk_item(head, stop=head, back=at.slab["slab_list"],
                                               most=_LONGEST))  # fmt: skip
            for cpu, offset in enumerate(self._offsets):
                if not offset:
                    continue
                mine = (cache.cpu_slab + offset) % (1 << 64)
                add(CPU_SLAB, cpu, walk_item(mine + at.cpu["slab"]))
                free = walk_item(mine + at.cpu["freelist"], link=cache.freelist_offset,
                                 xor=cache.random, swap=at.hardened, most=32_768)  # fmt: skip
                add(CPU_FREELIST, cpu, free)
                if at.has_partial:
                    add(CPU_PARTIAL, cpu, walk_item(mine + at.cpu_partial, link=at.next,
                                                    most=_LONGEST))  # fmt: skip
                if cache.cpu_sheaves:
                    mine = (cache.cpu_sheaves + offset) % (1 << 64)
                    for name, where in (("main", _SHEAF), ("spare", _SHEAF),
                                        ("rcu_free", _RCU_SHEAF)):  # fmt: skip
                        add(where, cpu, walk_item(mine + at.sheaves[name]))
            for barn in cache.barns:
                head = barn + at.full
                add(_SHEAF, 0, walk_item(head, stop=head, back=at.sheaf["barn_list"], most=1000))
        return np.array(items, ITEM), np.array(meaning, np.int32)

    def _vectors(self, data: np.ndarray) -> np.ndarray:
        """Whether slabs (rows of u8 words) have a vector of obj_cgroups: i1, UNKNOWN without."""
        if self._layout.vector is None:
            return np.full(len(data), UNKNOWN, np.int8)
        return (data[:, self._layout.vector // 8] > _VECTOR_FLAGS).astype(np.int8)

    def prepare(self) -> None:
        """Get ready for :meth:`run`, so that it does nothing but read."""
        self._reader.prepare(self._items)

    def run(self) -> np.ndarray:
        """Walk all lists now; :meth:`dump` makes sense of the result.  Raises OSError."""
        self._reader.run()
        return self._reader.records()

    def dump(self, rows: np.ndarray) -> Dump:
        """What a :meth:`run` read."""
        at = self._layout
        data = np.frombuffer(rows["data"].tobytes(), "<u8").reshape(-1, COPY // 8)
        cache, where, cpu = self._meaning[rows["item"].astype(np.int64)].T
        bits, _ = at.types.bits("slab", "inuse")
        counters = data[:, at.slab["inuse"] // 8]
        inuse = (counters >> np.uint64(bits % 64)).astype(np.int64) & 0xFFFF
        objects = (counters >> np.uint64(bits % 64 + 16)).astype(np.int64) & 0x7FFF
        of_slab = where <= CPU_PARTIAL
        # a slab that has moved on meanwhile belongs to another cache now, or to none
        owner = data[:, at.slab["slab_cache"] // 8]
        mine = np.array([entry.address if entry else 0 for entry in self._caches], np.uint64)
        of_slab &= owner == mine[cache]
        listed = np.zeros(np.count_nonzero(of_slab), LISTED)
        listed["cache"], listed["where"] = cache[of_slab], where[of_slab]
        listed["cpu"] = cpu[of_slab]
        listed["vector"] = self._vectors(data[of_slab])
        back = np.where(where == NODE_PARTIAL, at.slab["slab_list"], 0)
        listed["slab"] = (rows["at"] - back.astype(np.uint64))[of_slab]
        listed["inuse"], listed["objects"] = inuse[of_slab], objects[of_slab]
        if not self.page_array:
            self._find_bases(listed, data[of_slab][:, at.slab["freelist"] // 8])
        listed["pfn"] = (listed["slab"] - np.uint64(self.page_array)).astype(np.int64) // at.page
        free = np.bincount(
            cache[where == CPU_FREELIST] * 1024 + cpu[where == CPU_FREELIST], minlength=1
        )
        listed = _with_freelists(listed, free)
        totals = self._totals(rows, data, cache, where, listed)
        times = np.full(len(self._caches), int(rows["t"][0]), np.int64)
        first = np.unique(cache, return_index=True)
        times[first[0]] = rows["t"][first[1]].astype(np.int64)
        return Dump(int(rows["t"][0]), int(rows["t"][-1]), times, listed, totals)

    def _totals(self, rows, data, cache, where, listed) -> dict[str, dict[str, int]]:
        at = self._layout
        totals = {}
        size = data[:, at.sheaf["size"] // 8] if at.has_sheaves else None
        free = np.where(listed["where"] == CPU_FREELIST, listed["inuse"],
                        listed["objects"] - listed["inuse"])  # fmt: skip
        free_of = np.bincount(listed["cache"], free, len(self._caches)).astype(np.int64)
        nodes = where == _NODE
        word = {name: off // 8 for name, off in at.node.items()}
        for row, name in enumerate(self._names):
            mine = data[nodes & (cache == row)].astype(np.int64)
            out = {
                "partial": int(mine[:, word["nr_partial"]].sum()),
                "slabs": int(mine[:, word["nr_slabs"]].sum()),
                "total_objects": int(mine[:, word["total_objects"]].sum()),
                "sheaf_objs": 0, "rcu_sheaf_objs": 0,
            }  # fmt: skip
            for kind, key in ((_SHEAF, "sheaf_objs"), (_RCU_SHEAF, "rcu_sheaf_objs")):
                if size is not None:
                    held = size[(where == kind) & (cache == row)] & np.uint64(0xFFFFFFFF)
                    out[key] = int(held.sum())
            idle = int(free_of[row]) + out["sheaf_objs"] + out["rcu_sheaf_objs"]
            out["live"] = out["total_objects"] - idle
            totals[name] = out
        return totals

    def _find_bases(self, listed: np.ndarray, freelist: np.ndarray) -> None:
        """Where the array of struct page and the direct map of memory begin.

        Both are multiples of 1 GiB; of the few that fit, the one is taken by which every listed
        slab is a slab in /proc/kpageflags.
        """
        flags = page_flags()
        size = self._layout.page
        lowest, highest = int(listed["slab"].min()), int(listed["slab"].max())
        base = lowest & -_PUD
        while highest - base < len(flags) * size:
            pfn = (listed["slab"] - np.uint64(base)).astype(np.int64) // size
            if np.mean(flags[pfn] >> np.uint64(_KPF_SLAB) & np.uint64(1)) > 0.95:
                break
            base -= _PUD
        else:
            raise UsageProblem("the kernel's page array is not where it is on x86-64")
        self.page_array = base
        held = freelist != 0
        pfn = (listed["slab"][held] - np.uint64(base)).astype(np.int64) // size
        guess = freelist[held] - pfn.astype(np.uint64) * np.uint64(PAGE)
        guess &= np.uint64(-_PUD % (1 << 64))
        values, counts = np.unique(guess, return_counts=True)
        self.direct_map = int(values[np.argmax(counts)])

    def census(self) -> Census:
        """Every slab there is.

        Needs one :meth:`dump` before.
        """
        at = self._layout
        flags = page_flags()
        bit = np.uint64(1)
        slab = (flags >> np.uint64(_KPF_SLAB) & bit) & ~(flags >> np.uint64(_KPF_TAIL)) & bit
        pfn = np.flatnonzero(slab)
        owners, vectors = [], []
        for start in range(0, len(pfn), MAX_ITEMS):
            part = pfn[start : start + MAX_ITEMS]
            first = part.astype(np.uint64) * np.uint64(at.page) + np.uint64(self.page_array)
            items = np.zeros(len(part), ITEM)
            items["first"], items["direct"], items["most"] = first, 1, 1
            self._reader.prepare(items)
            self._reader.run()
            data = np.frombuffer(self._reader.records()["data"].tobytes(), "<u8")
            data = data.reshape(-1, COPY // 8)
            owners.append(data[:, at.slab["slab_cache"] // 8])
            vectors.append(self._vectors(data))
        if not owners:
            return NO_CENSUS
        owner = np.concatenate(owners)
        row = np.array([self._address_row.get(int(at), -1) for at in owner], np.int32)
        return Census(pfn.astype(np.int64), row, np.concatenate(vectors))


def _with_freelists(listed: np.ndarray, free: np.ndarray) -> np.ndarray:
    """`listed` with one more row after each active slab whose CPU freelist is not empty."""
    key = listed["cache"].astype(np.int64) * 1024 + listed["cpu"]
    count = np.where(key < len(free), free[np.minimum(key, len(free) - 1)], 0)
    extra = np.flatnonzero((listed["where"] == CPU_SLAB) & (count > 0))
    rows = listed[extra]
    rows["where"], rows["inuse"] = CPU_FREELIST, count[extra]
    return np.insert(listed, extra + 1, rows)


def address_of(name: str, symbols: str) -> int:
    """Address of a variable of the kernel in a /proc/kallsyms.  Raises UsageProblem."""
    found = re.search(rf"^([0-9a-f]+) [bBdD] {name}$", symbols, re.MULTILINE)
    if not found or not int(found[1], 16):
        raise UsageProblem(
            f"the kernel has no bpf_get_kmem_cache(), and /proc/kallsyms does not tell {name}"
        )
    return int(found[1], 16)


def page_flags() -> np.ndarray:
    """Flags (u8) of every page of memory.  Raises UsageProblem."""
    parts = []
    try:
        with Path("/proc/kpageflags").open("rb", buffering=0) as file:
            while part := file.read(1 << 20):  # only whole entries are read
                parts.append(part)
        return np.frombuffer(b"".join(parts), "<u8")
    except OSError as error:
        raise UsageProblem(f"/proc/kpageflags: {error.strerror}") from None
