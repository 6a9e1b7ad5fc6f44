"""Options and writers that verbs share: `--format`, `--json`, `--output`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from kmbench.errors import UsageProblem

__all__ = [
    "DEFAULT_DIR", "Named", "choose_format", "emit", "format_options", "json_option",
    "parse_settings",
]  # fmt: skip

DEFAULT_DIR = "results"

Command = TypeVar("Command", bound=Callable[..., None])


class Named(click.Path):
    """A file or folder; the empty name, which a shell makes of a variable that is not set, would be
    the current folder."""

    def __init__(self, **options: bool) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; click.BadParameter for the empty name."""
        if not str(value):
            self.fail("expected a name, not an empty one", param, ctx)
        return super().convert(value, param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def format_options(command: Command) -> Command:
    """Add `--format`, `--json` (short for `--format json`) and `--output`."""
    command = click.option("-o", "--output", type=Named(), help="Write to a file, not to stdout.")(
        command
    )
    command = json_option(command)
    return click.option(
        "--format",
        "form",
        type=click.Choice(["table", "md", "csv", "json", "parquet"]),
        help="Form of the table [default: table].",
    )(command)


def choose_format(form: str | None, as_json: bool) -> str:
    """The format that the two options mean together."""
    if as_json and form not in (None, "json"):
        raise UsageProblem(f"--json and --format {form} exclude each other")
    return "json" if as_json else form or "table"


def parse_settings(
    pairs: Iterable[str], option: str = "--set", example: str = "workload.groups=100"
) -> dict[str, str]:
    """``KEY=VALUE`` arguments of ``option`` as a mapping; a malformed one is a UsageProblem."""
    found = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise UsageProblem(f"{option} {pair}: expected KEY=VALUE, as {example}")
        found[key.strip()] = value.strip()
    return found


def emit(data: bytes, output: Path | None, *, binary: bool = False) -> None:
    """Write ``data`` to ``output`` or stdout; binary data never goes to a terminal."""
    if output is not None:
        try:
            output.write_bytes(data)
        except OSError as error:
            raise UsageProblem(f"cannot write {output}: {error.strerror or error}") from error
        return
    if binary and sys.stdout.isatty():
        raise UsageProblem("Parquet is binary: give --output FILE or redirect stdout")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
