"""`kmbench hardware`: show profiles, and calibrate one on this machine."""

from __future__ import annotations

import click

from kmbench.cli.output import Named, emit, json_option
from kmbench.errors import UsageProblem


@click.group("hardware")
def command() -> None:
    """Hardware profiles: what counted operations cost on a machine."""


@command.command("show", short_help="List the profiles, or show one.")
@click.argument("name", required=False)
@json_option
def show(name, as_json) -> None:
    """List the profiles, or show one, by NAME or file, with the source of every number."""
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.analysis.tables import as_text
    from kmbench.hardware.profile import load_profile, profile_names

    if as_json:
        names = [name] if name else profile_names()
        values = [_values(load_profile(each)) for each in names]
        text = json_text(values[0] if name else values)
    else:
        text = as_text(_one(load_profile(name)) if name else _all())
    emit(f"{text}\n".encode(), None)


def _values(profile) -> dict:
    costs = {name: cost._asdict() for name, cost in profile.costs.items()}
    return {"label": profile.label, **vars(profile), "costs": costs}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _all():
    from kmbench.analysis.tables import Column, Grid
    from kmbench.hardware.profile import DEFAULT, load_profile, profile_names

    columns = [Column("profile", left=True), Column("CPUs"), Column("nodes"), Column("page"),
               Column("description", left=True)]  # fmt: skip
    rows = [
        [p.name, str(p.cpus), str(p.nodes), f"{p.page_size >> 10} KiB", p.description]
        for p in map(load_profile, profile_names())
    ]
    return Grid("", columns, rows, notes=[f"runs whose scenario names none: {DEFAULT}"])


def _one(profile):
    from kmbench.analysis.tables import Column, Grid

    columns = [Column("operation", left=True), Column("ns"), Column("quartiles"), Column("spread"),
               Column("source", left=True)]  # fmt: skip
    rows = [
        [name, f"{cost.ns:.2f}",
         f"{cost.quartiles[0]:.2f} {cost.quartiles[1]:.2f}" if cost.quartiles else "-",
         _share(cost.spread), cost.source]
        for name, cost in profile.costs.items()
    ]  # fmt: skip
    together = f", together {profile.smt:g} times one" if profile.threads_per_core > 1 else ""
    machine = (
        f"{profile.label}: {profile.cpus} CPUs, {profile.nodes} node{'s' * (profile.nodes != 1)}, "
        f"{profile.threads_per_core} threads a core{together}, pages of {profile.page_size} B, "
        f"{profile.memory}"
    )
    details = [f"{name}: {value}" for name, value in profile.details.items()]
    return Grid(machine, columns, rows, notes=[profile.description, *details])


@command.command("calibrate", short_help="Measure a profile of this machine.")
@click.option("-o", "--output", type=Named(), help="Write to a file.")
@click.option("--name", default="", help="Name of the profile [default: the host's].")
@click.option("--quick", is_flag=True, help="Few repeats: the form is right, numbers are rough.")
@json_option
def calibrate_command(output, name, quick, as_json) -> None:
    """Measure what operations cost on this machine; prints a profile as TOML.

    Costs are told on stderr as they are found, with how far their quartiles are apart.  Other load
    makes them worse: run it on an idle machine, twice, and compare.
    """
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.hardware.calibrate import calibrate, doubts

    if output is not None and not output.resolve().parent.is_dir():  # minutes later is too late
        raise UsageProblem(f"cannot write {output}: no such folder")

    def tell(cost: str, found) -> None:
        click.echo(f"{cost:>11} {found.ns:8.2f} ns  {_share(found.spread):>6}", err=True)

    profile = calibrate(name, quick, tell)
    click.echo(f"took {profile.details['took_s']:g} s", err=True)
    for doubt in doubts(profile):
        click.echo(f"warning: {doubt}", err=True)
    text = json_text(_values(profile)) + "\n" if as_json else profile.to_toml()
    emit(text.encode(), output)
