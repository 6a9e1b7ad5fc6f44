"""How long `kmbench compare` takes over large datasets, and how much memory.

    python benchmarks/scan.py [--timeline-rows 10M] [--run-rows 1M]

makes two datasets in a temporary folder: one whose timelines have so many rows in all, in 200 runs,
and one of so many runs; then measures `kmbench compare` in processes of their own.  Numbers in the
datasets are made up.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from kmbench.store.dataset import write_parquet, write_run
from kmbench.store.schema import TABLES, make_table

STRATEGIES = ("none", "costa-2012", "linux-3.8", "linux-6.18")
GROUPS = 100
RUNS = 200
LIMIT_S, LIMIT_BYTES = 5.0, 2 << 30
LIMIT_RUNS_S = 20.0  # for a million runs, every one of which takes part in the comparison
_SIZES = {"k": 10**3, "M": 10**6}


def size(text: str) -> int:
    """``10M`` as a number."""
    return int(float(text.rstrip("kM")) * _SIZES.get(text[-1], 1))


def runs_table(nr: int, run_id: str) -> dict[str, object]:
    """Columns of `runs` for ``nr`` runs: every strategy on ``nr / len(STRATEGIES)`` seeds."""
    rng = np.random.default_rng(nr)
    number = np.arange(nr)
    seeds = number // len(STRATEGIES)
    words = {
        "scenario": "made-up", "scenario_params": "{}", "strategy_params": "{}",
        "allocator": "slub", "era": "6.18", "workload": "spread", "versions": "{}",
        "hardware": "none", "status": "ok",
    }  # fmt: skip
    columns: dict[str, object] = {name: [word] * nr for name, word in words.items()}
    columns["strategy"] = [STRATEGIES[i % len(STRATEGIES)] for i in number]
    columns["workload_hash"] = [f"w{seed}" for seed in seeds]
    for field in TABLES["runs"]:
        if field.name == "seed":
            columns["seed"] = seeds
        elif field.name != "run_id" and field.name not in columns:
            if str(field.type) == "double":
                columns[field.name] = rng.normal(100.0, 5.0, nr) + number % len(STRATEGIES)
            elif str(field.type) == "int64":
                columns[field.name] = np.full(nr, 2)
    return columns


def timeline_columns(nr: int, seed: int) -> dict[str, object]:
    """Columns of `timeline`: :data:`GROUPS` groups below the root at every sample."""
    rng = np.random.default_rng(seed)
    per = GROUPS + 1
    row = np.arange(nr)
    memcg, sample = row % per + 1, row // per
    used = rng.integers(0, 1 << 24, nr)
    columns: dict[str, object] = {
        field.name: np.zeros(nr, np.int64)
        for field in TABLES["timeline"]
        if str(field.type) == "int64" and not field.optional
    }
    columns |= {
        "t": sample * 10**6, "sample": sample, "memcg": memcg,
        "parent": (memcg > 1).astype(np.int64), "kmem_usage": used + 4096, "true_slab": used,
        "group": (row % per, ["/", *(f"/group{i}" for i in range(GROUPS))]),
    }  # fmt: skip
    return columns


def write_timelines(folder: Path, rows: int, runs: int = RUNS) -> None:
    """A dataset of ``runs`` runs whose timelines have ``rows`` rows in all."""
    table = runs_table(runs, "")
    for i in range(runs):
        row = {name: values[i] for name, values in table.items()}  # type: ignore[index]
        row = {k: v.item() if isinstance(v, np.generic) else v for k, v in row.items()}
        row["run_id"] = f"{i:016x}"
        timeline = make_table("timeline", timeline_columns(rows // runs, i), row["run_id"])
        write_run(folder, row, {"timeline": timeline})


def write_many_runs(folder: Path, rows: int) -> None:
    """A dataset of ``rows`` runs without tables of their own, in one file."""
    table = make_table("runs", runs_table(rows, "all"), "all")
    names = pa.array([f"{i:016x}" for i in range(rows)], pa.string())
    table = table.set_column(0, table.schema.field(0), names.dictionary_encode())
    write_parquet(folder / "runs" / "all.parquet", table)


_MEASURE = """
import json, sys, time
began = time.perf_counter()
from kmbench.cli.app import main
code = main(sys.argv[1:])
seconds = time.perf_counter() - began
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024  # ru_maxrss would know the parent's memory too
print(json.dumps([code, seconds, peak]), file=sys.stderr)
"""


def measure(*arguments: str) -> tuple[float, int]:
    """Seconds and peak bytes of a process that runs `kmbench` with these arguments."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    code, seconds, peak = json.loads(done.stderr.splitlines()[-1])
    if code:
        raise RuntimeError(done.stderr)
    return seconds, peak


def main() -> int:
    """Print a line per command; 1 when one is slower or larger than it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--timeline-rows", type=size, default=10_000_000)
    parser.add_argument("--run-rows", type=size, default=1_000_000)
    options = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        lines, runs = Path(folder, "timelines"), Path(folder, "runs")
        began = time.perf_counter()
        write_timelines(lines, options.timeline_rows)
        write_many_runs(runs, options.run_rows)
        print(f"made in {time.perf_counter() - began:.1f} s", file=sys.stderr)
        rows_of_lines = options.timeline_rows, "timeline rows", LIMIT_S
        for (rows, words, limit), arguments in (
            (rows_of_lines, ["compare", str(lines)]),
            (rows_of_lines, ["compare", str(lines), "--groups"]),
            ((options.run_rows, "runs", LIMIT_RUNS_S), ["compare", str(runs)]),
        ):
            seconds, peak = measure(*arguments)
            good = seconds <= limit and peak <= LIMIT_BYTES
            missed += not good
            command = " ".join(["kmbench compare", *arguments[2:]])
            print(
                f"{command:<26} {rows:>12,} {words:<14} {seconds:6.2f} s {peak / 2**20:8,.0f} MiB"
                f"{'' if good else '   MISSED'}"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
