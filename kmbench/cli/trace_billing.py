"""`kmbench trace billing`: bytes charged per system call."""

from __future__ import annotations

import click

from kmbench.cli.output import emit, json_option


@click.command("billing")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Compare what a group pays per system call with what Linux 6.18 was measured to charge.

    Runs the objects of each call through the engine under linux-6.18.  Exit code 1 when one
    differs by more than 0.2 %.
    """
    from kmbench.trace.billing import billing

    bills = billing()
    if as_json:
        from kmbench.analysis.tables import as_json as json_text

        text = json_text(
            [bill._asdict() | {"error": bill.error, "passed": bill.passed} for bill in bills]
        )
    else:
        text = billing_text(bills)
    emit(f"{text}\n".encode(), None)
    if not all(bill.passed for bill in bills):
        ctx.exit(1)


def billing_text(bills: list) -> str:
    """A table of bills."""
    from kmbench.analysis.tables import Column, Grid, as_text

    heads = ("measured B/call", "predicted B/call", "error")
    rows = [
        (b.name, f"{b.measured:.1f}", f"{b.predicted:.1f}",
         f"{b.error:+.3%}{'' if b.passed else ' !'}")
        for b in bills
    ]  # fmt: skip
    return as_text(Grid("", (Column("call", left=True), *map(Column, heads)), rows))
