"""`kmbench plugins`: what is installed, what it costs, does it conform, and a new one's start."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from kmbench.cli.output import Named, emit, json_option


@click.group("plugins", invoke_without_command=True)
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file too.")
@json_option
@click.pass_context
def command(ctx, files: tuple[str, ...], as_json: bool) -> None:
    """List plugins, check whether one conforms, see what one costs, or begin a new one.

    Without a command: list.
    """
    if ctx.invoked_subcommand is None:
        _list(files, as_json)


@command.command("list", short_help="List plugins and what they register.")
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file too.")
@json_option
def list_plugins(files: tuple[str, ...], as_json: bool) -> None:
    """List plugins with the strategies, workloads, shrinkers and executors that they register."""
    _list(files, as_json)


@command.command("costs", short_help="Show what each strategy adds to an object.")
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file too.")
@json_option
def costs(files: tuple[str, ...], as_json: bool) -> None:
    """Show the operations that each strategy adds to an object on its fast paths.

    And to the root's objects while no group uses it, as a run counts them.
    """
    from kmbench.analysis.tables import Column, Grid, as_text
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.fastpath import FastPath, fast_path, spoken
    from kmbench.plugins import load_plugins

    plugins = load_plugins(files)
    found = {name: fast_path(strategy) for name, strategy in plugins.strategies.items()}
    if as_json:
        document = {
            name: {path: ops._asdict() for path, ops in cost._asdict().items()}
            for name, cost in found.items()
        }
        emit(f"{json_text(document)}\n".encode(), None)
        return
    names = ("strategy", *(field.replace("_", " ") for field in FastPath._fields))
    columns = [Column(name, left=True) for name in names]
    rows = [[name, *map(spoken, cost)] for name, cost in found.items()]
    title = "operations added to an object, or to a slab"
    emit(f"{as_text(Grid(title, columns, rows))}\n".encode(), None)


@command.command("check", short_help="Check whether plugins conform.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Everything that plugins register.")
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file too.")
@click.option("--check", "checks", multiple=True, metavar="CHECK", help="Only this check.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="A parameter of a workload or shrinker.")  # fmt: skip
@json_option
@click.pass_context
def check(ctx, names, everything, files, checks, settings, as_json: bool) -> None:
    """Check strategies, workloads, shrinkers and executors; exit code 1 when one fails.

    What fails is told with the hook, the file and the line.  Which checks a strategy gets depends
    on the hooks that it has; the others are listed as not declared.
    """
    from kmbench.cli.output import parse_settings
    from kmbench.errors import UsageProblem
    from kmbench.testing import KINDS, check_plugins

    if bool(names) == everything:
        raise UsageProblem("plugins check: expected names, or --all")
    findings = check_plugins(names, files, checks, parse_settings(settings))
    if as_json:
        from kmbench.analysis.tables import as_json as json_text

        text = json_text([finding._asdict() for finding in findings])
    else:
        lines = []
        for finding in findings:
            verdict = "FAIL" if not finding.ok else "ok  " if finding.declared else "-   "
            words = finding.message or KINDS[finding.kind][finding.check]
            lines.append(f"{verdict} {finding.name:<16} {finding.check:<14} {words}")
        text = "\n".join(lines)
    emit(f"{text}\n".encode(), None)
    if not all(finding.ok for finding in findings):
        ctx.exit(1)


@command.command("new", short_help="Begin a distribution with a strategy.")
@click.argument("name")
@click.option("--in", "folder", type=Named(), default=Path("."),
              help="Folder to make it in [default: here].")  # fmt: skip
@json_option
def new(name: str, folder: Path, as_json: bool) -> None:
    """Make a distribution kmbench-NAME: a strategy, its entry point, its tests and its CI."""
    from kmbench.testing.template import make_distribution

    made = make_distribution(name, folder)
    if as_json:
        from kmbench.analysis.tables import as_json as json_text

        text = json_text({"folder": str(made), "files": sorted(
            str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()
        )})  # fmt: skip
    else:
        text = f"{made}: python -m pip install -e '{made}[test]' && kmbench plugins check {name}"
    emit(f"{text}\n".encode(), None)


def _list(files: tuple[str, ...], as_json: bool) -> None:
    from kmbench.analysis.tables import Column, Grid, as_text
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.plugins import load_plugins

    plugins = load_plugins(files)
    kinds = {
        "strategies": plugins.strategies,
        "workloads": plugins.workloads,
        "shrinkers": plugins.shrinkers,
        "executors": plugins.executors,
        "compositions": plugins.compositions,
    }
    if as_json:
        document = {"plugins": [asdict(plugin) for plugin in plugins.loaded]}
        for kind, known in kinds.items():
            document[kind] = [_described(item) for item in known.values()]
        emit(f"{json_text(document)}\n".encode(), None)
        return
    left = [Column(name, left=True) for name in ("plugin", "version", "registers")]
    rows = [
        [p.name, f"{p.distribution} {p.version}", p.error or ", ".join(p.registered)]
        for p in plugins.loaded
    ]
    grids = [Grid("plugins", left, rows)]
    for title, known in kinds.items():
        columns = [Column(name, left=True) for name in ("name", "description")]
        grids.append(Grid(title, columns, [[i.name, i.description] for i in known.values()]))
    emit(("\n\n".join(as_text(grid) for grid in grids) + "\n").encode(), None)


def _described(item) -> dict:
    parameters = getattr(item, "parameters", ())
    return {
        "name": item.name,
        "description": item.description,
        "source": getattr(item, "source", ""),
        "parameters": [asdict(parameter) for parameter in parameters],
    }
