"""`kmbench doctor`: is this installation complete, and what can it do on this machine?"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import click

from kmbench.cli.output import emit, json_option

__all__ = ["Check", "checks", "command"]

OK, WARNING, FAILED = "ok", "warning", "failed"
PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
REQUIRED = ("numpy", "numba", "pyarrow", "polars", "pluggy", "click", "rich")
KERNEL_FILES = {
    "/proc/slabinfo": "slab caches of this kernel, for comparison with the model",
    "/sys/kernel/tracing/events": "recording of traces",
}


class Check(NamedTuple):
    """One line of the report."""

    name: str
    status: str
    """``ok``, ``warning`` (something is not possible here) or ``failed`` (nothing will work)."""
    detail: str


def checks() -> Iterator[Check]:
    """Every check, in the order of the report."""
    yield _python()
    yield from _packages()
    yield _cache_folder()
    yield from _plugins()
    yield from _kernel_files()


def _python() -> Check:
    fits = PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW
    wanted = "" if fits else "; kmbench is made for 3.11 to 3.13"
    words = f"{platform.python_version()} on {platform.machine()} {platform.system()}{wanted}"
    return Check("python", OK if fits else WARNING, words)


def _packages() -> Iterator[Check]:
    for name in REQUIRED:
        try:
            import_module(name)
            yield Check(name, OK, version(name))
        except PackageNotFoundError:
            yield Check(name, WARNING, "importable, but not installed as a distribution")
        except Exception as error:  # an extension module can fail to load in any way
            yield Check(name, FAILED, " ".join(f"{type(error).__name__}: {error}".split()))


def _cache_folder() -> Check:
    """Where compiled engines are kept."""
    from kmbench.core.specialise import cache_folder

    folder = cache_folder()
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        words = f"{folder}: {error.strerror}; every process compiles its engines anew unless "
        return Check("compile cache", WARNING, words + "KMBENCH_CACHE names a writable folder")
    kept = sum(1 for _ in folder.glob("*")) if folder.exists() else 0
    return Check("compile cache", OK, f"{folder} is writable, {kept} engines kept")


def _plugins() -> Iterator[Check]:
    try:
        from kmbench.plugins import load_plugins
    except ImportError as error:
        yield Check("plugins", FAILED, f"the plugin host does not load: {error}")
        return
    plugins = load_plugins()
    for plugin in plugins.failed:
        words = f"{plugin.distribution} {plugin.version}: {plugin.error}"
        yield Check(f"plugin {plugin.name}", WARNING, words)
    if not plugins.strategies:
        yield Check("plugins", FAILED, "no strategies: is kmbench installed, not only unpacked?")
        return
    names = ", ".join(plugins.strategies)
    yield Check("plugins", OK, f"{len(plugins.loaded) - len(plugins.failed)} loaded: {names}")


def _kernel_files() -> Iterator[Check]:
    for path, purpose in KERNEL_FILES.items():
        if not Path(path).exists():
            yield Check(path, WARNING, f"not here: no {purpose}")
        elif not os.access(path, os.R_OK | (os.X_OK if Path(path).is_dir() else 0)):
            yield Check(path, WARNING, f"not readable for this user: no {purpose}")
        else:
            yield Check(path, OK, f"readable: {purpose}")


@click.command("doctor")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check versions, the compile cache, plugins and the kernel files of this machine.

    Exits with 3 when something is broken; warnings only say what is not possible here.
    """
    from kmbench.analysis.tables import Column, Grid, as_text
    from kmbench.analysis.tables import as_json as json_text

    found = list(checks())
    if as_json:
        text = json_text([check._asdict() for check in found])
    else:
        columns = [Column("check", left=True), Column("status", left=True)]
        rows = [list(check) for check in found]
        text = as_text(Grid("", [*columns, Column("detail", left=True)], rows))
    emit(f"{text}\n".encode(), None)
    if any(check.status == FAILED for check in found):
        ctx.exit(3)
