"""Every code block of the README and of docs/ does what it shows, in the order of its page.

Commands of kmbench are run in one folder a page, smaller where SMALLER says so.  One whose comment
ends with a reason in brackets is not run, and no block that installs: their options are parsed.
"""

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from kmbench.cli.app import app, main
from kmbench.core.jit import JIT

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[\w: .]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
WHY_NOT = re.compile(r"#.*\((minutes|compiles|root|network|a cluster)\)$")
INSTALLS = ("python3", "pip", ".venv/bin/pip", ".venv/bin/python", ".")
SHOWN = {"text", "console"}  # output; that of docs/findings.md is made again by test_docs.py
FEW = ["-s", "none", "-s", "linux-6.18"]  # for commands that would run every strategy
BEFORE = {"results.md": "run workloads/waste/spread.toml"}  # pages on results that are there
SMALLER = {
    "sweep grid.toml": "sweep grid.toml --executor serial",
    "workload.groups=1000 --seeds 10": "workload.groups=50 --seeds 2",
    "workload.groups=500 --seeds 3": "workload.groups=50 --seeds 2",
    "--allocator slub --allocator slab": "--allocator slub",
    "SCENARIO.toml": "workloads/waste/held.toml",
    "run workloads/waste ": "run workloads/waste/spread.toml ",
    "dentry_bomb.toml": "dentry_bomb.toml -s none --set workload.warm_ms=20 "
    "--set workload.alone_ms=5 --set workload.crowded_ms=5",
}


def commands(text: str) -> list[tuple[list[str], str]]:
    """The words of every command of a shell block, and why it is not run (empty: it is)."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        why = WHY_NOT.search(line)
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append((words[:end], why[1] if why else ""))
            words = words[end + 1 :]
    return found


def parse(words: list[str]) -> None:
    """Have click parse the arguments of `kmbench WORDS`, without running anything."""
    command: click.Command = app
    context = app.make_context("kmbench", list(words), resilient_parsing=False)
    while isinstance(command, click.Group) and words:
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, name
        context = command.make_context(name, list(words), parent=context)


def run(words: list[str], gate: bool) -> None:
    """Run `kmbench WORDS`; `gate`: which may be missed."""
    text = shlex.join(words)
    for long, short in SMALLER.items():
        text = text.replace(long, short)
    words = shlex.split(text)
    if words[0] == "run" and "-s" not in words:
        words += FEW
    assert main(words) in ((0, 1) if gate else (0,)), text


def shell(text: str) -> None:
    """Do what a shell block shows."""
    for (name, *words), why in commands(text):
        if name in INSTALLS:
            continue
        if name.endswith("kmbench"):
            if why:
                parse(words)
            else:
                run(words, "--gate" in words)
            continue
        assert why, f"{name} {words}: not run, so say why"
        if name == "python":
            script, *options = words
            source = (ROOT / script).read_text()
            for option in (word for word in options if word.startswith("--")):
                assert f'"{option}"' in source, option


@pytest.mark.skipif(not JIT, reason="as plain Python it takes minutes")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page_shows_what_works(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workloads").symlink_to(ROOT / "workloads")
    if page.name in BEFORE:
        run(BEFORE[page.name].split(), gate=False)
    for block in BLOCK.finditer(page.read_text()):
        kind, text = block["kind"], block["text"]
        named = re.match(r"# ([\w.]+)\n", text) or re.match(r"test: ([\w.]+)", block["mark"] or "")
        if named and kind in ("toml", "python"):
            (tmp_path / named[1]).write_text(text)
        if kind == "toml":
            tomllib.loads(text)
        elif kind == "python":
            exec(compile(text, page.name, "exec"), {"__name__": "shown"})
        elif kind == "sh":
            shell(text)
            capsys.readouterr()
        else:
            assert kind in SHOWN, f"a block of {kind or 'no language'}"


def test_options_that_do_not_exist_are_seen():
    parse(["run", "x.toml", "--seeds", "3"])
    with pytest.raises(click.UsageError):
        parse(["run", "x.toml", "--sedes", "3"])
    with pytest.raises(click.UsageError):
        parse(["trace", "record", "--nonsense"])
