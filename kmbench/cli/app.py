"""The `kmbench` command: finds the verb, runs it, and turns errors into one line and a code.

Exit codes: 0 ok, 1 a gate or some runs failed, 2 usage or bad input, 3 internal or plugin error,
130 interrupted.  ``KMBENCH_DEBUG=1`` shows tracebacks.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import click

from kmbench.cli.lazy import LazyGroup
from kmbench.errors import KmbenchError, one_line

__all__ = ["app", "main"]

VERBS = {
    "run": "Run strategies over a scenario and compare them.",
    "compare": "Compare stored runs, strategies side by side.",
    "report": "Write stored runs as a page with interactive figures.",
    "asv": "Import measurements of asv; compare machines and commits.",
    "show": "Show one run as the kernel's files would.",
    "published": "Put figures that others measured beside ours.",
    "hardware": "Show hardware profiles, and calibrate one.",
    "trace": "Read, check and convert recorded traces.",
    "sweep": "Make every run of a grid, on one machine or many.",
    "explore": "Try compositions of policies; who beats the designs that were built.",
    "plugins": "List plugins, check whether one conforms, or begin a new one.",
    "doctor": "Check this installation and this machine.",
}
"""Verb -> help.  Each lives in ``kmbench.cli.<verb>`` as ``command``."""

BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
INTERNAL = 3
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # nobody's bug


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    try:
        number = version("kmbench")
    except PackageNotFoundError:
        number = "unknown (not installed)"
    click.echo(f"kmbench {number}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    verbs={name: (name, text) for name, text in VERBS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version and leave.",
)  # fmt: skip
def app() -> None:
    """Simulate kernel memory accounting strategies and compare them.

    Results go to stdout, progress to stderr.
    """


def main(argv: Sequence[str] | None = None, interrupted: Callable[[], bool] = lambda: False) -> int:
    """Run the command line ``argv`` (default: the process's) and return the exit code.

    Raises KeyboardInterrupt when the user interrupts (:mod:`kmbench.__main__`); `interrupted` says
    whether that was so, since imports can make another error of it.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if "_KMBENCH_COMPLETE" in os.environ:  # click's shell completion
        return app.main(args, prog_name="kmbench", standalone_mode=False) or 0
    if sys.stdout is None:  # closed by who called
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        code = _invoke(args, interrupted)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except OSError as error:
        return _unwritten(error)
    return code


def _invoke(args: list[str], interrupted: Callable[[], bool]) -> int:
    try:
        with app.make_context("kmbench", args) as ctx:
            app.invoke(ctx)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.Abort as error:
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        _debug(error)
        where = f" (see {error.ctx.command_path} --help)" if _is_usage(error) else ""
        _complain(f"error: {one_line(error.format_message())}{where}")
        return 2
    except KmbenchError as error:
        _debug(error)
        _complain(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:
        raise
    except MemoryError as error:
        _debug(error)
        _complain(f"error: out of memory: {one_line(str(error)) or 'this machine has no more'}")
        return 2
    except Exception as error:  # a bug: still one line, and the way to more
        if interrupted():
            raise KeyboardInterrupt from error
        _debug(error)
        if isinstance(error, OSError) and error.errno in FULL:
            return _unwritten(error)
        words = one_line(f"{type(error).__name__}: {error}")
        _complain(f"error: internal: {words[:300]} (KMBENCH_DEBUG=1 shows where)")
        return INTERNAL
    return 0


def _is_usage(error: click.ClickException) -> bool:
    return isinstance(error, click.UsageError) and error.ctx is not None


def _debug(error: Exception) -> None:
    """With ``KMBENCH_DEBUG`` set, let the traceback out instead of the one line."""
    if os.environ.get("KMBENCH_DEBUG", "0") not in ("", "0"):
        raise error


def _complain(message: str) -> None:
    click.echo(f"kmbench: {message}", err=True)


def _unwritten(error: OSError) -> int:
    _silence_stdout()
    _complain(f"error: cannot write {error.filename or 'all of stdout'}: {error.strerror}")
    return 2


def _silence_stdout() -> None:
    """Nobody reads stdout any more: keep the interpreter's last flush from complaining."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
