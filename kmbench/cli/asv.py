"""`kmbench asv`: measurements of the simulator's speed in the results dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kmbench.cli.output import DEFAULT_DIR, Named, choose_format, emit, format_options, json_option

__all__ = ["command"]

dataset = click.option(
    "--dir", "folder", default=DEFAULT_DIR, show_default=True, type=Named(),
    help="Folder of results.",
)  # fmt: skip


@click.group("asv")
def command() -> None:
    """Import what asv measured, and compare machines and commits."""


@command.command("import", short_help="Import what asv measured.")
@click.argument("asv", metavar="ASV_DIR", type=Named())
@dataset
@json_option
def import_(asv: Path, folder: Path, as_json: bool) -> None:
    """Import the results in ASV_DIR (asv's results folder, or one above it).

    Repeat it with the folders of other machines: they all land in one table.
    """
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.store.speed import import_asv, open_speed

    written = import_asv(asv, folder)
    rows = open_speed(folder).collect().height
    facts: dict[str, Any] = {"files": [str(path) for path in written], "rows": rows}
    text = f"{len(written)} results of asv imported; {folder}/speed has {rows:,} measurements"
    emit(f"{json_text(facts) if as_json else text}\n".encode(), None)


@command.command("compare")
@dataset
@click.option(
    "--across", type=click.Choice(["machine", "commit"]), default="machine", show_default=True,
    help="Compare machines, each with its newest commit; or commits on each machine.",
)  # fmt: skip
@click.option("--baseline", metavar="NAME", help="Machine or commit that is 1.00x.")
@click.option("--benchmark", metavar="TEXT", default="", help="Only benchmarks with TEXT in them.")
@format_options
def compare(
    folder: Path,
    across: str,
    baseline: str | None,
    benchmark: str,
    form: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Compare what was imported."""
    import polars as pl

    from kmbench.analysis.speed import compare_speed, speed_grid
    from kmbench.analysis.tables import as_markdown, as_text, encode
    from kmbench.errors import UsageProblem
    from kmbench.store.speed import open_speed

    form = choose_format(form, as_json)
    named = pl.col("benchmark").cast(pl.String).str.contains(benchmark, literal=True)
    speed = open_speed(folder).filter(named)
    if not speed.select(pl.len()).collect().item():
        raise UsageProblem(f"{folder}: no benchmark with {benchmark!r} in its name")
    frame = compare_speed(speed, across, baseline)  # type: ignore[arg-type]
    if form in ("table", "md"):
        grid = speed_grid(frame, across)  # type: ignore[arg-type]
        data = f"{as_text(grid) if form == 'table' else as_markdown(grid)}\n".encode()
    else:
        data = encode(frame, form)
    emit(data, output, binary=form == "parquet")
