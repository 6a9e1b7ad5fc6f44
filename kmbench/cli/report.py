"""`kmbench report`: stored runs as one HTML file, and its figures for papers."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from kmbench.cli.output import DEFAULT_DIR, Named, emit, json_option

__all__ = ["command"]


@click.command("report")
@click.argument("folder", metavar="[DIR]", default=DEFAULT_DIR, type=Named())
@click.option(
    "-o", "--output", metavar="FILE", default="report.html", show_default=True,
    type=Named(dir_okay=False), help="The page.",
)  # fmt: skip
@click.option(
    "--figures", metavar="DIR", type=Named(file_okay=False),
    help="Also write every figure there, as SVG and PNG.",
)  # fmt: skip
@click.option("--baseline", default="none", show_default=True, help="Strategy that is 1.00x.")
@click.option(
    "--title", default="Kernel memory, accounted", show_default=True, help="Title of the page."
)
@click.option("--open", "open_page", is_flag=True, help="Show the page in the web browser.")
@json_option
def command(
    folder: Path, output: Path, figures: Path | None, baseline: str, title: str, open_page: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Write the runs in DIR (default: results) as a page with tables and interactive figures.

    The page is one file that needs no network.  Needs the extra `report` (vl-convert-python).
    """
    from kmbench.analysis.report import gather, report_html, write_figures
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.store.dataset import open_results

    results = open_results(folder)
    with results.reading():
        content = gather(results, baseline)
    page = report_html(content, title).encode()
    emit(page, output)
    written = write_figures(content, figures) if figures else []
    if as_json:
        facts = {"page": str(output), "bytes": len(page), "runs": content.facts["runs"]}
        text = json_text(facts | {"figures": [str(path) for path in written]})
    else:
        text = f"{output}: {content.facts['runs']} runs, {len(page) / 2**20:.1f} MiB"
        if figures:
            text += f"\n{figures}: {len(written) // 2} figures as SVG and PNG"
    emit(f"{text}\n".encode(), None)
    if open_page and not webbrowser.open(output.resolve().as_uri()):
        click.echo(f"kmbench: note: no web browser was found to show {output}", err=True)
