"""What holds for every test."""

import os
import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # tests in a script's background
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("KMBENCH_JOBS", "1")  # tests run beside one another already
