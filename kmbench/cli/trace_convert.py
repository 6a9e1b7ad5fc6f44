"""`kmbench trace convert`: a capture folder as one trace file."""

from __future__ import annotations

from pathlib import Path

import click

from kmbench.cli.output import Named, emit, json_option


@click.command("convert")
@click.argument("folder", type=Named())
@click.option("-o", "--output", type=Named(), metavar="FILE.kmtrace.parquet",
              help="The trace file to write [default: FOLDER's name here].")  # fmt: skip
@click.option("--seconds", type=float, help="Keep only the first so many seconds.")
@json_option
def command(folder: Path, output: Path | None, seconds: float | None, as_json: bool) -> None:
    """Write the capture FOLDER as one trace file, with the machine's readings beside it."""
    from kmbench.trace.convert import convert_capture
    from kmbench.trace.format import SUFFIX, truth_path

    output = output or Path(f"{folder.resolve().name}{SUFFIX}")
    info = convert_capture(folder, output, seconds=seconds)
    readings = truth_path(output)
    sizes = {str(path): path.stat().st_size for path in (output, readings)}
    if as_json:
        from kmbench.analysis.tables import as_json as json_text

        document = {"output": str(output), "readings": str(readings), "bytes": sizes}
        text = json_text(document | info._asdict())
    else:
        text = "\n".join(
            [f"{output}: {info.events:,} events, {sizes[str(output)] / 1e6:.2f} MB",
             f"{readings}: readings of the machine, {sizes[str(readings)] / 1e6:.2f} MB"]
        )  # fmt: skip
    emit(f"{text}\n".encode(), None)
