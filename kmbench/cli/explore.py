"""`kmbench explore`: which compositions of policies beat the designs that were built."""

from __future__ import annotations

from pathlib import Path

import click

from kmbench.cli.output import Named, emit, json_option


@click.command("explore")
@click.argument("scenarios", nargs=-1, required=True, type=Named())
@click.option(
    "--search",
    "how",
    type=click.Choice(["all", "random", "nsga2"]),
    default="all",
    show_default=True,
    help="Which compositions to try.",
)
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Compositions to try at random, or trials of the search.",
)
@click.option("-c", "--composition", "names", multiple=True, help="Kind [default: all].")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Runs with other seeds.",
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the choice or the search.")
@click.option(
    "--out",
    type=Named(),
    default=Path("results/explore"),
    show_default=True,
    help="Folder of the results.",
)
@click.option("--executor", default="processes", show_default=True, help="As of `kmbench sweep`.")
@click.option("-w", "--workers", type=click.IntRange(0), default=0, help="Workers.")
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file.")
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Rows of the front to show.",
)
@click.option(
    "--hardware", metavar="NAME", help="Price operations in ns by this profile, and judge by that."
)
@click.option(
    "--figure",
    type=Named(),
    metavar="FILE.svg",
    help="Also draw all designs, those on the front and those that were built.",
)
@json_option
@click.pass_context
def command(
    ctx, scenarios, how, trials, names, settings, seeds, seed, out, executor, workers, files,
    rows, hardware, figure, as_json,
) -> None:  # fmt: skip
    """Run compositions of policies on SCENARIOS and report the Pareto front.

    Axes: operations per allocation, slab bytes against `none`, the median charge error, and the
    share that nobody pays for.  What is stored already is not run again.
    """
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.cli.run import find_scenarios, parse_settings, warn_failed
    from kmbench.cli.sweep import progress_bar
    from kmbench.executor import Place
    from kmbench.hardware.profile import load_profile
    from kmbench.plugins import load_plugins
    from kmbench.scenario import load_scenario
    from kmbench.store.dataset import open_results
    from kmbench.sweep.drive import Drive
    from kmbench.sweep.explore import AXES, PRICED_AXES, Space, judge, search
    from kmbench.sweep.plan import finished
    from kmbench.sweep.work import Order
    from kmbench.unused import refuse_unused

    files = tuple(str(Path(file).resolve()) for file in files)
    plugins = load_plugins(files)
    warn_failed(plugins)
    paths, chosen = find_scenarios(scenarios), parse_settings(settings)
    loaded = [load_scenario(path.resolve(), chosen) for path in paths]
    for scenario in loaded:
        refuse_unused(scenario, chosen, plugins)
    space = Space(plugins, names)
    profile = load_profile(hardware) if hardware else None
    axes = PRICED_AXES if profile else AXES
    where, failed = Path(out).resolve(), {}

    def drive(designs: list) -> None:
        sweep = space.sweep(designs, loaded, seeds)
        done = finished(where, sweep.run_ids)
        order = Order(str(where), files=files)
        with progress_bar(len(sweep.run_ids) - len(done)) as tell:
            failed.update(Drive(
                sweep, done, order, plugins.executor(executor), Place(workers, "", files), plugins,
                tell=tell,
            ).run().failed)  # fmt: skip

    def evaluate(designs: list) -> dict:
        drive(designs)
        table = judged(designs)
        found = {row["design"]: tuple(row[a] for a in axes) for row in table.to_dicts()}
        return {design: found.get(space.words(design)) for design in designs}

    def judged(designs: list):
        everything = [*space.known, *designs]
        return judge(open_results(where), space, everything, loaded, seeds, profile)

    drive(space.known)
    if how == "nsga2":
        designs = search(space, trials, seed, evaluate)
    else:
        designs = space.designs() if how == "all" else space.sample(trials, seed)
        drive(designs)
    table = judged(designs)
    if figure:
        emit(_figure(table, axes).encode(), figure)
    if as_json:
        text = json_text({"failed": failed, "designs": table.to_dicts()})
    else:
        text = _text(table, axes, len(designs), len(failed), rows)
    emit(f"{text}\n".encode(), None)
    if failed:
        ctx.exit(1)


def _figure(table, axes: tuple[str, ...]) -> str:
    from kmbench.analysis.scatter import Axis, Point, svg_scatter

    cost = Axis(COSTS[axes[0]][2], "{:.0f}")
    against = (
        Axis("median charge error", "{:.0%}"), Axis("nobody pays for", "{:.0%}"),
        Axis("slabs, to no accounting", "{:.2f}x"),
    )  # fmt: skip
    points = [
        Point(
            row["design"] if row["historic"] else "", bool(row["front"]), row[axes[0]],
            (row["charge_error_median"], row["unaccounted_share"], row["slab_bytes_mean"]),
        )
        for row in table.to_dicts()
    ]  # fmt: skip
    return svg_scatter(cost, against, points)


COSTS = {
    "ops_per_alloc": ("ops", "per alloc", "operations per allocation"),
    "pair_ns": ("ns", "per pair", "ns of an allocation and its free"),
}


def _text(table, axes: tuple[str, ...], tried: int, failed: int, rows: int) -> str:
    import polars as pl

    from kmbench.analysis.tables import Column, Grid, as_text

    def grid(title: str, frame, last: str) -> str:
        columns = (
            Column("design", left=True), Column(*COSTS[axes[0]][:2]), Column("slabs", "to none"),
            Column("error", "median"), Column("unaccounted"), Column(last, left=True),
        )  # fmt: skip
        cells = [
            (
                row["design"], f"{row[axes[0]]:.1f}", f"{row['slab_bytes_mean']:.3f}x",
                f"{100 * row['charge_error_median']:.1f} %",
                f"{100 * row['unaccounted_share']:.1f} %",
                row["beaten_by"] or "nothing: on the front" if last == "beaten by"
                else "built" if row["historic"] else "",
            )
            for row in frame.to_dicts()
        ]  # fmt: skip
        return as_text(Grid(title, columns, cells), 1000)

    # compositions that differ in nothing that these scenarios show count once
    front = table.filter("front").unique(list(axes), keep="first", maintain_order=True)
    old = table.filter("historic").sort("charge_error_median")
    leaks = table.filter(pl.col("leak_bytes") > 0).height
    won = ", ".join(old.filter("front_historic")["design"])
    parts = [
        grid(f"the front: {front.height} of {table.height} designs", front.head(rows), "was"),
        grid("designs that were built", old, "beaten by"),
        f"best among those that were built: {won}",
        f"{tried:,} compositions tried, {failed} runs failed, {leaks} designs leak charges",
    ]
    return "\n\n".join(parts)
