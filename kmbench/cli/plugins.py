"""`kmbench plugins`: what is installed, what it registered, what failed, and what it costs."""

from __future__ import annotations

from dataclasses import asdict

import click

from kmbench.cli.output import emit, json_option


@click.command("plugins")
@click.argument("action", type=click.Choice(["list", "costs"]), default="list")
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file too.")
@json_option
def command(action: str, files: tuple[str, ...], as_json: bool) -> None:
    """List plugins with the strategies and workloads that they register.

    `costs`: the operations that each strategy adds to an object on its fast paths, and to the
    root's objects while no group uses it, as a run counts them.
    """
    from kmbench.analysis.tables import Column, Grid, as_text
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.plugins import load_plugins

    plugins = load_plugins(files)
    if action == "costs":
        from kmbench.fastpath import FastPath, fast_path, spoken

        costs = {name: fast_path(strategy) for name, strategy in plugins.strategies.items()}
        if as_json:
            document = {
                name: {path: ops._asdict() for path, ops in cost._asdict().items()}
                for name, cost in costs.items()
            }
            emit(f"{json_text(document)}\n".encode(), None)
            return
        names = ("strategy", *(field.replace("_", " ") for field in FastPath._fields))
        columns = [Column(name, left=True) for name in names]
        rows = [[name, *map(spoken, cost)] for name, cost in costs.items()]
        title = "operations added to an object, or to a slab"
        emit(f"{as_text(Grid(title, columns, rows), 160)}\n".encode(), None)
        return
    if as_json:
        document = {
            "plugins": [asdict(plugin) for plugin in plugins.loaded],
            "strategies": [_described(item) for item in plugins.strategies.values()],
            "workloads": [_described(item) for item in plugins.workloads.values()],
            "executors": [
                {"name": item.name, "description": item.description}
                for item in plugins.executors.values()
            ],
        }
        emit(f"{json_text(document)}\n".encode(), None)
        return
    left = [Column(name, left=True) for name in ("plugin", "version", "registers")]
    rows = [
        [p.name, f"{p.distribution} {p.version}", p.error or ", ".join(p.registered)]
        for p in plugins.loaded
    ]
    grids = [Grid("plugins", left, rows)]
    kinds = {
        "strategies": plugins.strategies,
        "workloads": plugins.workloads,
        "executors": plugins.executors,
    }
    for title, known in kinds.items():
        columns = [Column(name, left=True) for name in ("name", "description")]
        grids.append(Grid(title, columns, [[i.name, i.description] for i in known.values()]))
    emit(("\n\n".join(as_text(grid, 140) for grid in grids) + "\n").encode(), None)


def _described(item) -> dict:
    return {
        "name": item.name,
        "description": item.description,
        "source": item.source,
        "parameters": [asdict(parameter) for parameter in item.parameters],
    }
