"""Mainline Linux's kernel memory controllers as kmbench strategies."""

import kmbench


@kmbench.hookimpl
def kmbench_register_strategies(register):
    """Register every design of this package."""
    from kmbench_mainline import none, objcg, per_memcg, tcp

    register(none.none)
    register(tcp.tcp_memcontrol)
    register(per_memcg.linux_3_8)
    register(per_memcg.linux_4_5)
    register(per_memcg.linux_5_3)
    register(objcg.linux_5_9)
    register(objcg.linux_6_18)
