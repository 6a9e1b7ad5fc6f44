"""The model written in C, which speed is measured against, ends with the same tables."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kmbench.core.jit import JIT

THROUGHPUT = Path(__file__).parents[1] / "benchmarks" / "throughput.py"


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_c_ends_with_the_same_tables():
    """It refuses to print a time when a table differs."""
    command = [sys.executable, THROUGHPUT, "--events", "50000", "--live", "2000", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["strategy"] for row in rows} == {"none", "costa-2012", "linux-6.18"}
