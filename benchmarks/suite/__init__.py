"""asv benchmarks of kmbench: every strategy that is installed, on every scenario and allocator.

The environment variables ``KMBENCH_ASV_STRATEGIES`` and ``KMBENCH_ASV_SCENARIOS`` (names with
commas between them) restrict a run to some.
"""

import os
import sys
from pathlib import Path

import kmbench
from kmbench.scenario import ALLOCATORS as KNOWN_ALLOCATORS

sys.path.insert(0, str(Path(__file__).parents[1]))  # stream.py


def some(names, variable: str) -> list[str]:
    """``names``, or those of them that the environment asks for."""
    wanted = os.environ.get(variable)
    return [name for name in names if wanted is None or name in wanted.split(",")]


STRATEGIES = some(sorted(kmbench.load_plugins().strategies), "KMBENCH_ASV_STRATEGIES")
ALLOCATORS = list(KNOWN_ALLOCATORS)
