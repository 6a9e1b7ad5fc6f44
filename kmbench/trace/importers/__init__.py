"""Text of the kernel's tracers to trace files: ftrace, ``trace-cmd report``, ``perf script``."""

from kmbench.trace.importers.build import GROUP_BY, Imported, import_trace
from kmbench.trace.importers.lines import FORMATS

__all__ = ["FORMATS", "GROUP_BY", "Imported", "import_trace"]
