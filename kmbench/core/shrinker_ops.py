"""What a shrinker's hooks may call and use, in one place; see also :mod:`kmbench.core.ops`."""

from kmbench.core.alarm import call_back, clock
from kmbench.core.cached import (
    charged_group,
    drop_object,
    get_object,
    list_add,
    list_append_all,
    list_del,
    list_leave,
    list_rotate,
    prune_list,
    put_object,
)
from kmbench.core.rows import prefetch
from kmbench.core.shrink import STOP
from kmbench.core.userpages import free_user_pages

__all__ = [
    "STOP", "call_back", "charged_group", "clock", "drop_object", "free_user_pages",
    "get_object", "list_add", "list_append_all",
    "list_del", "list_leave", "list_rotate", "prefetch", "prune_list", "put_object",
]  # fmt: skip
