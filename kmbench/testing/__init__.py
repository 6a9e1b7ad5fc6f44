"""Conformance kit: what every strategy must do, told in terms of its hooks, files and lines.

:func:`check_strategies` runs the checks of :data:`CHECKS` on installed strategies or local files;
the pytest fixture ``kmbench_conformance`` and ``kmbench plugins check`` are made of it.
"""

from kmbench.testing.kit import CHECKS, Finding, check_strategies

__all__ = ["CHECKS", "Finding", "check_strategies"]
