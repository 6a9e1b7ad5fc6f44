"""`kmbench trace assemble`: a raw recording as a capture folder."""

from __future__ import annotations

from pathlib import Path

import click

from kmbench.cli.output import Named, emit, json_option


@click.command("assemble")
@click.argument("raw", type=Named(), metavar="FILE.kmraw.npz")
@click.option("-o", "--output", type=Named(), metavar="FOLDER",
              help="The capture folder to write [default: FILE's name here].")  # fmt: skip
@json_option
@click.pass_context
def command(ctx, raw: Path, output: Path | None, as_json: bool) -> None:
    """Make a capture folder of what `kmbench trace record --raw` has kept, on any machine.

    Exits with 1 when events were lost.
    """
    from kmbench.cli.trace_record import Progress, losses, summary
    from kmbench.trace.record.output import check_target, write_capture
    from kmbench.trace.record.raw import SUFFIX, load

    output = output or Path(raw.name.removesuffix(SUFFIX))
    check_target(output)
    say = Progress()
    try:
        manifest = write_capture(load(raw), output, say)
    finally:
        say.close()
    if as_json:
        from kmbench.analysis.tables import as_json as json_text

        keys = ("slab_events", "duration_s", "snapshots", "events_lost", "missed_event_pages")
        text = json_text({"output": str(output)} | {key: manifest[key] for key in keys})
    else:
        text = f"{output}: {summary(manifest)}"
    emit(f"{text}\n".encode(), None)
    if losses(manifest):
        ctx.exit(1)
