"""Engine output as Arrow tables: columns leave as they are, codes get their names."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from kmbench.core.events import FAIL_NAMES, OP_NAMES
from kmbench.core.jit import SLAB_TABLE
from kmbench.core.latency import BUCKETS as LATENCY_BUCKETS
from kmbench.core.latency import OPS, bounds
from kmbench.core.paths import (
    ALLOC_PATH,
    ARRAY_ALLOC,
    ARRAY_FREE,
    FREE_PATH,
    PATHS,
    PLUGIN_PATH,
    Ops,
    Path,
)
from kmbench.core.sample import CACHE_COLUMNS, TIMELINE_COLUMNS
from kmbench.core.setup import Setup
from kmbench.core.state import State
from kmbench.final import LOOK_UPS, look_ups, percentile
from kmbench.simulate import Outcome
from kmbench.store.schema import TEXT, make_table
from kmbench.strategy import Strategy

Columns = dict[str, np.ndarray]


def timeline_table(outcome: Outcome, setup: Setup, run_id: str) -> pa.Table:
    """One row per sample and group."""
    names = pa.array([group.name for group in setup.groups], TEXT)

    def more(columns: Columns) -> dict:
        return {"group": (columns["memcg"] - 1, names)}

    return _sampled("timeline", TIMELINE_COLUMNS, outcome.timeline, run_id, more)


def cache_names(S: State, setup: Setup, strategy: Strategy) -> list[str]:
    """The name of every cache in the order of rows, as /proc/slabinfo has it."""
    caches = S.cache[1 : int(S.k["nr_caches"][0])]
    return [
        setup.caches[root - 1].name
        if memcg == 0
        else strategy.copy_name.format(
            cache=setup.caches[root - 1].name, group=setup.groups[memcg - 1].name, row=memcg
        )
        for root, memcg in zip(caches["root"].tolist(), caches["memcg"].tolist(), strict=True)
    ]


def cache_table(outcome: Outcome, setup: Setup, strategy: Strategy, run_id: str) -> pa.Table:
    """One row per sample and cache, copies included."""
    names = cache_names(outcome.S, setup, strategy)
    nr_caches = len(names)
    if strategy.dead_suffix:
        names += [name + strategy.dead_suffix for name in names]
    labels = pa.array(names, TEXT)

    def more(columns: Columns) -> dict:
        dead = (columns["state"] == 1) & bool(strategy.dead_suffix)
        slab = columns["pages_per_slab"] * setup.machine.page_size
        return {
            "name": (columns["cache"] - 1 + np.where(dead, nr_caches, 0), labels),
            "slab_bytes": columns["num_slabs"] * slab,
        }

    return _sampled("caches", CACHE_COLUMNS, outcome.caches, run_id, more)


def _sampled(
    table: str, columns: tuple[str, ...], pieces: list[np.ndarray], run_id: str,
    more: Callable[[Columns], dict],
) -> pa.Table:  # fmt: skip
    """The pieces of a sampled table as one, uncopied, with the columns that `more` derives."""
    parts = []
    for piece in pieces:
        sampled = dict(zip(columns, piece, strict=True))
        parts.append(make_table(table, {**sampled, **more(sampled)}, run_id))
    return pa.concat_tables(parts)


def strategy_paths(strategy: Strategy, parameters: dict) -> list[tuple[int, Path]]:
    """Row and path of everything that a run of the strategy can pass, with its operations."""
    known = [*enumerate(PATHS), *enumerate(strategy.paths, PLUGIN_PATH)]
    other = strategy.path_ops(parameters)
    return [(row, path._replace(ops=other.get(path.name, path.ops))) for row, path in known]


def op_table(outcome: Outcome, strategy: Strategy, parameters: dict, run_id: str) -> pa.Table:
    """One row per path that was taken, with its operations in all."""
    counts = outcome.S.path["count"].copy()
    k = outcome.S.k[0]
    # every allocation and free passes these; the engine need not count them twice
    on_slab = SLAB_TABLE in outcome.S._fields
    counts[ARRAY_ALLOC if on_slab else ALLOC_PATH] = k["nr_allocs"] + k["nr_internal"]
    counts[ARRAY_FREE if on_slab else FREE_PATH] = k["nr_frees"]
    known = strategy_paths(strategy, parameters)
    taken = [(path, int(counts[row])) for row, path in known if counts[row]]
    columns: dict = {
        "path": [path.name for path, _ in taken],
        "phase": [path.phase for path, _ in taken],
        "count": np.array([count for _, count in taken], np.int64),
    }
    for i, kind in enumerate(Ops._fields):
        columns[kind] = np.array([count * path.ops[i] for path, count in taken], np.int64)
    return make_table("ops", columns, run_id)


def failure_table(outcome: Outcome, run_id: str) -> pa.Table:
    """One row per failed operation, as far as the log reaches."""
    log = outcome.S.fail[: int(outcome.S.k["nr_fail_rows"][0])]
    columns: dict = {
        name: np.ascontiguousarray(log[name]).astype(np.int64)
        for name in ("t", "memcg", "cache", "gfp", "arg")
    }
    columns["op"] = (log["op"].astype(np.int32), OP_NAMES)
    columns["cause"] = (log["cause"].astype(np.int32), FAIL_NAMES)
    return make_table("failures", columns, run_id)


def access_table(outcome: Outcome, setup: Setup, run_id: str) -> pa.Table:
    """One row per group and phase in which it did anything; runs with reclaim only."""
    counts, latency = look_ups(outcome.S)
    memcg, phase = np.nonzero(latency.any(axis=2))
    taken = counts[memcg, phase]
    columns: dict = {
        "memcg": memcg.astype(np.int64),
        "phase": phase.astype(np.int64),
        "group": ((memcg - 1).astype(np.int32), [group.name for group in setup.groups]),
    }
    for name in LOOK_UPS.names:
        columns[name] = np.ascontiguousarray(taken[name])
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
        columns[name] = percentile(latency[memcg, phase], share)
    return make_table("accesses", columns, run_id)


def latency_table(outcome: Outcome, setup: Setup, run_id: str) -> pa.Table:
    """One row per group, operation and bucket that is not empty; runs that ask for it only."""
    nr = outcome.S.spent["nr"].reshape(-1, len(OPS), LATENCY_BUCKETS)
    memcg, op, bucket = np.nonzero(nr)
    edges = bounds()
    return make_table(
        "latency",
        {
            "memcg": memcg,
            "group": (memcg.astype(np.int32), ["-", *(group.name for group in setup.groups)]),
            "op": (op.astype(np.int32), list(OPS)),
            "low": edges[bucket],
            "high": edges[bucket + 1],
            "count": nr[memcg, op, bucket],
        },
        run_id,
    )
