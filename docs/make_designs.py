"""Writes designs.md: what every design does, each cell with its code and its test.

    python docs/make_designs.py [--check]

A cell's words are the facts that a strategy declares or is put together from
(:mod:`kmbench.design`), or operations counted in a run (:mod:`kmbench.fastpath`).  Its first link
is the function that makes it so, its second the test of its row in tests/test_design_rows.py or
test_design_paths.py.
``--check`` writes nothing; exit code 1 if the page is not what would be written.
"""

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import kmbench
from kmbench.core.hooks import charged
from kmbench.design import ROWS, Fact, accounting_facts
from kmbench.fastpath import FastPath, fast_path, spoken
from kmbench.strategy import Strategy

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "designs.md"
TESTS = [ROOT / "tests" / f"test_design_{name}.py" for name in ("rows", "paths")]
TABLES = {
    "Before the mainline, and never merged": (
        "none", "ubc-2006", "costa-2012", "souhlal-2012-v1", "souhlal-2012-v2", "kamezawa-2012",
    ),
    "Mainline": (
        "tcp-memcontrol", "linux-3.8", "linux-4.5", "linux-5.3", "linux-5.9", "linux-6.18",
    ),
}  # fmt: skip

HEAD = """\
# Designs

What each design does, and where to check it: the words of a cell link to the function that makes it
so, the tick to the test that shows it in a run. `python docs/make_designs.py` writes this page from
the strategies themselves; a test compares.

Parameters are at their defaults (`kmbench plugins list --json` has them all); the docstring of each
file says what was posted and when, and what is completed here. Operations: `br` branches, `ptr`
dependent loads, `pcpu` per-CPU operations, `irq` interrupts off and on, `rcu` read sections, `call`
function calls, `atom`
atomics, `spin` spin locks; those of an object beyond what `none` does, counted where copy, slab and
stock are at hand (`kmbench plugins costs`).
"""


def line_of(code) -> tuple[Path, int]:
    """File, below the repository, and line of a function."""
    code = getattr(code, "py_func", code).__code__
    return Path(code.co_filename).resolve().relative_to(ROOT), code.co_firstlineno


def tests() -> dict[str, str]:
    """File and line of the test of each row, by row."""
    lines = {}
    for path in TESTS:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                where = f"{path.relative_to(ROOT)}#L{node.lineno}"
                lines[node.name.removeprefix("test_")] = where
    return lines


def measured(cost: FastPath) -> dict[str, str]:
    """The rows that are counted."""
    unused = spoken(cost.unused)
    if cost.unused_other != cost.unused:
        unused = f"accounted caches: {unused}; others: {spoken(cost.unused_other)}"
    if any(cost.unused_slab):
        unused += f"; a slab: {spoken(cost.unused_slab)}"
    return {"alloc_path": spoken(cost.alloc), "free_path": spoken(cost.free), "unused": unused}


def facts(strategy: Strategy) -> dict[str, Fact]:
    """All cells of a strategy by row; a row that does not apply is left out."""
    if strategy.name == "none":
        return dict(strategy.design)
    given = {p.name: p.default for p in strategy.parameters}
    counted = measured(fast_path(strategy))
    return {
        **accounting_facts(strategy.accounting(given)),
        "owner": Fact(
            "its mm owner's" if "charged" in strategy.hooks else "the task's",
            strategy.hooks.get("charged", charged),
        ),
        **strategy.design,
        **{row: Fact(text, counting(strategy, row)) for row, text in counted.items()},
    }


def counting(strategy: Strategy, row: str) -> Callable:
    """The hook of a strategy whose operations a measured row has."""
    wanted = ("obj_free",) if row == "free_path" else ("select", "pre_alloc", "post_alloc")
    return next((strategy.hooks[name] for name in wanted if name in strategy.hooks), fast_path)


def defined(name: str) -> str:
    """A strategy's name, linked to where it is put together."""
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.strip() == f'name="{name}",':
                return f"[`{name}`](../{path.relative_to(ROOT)}#L{number})"
    return f"`{name}`"


def page() -> str:
    """The whole page."""
    known = kmbench.load_plugins().strategies
    lines = [HEAD]
    at = tests()
    for title, names in TABLES.items():
        columns = [facts(known[name]) for name in names]
        lines += [f"## {title}", "", "| | " + " | ".join(map(defined, names)) + " |"]
        lines.append("|---" * (len(names) + 1) + "|")
        for row, heading in ROWS.items():
            cells = []
            for name, column in zip(names, columns, strict=True):
                fact = column.get(row)
                cells.append(cell(fact, None if name == "none" else at[row]) if fact else "–")
            lines.append(f"| {heading} | " + " | ".join(cells) + " |")
        lines.append("")
        lines += [f"- `{name}`: {known[name].source}." for name in names]
        lines.append("")
    return "\n".join(lines)


def cell(fact: Fact, test: str | None) -> str:
    """A cell with its links."""
    path, line = line_of(fact.code)
    text = fact.text.replace("*", r"\*").replace("_", r"\_")
    linked = f"[{text}](../{path}#L{line})"
    return linked if test is None else f"{linked} [✓](../{test})"


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text() == text else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
