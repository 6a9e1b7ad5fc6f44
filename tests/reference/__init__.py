"""A slow, plain-Python model of the simulated kernel, written apart from the compiled core.

The tests run both on the same events and compare :meth:`Reference.observe` after each of them.
Readability wins over speed everywhere in this package; it shares no code with ``kmbench.core``
except the event format and the Setup tuples.
"""

from .model import Reference

__all__ = ["Reference"]
