"""The patch sets of 2012 as kmbench strategies."""

import kmbench


@kmbench.hookimpl
def kmbench_register_strategies(register):
    """Register every design of this package."""
    from kmbench_2012 import costa

    register(costa.costa_2012)
