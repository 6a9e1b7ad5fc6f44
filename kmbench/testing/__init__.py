"""Conformance kit: what a plugin must do, told in terms of its hooks, files and lines.

:func:`check_plugins` checks strategies, workloads, shrinkers and executors, installed or in local
files, :func:`check_strategies` strategies alone; the pytest fixture ``kmbench_conformance`` and
``kmbench plugins check`` are made of them.  :data:`CHECKS` are those of strategies.
"""

from kmbench.testing.kit import CHECKS, KINDS, Finding, check_plugins, check_strategies

__all__ = ["CHECKS", "KINDS", "Finding", "check_plugins", "check_strategies"]
