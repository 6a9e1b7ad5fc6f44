"""Does what can go wrong to a sweep, and counts what was lost.

    python benchmarks/reliability.py [--kills N] [--only NAME]... [--json]

kills: a sweep is killed with -9 at random moments and repeated, N times, and then completed.
full: the disk is full: files may not grow beyond a few KiB (RLIMIT_FSIZE).
read_only: the folder of results cannot be written.
two: two sweeps write one dataset at the same time.
clock: the wall clock jumps back and forth by years while a sweep runs.
After each, the dataset must be readable at every moment, nothing may be missing or doubled, and
every byte must equal an undisturbed sweep's.  Exit code 1 otherwise.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kmbench

ROOT = Path(__file__).parent.parent
GRID = """
scenario = '{scenario}'
strategies = ["none", "costa-2012"]
seeds = {seeds}
[product]
"workload.groups" = [5, 10]
"""
CLOCK = """
import itertools, runpy, sys, time
real, jumps = time.time, itertools.cycle((0, -3e8, 1e8, -9e8, 5e8))
time.time = lambda: real() + next(jumps)
sys.argv = ["kmbench", *sys.argv[1:]]
runpy.run_module("kmbench", run_name="__main__")
"""


def command(grid: Path, out: Path, *options: str) -> list[str]:
    """The words of `kmbench sweep`."""
    words = [sys.executable, "-m", "kmbench", "sweep", str(grid), "--out", str(out), "--json"]
    return [*words, "--workers", "2", *options]


def sweep(grid: Path, out: Path, **options) -> subprocess.CompletedProcess:
    """Run it to its end."""
    words = command(grid, out)
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


def content(out: Path) -> dict[str, bytes]:
    """All files of a dataset but wall-clock figures and what a killed writer left."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.glob("*/[!.]*.parquet")
        if path.parent.name != "timing"
    }


def stored(out: Path) -> int:
    """Runs that are complete."""
    return sum(1 for _ in out.glob("runs/[!.]*.parquet"))


def readable(out: Path) -> int:
    """Read every table of every complete run; how many there are."""
    if not (out / "runs").is_dir():
        return 0
    results = kmbench.open_results(out)
    with results.reading():
        for table in ("timeline", "caches", "ops", "failures"):
            getattr(results, table).collect()
        rows = results.runs.collect()
    assert rows["run_id"].n_unique() == rows.height
    assert (rows["status"] == "ok").all()
    return rows.height


def kills(grid: Path, folder: Path, reference: dict, nr: int) -> dict:
    """Kill a sweep and all its workers at random moments."""
    draw = random.Random(0)
    out = folder / "kills"
    last, whole = 0, len([name for name in reference if name.startswith("runs/")])
    restarts = went_back = amid = 0
    for number in range(nr):
        process = subprocess.Popen(
            command(grid, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        if number % 2:  # half of the kills at any time, half while runs are being stored
            while process.poll() is None and stored(out) == last:
                time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 1.0 if number % 2 else 4.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = readable(out)
        went_back += now < last
        amid += last < now < whole
        last = now
        if now == whole:  # done before all kills: begin again
            assert content(out) == reference
            subprocess.run(["rm", "-r", str(out)], check=True)
            last, restarts = 0, restarts + 1
    done = sweep(grid, out)
    return {
        "kills": nr, "amid_storing": amid, "sweeps_begun_again": restarts, "runs_lost": went_back,
        "ok": done.returncode == 0 and content(out) == reference and not went_back,
    }  # fmt: skip


def full(grid: Path, folder: Path, reference: dict) -> dict:
    """No file may grow beyond 3000 bytes: less than a table."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    out = folder / "full"
    done = sweep(grid, out, preexec_fn=limit)
    stored = readable(out)
    again = sweep(grid, out)
    one_line = done.stderr.strip().splitlines()[-1:]
    return {
        "exit_code": done.returncode, "said": one_line, "runs_stored": stored,
        "ok": done.returncode == 2 and stored == 0 and again.returncode == 0
        and content(out) == reference and "Traceback" not in done.stderr,
    }  # fmt: skip


def read_only(grid: Path, folder: Path, reference: dict) -> dict:
    """The place of the dataset is a file, which not even root can write a folder into."""
    out = folder / "file"
    out.write_text("")
    done = sweep(grid, out)
    return {
        "exit_code": done.returncode, "said": done.stderr.strip().splitlines(),
        "ok": done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1,
    }  # fmt: skip


def two(grid: Path, folder: Path, reference: dict) -> dict:
    """The same sweep twice at once into one folder."""
    out = folder / "two"
    both = [subprocess.Popen(command(grid, out), stdout=subprocess.DEVNULL) for _ in range(2)]
    codes = [process.wait() for process in both]
    left = list(out.rglob("*.tmp"))
    return {
        "exit_codes": codes, "files_left_over": len(left),
        "ok": codes == [0, 0] and not left and content(out) == reference,
    }  # fmt: skip


def clock(grid: Path, folder: Path, reference: dict) -> dict:
    """Every look at the wall clock is years off, in the client and, serially, in the runs."""
    out = folder / "clock"
    words = [sys.executable, "-c", CLOCK, "sweep", str(grid), "--out", str(out)]
    done = subprocess.run([*words, "--executor", "serial"], capture_output=True, check=False)
    return {"exit_code": done.returncode, "ok": done.returncode == 0 and content(out) == reference}


def main() -> None:
    """Print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    trials = {
        "kills": lambda *given: kills(*given, options.kills),
        "full": full, "read_only": read_only, "two": two, "clock": clock,
    }  # fmt: skip
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = folder / "grid.toml"
        scenario = ROOT / "workloads" / "waste" / "spread.toml"
        grid.write_text(GRID.format(scenario=scenario, seeds=30))
        sweep(grid, folder / "reference")
        reference = content(folder / "reference")
        for trial in options.only or trials:
            found[trial] = trials[trial](grid, folder, reference)
    if options.json:
        print(json.dumps(found))
    else:
        for trial, figures in found.items():
            print(trial, *(f"{key}={value}" for key, value in figures.items()))
    sys.exit(not all(figures["ok"] for figures in found.values()))


if __name__ == "__main__":
    main()
