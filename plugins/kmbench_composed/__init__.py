"""Designs that are chosen, not named: every composition of the policies is a set of parameters.

``composed-page`` copies caches and charges slabs by the page, ``composed-byte`` shares caches and
charges objects by the byte.  The historic designs are among them but for details that only one of
them has; most compositions were never built.  What a composition leaves open is what the latest
kernel that had the policy does.
"""

import kmbench


@kmbench.hookimpl
def kmbench_register_compositions(register):
    """Register both kinds."""
    from kmbench_composed import byte, page

    register(page.composed_page)
    register(byte.composed_byte)
