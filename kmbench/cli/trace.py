"""`kmbench trace`: recordings of a real kernel."""

from __future__ import annotations

import click

from kmbench.cli.lazy import LazyGroup

VERBS = {
    "record": ("trace_record", "Record commands on this machine, each in its own cgroup."),
    "assemble": ("trace_assemble", "Make a capture folder of a raw recording."),
    "import": ("trace_import", "Import text of ftrace, trace-cmd or perf."),
    "info": ("trace_info", "Show what a recording holds."),
    "convert": ("trace_convert", "Turn a capture folder into one trace file."),
    "validate": ("trace_validate", "Replay recordings and compare with what the machine read."),
    "billing": ("trace_billing", "Compare the bytes charged per system call with measured ones."),
    "what-if": ("trace_whatif", "Replay a recording under every strategy."),
}
"""Verb -> module in kmbench.cli with its ``command``, and help."""


@click.group("trace", cls=LazyGroup, verbs=VERBS)
def command() -> None:
    """Record, import, check and replay recordings of a real kernel."""
