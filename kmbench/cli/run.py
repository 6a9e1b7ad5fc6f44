"""`kmbench run`: strategies over scenarios, stored and compared."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import click

from kmbench.cli.output import DEFAULT_DIR, Named, emit, json_option, parse_settings
from kmbench.errors import KmbenchError, UsageProblem


@contextmanager
def progress_bar(scenario: str, nr_runs: int):
    """A function ``(strategy, events, total)`` that shows progress on a terminal's stderr.

    A bar per strategy, over ``nr_runs`` runs: events done, rate, and time to go where the workload
    says how many events there are.
    """
    if not sys.stderr.isatty():
        yield lambda strategy, nr, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"),
               MofNCompleteColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, int] = {}

        def show(strategy: str, nr: int, total: int | None) -> None:
            if strategy not in tasks:
                whole = total and total * nr_runs
                tasks[strategy] = bar.add_task(f"{scenario} {strategy}", total=whole, rate="")
            bar.advance(tasks[strategy], nr)
            speed = bar.tasks[tasks[strategy]].speed
            bar.update(tasks[strategy], rate=f"{speed / 1e6:.1f} M events/s" if speed else "")

        yield show


@contextmanager
def shown(scenario: str, nr_runs: int, watched: bool):
    """What `run` takes to show how things go: bars, or with `--watch` caches and groups."""
    if watched and sys.stderr.isatty():
        from kmbench.cli.watch import watching

        with watching() as watch:
            yield {"watch": watch}
    else:
        with progress_bar(scenario, nr_runs) as show:
            yield {"progress": show}


def find_scenarios(paths: tuple[Path, ...]) -> list[Path]:
    """Scenario files; a folder stands for every one below it."""
    from kmbench.scenario import scenario_files

    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = scenario_files(path)
            if not inside:
                raise UsageProblem(f"{path}: no scenario (*.toml) in this folder")
            found += inside
        else:
            found.append(path)
    return found


@click.command("run")
@click.argument("scenarios", nargs=-1, required=True, type=Named())
@click.option("-s", "--strategy", "strategies", multiple=True, help="Strategy [default: all].")
@click.option("--allocator", "allocators", multiple=True, metavar="slub|slab",
              help="Slab allocator; may be given twice [default: the scenario's].")  # fmt: skip
@click.option("--hardware", multiple=True, metavar="NAME",
              help="Hardware profile, by name or file; several: a run each.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key.")
@click.option("--seeds", type=click.IntRange(1, 10_000), default=1, help="Runs with other seeds.")
@click.option("-j", "--jobs", type=click.IntRange(1), envvar="KMBENCH_JOBS", metavar="N",
              help="Runs made at a time [default: one a CPU].")  # fmt: skip
@click.option("--out", type=Named(), default=DEFAULT_DIR, show_default=True,
              help="Folder of the results.")  # fmt: skip
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file.")
@click.option(
    "--watch",
    is_flag=True,
    help="Show caches and groups while it runs, as slabtop does (on a terminal).",
)
@json_option
@click.pass_context
def command(
    ctx,
    scenarios,
    strategies,
    allocators,
    hardware,
    settings,
    seeds,
    jobs,
    out,
    files,
    watch,
    as_json,
) -> None:
    """Run strategies over SCENARIOS (TOML files or folders), paired on the same events.

    Prints who was charged what against who used what, waste, failures and operation counts.
    """
    from kmbench.plugins import load_plugins
    from kmbench.runs import run
    from kmbench.scenario import load_scenario
    from kmbench.unused import refuse_unused

    chosen = parse_settings(settings)
    variants = [chosen | {"allocator": name} for name in dict.fromkeys(allocators)] or [chosen]
    plugins = load_plugins(files)
    warn_failed(plugins)
    machines = [{"hardware": _profile(name)} for name in hardware] or [{}]
    loaded = [
        load_scenario(path, variant | machine)
        for path in find_scenarios(scenarios)
        for variant in variants
        for machine in machines
    ]
    for name in strategies:
        plugins.strategy(name)
    for scenario in loaded:
        refuse_unused(scenario, chosen, plugins)
    results, failed = [], []
    for scenario in loaded:
        try:
            with shown(scenario.name, seeds, watch) as how:
                found = run(
                    scenario, strategies, seeds=seeds, out=out, plugins=plugins, jobs=jobs, **how
                )
            results.append(found)
        except KmbenchError as error:
            if len(loaded) == 1:
                raise
            failed.append(error)
            click.echo(f"kmbench: error: {error}", err=True)
    if results:
        _print(results, out, as_json)
    if failed:
        ctx.exit(1)


def _profile(name: str) -> str:
    """A profile file is looked up from here, not from the scenario's folder."""
    return str(Path(name).resolve()) if name.endswith(".toml") else name


def _print(results: list, out: Path, as_json: bool) -> None:
    from kmbench.store.dataset import Results

    ids = [run_id for part in results for run_id in part.run_ids()]
    shown = Results(Path(out), ids)
    if as_json:
        from kmbench.analysis.tables import as_json as json_text

        with shown.reading():
            rows = shown.runs.collect().to_dicts()
            timing = {row["run_id"]: row for row in shown.timing.collect().to_dicts()}
        for row in rows:
            row["events_per_s"] = timing.get(row["run_id"], {}).get("events_per_s")
            row["compile_s"] = timing.get(row["run_id"], {}).get("compile_s")
            row["cache_hit"] = timing.get(row["run_id"], {}).get("cache_hit")
        emit(f"{json_text(rows)}\n".encode(), None)
    else:
        from kmbench.analysis.overview import main_table

        emit(f"{main_table(shown, ids)}\n\n{_effort(shown)}\n".encode(), None)


def _effort(shown) -> str:
    """What reading, compiling and replaying took, apart."""
    from textwrap import wrap

    import polars as pl

    from kmbench.analysis.tables import room

    with shown.reading():
        sums = shown.timing.select(
            pl.col("events", "engine_s", "reader_s", "compile_s", "cache_hit").sum(), runs=pl.len()
        ).collect()
    row = sums.row(0, named=True)
    rate = row["events"] / row["engine_s"] / 1e6 if row["engine_s"] else 0.0
    text = (
        f"{row['events']:,} events in {row['runs']} run{'s' * (row['runs'] != 1)}; added up: "
        f"engine {row['engine_s']:.2f} s ({rate:.1f} M events/s), reader {row['reader_s']:.2f} s, "
        f"compiling or loading {row['compile_s']:.2f} s "
        f"({row['cache_hit']} of {row['runs']} engines from the cache)"
    )
    return "\n".join(wrap(text, room()))


def warn_failed(plugins) -> None:
    """Say once, on stderr, which plugins could not be loaded."""
    for plugin in plugins.failed:
        where = f"{plugin.name} ({plugin.distribution} {plugin.version})"
        click.echo(f"kmbench: warning: plugin {where} was skipped: {plugin.error}", err=True)
