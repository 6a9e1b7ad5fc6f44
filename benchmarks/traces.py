"""How fast recordings are read and replayed, in events per second.

    python benchmarks/traces.py [FOLDER...] [--lines 1M] [--json]

prints three rates, each the best of three after a first, compiling run:

text     `kmbench trace import` of ftrace text made from the recording compile
parquet  reading FOLDERs, captures of `kmbench trace record`, all together; without any, the
         repository's trace files
replay   the engine on the repository's trace files under linux-6.18, reader apart

It ends with 1 when one is below what is wanted of it.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kmbench.core.events import ALLOC, FREE
from kmbench.errors import UsageProblem
from kmbench.plugins import load_plugins
from kmbench.simulate import Simulation
from kmbench.trace.capture import read_capture
from kmbench.trace.format import open_trace
from kmbench.trace.importers.build import import_trace

RECORDED = Path(__file__).parents[1] / "workloads" / "recorded"
WANTED = {"text": 1e6, "parquet": 5e6, "replay": 10e6}  # events/s
TIMES = 3
_SIZES = {"k": 10**3, "M": 10**6}


def size(text: str) -> int:
    """``1M`` as a number."""
    return int(float(text.rstrip("kM")) * _SIZES.get(text[-1], 1))


def best(work: Callable[[], float]) -> float:
    """Seconds of the fastest run of `work`, which returns the seconds that count."""
    work()
    return min(work() for _ in range(TIMES))


def clocked(work: Callable[[], object]) -> Callable[[], float]:
    """`work` as something that returns how long it took."""

    def timed() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return timed


def write_text(path: Path, lines: int) -> int:
    """ftrace text of the slab operations of compile, over and over; how many lines."""
    with open_trace(RECORDED / "compile.kmtrace.parquet") as trace:
        names = [cache.name for cache in trace.setup.caches]
        sizes = [cache.size for cache in trace.setup.caches]
        events = trace.read()
    events = events[(events["op"] == ALLOC) | (events["op"] == FREE)][:lines]
    seconds = events["t"] / 1e9
    text = [
        f"           make-{task:<7} [{cpu:03}] ..... {t:.6f}: "
        + (
            f"kmem_cache_alloc: call_site=f+0x1/0x2 ptr={obj << 6:016x} bytes_req={sizes[row]} "
            f"bytes_alloc={sizes[row]} gfp_flags=GFP_KERNEL node=-1 accounted=false\n"
            if op == ALLOC
            else f"kmem_cache_free: call_site=g+0x1/0x2 ptr={obj << 6:016x} name={names[row]}\n"
        )
        for t, task, cpu, op, obj, row in zip(
            seconds.tolist(), events["task"].tolist(), events["cpu"].tolist(),
            events["op"].tolist(), events["obj"].tolist(), (events["cache"] - 1).tolist(),
            strict=True,
        )
    ]  # fmt: skip
    path.write_text("".join(text))
    return len(text)


def import_rate(folder: Path, lines: int) -> float:
    """Events per second of importing text."""
    source, target = folder / "trace.txt", folder / "out.kmtrace.parquet"
    count = write_text(source, lines)
    return count / best(clocked(lambda: import_trace([str(source)], target)))


def read_rate(folders: list[Path]) -> float:
    """Events per second of reading captures, or trace files."""
    counts: list[int] = []

    def work() -> None:
        counts.clear()
        for path in folders:
            counts.append(len(read_capture(path).events))
        if not folders:
            for path in sorted(RECORDED.glob("*.kmtrace.parquet")):
                with open_trace(path) as trace:
                    counts.append(sum(len(batch) for batch in trace.batches()))

    seconds = best(clocked(work))
    return sum(counts) / seconds


def replay_rate() -> float:
    """Events per second of the engine alone."""
    plugins = load_plugins()
    recordings = []
    for path in sorted(RECORDED.glob("*.kmtrace.parquet")):
        with open_trace(path) as trace:
            recordings.append((trace.setup, trace.read()))

    def work() -> float:
        seconds = 0.0
        for setup, events in recordings:
            simulation = Simulation(setup, plugins.strategy("linux-6.18"))
            seconds += clocked(lambda run=simulation, fed=events: run.feed(fed))()
        return seconds

    return int(np.sum([len(events) for _, events in recordings])) / best(work)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--lines", type=size, default=size("1M"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = {"text": import_rate(Path(folder), arguments.lines)}
    rates |= {"parquet": read_rate(arguments.folders), "replay": replay_rate()}
    if arguments.json:
        print(json.dumps({name: round(rate) for name, rate in rates.items()}))
    else:
        for name, rate in rates.items():
            print(f"{name:8} {rate / 1e6:6.2f} M events/s, wanted {WANTED[name] / 1e6:.0f}")
    return int(any(rate < WANTED[name] for name, rate in rates.items()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageProblem as problem:
        print(f"{Path(__file__).name}: {problem}", file=sys.stderr)
        sys.exit(2)
