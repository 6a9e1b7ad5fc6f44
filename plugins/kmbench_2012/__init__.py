"""Patch sets that were never merged, most of them of 2012, as kmbench strategies."""

import kmbench


@kmbench.hookimpl
def kmbench_register_strategies(register):
    """Register every design of this package."""
    from kmbench_2012 import costa, kamezawa, souhlal, ubc

    register(costa.costa_2012)
    register(kamezawa.kamezawa_2012)
    register(souhlal.souhlal_2012_v1)
    register(souhlal.souhlal_2012_v2)
    register(ubc.ubc_2006)
