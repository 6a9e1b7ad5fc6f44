"""Mainline Linux's kernel memory controllers as kmbench strategies."""

import kmbench


@kmbench.hookimpl
def kmbench_register_strategies(register):
    """Register every design of this package."""
    from kmbench_mainline import none, objcg

    register(none.none)
    register(objcg.linux_5_9)
    register(objcg.linux_6_18)
