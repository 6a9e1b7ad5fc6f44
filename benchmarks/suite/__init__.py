"""asv benchmarks of kmbench; parametrised over every strategy that is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # stream.py
