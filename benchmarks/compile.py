"""What compiling an engine costs, in new processes with an empty cache.

    python benchmarks/compile.py [SCENARIO.toml] [-s STRATEGY]... [--allocator slab] [--json]

Without arguments: the dentry bomb, that is with reclaim and a shrinker, for costa-2012 and
linux-6.18.  `cold`: nothing is in the cache; `warm`: what the first process left there.  Seconds of
CPU, and seconds, from the scenario's plan to an engine that is ready.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCENARIO = Path(__file__).parents[1] / "workloads" / "isolation" / "dentry_bomb.toml"
STRATEGIES = ("costa-2012", "linux-6.18")

_ONE = """
import json, sys, time
import kmbench
from kmbench.runs import make_plans
from kmbench.scenario import load_scenario
path, strategy, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
(plan,) = make_plans(load_scenario(path, settings), [strategy], kmbench.load_plugins())
cpu, began = time.process_time(), time.perf_counter()
made = kmbench.Simulation(
    plan.workload.setup, plan.strategy, plan.parameters, memory=plan.memory
)
print(json.dumps([time.process_time() - cpu, time.perf_counter() - began, made.cache_hit]))
"""


def start(scenario: Path, strategy: str, settings: dict, cache: str) -> tuple[float, float, bool]:
    """A process that readies one engine: seconds of CPU, seconds, whether it was in the cache."""
    done = subprocess.run(
        [sys.executable, "-c", _ONE, str(scenario), strategy, json.dumps(settings)],
        check=True, capture_output=True, text=True, env={**os.environ, "KMBENCH_CACHE": cache},
    )  # fmt: skip
    return tuple(json.loads(done.stdout))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", type=Path, default=SCENARIO)
    parser.add_argument("-s", "--strategy", action="append")
    parser.add_argument("--allocator", choices=("slub", "slab"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    settings = {"allocator": json.dumps(given.allocator)} if given.allocator else {}
    rows = []
    for strategy in given.strategy or STRATEGIES:
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "warm"):
                cpu, seconds, hit = start(given.scenario, strategy, settings, cache)
                if hit != (state == "warm"):
                    raise SystemExit(f"{strategy}: {state}, but in the cache: {hit}")
                rows.append({"strategy": strategy, "cache": state, "cpu_s": cpu, "s": seconds})
    if given.json:
        print(json.dumps(rows))
    else:
        print(f"{'strategy':<20}{'cache':<8}{'CPU s':>8}{'s':>8}")
        for row in rows:
            print(f"{row['strategy']:<20}{row['cache']:<8}{row['cpu_s']:>8.2f}{row['s']:>8.2f}")


if __name__ == "__main__":
    main()
