"""Speed, memory and compile time of the engine."""

import json
import os
import subprocess
import sys
import tempfile
import time

from stream import make_stream

import kmbench

from . import STRATEGIES

LIVE = {"20k": 20_000, "1M": 1_000_000}
EVENTS = 2_000_000


def simulation(strategy: str, stream) -> kmbench.Simulation:
    """The strategy on the stream's machine, with the live objects in place."""
    made = kmbench.Simulation(stream.setup, kmbench.load_plugins().strategy(strategy))
    made.feed(stream.events[: stream.fill])
    return made


class Throughput:
    """The stream of throughput.py, shorter; look-ahead as the host chooses it."""

    params = (STRATEGIES, list(LIVE))
    param_names = ("strategy", "live")
    number, repeat, warmup_time = 1, (1, 5, 10.0), 0.0  # every run needs a fresh state

    def setup(self, strategy, live):
        """Make stream and state; compiled code comes from the cache."""
        self.stream = make_stream(LIVE[live], EVENTS)
        self.simulation = simulation(strategy, self.stream)

    def time_engine(self, strategy, live):
        """Seconds for 2 M events."""
        self.simulation.feed(self.stream.events[self.stream.fill :])

    def track_events_per_second(self, strategy, live):
        """Events a second, the best of four quarters."""
        rest = self.stream.events[self.stream.fill :]
        quarter = len(rest) // 4
        seconds = []
        for start in range(0, 4 * quarter, quarter):
            began = time.perf_counter()
            self.simulation.feed(rest[start : start + quarter])
            seconds.append(time.perf_counter() - began)
        return quarter / min(seconds)

    track_events_per_second.unit = "events/s"


class Memory:
    """Peak of a process that runs 1 M live objects; the stream is most of the rest."""

    params = STRATEGIES
    param_names = ("strategy",)

    def setup_cache(self):
        """Compile once, outside of what is measured."""
        for strategy in STRATEGIES:
            simulation(strategy, make_stream(1000, 1000))

    def peakmem_million_objects(self, strategy):
        """1 M live objects."""
        simulation(strategy, make_stream(LIVE["1M"], 1))


_COMPILE = """
import json, sys
from stream import make_stream
import kmbench
stream = make_stream(1000, 1000)
made = kmbench.Simulation(stream.setup, kmbench.load_plugins().strategy(sys.argv[1]))
print(json.dumps([made.compile_s, made.cache_hit]))
"""


class Compile:
    """Seconds until an engine is there, in a fresh process."""

    params = STRATEGIES
    param_names = ("strategy",)

    def setup_cache(self):
        """Start every strategy twice, the first time with nothing in the cache."""
        with tempfile.TemporaryDirectory() as cache:
            return {s: (_compile(s, cache, False), _compile(s, cache, True)) for s in STRATEGIES}

    def track_cold(self, seconds, strategy):
        """Nothing in the cache."""
        return seconds[strategy][0]

    def track_warm(self, seconds, strategy):
        """Everything in the cache."""
        return seconds[strategy][1]

    track_cold.unit = track_warm.unit = "s"


def _compile(strategy: str, cache: str, hit: bool) -> float:
    path = os.pathsep.join([os.path.dirname(os.path.dirname(__file__)), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE, strategy], check=True, capture_output=True, text=True,
        env={**os.environ, "KMBENCH_CACHE": cache, "PYTHONPATH": path},
    )  # fmt: skip
    seconds, was_hit = json.loads(done.stdout)
    if was_hit != hit:
        raise RuntimeError(f"cache hit: {was_hit}, expected {hit}")
    return seconds
