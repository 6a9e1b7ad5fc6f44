"""`kmbench trace`: recordings of a real kernel."""

from __future__ import annotations

from importlib import import_module

import click

from kmbench.errors import did_you_mean

VERBS = {
    "record": ("trace_record", "Record commands on this machine, each in its own cgroup."),
    "import": ("trace_import", "Import text of ftrace, trace-cmd or perf."),
    "info": ("trace_info", "Show what a recording holds."),
    "convert": ("trace_convert", "Turn a capture folder into one trace file."),
    "validate": ("trace_validate", "Replay recordings and compare with what the machine read."),
    "billing": ("trace_billing", "Compare the bytes charged per system call with measured ones."),
    "what-if": ("trace_whatif", "Replay a recording under every strategy."),
}
"""Verb -> module in kmbench.cli with its ``command``, and help."""


class TraceVerbs(click.Group):
    """A group that imports a verb only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return import_module(f"kmbench.cli.{VERBS[cmd_name][0]}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"unknown command {args[0]!r}{did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group("trace", cls=TraceVerbs)
def command() -> None:
    """Record, import, check and replay recordings of a real kernel."""
