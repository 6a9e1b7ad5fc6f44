"""`kmbench trace what-if`: what this host would have used under other strategies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmbench.cli.output import Named, emit, json_option

if TYPE_CHECKING:
    from kmbench.trace.whatif import Alternative

MARKS = "abcdefghijklmnopqrstuvwxyz"


@click.command("what-if")
@click.argument("capture", type=Named())
@click.option("-s", "--strategy", "strategies", multiple=True, help="Strategy [default: all].")
@click.option("--allocator", "allocators", multiple=True, default=("slub",), metavar="slub|slab",
              help="Slab allocator; may be given twice [default: slub].")  # fmt: skip
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file.")
@click.option(
    "--every", metavar="TIME", help="Take samples so often (100ms), besides the recorded."
)
@click.option("--svg", type=Named(), metavar="FILE.svg",
              help="Write the picture as SVG.")  # fmt: skip
@json_option
def command(
    capture: Path, strategies, allocators, files, every, svg: Path | None, as_json: bool
) -> None:
    """Replay the recorded workload CAPTURE under every strategy, on either allocator.

    Tells what the same host would have used: slabs, charges, copies of caches, metadata, failures.
    """
    from kmbench.analysis.picture import Curve, svg_charts, text_chart
    from kmbench.analysis.show import parse_time
    from kmbench.cli.run import warn_failed
    from kmbench.plugins import load_plugins
    from kmbench.trace.whatif import what_if

    plugins = load_plugins(files)
    warn_failed(plugins)

    def say(strategy: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"kmbench: {strategy}", err=True)

    found = what_if(
        capture, strategies, allocators=allocators,
        sample_every=parse_time(every) if every else 0, plugins=plugins, progress=say,
    )  # fmt: skip
    # one curve for all that use the same at every moment
    same: dict[bytes, list[Alternative]] = {}
    for one in found:
        same.setdefault(one.slab_bytes.tobytes(), []).append(one)
    curves = [
        Curve(" = ".join(name_of(one, found) for one in alike), MARKS[at % len(MARKS)],
              alike[0].t, alike[0].slab_bytes - found[0].slab_bytes)
        for at, alike in enumerate(same.values())
    ]  # fmt: skip
    title = f"slab bytes above {name_of(found[0], found)}"
    if svg:
        emit(svg_charts([(title, curves)]).encode(), svg)
    if as_json:
        from kmbench.analysis.tables import as_json as json_text

        text = json_text([a.row() for a in found])
    else:
        text = f"{table(found)}\n\n{text_chart(title, curves, height=12)}"
    emit(f"{text}\n".encode(), None)


def name_of(one: Alternative, found: list[Alternative]) -> str:
    """Its strategy, and its allocator where there are several."""
    several = len({a.allocator for a in found}) > 1
    return f"{one.strategy} on {one.allocator}" if several else one.strategy


def table(found: list[Alternative]) -> str:
    """One row a strategy and allocator; `excess` is against the first of them."""
    from kmbench.analysis.tables import Column, Grid, as_text

    def mib(value: float) -> str:
        return f"{value / 2**20:,.2f}"

    columns = (
        Column("strategy", left=True), Column("peak", "slabs MiB"), Column("mean", "slabs MiB"),
        Column("end", "slabs MiB"), Column("excess", "slabs MiB"),
        Column("charged", "groups MiB"), Column("used", "groups MiB"),
        Column("metadata KiB"), Column("copies"), Column("failed"),
    )  # fmt: skip
    first = found[0].row()["slab_bytes_mean"]
    rows = []
    for one in found:
        row = one.row()
        rows.append((
            name_of(one, found), mib(row["slab_bytes_peak"]), mib(row["slab_bytes_mean"]),
            mib(row["slab_bytes_end"]), f"{(row['slab_bytes_mean'] - first) / 2**20:+,.2f}",
            mib(row["charged_bytes_mean"]), mib(row["true_bytes_mean"]),
            f"{row['metadata_bytes_mean'] / 2**10:,.0f}", f"{row['copies']:,}",
            f"{row['failed_allocs']:,}",
        ))  # fmt: skip
    base = name_of(found[0], found)
    title = "What the recorded host would have used under each design"
    notes = (
        f"excess: mean slabs above {base}",
        "charged, used: metrics A0 and A0.true, what groups are billed for and really have, mean; "
        "what removed groups left to the root is no group's",
        "copies: caches of their own that groups got; where there are none, all share one set",
    )
    return as_text(Grid(title, columns, rows, notes=notes))
