"""Engine output as Arrow tables: columns leave as they are, codes get their names."""

import numpy as np
import pyarrow as pa

from kmbench.core.access import BUCKETS, PHASES
from kmbench.core.events import FAIL_NAMES, OP_NAMES
from kmbench.core.paths import ALLOC_PATH, FREE_PATH, PATHS, PLUGIN_PATH, Ops
from kmbench.core.sample import CACHE_COLUMNS, TIMELINE_COLUMNS
from kmbench.core.setup import Setup
from kmbench.final import percentile
from kmbench.simulate import Outcome
from kmbench.store.schema import make_table
from kmbench.strategy import Strategy


def timeline_table(outcome: Outcome, setup: Setup, run_id: str) -> pa.Table:
    """One row per sample and group."""
    columns = dict(zip(TIMELINE_COLUMNS, outcome.timeline, strict=True))
    names = [group.name for group in setup.groups]
    return make_table("timeline", {**columns, "group": (columns["memcg"] - 1, names)}, run_id)


def cache_table(outcome: Outcome, setup: Setup, strategy: Strategy, run_id: str) -> pa.Table:
    """One row per sample and cache, copies included."""
    columns = dict(zip(CACHE_COLUMNS, outcome.caches, strict=True))
    caches = outcome.S.cache[1 : int(outcome.S.k["nr_caches"][0])]
    names = [
        setup.caches[root - 1].name
        if memcg == 0
        else strategy.copy_name.format(
            cache=setup.caches[root - 1].name, group=setup.groups[memcg - 1].name, row=memcg
        )
        for root, memcg in zip(caches["root"].tolist(), caches["memcg"].tolist(), strict=True)
    ]
    return make_table("caches", {**columns, "name": (columns["cache"] - 1, names)}, run_id)


def op_table(outcome: Outcome, strategy: Strategy, run_id: str) -> pa.Table:
    """One row per path that was taken, with its operations in all."""
    counts = outcome.S.path["count"].copy()
    k = outcome.S.k[0]
    # every allocation and free passes these; the engine need not count them twice
    counts[ALLOC_PATH] = k["nr_allocs"] + k["nr_internal"]
    counts[FREE_PATH] = k["nr_frees"]
    known = [*enumerate(PATHS), *enumerate(strategy.paths, PLUGIN_PATH)]
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
    S = outcome.S
    groups = len(S.memcg)
    stat = S.stat.reshape(groups, PHASES)
    latency = S.latency["nr"].reshape(groups, PHASES, BUCKETS)
    memcg, phase = np.nonzero(latency.any(axis=2))
    taken = stat[memcg, phase]
    columns: dict = {
        "memcg": memcg.astype(np.int64),
        "phase": phase.astype(np.int64),
        "group": ((memcg - 1).astype(np.int32), [group.name for group in setup.groups]),
    }
    for name in ("accesses", "hits", "failed", "returned", "busy"):
        columns[name] = np.ascontiguousarray(taken[name])
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
        columns[name] = percentile(latency[memcg, phase], share)
    return make_table("accesses", columns, run_id)
