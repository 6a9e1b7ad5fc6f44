"""First-party shrinkers: policies that free cached objects, and userland listeners to pressure."""

import kmbench


@kmbench.hookimpl
def kmbench_register_shrinkers(register):
    """Register every shrinker of this package."""
    from kmbench_shrinkers import baselines, costa, dentry_inode, mempressure, psi, vmpressure

    register(dentry_inode.dentry_inode)
    register(costa.costa_shrink_fn)
    register(mempressure.mempressure)
    register(vmpressure.vmpressure)
    register(psi.psi)
    register(baselines.lru)
    register(baselines.clock)
