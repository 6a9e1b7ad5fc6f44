"""`kmbench plugins`: what is installed, what it registered, and what failed."""

from __future__ import annotations

from dataclasses import asdict

import click

from kmbench.cli.output import emit, json_option


@click.command("plugins")
@click.argument("action", type=click.Choice(["list"]), default="list")
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file too.")
@json_option
def command(action: str, files: tuple[str, ...], as_json: bool) -> None:
    """List plugins with the strategies, workloads and shrinkers that they register."""
    from kmbench.analysis.tables import Column, Grid, as_text
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.plugins import load_plugins

    plugins = load_plugins(files)
    if as_json:
        document = {
            "plugins": [asdict(plugin) for plugin in plugins.loaded],
            "strategies": [_described(item) for item in plugins.strategies.values()],
            "workloads": [_described(item) for item in plugins.workloads.values()],
            "shrinkers": [_described(item) for item in plugins.shrinkers.values()],
        }
        emit(f"{json_text(document)}\n".encode(), None)
        return
    left = [Column(name, left=True) for name in ("plugin", "version", "registers")]
    rows = [
        [
            p.name,
            f"{p.distribution} {p.version}",
            p.error or ", ".join(p.strategies + p.workloads + p.shrinkers),
        ]
        for p in plugins.loaded
    ]
    grids = [Grid("plugins", left, rows)]
    for title, known in (
        ("strategies", plugins.strategies),
        ("workloads", plugins.workloads),
        ("shrinkers", plugins.shrinkers),
    ):
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
