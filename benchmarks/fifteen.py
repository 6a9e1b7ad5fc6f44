"""From nothing to a third-party strategy that conforms: what docs/fifteen.md shows, timed.

    python benchmarks/fifteen.py [--json]

Makes a virtual environment, installs this checkout, begins a distribution, puts the page's
strategy into it, installs it, checks it with an empty cache of compiled engines, and compares it
with others.  Wall-clock and CPU seconds of every step.  Needs what pip needs.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "fifteen.md"


def cpu_s() -> float:
    """CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Do the steps and print their times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    strategy = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs = folder / "venv" / "bin"
        pip = [programs / "python", "-m", "pip", "install", "-q"]
        kmbench = [programs / "kmbench"]
        made = folder / "kmbench-first-free"
        module = made / "kmbench_first_free" / "__init__.py"
        steps = {
            "environment": [sys.executable, "-m", "venv", folder / "venv"],
            "install kmbench": [*pip, ROOT],
            "begin a distribution": [*kmbench, "plugins", "new", "first-free", "--in", folder],
            "install it": [*pip, "-e", made],
            "check": [*kmbench, "plugins", "check", "first-free"],
            "compare": [
                *kmbench, "run", ROOT / "workloads" / "waste" / "spread.toml", "-s", "none", "-s",
                "first-free", "-s", "linux-6.18", "--out", folder / "results",
            ],
        }  # fmt: skip
        for step, words in steps.items():
            began, used = time.perf_counter(), cpu_s()
            done = subprocess.run(
                list(map(str, words)), capture_output=True, text=True, check=False,
                env={**os.environ, "KMBENCH_CACHE": str(folder / "cache")},
            )  # fmt: skip
            if done.returncode:
                sys.exit(f"{step}: {done.stdout}{done.stderr}")
            rows.append((step, time.perf_counter() - began, cpu_s() - used))
            if step == "begin a distribution":
                module.write_text(strategy)
    rows.append(("all", sum(wall for _, wall, _ in rows), sum(cpu for *_, cpu in rows)))
    if options.json:
        names = ("step", "wall_s", "cpu_s")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
        return
    print(f"{'step':<24}{'wall s':>8}{'CPU s':>8}")
    for step, wall, cpu in rows:
        print(f"{step:<24}{wall:>8.1f}{cpu:>8.1f}")


if __name__ == "__main__":
    main()
