"""Time per event of the compiled engine beside the same model in C, on the same stream.

    python benchmarks/throughput.py [--json] [--groups | --all] [--events N] [--live N ...]

Both take turns on slices of the stream, so that whatever else the machine does meets both alike;
a figure is the median over the slices.  The fill of the live objects is not in the time, nor is the
making of the stream.  No ratio is printed unless every table of both ends equal.

`c_ns_per_event` and `ratio` are those of plain C on every row.  The fairer yardstick of a row with
look-ahead is C that prefetches the same records: `c_look_ahead_ns` and `ratio_look_ahead`.
"""

import argparse
import gc
import json
import sys
import time
from pathlib import Path

import numpy as np
from stream import Stream, make_stream
from yardstick import Yardstick, YardstickProblem, differences

import kmbench
from kmbench.core import paths
from kmbench.core.state import FIELDS, State

STRATEGIES = ("none", "costa-2012", "linux-6.18")
LIVE = (20_000, 1_000_000)
GROUPS = (10, 10_000)
EVENTS = 20_000_000
SLICE = 500_000
LOOK_AHEAD_FROM = 200_000  # live objects: below, everything is in the caches anyway


def in_turns(runs: list, stream: Stream) -> np.ndarray:
    """Feed the stream to all, slice by slice, each first in turn: ns per event (run, slice)."""
    for run in runs:
        run.feed(stream.events[: stream.fill])
    starts = range(stream.fill, len(stream.events), SLICE)
    times = np.zeros((len(runs), len(starts)))
    for column, start in enumerate(starts):
        batch = stream.events[start : start + SLICE]
        for turn in range(len(runs)):
            row = (turn + column) % len(runs)
            began = time.perf_counter()
            runs[row].feed(batch)
            times[row, column] = (time.perf_counter() - began) / len(batch) * 1e9
    return times


def check(simulation: kmbench.Simulation, yardstick: Yardstick, what: str) -> None:
    """Refuse to go on if the two differ in anything, or if the stream was not served in full."""
    if found := differences(simulation, yardstick):
        raise YardstickProblem(f"{what}: kmbench and C differ:\n  " + "\n  ".join(found))
    k = simulation.S.k[0]
    if k["nr_failed"] or k["nr_skipped"]:
        raise YardstickProblem(f"{what}: {k['nr_failed']} events failed, {k['nr_skipped']} skipped")


def bytes_per_object(S: State, live: int) -> float:
    """Bytes of the tables' rows in use for one live object: object, slab and page frame records."""
    highest = {
        "obj": np.count_nonzero(S.obj["req"]),
        "slab": S.k["nr_slab_rows"][0],
        "pfn": 0 if S.k["nr_slab_rows"][0] == 0 else int(S.slab["pfn"].max()) + 8,
    }
    others = sum(
        len(getattr(S, name)) * dtype.itemsize
        for name, dtype in FIELDS.items()
        if name in ("cpu", "node", "cache", "memcg", "counter", "stock", "child")
    )
    rows = sum(int(nr) * FIELDS[name].itemsize for name, nr in highest.items())
    return (rows + others) / live


def measure(strategy: kmbench.Strategy, stream: Stream, live: int) -> list[dict]:
    """The rows of one strategy and number of live objects: without look-ahead, then with it."""
    looks = (False, True) if live >= LOOK_AHEAD_FROM else (False,)
    ours = [kmbench.Simulation(stream.setup, strategy, look_ahead=look) for look in looks]
    theirs = [Yardstick(stream.setup, strategy, look) for look in looks]
    times = in_turns(ours + theirs, stream)
    rows = []
    for i, look in enumerate(looks):
        check(ours[i], theirs[i], f"{strategy.name}, {live} live")
        plain = times[len(looks)]
        c = times[len(looks) + i] if look else None
        rows.append(
            {
                "strategy": strategy.name,
                "live": live,
                "look_ahead": look,
                "ns_per_event": float(np.median(times[i])),
                "c_ns_per_event": float(np.median(plain)),
                "ratio": float(np.median(times[i] / plain)),
                "c_look_ahead_ns": float(np.median(c)) if look else None,
                "ratio_look_ahead": float(np.median(times[i] / c)) if look else None,
                "bytes_per_object": bytes_per_object(ours[i].S, live),
            }
        )
    return rows


def measure_groups(strategy: kmbench.Strategy, live: int, nr_events: int) -> list[dict]:
    """The rows of one strategy by number of groups, the smallest first."""
    streams = [make_stream(live, nr_events, groups) for groups in GROUPS]
    medians = []
    for stream in streams:
        simulation = kmbench.Simulation(stream.setup, strategy)
        medians.append(float(np.median(in_turns([simulation], stream))))
    return [
        {
            "strategy": strategy.name,
            "live": live,
            "groups": groups,
            "ns_per_event": ns,
            "ratio_to_fewest": ns / medians[0],
        }
        for groups, ns in zip(GROUPS, medians, strict=True)
    ]


def measure_all(strategies: list[kmbench.Strategy], stream: Stream, live: int) -> list[dict]:
    """A row a strategy, kmbench alone: its events/s by those of `none`, and what it did more.

    `slabs` and `charges` are slabs made and levels of counters charged, by event.
    """
    runs = [kmbench.Simulation(stream.setup, strategy) for strategy in strategies]
    times = in_turns(runs, stream)
    base = times[[strategy.name for strategy in strategies].index("none")]
    rows = []
    for strategy, run, taken in zip(strategies, runs, times, strict=True):
        passed, nr_events = run.S.path["count"], int(run.S.k["nr_events"][0])
        charges = passed[paths.COUNTER_CHARGE_LOCKED] + passed[paths.COUNTER_CHARGE_ATOMIC]
        own = passed[paths.PLUGIN_PATH : paths.PLUGIN_PATH + len(strategy.paths)].sum()
        rows.append(
            {
                "strategy": strategy.name,
                "live": live,
                "ns_per_event": float(np.median(taken)),
                "events_per_s_by_none": float(np.median(base / taken)),
                "slabs": float(passed[paths.SLAB_MADE] / nr_events),
                "charges": float(charges / nr_events),
                "own_paths": float(own / nr_events),
            }
        )
    return rows


def show(rows: list[dict]) -> None:
    """Print rows of equal keys as an aligned table."""
    if not rows:
        return
    cells = [list(rows[0])] + [[_text(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> int:
    """Measure and print; 1 if the yardstick cannot be built or differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--events", type=int, default=EVENTS, help="events after the fill")
    parser.add_argument("--live", type=_number, nargs="+", default=LIVE, help="e.g. 20k 1M 10M")
    parser.add_argument("--strategy", nargs="+", default=STRATEGIES, choices=STRATEGIES)
    parser.add_argument(
        "--all", action="store_true", help="every strategy by the events/s of none, kmbench alone"
    )
    parser.add_argument(
        "--groups", action="store_true", help="10 and 10,000 groups instead, kmbench alone"
    )
    arguments = parser.parse_args()
    known = kmbench.load_plugins()
    rows = []
    try:
        for live in arguments.live if not arguments.groups else arguments.live[-1:]:
            stream = None if arguments.groups else make_stream(live, arguments.events)
            if arguments.all:
                rows += measure_all(list(known.strategies.values()), stream, live)
                continue
            for name in arguments.strategy:
                strategy = known.strategy(name)
                rows += (
                    measure_groups(strategy, live, arguments.events // 4)
                    if stream is None
                    else measure(strategy, stream, live)
                )
                gc.collect()
    except YardstickProblem as problem:
        print(f"{Path(__file__).name}: {problem}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        show(rows)
    return 0


def _number(text: str) -> int:
    scale = {"k": 10**3, "M": 10**6}.get(text[-1:], 1)
    return int(text.rstrip("kM")) * scale


if __name__ == "__main__":
    sys.exit(main())
