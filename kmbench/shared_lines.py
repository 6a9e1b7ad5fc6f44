"""What shared lines tell at the end of a run: how often they moved, would move, and for whom."""

import json

import numpy as np

from kmbench.core.state import State

__all__ = ["shared_lines"]

QUEUES = 32  # lines that are told one by one; the others are so cool that nobody queues there
ROOT = 1
VISITS = ("opens", "takes", "takes_on", "looks", "looks_on")


def shared_lines(S: State, P: tuple) -> dict[str, float | str | None]:
    """Metric O6, and ``lines`` as the schema of ``runs`` has it.

    `P`: the strategy's own tables, of which those with the fields of ``state.LINE`` are lines.
    """
    allocs = int(S.k["nr_allocs"][0])
    if not allocs:
        return {"hot_line_writes": None, "lines": None}
    own = [table for table in P if "writer" in table.dtype.names]
    near, far, writes, *visits = (
        np.concatenate([table[name] for table in (S.counter, S.node, *own)]).astype(np.float64)
        for name in ("near", "far", "writes", *VISITS)
    )
    moves = near + far
    moved = np.flatnonzero(moves)
    hot = float(writes[np.argmax(moves)] / allocs) if len(moved) else 0.0  # of several the first
    if not S.k["crowded"][0]:
        return {"hot_line_writes": hot, "lines": None}
    opens, takes, _, looks, _ = visits
    turns = takes + looks * takes / np.maximum(takes + looks, 1)  # as if no visit followed another
    shares = np.concatenate([_of_counters(S), np.ones(len(S.node)), *map(_of_table, own)])
    moved = moved[np.argsort(-turns[moved], kind="stable")]
    counts = np.stack([near, far, opens + looks, *visits[1:]], axis=1) / allocs
    rows = np.concatenate([counts, shares[:, None]], axis=1)[moved]
    told, rest = rows[:QUEUES], rows[QUEUES:].sum(axis=0)
    if len(rows) > QUEUES:
        told = np.concatenate([told, [[rest[0], rest[1], *[0] * (len(VISITS) + 1)]]])
    lines = json.dumps([[float(f"{value:.6g}") for value in row] for row in told])
    return {"hot_line_writes": hot, "lines": lines}


def _of_counters(S: State) -> np.ndarray:
    """Who comes to a group's counter: as many of all as it is charged of what the root is."""
    writes = S.counter["writes"].reshape(-1, 2).astype(np.float64)
    return np.clip(writes / np.maximum(writes[ROOT], 1), 0, 1).ravel()


def _of_table(table: np.ndarray) -> np.ndarray:
    """All CPUs divide among the rows of a strategy's table as they use them."""
    uses = table["opens"].astype(np.float64) + table["looks"]
    return uses / max(uses.sum(), 1)
