"""What a sweep costs beside its runs, and what it makes of two workers when one is killed.

    python benchmarks/sweep.py [--points N] [--json]

Makes N small runs in one process, then on a dask cluster of this machine, a scheduler and two
workers, and then on another, of which a worker is killed after a third of the runs and replaced.
The results of all are compared byte by byte. Needs the extra ``dask``. The overhead is the time of
a run, without compiling, less what the engine itself took.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

import kmbench

ROOT = Path(__file__).parent.parent
GRID = """
scenario = '{scenario}'
strategies = ["none", "linux-6.18"]
seeds = {seeds}
[product]
"workload.groups" = [2, 4, 6, 8, 10]
"""


def start(*words: str) -> subprocess.Popen:
    """A process without output."""
    return subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def sweep(grid: Path, out: Path, *options: str) -> subprocess.Popen:
    """The command, started."""
    words = [sys.executable, "-m", "kmbench", "sweep", str(grid), "--out", str(out), "--json"]
    return subprocess.Popen([*words, *options], stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen) -> dict:
    """What the command printed."""
    text, _ = process.communicate()
    return json.loads(text)


def stored(out: Path) -> int:
    """Runs that are complete."""
    return sum(1 for _ in out.glob("runs/[!.]*.parquet"))


def same(first: Path, second: Path) -> bool:
    """Whether two datasets are equal byte by byte, but for wall-clock figures."""
    tables = "runs", "timeline", "caches", "ops", "failures"
    for table in tables:
        names = [sorted(p.name for p in (d / table).glob("[!.]*")) for d in (first, second)]
        if names[0] != names[1]:
            return False
        for name in names[0]:
            if (first / table / name).read_bytes() != (second / table / name).read_bytes():
                return False
    return True


def on_cluster(grid: Path, out: Path, kill_at: int = 0) -> dict:
    """Run the grid on two workers, one of which is killed after `kill_at` runs (0: none is)."""
    file = out.with_suffix(".json")
    options = "--no-dashboard", "--scheduler-file", str(file)
    processes = [start("dask", "scheduler", "--host", "127.0.0.1", "--port", "0", *options)]
    while not file.exists():
        time.sleep(0.05)
    worker = "dask", "worker", "--nthreads", "1", "--no-nanny", *options
    processes += [start(*worker), start(*worker)]
    address = json.loads(file.read_text())["address"]
    try:
        client = sweep(grid, out, "--executor", "dask", "--scheduler", address)
        if kill_at:
            while client.poll() is None and stored(out) < kill_at:
                time.sleep(1)  # counting takes time of the workers'
            processes[1].kill()
            processes.append(start(*worker))
        return said(client)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = folder / "grid.toml"
        scenario = ROOT / "workloads" / "waste" / "spread.toml"
        seeds = max(1, options.points // 10)
        warm = folder / "warm.toml"
        warm.write_text(GRID.format(scenario=scenario, seeds=1))
        said(sweep(warm, folder / "warm", "--executor", "serial"))
        grid.write_text(GRID.format(scenario=scenario, seeds=seeds))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        serial = said(sweep(grid, folder / "serial", "--executor", "serial"))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        cluster = on_cluster(grid, folder / "cluster")
        killed = on_cluster(grid, folder / "killed", kill_at=serial["runs"] // 3)
        timing = kmbench.open_results(folder / "serial").timing.select(
            pl.col("engine_s", "compile_s").sum()
        )
        engine_s, compile_s = timing.collect().row(0)
        equal = all(same(folder / "serial", folder / other) for other in ("cluster", "killed"))
    rows = {
        "runs": serial["runs"],
        "serial_s": serial["seconds"],
        "overhead_ms_a_run": 1000 * (serial["seconds"] - engine_s - compile_s) / serial["runs"],
        "cpu_ms_a_run": 1000 * cpu_s / serial["runs"],
        "two_workers_s": cluster["seconds"],
        "speed_up": serial["seconds"] / cluster["seconds"],
        "one_killed_s": killed["seconds"],
        "failed": sum(len(sweep["failed"]) for sweep in (serial, cluster, killed)),
        "equal_bytes": equal,
    }
    if options.json:
        print(json.dumps(rows))
    else:
        for key, value in rows.items():
            print(f"{key:<20}{value!s:>10.8}")


if __name__ == "__main__":
    main()
