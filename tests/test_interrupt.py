"""The user's interrupt: one quiet line and exit code 130, at any moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SPREAD = Path(__file__).parents[1] / "workloads" / "waste" / "spread.toml"
ENDLESS = """
import kmbench

def select(S, P, cpu, memcg, cache, gfp):
    {first}
    while S.k[0].nr_cpus:
        pass
    return cache

@kmbench.hookimpl
def kmbench_register_strategies(register):
    register(kmbench.Strategy("endless", "never ends", "a test", hooks={{"select": select}}))
"""
ON_IMPORT = """
import signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            {how}

def other():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("half of it") from None

class Last:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def end():
    last = Last()
    del last

sys.meta_path.insert(0, Interrupt())
sys.argv = ["kmbench", "plugins"]
from kmbench.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["click", "kmbench.cli.app", "kmbench.plugins", "polars"])
@pytest.mark.parametrize("how", ["signal.raise_signal(signal.SIGINT)", "end()", "other()"])
def test_while_imports_go_on(module, how):
    """Also in a callback of the interpreter, which would print a traceback and go on, and where a
    library makes another error of it."""
    done = subprocess.run(
        [sys.executable, "-c", ON_IMPORT.format(module=module, how=how)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "kmbench: interrupted\n")


def test_where_interrupts_are_ignored():
    """A script's command in the background is not meant."""
    program = ON_IMPORT.format(module="click", how="signal.raise_signal(signal.SIGINT)")
    done = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(2, signal.SIG_IGN)\n{program}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and "linux-6.18" in done.stdout


@pytest.mark.parametrize("others", [[], ["-s", "none"]])
def test_a_hook_that_never_ends(tmp_path, others):
    """The command did not hear the interrupt: it waited for the hook."""
    plugin, running = tmp_path / "endless.py", tmp_path / "running"
    plugin.write_text(ENDLESS.format(first=f"open({str(running)!r}, 'w').close()"))
    command = [sys.executable, "-m", "kmbench", "run", SPREAD, "-s", "endless", *others]
    with subprocess.Popen(
        [*command, "-p", plugin, "--out", tmp_path / "results"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    ) as run:  # fmt: skip
        while not running.exists() and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, complaints = run.communicate(timeout=60)
    assert run.returncode == 130
    assert complaints == (
        "kmbench: interrupted; strategy endless goes on: if one of its hooks, or the workload, "
        "never ends, `kmbench plugins check` says which\n"
    )
