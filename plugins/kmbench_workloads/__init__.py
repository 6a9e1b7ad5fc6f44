"""First-party workloads: replay of recordings, and generators with closed forms."""

import kmbench


@kmbench.hookimpl
def kmbench_register_workloads(register):
    """Register every workload of this package."""
    from kmbench_workloads import (
        dentry_bomb,
        many_mounts,
        mempressure_test,
        messages,
        replay,
        short_lives,
        slab_pairs,
        spread,
    )

    register(dentry_bomb.dentry_bomb)
    register(many_mounts.many_mounts)
    register(mempressure_test.mempressure_test)
    register(messages.messages)
    register(replay.replay)
    register(short_lives.short_lives)
    register(slab_pairs.slab_pairs)
    register(spread.spread)
