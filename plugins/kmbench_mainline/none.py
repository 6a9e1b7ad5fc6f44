"""No accounting at all: the baseline that waste and cost are measured against."""

from kmbench.core.objects import alloc_object
from kmbench.design import Fact
from kmbench.strategy import Strategy

none = Strategy(
    name="none",
    description="no accounting: shared caches, nothing billed",
    source="Linux without CONFIG_MEMCG_KMEM",
    design={
        "selection": Fact("nothing", alloc_object),
        "caches": Fact("shared", alloc_object),
        "root": Fact("not accounted", alloc_object),
    },
)
