"""`kmbench trace validate`: predicted against real."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmbench.cli.output import Named, emit, json_option
from kmbench.errors import UsageProblem

if TYPE_CHECKING:
    from kmbench.trace.billing import Bill
    from kmbench.trace.validate import Validation


def parse_bounds(pairs: tuple[str, ...]) -> dict[str, float]:
    """``NAME=LIMIT`` arguments as a mapping; a malformed one is a UsageProblem."""
    bounds = {}
    for pair in pairs:
        name, sign, limit = pair.partition("=")
        try:
            bounds[name.strip()] = float(limit)
        except ValueError:
            sign = ""
        if not sign:
            raise UsageProblem(f"--bound {pair}: expected NAME=LIMIT, as kmem-exact=0.8")
    return bounds


@click.command("validate")
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...",
                type=Named())  # fmt: skip
@click.option("--strategy", default="linux-6.18", show_default=True, help="Strategy to replay.")
@click.option("--bound", "pairs", multiple=True, metavar="NAME=LIMIT",
              help="Another bound: kmem-exact, kmem-page, kmem-4-pages, kmem-sum, slabs-exact, "
              "slabs-within, pages-total, pages-moved, made-sum, made-cache, returned-sum, "
              "returned-cache, live, zombies.")  # fmt: skip
@click.option("--worst", type=click.IntRange(0), default=6, show_default=True,
              help="Caches and groups to list; 0: the verdict only.")  # fmt: skip
@click.option("--ablate", "ablation", type=click.Choice(["cpu-partial", "packing"]),
              help="Replay with a poorer model, to see that the score can tell.")  # fmt: skip
@click.option("--readings", type=Named(), metavar="FILE.parquet",
              help="Write every single reading.")  # fmt: skip
@click.option("--svg", type=Named(), metavar="FILE.svg",
              help="Write the curves of the worst items.")  # fmt: skip
@json_option
@click.pass_context
def command(
    ctx, captures, strategy, pairs, worst, ablation, readings, svg, as_json
) -> None:  # fmt: skip
    """Replay CAPTUREs from their initial state and compare with what the machine read.

    CAPTURE is a capture folder, or a trace file with its readings beside it.  Exit code 1 when a
    bound is missed.  Bounds are shares (0.75 for 75 %) or counts.
    """
    from kmbench.analysis.fidelity import charts
    from kmbench.analysis.picture import svg_charts
    from kmbench.plugins import load_plugins
    from kmbench.trace.billing import billing
    from kmbench.trace.validate import validate

    bounds, plugins = parse_bounds(pairs), load_plugins()
    done: list[Validation] = []
    for path in captures:
        if sys.stderr.isatty():
            click.echo(f"kmbench: replaying {path}", err=True)
        done.append(
            validate(path, strategy=strategy, bounds=bounds, ablation=ablation, plugins=plugins)
        )
    bills = billing(plugins, strategy)
    if readings:
        write_readings(readings, done)
    if svg:
        pages = [chart for v in done for chart in charts(v, max(worst, 1))]
        emit(svg_charts(pages).encode(), svg)
    text = _json(done, bills) if as_json else _text(done, bills, worst)
    emit(f"{text}\n".encode(), None)
    if not all(v.passed for v in done) or not all(bill.passed for bill in bills):
        ctx.exit(1)


def write_readings(path: Path, done: list[Validation]) -> None:
    """Every reading of all replays: capture, kind, item, t, real, predicted, scored."""
    import polars as pl

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pl.concat([v.score.readings for v in done]).write_parquet(partial)
        os.replace(partial, path)
    except OSError as err:
        raise UsageProblem(f"cannot write {path}: {err.strerror or err}") from None
    finally:
        partial.unlink(missing_ok=True)


def _text(done: list[Validation], bills: list[Bill], worst: int) -> str:
    from kmbench.analysis.fidelity import report, verdict_table
    from kmbench.cli.trace_billing import billing_text
    from kmbench.trace.validate import pooled

    parts = [verdict_table(done, pooled(done))]
    parts += [report(v, worst) for v in done]
    right = sum(bill.passed for bill in bills)
    parts.append(f"bytes charged per call: {right} of {len(bills)} as measured within 0.2 %")
    if right < len(bills):
        parts.append(billing_text(bills))
    missed = [
        f"{v.name}: {row.quantity} {row.value:g}, bound {row.bound}"
        for v in done
        for row in v.score.rows
        if row.passed is False and row.value is not None
    ]
    unjudged = [v.name for v in done if not len(v.details)]
    if unjudged:
        parts.append(f"nothing in {', '.join(unjudged)} can be scored: the readings say so")
    parts.append("\n".join(["missed:", *missed]) if missed else "no bound is missed")
    return "\n\n".join(parts)


def _json(done: list[Validation], bills: list[Bill]) -> str:
    from kmbench.analysis.tables import as_json as json_text
    from kmbench.trace.validate import pooled

    return json_text(
        {
            "passed": all(v.passed for v in done) and all(bill.passed for bill in bills),
            "all": pooled(done),
            "captures": [
                {
                    "capture": v.name,
                    "strategy": v.strategy,
                    "passed": v.passed,
                    "events": v.nr_events,
                    "skipped": v.skipped,
                    "lost": v.lost,
                    "engine_s": v.engine_s,
                    "reader_s": v.reader_s,
                    "summary": v.score.summary(),
                    "items": v.details.to_dicts(),
                    "live": [row._asdict() | {"drift": row.drift} for row in v.score.live],
                }
                for v in done
            ],
            "billing": [b._asdict() | {"error": b.error, "passed": b.passed} for b in bills],
        }
    )
