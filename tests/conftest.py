"""What holds for every test."""

import os

os.environ.setdefault("KMBENCH_JOBS", "1")  # tests run beside one another already
