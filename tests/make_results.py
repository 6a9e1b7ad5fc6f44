"""Small synthetic datasets, written through the store: known numbers, no engine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from kmbench.analysis.summary import summarise
from kmbench.core.events import NR_CAUSES
from kmbench.store.dataset import write_run
from kmbench.store.schema import VECTOR, make_table

PAGE = 4096
MS = 10**6
STRATEGIES = ("none", "costa-2012", "linux-5.9", "linux-6.18")
GROUPS = ("/", "/web", "/web/php", "/db")
PARENTS = (0, 1, 2, 1)
TRUE_SLAB = (0, 4000, 8000, 20_000)  # at sample 0; sample 1 has twice that

# strategy -> (share of the truth that is charged, slabs of 4 KiB, ops of the path "alloc")
MODEL = {
    "none": (0.0, 10, 4),
    "costa-2012": (1.5, 25, 7),
    "linux-5.9": (1.25, 11, 12),
    "linux-6.18": (1.0, 10, 9),
}


def timeline(share: float, noise: int = 0) -> dict[str, Any]:
    """Two samples of the four groups; web/php is a child of web."""
    rows: dict[str, list[Any]] = {
        name: [] for name in (
            "t", "sample", "memcg", "parent", "state", "kmem_usage", "kmem_max_usage",
            "kmem_failcnt", "memory_usage", "memory_failcnt", "stock", "byte_stock", "true_slab",
            "true_pages", "billed_slab", "objects",
        )
    }  # fmt: skip
    codes = []
    for sample in range(2):
        own = [true * (sample + 1) + noise * (row > 0) for row, true in enumerate(TRUE_SLAB)]
        charged = [int(share * true) for true in own]
        usage = [0, charged[1] + charged[2], charged[2], charged[3]]
        for row, true in enumerate(own):
            codes.append(row)
            values = {
                "t": sample * MS, "sample": sample, "memcg": row + 1, "parent": PARENTS[row],
                "kmem_usage": usage[row], "kmem_max_usage": usage[row],
                "memory_usage": usage[row], "true_slab": true, "objects": true // 100,
                "billed_slab": true if share else 0,
            }  # fmt: skip
            for name, column in rows.items():
                column.append(values.get(name, 0))
    arrays: dict[str, Any] = {name: np.array(col, np.int64) for name, col in rows.items()}
    return arrays | {"group": (np.array(codes, np.int32), GROUPS)}


def caches(slabs: int) -> dict[str, Any]:
    """Two caches at two samples: dentry with ``slabs`` slabs of 21 slots, kmalloc-64 with one."""
    return {
        "t": [0, 0, MS, MS], "sample": [0, 0, 1, 1], "cache": [1, 2, 1, 2],
        "name": ["dentry", "kmalloc-64"] * 2, "root": [0] * 4, "memcg": [0] * 4,
        "object_size": [186, 64] * 2, "size": [192, 64] * 2, "objs_per_slab": [21, 64] * 2,
        "pages_per_slab": [1] * 4, "active_objs": [21 * slabs, 32] * 2,
        "num_objs": [21 * slabs, 64] * 2, "num_slabs": [slabs, 1] * 2,
        "live_objs": [100, 32] * 2, "node_partial": [0, 1] * 2, "cpu_partial": [0] * 4,
        "cpu_slabs": [1, 0] * 2, "idle": [192, 0] * 2, "requested": [18_600, 1600] * 2,
        "slab_bytes": [slabs * PAGE, PAGE] * 2,
    }  # fmt: skip


def ops(per_alloc: int, allocs: int) -> dict[str, Any]:
    """One alloc path, one free path, one charge path with an atomic per four allocations."""
    columns: dict[str, Any] = {name: [0, 0, 0] for name in VECTOR}
    columns["br"] = [per_alloc * allocs, 2 * allocs, 0]
    columns["atom"] = [0, 0, allocs // 4]
    return columns | {
        "path": ["alloc", "free", "counter_charge_atomic"],
        "phase": ["alloc", "free", "charge"],
        "count": [allocs, allocs, allocs // 4],
    }


def latency(per_alloc: int) -> dict[str, Any]:
    """Of two groups: three in four allocations take 10 ns a step, one in four ten times as long."""
    return {
        "memcg": [2, 2, 3, 3], "group": ["/web", "/web", "/db", "/db"],
        "op": ["alloc", "alloc", "alloc", "free"],
        "low": [10 * per_alloc, 100 * per_alloc, 10 * per_alloc, 8],
        "high": [11 * per_alloc, 104 * per_alloc, 11 * per_alloc, 9], "count": [500, 250, 250, 900],
    }  # fmt: skip


def write(folder: Path, strategy: str, seed: int = 0, **changes: Any) -> str:
    """Store one run and return its id; ``changes`` replace columns of ``runs``."""
    share, slabs, per_alloc = MODEL[strategy]
    run_id = f"{strategy.replace('.', '').replace('-', '')}{seed:04d}"
    for value in changes.values():
        run_id += f"{abs(hash_text(str(value))):08x}"
    noise = 10 * seed
    tables = {
        "timeline": make_table("timeline", timeline(share, noise), run_id),
        "caches": make_table("caches", caches(slabs + seed % 3), run_id),
        "ops": make_table("ops", ops(per_alloc, 1000), run_id),
        "latency": make_table("latency", latency(per_alloc), run_id),
    }
    lost = np.zeros((2, NR_CAUSES), np.int64)
    lost[:, 1] = 32_000 if strategy == "none" else 0
    metrics = summarise(
        tables["timeline"], tables["caches"], tables["ops"], page_size=PAGE, allocs=1000,
        frees=1000, unaccounted=lost, metadata=np.array([0, 512]),
    )  # fmt: skip
    row = {
        "run_id": run_id, "scenario": "churn", "strategy": strategy, "strategy_params": "{}",
        "allocator": "slub", "era": "6.18", "seed": seed, "workload": "replay",
        "workload_hash": f"w{seed}", "versions": json.dumps({"kmbench": "0"}),
        "hardware": "generic", "cpus": 2, "groups": 4, "events": 2000, "allocs": 1000,
        "frees": 1000, "skipped": 0, "status": "ok", "model_ns": MS,
    } | metrics | {"pair_ns": 10.0 * per_alloc} | changes  # fmt: skip
    timing = {
        "events": 2000, "engine_s": 0.001, "reader_s": 0.0, "compile_s": 0.0, "cache_hit": True,
        "total_s": 0.01, "events_per_s": 2e6, "host": "here",
        "when": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seed),
    }  # fmt: skip
    write_run(folder, row, tables, timing)
    return run_id


def hash_text(text: str) -> int:
    """A small hash that is the same in every process."""
    return sum((i + 1) * ord(letter) for i, letter in enumerate(text))


def write_all(folder: Path, seeds: int = 1) -> Path:
    """Every strategy over ``seeds`` seeds; returns ``folder``."""
    for seed in range(seeds):
        for strategy in STRATEGIES:
            write(folder, strategy, seed)
    return folder
