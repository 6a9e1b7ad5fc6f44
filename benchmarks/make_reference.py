"""Make `results/reference/`, the comparison this project stands behind, and the tables in
`docs/findings.md` and the README from it.

    python benchmarks/make_reference.py

runs every strategy on every scenario of `workloads/` (but those of published figures) and every
allocator, over several seeds where the seed matters, on all CPUs, and keeps the tables `runs` and
`ops`, a file each.  Runs are deterministic: the same code makes the same files.  `--only SCENARIO`
restricts it, `--check` makes the dataset elsewhere and tells whether it is the one that is
committed.

    python benchmarks/make_reference.py --reduced

is a look in minutes: the scenarios without reclaim over two seeds, timelines included, and their
report, shown in the web browser.
"""

import argparse
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import kmbench
from kmbench.cli import app
from kmbench.core.geometry import ERAS
from kmbench.scenario import ALLOCATORS, scenario_files
from kmbench.store.pack import pack

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
REDUCED = ROOT / "results" / "reduced"
PAGES = (ROOT / "docs" / "findings.md", ROOT / "README.md")
SEEDS = 10
REDUCED_SEEDS = 2
TABLES = ("ops", "runs")
BLOCK = re.compile(r"(```console\n\$ )(kmbench [^\n]*)\n.*?(?=^```)", re.DOTALL | re.MULTILINE)


def make(out: Path, only: list[str], seeds: int) -> None:
    """Run everything and pack it into ``out``."""
    with tempfile.TemporaryDirectory() as runs:
        run_all(planned(only, seeds), runs)
        pack(kmbench.open_results(runs), out, TABLES)


def make_reduced(out: Path, only: list[str]) -> int:
    """Run the scenarios without reclaim and show them; the exit code of the report."""
    plain = [task for task in planned(only, REDUCED_SEEDS) if not reclaims(task[0])]
    run_all(plain, str(out))
    out = Path(os.path.relpath(out))  # as the report names it
    page = str(out.with_suffix(".html"))
    return app.main(
        ["report", str(out), "-o", page, "--title", "Kernel memory, accounted: a look", "--open"]
    )


def reclaims(path: Path) -> bool:
    """Whether the scenario models reclaim, whose engines take longest to compile."""
    scenario = kmbench.load_scenario(path)
    return bool(scenario.reclaim or scenario.shrinkers)


def planned(only: list[str], seeds: int) -> list[tuple[Path, str, int]]:
    """What to run: scenario, allocator and how many seeds."""
    tasks = []
    for path in scenario_files(ROOT / "workloads"):
        scenario = kmbench.load_scenario(path)
        if scenario.published or (only and scenario.name not in only):
            continue  # published figures are compared by `kmbench published`
        # a recording is the same for every seed
        times = 1 if scenario.workload == "replay" else seeds
        tasks += [
            (path, allocator, times) for allocator in ALLOCATORS
            if allocator == "slub" or not scenario.era or ERAS[scenario.era].slab
        ]  # fmt: skip
    return tasks


def run_all(tasks: list[tuple[Path, str, int]], runs: str) -> None:
    """Run them on all CPUs, into the folder ``runs``."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as workers:
        pending = {workers.submit(_run, *task, runs): task for task in tasks}
        for made, future in enumerate(as_completed(pending), 1):
            future.result()
            path, allocator, times = pending[future]
            print(f"{made} of {len(tasks)}: {path.stem} {allocator} x {times}", file=sys.stderr)


def _run(path: Path, allocator: str, times: int, runs: str) -> None:
    everyone = sorted(kmbench.load_plugins().strategies)  # not only those that the scenario names
    kmbench.run(path, everyone, seeds=times, out=runs, settings={"allocator": allocator}, jobs=1)


def refreshed(text: str) -> str:
    """``text`` with the output of every `kmbench` command in it as that command prints it now."""

    def rerun(match: re.Match[str]) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(match[2])], cwd=ROOT, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        return f"{match[1]}{match[2]}\n{done.stdout}"

    return BLOCK.sub(rerun, text)


def main() -> int:
    """The exit code: 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", action="append", default=[], metavar="SCENARIO")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=REFERENCE)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--reduced", action="store_true")
    options = parser.parse_args()
    if options.reduced:
        return make_reduced(REDUCED, options.only)
    if options.check:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), options.only, options.seeds)
            same = all(
                (Path(folder) / part).read_bytes() == (options.out / part).read_bytes()
                for part in (f"{table}/all.parquet" for table in TABLES)
            )
        print("the same" if same else f"{options.out} differs from what this code makes")
        return 0 if same else 1
    make(options.out, options.only, options.seeds)
    if options.out == REFERENCE:
        for page in PAGES:
            page.write_text(refreshed(page.read_text()))
    size = sum(path.stat().st_size for path in options.out.rglob("*.parquet"))
    print(f"{options.out}: {size / 2**20:.2f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
