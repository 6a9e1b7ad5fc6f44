"""`kmbench sweep`: every run of a grid, on one machine or many."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kmbench.cli.output import DEFAULT_DIR, Named, emit, json_option

SHOWN_FAILURES = 10
LONGEST_S = 10_000_000  # more than a timer takes on some platforms


@contextmanager
def progress_bar(total: int) -> Iterator:
    """A function that is told how many more runs have ended; shows them on a terminal's stderr."""
    if not sys.stderr.isatty():
        yield lambda nr: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("runs", total=total)
        yield lambda nr: bar.advance(task, nr)


@click.command("sweep")
@click.argument("grid", type=Named(), metavar="GRID.toml")
@click.option(
    "--out",
    type=Named(),
    default=DEFAULT_DIR,
    show_default=True,
    help="Folder of the results.",
)
@click.option(
    "--executor",
    "name",
    default="processes",
    show_default=True,
    help="Where to run: serial, processes, dask, or a plugin's.",
)
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(0, 10_000),
    default=0,
    help="Workers [default: the cores there are].",
)
@click.option(
    "--scheduler",
    default="",
    metavar="ADDRESS",
    help="A cluster that runs already, as tcp://host:8786.",
)
@click.option(
    "--stream", is_flag=True, help="Send results back, for workers that do not share the folder."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Most that one run may take; 0: no limit [default: 3600 in other processes].",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=1,
    show_default=True,
    help="More tries, with the same seed, after a crash, a timeout or an error.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first run that fails.")
@click.option(
    "--changed-code",
    "changed",
    type=click.Choice(["keep", "rerun"]),
    help="Go on although code or versions changed since the sweep began.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be run.")
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file.")
@json_option
@click.pass_context
def command(
    ctx, grid, out, name, workers, scheduler, stream, timeout, retries, fail_fast, changed,
    dry_run, files, as_json,
) -> None:  # fmt: skip
    """Make every run of a grid that is not there yet.

    GRID.toml names scenarios, strategies and the values to try.  A run that is stored is not made
    again: repeat the command to go on after an interruption.  Exits with 1 when runs failed.
    """
    from kmbench.cli.run import warn_failed
    from kmbench.errors import UsageProblem
    from kmbench.executor import Place
    from kmbench.plugins import load_plugins
    from kmbench.sweep.drive import Drive
    from kmbench.sweep.grid import load_grid
    from kmbench.sweep.plan import finished, plan_sweep, settle_code
    from kmbench.sweep.work import Order

    if timeout is not None and not timeout <= LONGEST_S:
        raise UsageProblem(f"--timeout {timeout:g}: expected seconds, at most {LONGEST_S}; 0: none")
    files = tuple(str(Path(file).resolve()) for file in files)
    plugins = load_plugins(files)
    warn_failed(plugins)
    executor = plugins.executor(name)
    sweep = plan_sweep(load_grid(grid), plugins)
    out = Path(out).resolve()
    if dry_run:
        there = len(finished(out, sweep.run_ids))
        _print(_plan_text(sweep, there), _plan_json(sweep, there), as_json)
        return
    if timeout is None:
        timeout = 3600.0 if executor.contained else 0.0
    code = tuple(item for item in sorted(sweep.code.items()) if item[0].startswith("code of "))
    order = Order(str(out), stream, timeout, retries, files, code)
    count = settle_code(sweep, out, changed)
    done = finished(out, sweep.run_ids) if count else set()
    with progress_bar(len(sweep.run_ids) - len(done)) as tell:
        drive = Drive(
            sweep, done, order, executor, Place(workers, scheduler, files), plugins,
            fail_fast=fail_fast, tell=tell,
        )  # fmt: skip
        outcome = drive.run()
    _print(_text(sweep, done, outcome, out), _json(sweep, done, outcome), as_json)
    if outcome.failed:
        ctx.exit(1)


def _print(text: str, document: dict, as_json: bool) -> None:
    if as_json:
        from kmbench.analysis.tables import as_json as json_text

        text = json_text(document)
    emit(f"{text}\n".encode(), None)


def _plan_json(sweep, there: int) -> dict:
    return {
        "runs": len(sweep.run_ids), "there": there, "points": len(sweep.jobs),
        "seconds": sweep.seconds, "sweep": sweep.digest, "code": sweep.code,
    }  # fmt: skip


def _plan_text(sweep, there: int) -> str:
    total = len(sweep.run_ids)
    return (
        f"{total:,} runs of {len(sweep.jobs):,} points, {there:,} of them there already; all "
        f"together about {_duration(sweep.seconds)} of one core, compiling not included"
    )


def _duration(seconds: float) -> str:
    for limit, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * limit:
            return f"{seconds / limit:.1f} {unit}"
    return f"{seconds:.1f} s"


def _json(sweep, done: set, outcome) -> dict:
    return {
        "runs": len(sweep.run_ids), "there": len(done), "ok": outcome.ok,
        "failed": outcome.failed, "lost_tasks": outcome.lost_tasks, "seconds": outcome.seconds,
        "sweep": sweep.digest,
    }  # fmt: skip


def _text(sweep, done: set, outcome, out: Path) -> str:
    made = outcome.ok + len(outcome.failed)
    rate = f", {1000 * outcome.seconds / made:.1f} ms a run" if made else ""
    lines = [
        f"{len(sweep.run_ids):,} runs: {len(done):,} were there, {outcome.ok:,} made, "
        f"{len(outcome.failed):,} failed, in {_duration(outcome.seconds)}{rate}"
    ]
    for run_id, error in list(outcome.failed.items())[:SHOWN_FAILURES]:
        lines.append(f"failed {run_id}: {error}")
    if len(outcome.failed) > SHOWN_FAILURES:
        lines.append(f"... and {len(outcome.failed) - SHOWN_FAILURES} more, in the table runs")
    lines.append(f"kmbench compare {shlex.quote(str(out))} shows them side by side")
    return "\n".join(lines)
