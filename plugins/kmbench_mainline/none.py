"""No accounting at all: the baseline that waste and cost are measured against."""

from kmbench.strategy import Strategy

none = Strategy(
    name="none",
    description="no accounting: shared caches, nothing billed",
    source="Linux without CONFIG_MEMCG_KMEM",
)
