"""`kmbench trace record`: watch a real kernel's slab allocator and memory controller at work."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import click

from kmbench.cli.output import Named, json_option
from kmbench.errors import UsageProblem, one_line

__all__ = ["Progress", "command", "losses", "read_commands", "summary"]

_NAME_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


def read_commands(pairs: tuple[str, ...], argv: tuple[str, ...]) -> dict[str, list[str]]:
    """Group name -> argument list, from ``--group NAME=CMD`` and what follows ``--``.

    Raises UsageProblem.
    """
    commands: dict[str, list[str]] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name or not set(name) <= _NAME_CHARACTERS or name == "ctl":
            raise UsageProblem(f"--group {pair}: expected NAME=CMD, NAME of letters, digits, _-.")
        if name in commands:
            raise UsageProblem(f"--group {name}: given twice")
        if not text.strip():
            raise UsageProblem(f"--group {name}: no command")
        commands[name] = ["/bin/sh", "-c", text]
    if argv:
        name = "main"
        if name in commands:
            raise UsageProblem("--group main: that is the group of the command after --")
        commands[name] = list(argv)
    if not commands:
        raise UsageProblem("nothing to run: give a command after --, or --group NAME=CMD")
    return commands


def check_programs(commands: dict[str, list[str]]) -> None:
    """Raises UsageProblem for a program that cannot be found."""
    import shutil

    for argv in commands.values():
        if shutil.which(argv[0]) is None:
            raise UsageProblem(f"{argv[0]}: no such program")


def losses(manifest: dict) -> int:
    """Events, and pages of events, that a recording lost."""
    return manifest["events_lost"] + manifest.get("missed_event_pages", 0)


def summary(manifest: dict) -> str:
    """One line on a recording; one that is raw yet has no counts of slab events."""
    if "slab_events" not in manifest:
        what = f"{manifest['events_held']:,} events in {manifest['wall_s']:g} s"
    else:
        what = f"{manifest['slab_events']:,} slab events in {manifest['duration_s']:g} s"
        what += f", {manifest['snapshots']} snapshots"
    return f"{what}, {losses(manifest)} lost"


class Progress:
    """One line on a terminal's stderr, overwritten as things go on."""

    def __init__(self):
        """Shows nothing where stderr is no terminal."""
        self._shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._shown:
            click.echo(f"\r\x1b[Krecording: {one_line(text)}", err=True, nl=False)

    def close(self) -> None:
        """Wipe the line."""
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)


def _explain(plan, out: Path, as_json: bool) -> None:
    """What a recording would do here."""
    from kmbench.trace.record.session import WALKED, check

    machine = check()
    version = machine.hierarchy.version
    if as_json:
        _emit_json({
            "tracefs": str(machine.tracing), "cgroup_version": version,
            "cgroup_root": str(machine.hierarchy.root), "kmem_source": machine.kmem_source,
            "initial_slabs": machine.walks or WALKED, "commands": plan.commands,
            "duration_s": plan.duration_s, "buffer_kb": plan.buffer_kb,
            "interval_s": plan.interval_s, "output": str(out),
        })  # fmt: skip
        return
    click.echo(f"can record: tracefs at {machine.tracing}, memory cgroups v{version} at "
               f"{machine.hierarchy.root}")  # fmt: skip
    if machine.walks:
        click.echo(f"slabs at the start: approximate, from totals ({machine.walks})")
    else:
        click.echo("slabs at the start: read one by one, through BPF")
    click.echo(f"kernel memory of groups: {machine.kmem_source}")
    for name, argv in plan.commands.items():
        click.echo(f"would run in {machine.hierarchy.root}/kmb_{name}: {shlex.join(argv)}")
    until = f"for {plan.duration_s:g} s" if plan.duration_s else "until they end"
    click.echo(f"would trace all CPUs {until}, {plan.buffer_kb >> 10} MiB of buffer for each, a "
               f"snapshot every {plan.interval_s:g} s, and write {out}")  # fmt: skip


def _emit_json(document: dict) -> None:
    click.echo(json.dumps(document, indent=2))  # without what a watched machine may not have


@click.command("record")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-g",
    "--group",
    "groups",
    multiple=True,
    metavar="NAME=CMD",
    help="Run the shell command CMD in the memory cgroup kmb_NAME (repeatable).",
)
@click.option(
    "-o",
    "--output",
    type=Named(),
    metavar="PATH",
    help="Folder of the capture, or file of the raw recording "
    "[default: capture, capture.kmraw.npz].",
)
@click.option(
    "--raw",
    is_flag=True,
    help="Keep the raw recording, for `kmbench trace assemble` on any machine: nothing "
    "is compiled on this one.",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="End commands and recording after this time [default: when they end].",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.01, 60),
    default=0.1,
    show_default=True,
    metavar="SECONDS",
    help="Time between two snapshots.",
)
@click.option(
    "--buffer",
    type=click.IntRange(1, 65_536),
    metavar="MIB",
    help="Trace buffer of each CPU [default: 256, less where memory is short].",
)
@click.option("--what", default="", help="One line on what is recorded.")
@click.option("-n", "--dry-run", is_flag=True,
              help="Say what would be done, and whether this machine can.")  # fmt: skip
@json_option
@click.pass_context
def command(
    ctx, argv, groups, output, raw, duration, interval, buffer, what, dry_run, as_json
) -> None:  # fmt: skip
    """Record CMD in a memory cgroup of its own: every slab and page operation of the kernel.

    Needs root, tracefs and Linux 6.1 or later, with memory cgroups of version 1 or 2; `-n` says
    what this machine can.  Writes a capture folder for `kmbench trace`.  Exits with 1 when events
    were lost.
    """
    from kmbench.trace.record import session
    from kmbench.trace.record.raw import SUFFIX

    output = output or Path(f"capture{SUFFIX}" if raw else "capture")
    commands = read_commands(groups, argv)
    check_programs(commands)
    size = (buffer or 0) << 10
    size = size or session.default_buffer_kb(session.available_kb(), os.cpu_count() or 1)
    plan = session.Plan(commands, duration, interval, size)
    if dry_run:
        _explain(plan, output, as_json)
        return
    from kmbench.trace.record.output import record

    text = what or "; ".join(
        shlex.join(line) if line[:2] != ["/bin/sh", "-c"] else line[2] for line in commands.values()
    )
    say = Progress()
    try:
        manifest = record(plan, output, text, say, raw=raw)
    except session.Stopped as stop:
        say.close()
        click.echo(f"kmbench: stopped by {stop}; nothing was written", err=True)
        ctx.exit(130)
    finally:
        say.close()
    if manifest["initial_slabs"] != session.WALKED:
        click.echo("kmbench: warning: slabs at the start are approximate, from totals: "
                   f"{manifest['initial_slabs']}", err=True)  # fmt: skip
    for name, (_, code) in manifest["group_end_s"].items():
        if code:
            click.echo(f"kmbench: warning: the command of group {name} ended with {code}", err=True)
    if as_json:
        keys = ("kernel", "events_held", "slab_events", "snapshots", "wall_s", "duration_s",
                "events_lost", "missed_event_pages", "kmem_source", "initial_slabs")  # fmt: skip
        _emit_json({"output": str(output), "exit_codes": {
            name: code for name, (_, code) in manifest["group_end_s"].items()
        }} | {key: manifest[key] for key in keys if key in manifest})  # fmt: skip
    else:
        click.echo(f"{output}: {summary(manifest)}")
    if losses(manifest):
        click.echo("kmbench: error: events were lost; give a larger --buffer", err=True)
        ctx.exit(1)
