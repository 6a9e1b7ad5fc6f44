"""Builds c/yardstick.c and runs it on the tables and the stream of a :class:`kmbench.Simulation`.

The C source takes its records from ``layout.h``, written here from the core's dtypes, so both have
the same sizes; what it does with them is its own.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from kmbench.core import events, paths, state
from kmbench.core.build import build_state, build_tables
from kmbench.core.setup import Setup
from kmbench.strategy import Strategy
from kmbench_mainline import byte_stock

HERE = Path(__file__).parent
SOURCES = HERE / "c"  # one unit: yardstick.c includes the rest
BUILD = HERE / "yardstick"
FLAGS = ("-O3", "-march=native", "-std=c11", "-Wall", "-Wextra", "-shared", "-fPIC")
DEFINES = {"none": "NONE", "costa-2012": "COSTA_2012", "linux-6.18": "LINUX_6_18"}
_TYPES = {"i1": "int8_t", "u1": "uint8_t", "i2": "int16_t", "u2": "uint16_t", "i4": "int32_t",
          "u4": "uint32_t", "i8": "int64_t", "u8": "uint64_t"}  # fmt: skip
_RECORDS = {
    "event": events.EVENT, "kernel": state.KERNEL, "object": state.OBJECT, "slab": state.SLAB,
    "cpu_cache": state.CPU_CACHE, "node_cache": state.NODE_CACHE, "cache": state.CACHE,
    "memcg": state.MEMCG, "counter": state.COUNTER, "stock": state.STOCK, "child": state.CHILD,
    "path": state.PATH, "unbilled": state.UNBILLED, "pfn": state.PFN, "area": state.AREA,
    "internal": state.INTERNAL, "rcu": state.RCU, "fail": state.FAILURE,
    **{name: byte_stock.TABLES[table].dtype
       for name, table in (("byte_stock", "stock"), ("left", "left"), ("mode", "mode"))},
    "selected": np.dtype([("on", "i4")]),
}  # fmt: skip
_CONSTANTS = {
    events: ("ALLOC", "FREE", "CG_CREATE", "COUNTER_MEMORY", "COUNTER_KMEM", "GFP_ACCOUNT",
             "CTX_KTHREAD", "CTX_INTERRUPT", "SLAB_ACCOUNT", "SLAB_RECLAIM_ACCOUNT",
             "SLAB_TYPESAFE_BY_RCU", "CAUSE_NOT_SELECTED", "CAUSE_INTERRUPT", "CAUSE_KTHREAD",
             "FAIL_PAGES", "FAIL_LIMIT", "FAIL_NO_GROUP"),
    byte_stock: ("MAX_SLOTS",),
    state: ("NR_ORDERS", "FULL", "CPU", "CPU_PARTIAL", "NODE_PARTIAL", "RCU_FREE", "ONLINE",
            "OFFLINE", "BY_CACHE"),
}  # fmt: skip
# tables that struct sim points to, in its order, and then the strategies' own
_TABLES = ("k", "obj", "slab", "cpu", "node", "cache", "memcg", "counter", "stock", "child", "path",
           "unbilled", "pfn", "area", "internal", "rcu", "fail")  # fmt: skip
_OWN = {"byte_stock": "stock", "left": "left", "mode": "mode", "selected": "selected"}


class YardstickProblem(Exception):
    """The C program cannot be built, or does not do what kmbench does."""


class _Sim(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in (*_TABLES, *_OWN)] + [
        (name, ctypes.c_int32)
        for name in (
            "internal_mask", "rcu_mask", "nr_pfns", "nr_caches_max", "nr_fails_max", "independent",
        )
    ]  # fmt: skip


def _record(name: str, dtype: np.dtype) -> str:
    lines = [f"struct {name} {{"]
    asserts = []
    for field in dtype.names:
        kind, offset = dtype.fields[field][:2]
        lines.append(f"\t{_TYPES[kind.str[1:]]} {field};")
        asserts.append(
            f'_Static_assert(offsetof(struct {name}, {field}) == {offset}, "{name}.{field}");'
        )
    asserts.append(f'_Static_assert(sizeof(struct {name}) == {dtype.itemsize}, "{name}");')
    return "\n".join([*lines, "};", *asserts, ""])


def layout(strategy: Strategy) -> str:
    """``layout.h``: the core's records, constants and paths, and the strategy's paths."""
    lines = ["/* written by yardstick.py */", "#include <stddef.h>", "#include <stdint.h>", ""]
    lines += [_record(name, dtype) for name, dtype in _RECORDS.items()]
    lines += [f"#define {n} {getattr(m, n)}" for m, names in _CONSTANTS.items() for n in names]
    every = [*enumerate(paths.PATHS), *enumerate(strategy.paths, paths.PLUGIN_PATH)]
    taken = {name for names in _CONSTANTS.values() for name in names}
    for row, path in every:
        if path.name.upper() not in taken:  # alloc and free: counted elsewhere
            lines.append(f"#define {path.name.upper()} {row}")
    return "\n".join(lines) + "\n"


def build(strategy: Strategy, look_ahead: bool = False) -> ctypes.CDLL:
    """The yardstick of one strategy as a shared library; compiled again when anything changed."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if not compiler:
        raise YardstickProblem("no C compiler: install cc, or set CC")
    header = layout(strategy)
    source = SOURCES / "yardstick.c"
    parts = [path.read_text() for path in sorted(SOURCES.iterdir())]
    options = [*FLAGS, f"-DSTRATEGY={DEFINES[strategy.name]}", *["-DLOOK_AHEAD"] * look_ahead]
    what = repr((header, parts, compiler, options))
    folder = BUILD / hashlib.sha256(what.encode()).hexdigest()[:16]
    library = folder / "yardstick.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "layout.h").write_text(header)
        made = folder / f"{os.getpid()}.so"
        command = [compiler, *options, f"-I{folder}", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise YardstickProblem(f"{' '.join(command)}\n{done.stderr}")
        made.replace(library)
    loaded = ctypes.CDLL(str(library))
    loaded.run.argtypes = [ctypes.POINTER(_Sim), ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    loaded.run.restype = None
    return loaded


class Yardstick:
    """One strategy of the C program on a setup, fed like a :class:`kmbench.Simulation`."""

    def __init__(self, setup: Setup, strategy: Strategy, look_ahead: bool = False):
        parameters = {p.name: p.default for p in strategy.parameters}
        self.run = build(strategy, look_ahead).run
        self.S = build_state(setup, strategy.accounting(parameters), 0, 0)
        self.P = build_tables(strategy.all_tables(parameters), self.S)
        if strategy.prepare:
            strategy.prepare(self.S, self.P, setup, parameters)
        self.sim = _Sim(
            *(getattr(self.S, name).ctypes.data for name in _TABLES),
            *map(self._own, _OWN.values()),
            len(self.S.internal) - 1, len(self.S.rcu) - 1, len(self.S.pfn), len(self.S.cache),
            len(self.S.fail), int(parameters.get("independent", False)),
        )  # fmt: skip
        self.feed(_boot(setup))
        for name in ("nr_events", "nr_allocs", "nr_frees"):
            self.S.k[name] = 0

    def _own(self, name: str) -> int:
        return getattr(self.P, name).ctypes.data if hasattr(self.P, name) else 0

    def feed(self, batch: np.ndarray) -> None:
        """Process EVENT records, in order."""
        if not batch.flags.c_contiguous:
            raise ValueError("the events must be contiguous")
        self.run(ctypes.byref(self.sim), batch.ctypes.data, 0, len(batch))


def _boot(setup: Setup) -> np.ndarray:
    """What brings the groups of a setup online."""
    boot = np.zeros(len(setup.groups), events.EVENT)
    boot["op"], boot["memcg"] = events.CG_CREATE, np.arange(1, len(boot) + 1)
    boot["arg"] = [group.parent for group in setup.groups]
    return boot


def differences(simulation, yardstick: Yardstick) -> list[str]:
    """What differs between the tables of both, as ``table.field[row]: kmbench, C`` (at most ten).

    Every field of every table: slabs and their lists, objects and their bill, counts of caches,
    groups, counters and stocks, passages of paths, the buddy's blocks, metadata.  What kmbench
    draws from its parameters (``par``), and its functions (``R``), have no counterpart.
    """
    found = []
    for side in ("S", "P"):
        ours, theirs = getattr(simulation, side), getattr(yardstick, side)
        for table in ours._fields:
            a, b = getattr(ours, table), getattr(theirs, table)
            if table in ("par", "R"):
                continue
            for field in a.dtype.names:
                rows = np.flatnonzero(a[field] != b[field])
                found += [f"{table}.{field}[{r}]: {a[field][r]}, {b[field][r]}" for r in rows[:3]]
    return found[:10]
