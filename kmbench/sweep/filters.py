"""Conditions on the values of a grid point: comparisons and arithmetic, and nothing else.

``workload.groups * workload.objects <= 100_000 and machine.cpus in [1, 2]``: names are the dotted
keys of the grid.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from typing import Any

from kmbench.errors import UsageProblem, did_you_mean

__all__ = ["Filter"]

_BINARY = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARE = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


class Filter:
    """One condition; ``keeps(values)`` says whether a point meets it."""

    def __init__(self, text: str, names: set[str]):
        """Parse `text`; UsageProblem unless it is a condition on `names`."""
        self.text = text
        try:
            self._tree = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise UsageProblem(f"filter {text!r}: not an expression") from None
        self._check(self._tree, names)

    def _check(self, node: ast.AST, names: set[str]) -> None:
        if (name := _dotted(node)) is not None:
            if name not in names:
                raise UsageProblem(
                    f"filter {self.text!r}: {name!r} is not varied{did_you_mean(name, names)}"
                )
            return
        known = isinstance(node, (ast.BoolOp, ast.Compare, ast.List, ast.Tuple, ast.Constant))
        known = known or (isinstance(node, ast.BinOp) and type(node.op) in _BINARY)
        known = known or (
            isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub))
        )
        known = known and all(type(op) in _COMPARE for op in getattr(node, "ops", ()))
        if not known:
            raise UsageProblem(
                f"filter {self.text!r}: expected comparisons and arithmetic of the grid's keys"
            )
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._check(child, names)

    def keeps(self, values: Mapping[str, Any]) -> bool:
        """Whether a point with these values stays in the grid."""
        try:
            return bool(self._value(self._tree, values))
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise UsageProblem(f"filter {self.text!r}: {error}") from None

    def _value(self, node: ast.AST, values: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if (name := _dotted(node)) is not None:
            return values[name]
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self._value(item, values) for item in node.elts]
        if isinstance(node, ast.BinOp):
            left, right = self._value(node.left, values), self._value(node.right, values)
            return _BINARY[type(node.op)](left, right)
        if isinstance(node, ast.UnaryOp):
            value = self._value(node.operand, values)
            return not value if isinstance(node.op, ast.Not) else -value
        if isinstance(node, ast.BoolOp):
            parts = (self._value(item, values) for item in node.values)
            return all(parts) if isinstance(node.op, ast.And) else any(parts)
        assert isinstance(node, ast.Compare)
        left = self._value(node.left, values)
        for op, item in zip(node.ops, node.comparators, strict=True):
            right = self._value(item, values)
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True


def _dotted(node: ast.AST) -> str | None:
    """``a.b.c`` of a chain of attributes, else None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (within := _dotted(node.value)):
        return f"{within}.{node.attr}"
    return None
