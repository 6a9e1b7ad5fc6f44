"""Writes the reference pages, docs/reference/*.md, from the code; mkdocs runs it before a build."""

import inspect
import re
from pathlib import Path

import click

import kmbench
from kmbench.cli.app import app
from kmbench.store.catalogue import METRICS
from kmbench.store.schema import TABLES


def metrics_page() -> str:
    """Every metric of the catalogue."""
    lines = [
        "# Metrics", "",
        "Every metric, as `kmbench compare --metric` takes it by name or id. An arrow says which "
        "way is better.", "",
        "| id | name | unit | | what it is |", "|---|---|---|---|---|",
    ]  # fmt: skip
    arrows = {"lower": "v", "higher": "^", None: ""}
    for m in METRICS.values():
        words = m.definition.replace("|", "\\|")
        lines.append(f"| {m.id} | `{m.name}` | {m.unit} | {arrows[m.direction]} | {words} |")
    return "\n".join(lines) + "\n"


def tables_page() -> str:
    """Every column of every table."""
    lines = ["# Tables", "", "The columns of a dataset, as its Parquet files describe them."]
    for table, fields in TABLES.items():
        head = "| column | type | unit | what it is |", "|---|---|---|---|"
        lines += ["", f"## {table}", "", *head]
        for field in fields:
            words = field.meaning.replace("|", "\\|")
            lines.append(f"| `{field.name}` | {field.type} | {field.unit} | {words} |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """The help of every command."""
    lines = [
        "# Commands", "",
        "What `--help` prints. Exit codes: 0 ok, 1 a gate or some runs failed, 2 usage or bad "
        "input, 3 internal or plugin error, 130 interrupted.",
    ]  # fmt: skip
    for words, command in _commands("kmbench", app, None):
        context = click.Context(command, info_name=words, max_content_width=96, terminal_width=96)
        lines += ["", f"## {words}", "", "```text", command.get_help(context).rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _commands(name: str, command: click.Command, parent: click.Context | None):
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name, parent=parent)
        for verb in command.list_commands(context):
            yield from _commands(f"{name} {verb}", command.get_command(context, verb), context)


def python_page() -> str:
    """The public names of the package."""
    lines = ["# Python", "", "The public names of `kmbench`."]
    for name in sorted(kmbench.__all__):
        item = getattr(kmbench, name)
        lines += ["", f"## {name}", ""]
        if inspect.isfunction(item):
            lines += ["```python", f"{name}{_signature(item)}", "```", ""]
        lines += ["```text", inspect.getdoc(item) or "", "```"]
    return "\n".join(lines) + "\n"


def _signature(func) -> str:
    text = str(inspect.signature(func)).replace("'", "")
    return text if len(text) < 80 else text.replace(", ", ",\n    ").replace("(", "(\n    ", 1)


PAGES = {
    "metrics.md": metrics_page, "tables.md": tables_page, "commands.md": commands_page,
    "python.md": python_page,
}  # fmt: skip


def write(folder: Path) -> None:
    """Write the pages that are not what the code says."""
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, text = folder / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def on_pre_build(config) -> None:
    """What mkdocs calls."""
    write(Path(config["docs_dir"]) / "reference")


def on_page_markdown(markdown: str, page, config, files) -> str:
    """What mkdocs calls for each page: links to code, which is not in the site, become plain."""
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
