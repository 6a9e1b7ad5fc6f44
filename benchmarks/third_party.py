"""A strategy in another installed distribution beside the same one built in.

    python benchmarks/third_party.py [--json] [--events N]

Installs a copy of costa-2012 as a distribution of its own (metadata, entry point, module) in a
temporary folder, then times both on the same stream, slice by slice in turn, and starts the copy in
two new processes to see the second one find its compiled engine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from stream import make_stream
from throughput import in_turns

import kmbench

ROOT = Path(__file__).parent.parent
NAME = "costa-elsewhere"
METADATA = "Metadata-Version: 2.1\nName: kmbench-elsewhere\nVersion: 1.0\n"
REGISTER = """
import kmbench

@kmbench.hookimpl
def kmbench_register_strategies(register):
    from kmbench_elsewhere.design import costa_2012
    register(costa_2012)
"""
START = """
import json
import kmbench
from kmbench.core.geometry import make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup
caches, groups = (make_cache("dentry", 192),), (GroupSpec("/", 0),)
setup = Setup(Machine(memory_pages=4096), "6.18", caches, groups, 2)
simulation = kmbench.Simulation(setup, kmbench.load_plugins().strategy("costa-elsewhere"))
print(json.dumps([simulation.compile_s, simulation.cache_hit]))
"""


def install_copy(folder: Path) -> None:
    """Lay a distribution with a copy of costa-2012 out in `folder`, as an installer would."""
    package = folder / "kmbench_elsewhere"
    info = folder / "kmbench_elsewhere-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    source = (ROOT / "plugins" / "kmbench_2012" / "costa.py").read_text()
    (package / "design.py").write_text(source.replace('name="costa-2012"', f'name="{NAME}"'))
    (package / "__init__.py").write_text(REGISTER)
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[kmbench]\nelsewhere = kmbench_elsewhere\n")


def starts(folder: Path) -> list[list]:
    """Compile seconds and cache hit of two new processes that use the copy."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "KMBENCH_CACHE": str(folder / "cache"),
    }
    outputs = [
        subprocess.run([sys.executable, "-c", START], env=environment, check=True,
                       capture_output=True, text=True).stdout
        for _ in range(2)
    ]  # fmt: skip
    return [json.loads(output) for output in outputs]


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=6_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install_copy(folder)
        (cold, first_hit), (warm, second_hit) = starts(folder)
        sys.path.insert(0, name)
        plugins = kmbench.load_plugins()
        stream = make_stream(20_000, options.events)
        runs = [
            kmbench.Simulation(stream.setup, plugins.strategy(strategy))
            for strategy in ("costa-2012", NAME)
        ]
        built_in, copy = np.median(in_turns(runs, stream), axis=1)
    rows = {
        "built_in_ns_per_event": built_in,
        "third_party_ns_per_event": copy,
        "ratio": copy / built_in,
        "first_start_compile_s": cold,
        "first_start_cache_hit": first_hit,
        "second_start_compile_s": warm,
        "second_start_cache_hit": second_hit,
    }
    if options.json:
        print(json.dumps(rows))
    else:
        for key, value in rows.items():
            print(f"{key:<26}{value!s:>8.6}")


if __name__ == "__main__":
    main()
