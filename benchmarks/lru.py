"""A cache of a fixed size under the plain LRU policy: hit ratio and speed beside libCacheSim.

    python benchmarks/lru.py [--json] [--accesses N] [--objects N] [--capacity N] [--repeat N]

One Zipf stream (exponent 1) goes through kmbench (shrinker ``lru`` with a capacity, strategy
``none``: every miss really allocates an object in a slab, every eviction frees one), through the
twenty lines of :func:`plain_lru`, and, if the package libcachesim is installed, through its native
LRU by its own trace reader, which maps the file it was just given.  Both begin with an empty cache
of the same capacity.  The hit counts must be equal.  Times are CPU time of the one thread that
works, without compiling, the best of `repeat`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np

import kmbench
from kmbench.core.events import ACCESS, EVENT, GFP_KERNEL
from kmbench.core.geometry import make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.memory import Memory

SEED = 1
ORACLE_GENERAL = np.dtype([("t", "<u4"), ("obj", "<u8"), ("size", "<u4"), ("next", "<i8")])


def zipf(accesses: int, objects: int) -> np.ndarray:
    """`accesses` handles, 1 to `objects`, the i-th most popular drawn in proportion to 1/i."""
    share = np.cumsum(1.0 / np.arange(1, objects + 1))
    rng = np.random.default_rng(SEED)
    names = rng.permutation(objects) + 1
    return names[np.searchsorted(share, rng.random(accesses) * share[-1])].astype(np.int32)


def plain_lru(handles: list[int], capacity: int) -> int:
    """Hits of an LRU cache of `capacity` objects, the obvious way."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for handle in handles:
        if handle in cache:
            hits += 1
            cache.move_to_end(handle)
        else:
            cache[handle] = None
            if len(cache) > capacity:
                cache.popitem(last=False)
    return hits


def by_kmbench(handles: np.ndarray, objects: int, capacity: int) -> tuple[int, float]:
    """Hits, and seconds in the engine."""
    plugins = kmbench.load_plugins()
    cache = make_cache("block", 64)
    pages = 4 * capacity // cache.objects + (1 << 15)
    setup = Setup(
        Machine(1, 1, pages), "6.18", (cache,), (GroupSpec("/", 0), GroupSpec("/user")), objects + 1
    )
    memory = Memory(shrinker=plugins.shrinker("lru"), parameters={"capacity": capacity})
    simulation = kmbench.Simulation(setup, plugins.strategy("none"), memory=memory)
    events = np.zeros(len(handles), EVENT)
    events["op"], events["obj"], events["memcg"] = ACCESS, handles, 2
    events["cache"], events["gfp"] = 1, GFP_KERNEL
    events["t"] = np.arange(len(handles))
    began = time.process_time()
    simulation.feed(events)
    seconds = time.process_time() - began
    return int(simulation.S.stat["hits"].sum()), seconds


def by_libcachesim(handles: np.ndarray, capacity: int) -> tuple[int, float] | None:
    """Hits, and seconds in its native loop; None if it is not installed."""
    try:
        import libcachesim
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "zipf.oracleGeneral.bin")
        trace = np.zeros(len(handles), ORACLE_GENERAL)
        trace["obj"], trace["size"], trace["next"] = handles, 1, -2
        trace.tofile(path)
        reader = libcachesim.TraceReader(
            str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE, libcachesim.ReaderInitParam()
        )
        cache = libcachesim.LRU(cache_size=capacity)
        began = time.process_time()
        missed, _ = cache.process_trace(reader)
        seconds = time.process_time() - began
    return len(handles) - round(missed * len(handles)), seconds


def main() -> int:
    """Print the table; 1 if the hits differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--accesses", type=int, default=10_000_000)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--capacity", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    handles = zipf(given.accesses, given.objects)
    began = time.process_time()
    hits = plain_lru(handles.tolist(), given.capacity)
    rows = {"plain Python": (hits, time.process_time() - began)}
    for _ in range(given.repeat):
        runs = {
            "kmbench": by_kmbench(handles, given.objects, given.capacity),
            "libCacheSim": by_libcachesim(handles, given.capacity),
        }
        for name, run in runs.items():
            if run and (name not in rows or run[1] < rows[name][1]):
                rows[name] = run
    equal = len({hits for hits, _ in rows.values()}) == 1
    table = [
        {"lru": name, "hits": hits, "hit_ratio": hits / given.accesses, "seconds": seconds,
         "accesses_per_s": given.accesses / seconds}
        for name, (hits, seconds) in rows.items()
    ]  # fmt: skip
    if given.json:
        print(json.dumps({"equal": equal, "rows": table}))
    else:
        for row in table:
            print(
                f"{row['lru']:<14}{row['hits']:>12,} hits  {row['hit_ratio']:.6f}"
                f"{row['accesses_per_s'] / 1e6:>9.2f} M/s"
            )
        print(
            f"the same {given.accesses:,} keys, {given.capacity:,} objects at most, from empty; "
            f"CPU time, best of {given.repeat}; kmbench: stream in memory, compiled before; "
            "libCacheSim: native loop over a mapped file that was just written"
        )
        if "libCacheSim" in rows:
            print(f"kmbench / libCacheSim: {rows['libCacheSim'][1] / rows['kmbench'][1]:.2f}")
        print("hits are equal" if equal else "hits DIFFER")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
