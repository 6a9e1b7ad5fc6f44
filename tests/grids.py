"""Grids that tests write, sweeps of them in processes of their own, and what they store."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import kmbench

ROOT = Path(__file__).parent.parent
SPREAD = ROOT / "workloads" / "waste" / "spread.toml"
CHURN = ROOT / "workloads" / "recorded" / "churn.toml"
PLUGINS = kmbench.load_plugins()
GRID = """
strategies = ["none", "costa-2012"]
seeds = 2
filters = ["workload.groups < 9 or workload.objects == 2"]
[product]
"workload.groups" = [3, 9]
"strategies.costa-2012.independent" = [true, false]
[zip]
"workload.objects" = [2, 5]
"workload.size" = [64, 192]
"""


def write_grid(folder: Path, text: str = GRID) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "grid.toml"
    text = textwrap.dedent(text)
    path.write_text(text if "scenario =" in text else f"scenario = {str(SPREAD)!r}\n{text}")
    return path


def sweep(*arguments, out: Path, code: int = 0) -> dict:
    """What `kmbench sweep` says as JSON, run in a process of its own."""
    words = [sys.executable, "-m", "kmbench", "sweep", *map(str, arguments)]
    done = subprocess.run(
        [*words, "--out", str(out), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def content(out: Path) -> dict[str, bytes]:
    """Every stored file but the wall-clock figures."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.glob("*/*.parquet")
        if path.parent.name != "timing"
    }
