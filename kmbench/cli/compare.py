"""`kmbench compare`: stored runs, strategies side by side."""

from __future__ import annotations

from pathlib import Path

import click

from kmbench.cli.output import (
    DEFAULT_DIR,
    Named,
    choose_format,
    emit,
    format_options,
    parse_settings,
)
from kmbench.errors import UsageProblem

__all__ = ["command"]


@click.command("compare")
@click.argument("folder", metavar="[DIR]", default=DEFAULT_DIR, type=Named())
@click.option("--baseline", default="none", show_default=True, help="Strategy that is 1.00x.")
@click.option("--by", metavar="PARAM", help="Compare each value of this parameter on its own.")
@click.option(
    "--collapse", metavar="NAME", multiple=True,
    help="Means over all values of scenario, allocator, era, hardware or cpus, not one table each.",
)  # fmt: skip
@click.option(
    "--pivot", is_flag=True, help="Strategies down; across the metrics, or the values of --by."
)
@click.option(
    "--brief", "in_brief", is_flag=True, help="A line per strategy, as `kmbench run` prints it."
)
@click.option("-s", "--strategy", "strategies", multiple=True, help="Only these [default: all].")
@click.option(
    "--where", metavar="KEY=VALUE", multiple=True,
    help="Only runs in which a column or parameter has this value (scenario=spread), or one of "
    "several (scenario=spread,held).",
)  # fmt: skip
@click.option("--groups", is_flag=True, help="Add what the groups that used most were charged.")
@click.option(
    "--width", type=click.IntRange(40, 1000),
    help="Longest line of the plain table; 78 survives any mail client [default: 100, less on a "
    "narrower terminal].",
)  # fmt: skip
@click.option("--hardware", metavar="NAME", help="Price all runs by this profile.")
@click.option("--metric", "metrics", metavar="M", multiple=True, help="Metric by name or id.")
@click.option(
    "--gate", "gates", metavar="EXPR", multiple=True,
    help="Exit with 1 unless [STRATEGY:]METRIC<=NUMBER[x|%|K|M|G] holds; x: times the baseline.",
)  # fmt: skip
@format_options
@click.pass_context
def command(
    ctx: click.Context,
    folder: Path,
    baseline: str,
    by: str | None,
    collapse: tuple[str, ...],
    pivot: bool,
    in_brief: bool,
    strategies: tuple[str, ...],
    where: tuple[str, ...],
    groups: bool,
    width: int | None,
    hardware: str | None,
    metrics: tuple[str, ...],
    gates: tuple[str, ...],
    form: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Compare the runs in DIR (default: results), paired by workload and seed.

    Each strategy shows its value and how many times the baseline that is; with several seeds also
    a 95 % interval and a mark where the difference is significant.
    """
    from kmbench.analysis.compare import compare
    from kmbench.analysis.compare_view import grids
    from kmbench.analysis.gate import failures, parse_gate
    from kmbench.analysis.overview import BRIEF, TRUTH, brief, group_table
    from kmbench.analysis.tables import as_markdown, as_text, encode
    from kmbench.hardware.profile import load_profile
    from kmbench.store.dataset import open_results

    form = choose_format(form, as_json)
    if groups and form not in ("table", "md"):
        raise UsageProblem(f"--groups adds a table for people; --format {form} has none")
    if in_brief and (metrics or pivot):
        raise UsageProblem("--brief has its own metrics and form: leave out --metric and --pivot")
    conditions = [parse_gate(text) for text in gates]
    results = open_results(folder)
    chosen = {
        "baseline": baseline, "by": by, "collapse": collapse, "strategies": strategies,
        "where": parse_settings(where, "--where", "scenario=spread"),
        "hardware": load_profile(hardware) if hardware else None,
    }  # fmt: skip
    with results.reading():
        wanted = [*BRIEF, TRUTH] if in_brief else metrics
        comparison = compare(results, metrics=wanted, **chosen)
        measured = comparison
        if conditions:
            wanted = [condition.metric.name for condition in conditions]
            measured = compare(results, metrics=wanted, **chosen)
        missed = [line for condition in conditions for line in failures(condition, measured)]
        if form in ("table", "md"):
            parts = brief(comparison) if in_brief else list(grids(comparison, pivot))
            if groups:
                parts += group_table(results, baseline=baseline)
            text = "\n\n".join(
                as_text(grid, width) if form == "table" else as_markdown(grid) for grid in parts
            )
            data = f"{text}\n".encode()
        else:
            data = encode(comparison.frame, form)
            for note in comparison.notes:
                click.echo(f"kmbench: note: {note}", err=True)
    emit(data, output, binary=form == "parquet")
    for line in missed:
        click.echo(f"kmbench: gate failed: {line}", err=True)
    if missed:
        ctx.exit(1)
