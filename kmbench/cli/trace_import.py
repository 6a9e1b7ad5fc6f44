"""`kmbench trace import`: text of the kernel's tracers to a trace file."""

from __future__ import annotations

from pathlib import Path

import click

from kmbench.cli.output import Named, emit, json_option
from kmbench.errors import UsageProblem

SUFFIX = ".kmtrace.parquet"
_ERAS = ("auto", "3.5", "3.8", "3.13", "4.5", "4.19", "5.3", "5.9", "5.16", "6.12", "6.18")


@click.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", type=Named(), metavar=f"OUT{SUFFIX}",
              help="The trace file to write [default: FILE's name here].")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["auto", "ftrace", "trace-cmd", "perf"]),
              default="auto", show_default=True, help="Tool that printed the text.")  # fmt: skip
@click.option("--era", type=click.Choice(_ERAS), default="auto", show_default=True,
              help="Kernel model.")  # fmt: skip
@click.option("--group-by", type=click.Choice(["cgroup", "comm", "pid", "none"]),
              default="cgroup", show_default=True,
              help="Groups: the trace's cgroup events, or one per command or task.")  # fmt: skip
@click.option("--slabinfo", type=Named(), metavar="FILE",
              help="Copy of /proc/slabinfo: sizes of caches; timed copies become readings.",
              )  # fmt: skip
@click.option("--memory-stat", type=Named(), metavar="FILE",
              help="Timed copies of memory.stat: readings to validate against.")  # fmt: skip
@click.option("--cpus", type=click.IntRange(0, 256), default=0,
              help="CPUs of the machine [default: as the trace says].")  # fmt: skip
@json_option
def command(files, output, form, era, group_by, slabinfo, memory_stat, cpus, as_json) -> None:
    """Import kmem events from ftrace, `trace-cmd report` or `perf script` text.

    Several FILEs follow each other in time; - reads stdin.  Lines that are no kmem, sched or
    cgroup events are counted and skipped.
    """
    from kmbench.trace.importers import import_trace
    from kmbench.trace.importers.snapshots import read_memory_stat, read_slabinfo

    if output is None:
        if files[0] == "-":
            raise UsageProblem(f"stdin has no name: give -o OUT{SUFFIX}")
        output = Path(f"{Path(files[0]).stem}{SUFFIX}")
    done = import_trace(
        files, output, form=form, era=era, group_by=group_by, cpus=cpus,
        slabinfo=read_slabinfo(slabinfo) if slabinfo else (),
        memory_stat=read_memory_stat(memory_stat) if memory_stat else (),
    )  # fmt: skip
    if as_json:
        import json

        text = json.dumps({"output": str(output), **done._asdict()}, indent=2)
    else:
        text = _text(output, done)
    emit(f"{text}\n".encode(), None)


def _text(output: Path, done) -> str:
    rows = [
        f"{output}: {done.events:,} events in {done.seconds:.3f} s from {done.form} text, "
        f"kernel model {done.era}",
        f"  {done.cpus} CPUs, {done.caches} caches, {done.groups} groups, "
        f"at most {done.handles - 1:,} objects live",
    ]
    rows += [
        f"  {count:>12,} {name.replace('_', ' ')}" for name, count in done.counts.items() if count
    ]
    return "\n".join(rows)
