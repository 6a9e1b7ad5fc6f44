"""Compositions that share caches and charge objects by their bytes, at once and without stocks."""

from dataclasses import replace

from kmbench.core.build import Accounting
from kmbench.core.events import GFP_ACCOUNT
from kmbench.core.paths import Ops
from kmbench.parameters import Parameter
from kmbench_composed.common import (
    CONTEXT,
    FORCE,
    FORCES,
    LOCKED,
    SELECTION,
    WHAT,
    exempt,
    select_gfp,
    with_selection,
)
from kmbench_policies.byte_unit import Choices, byte_unit


def choices(given: dict) -> Choices:
    """The choices that the parameters make."""
    return Choices(
        vectors=True,
        exempt=exempt(given),
        forces=FORCES if given["forces"] else 0,
        select_gfp=select_gfp(given["selection"]),
        page_gfp=GFP_ACCOUNT if given["pages"] else 0,
    )


def prepare(S, P, setup, given):
    """Hand the choices to the hooks."""
    for name, value in choices(given)._asdict().items():
        P.par[name] = value


composed_byte = with_selection(replace(
    byte_unit(
        Choices(vectors=True),
        caches=WHAT["flagged"],
        charge_ops=Ops(br=3, ptr=2, irq=1, call=1),
        accounting=Accounting(vectors=True),
        parameters=(
            SELECTION, CONTEXT, Parameter("pages", True, "__GFP_ACCOUNT pages are accounted"),
            FORCE, LOCKED,
        ),
        name="composed-byte",
        description="shared caches, objects charged by the byte; the rest is parameters",
        source="a composition of policies",
    ),
    prepare=prepare,
    accounting=lambda given: Accounting(vectors=True, counter_locked=given["locked"]),
))  # fmt: skip
