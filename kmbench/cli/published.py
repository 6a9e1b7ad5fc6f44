"""`kmbench published`: figures that others measured, beside ours."""

from __future__ import annotations

import click

from kmbench.cli.output import DEFAULT_DIR, Named, choose_format, emit, json_option, parse_settings
from kmbench.cli.run import find_scenarios, progress_bar, warn_failed
from kmbench.errors import UsageProblem


@click.command("published")
@click.argument("scenarios", nargs=-1, required=True, type=Named())
@click.option("--out", type=Named(), default=DEFAULT_DIR, show_default=True,
              help="Folder of the results.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="Change a key of every scenario.")  # fmt: skip
@click.option("--cost", "costs", multiple=True, metavar="NAME=NS",
              help="Change a cost of the profiles, before they are calibrated.")  # fmt: skip
@click.option("--sensitivity", "lean", is_flag=True,
              help="Instead count what is met when each cost is halved and doubled, and when a "
                   "calibration scales other costs.")  # fmt: skip
@click.option("-p", "--plugin", "files", multiple=True, help="Load a local plugin file.")
@json_option
@click.option("--format", "form", type=click.Choice(["table", "md", "json"]),
              help="Form of the table [default: table].")  # fmt: skip
def command(scenarios, out, settings, costs, lean, files, as_json, form) -> None:
    """Run SCENARIOS (TOML files or folders) that carry published figures, as workloads/published.

    Prints each figure beside ours, how far ours is off, and whether that is within its tolerance.
    --set and --cost try what a miss comes from.
    """
    from kmbench.analysis.published import count_all, published_grid
    from kmbench.analysis.sensitivity import sensitivity, sensitivity_grid
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.analysis.tables import as_markdown, as_text
    from kmbench.plugins import load_plugins

    form = choose_format(form, as_json)
    plugins = load_plugins(files)
    warn_failed(plugins)
    with progress_bar("published", 1) as show:
        counted = count_all(
            find_scenarios(scenarios), plugins, out, show, parse_settings(settings), _costs(costs)
        )
    if lean:
        outcomes = sensitivity(counted)
        values, grid = [outcome._asdict() for outcome in outcomes], sensitivity_grid(outcomes)
    else:
        verdicts = [v for one in counted for v in one.verdicts()]
        values, grid = [verdict.as_dict() for verdict in verdicts], published_grid(verdicts)
    if form == "json":
        text = json_text(values)
    else:
        text = as_text(grid) if form == "table" else as_markdown(grid)
    emit(f"{text}\n".encode(), None)


def _costs(given) -> dict[str, float]:
    costs = {}
    for name, text in parse_settings(given, "--cost", "rcu=3.5").items():
        try:
            costs[name] = float(text)
        except ValueError:
            raise UsageProblem(f"--cost {name}={text}: expected nanoseconds") from None
    return costs
