"""What a shell can do to the command: full disks, closed streams, odd names, sizes out of reach."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kmbench.cli.app import app, main
from kmbench.cli.output import Named

SPREAD = Path(__file__).parent.parent / "workloads" / "waste" / "spread.toml"
KMBENCH = f"{sys.executable} -m kmbench"


def shell(line: str) -> tuple[int, str, str]:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", ["--version", "plugins --json", "plugins"])
def test_a_full_disk_behind_stdout_is_one_line(words):
    code, _, said = shell(f"{KMBENCH} {words} > /dev/full")
    assert (code, said) == (
        2, "kmbench: error: cannot write all of stdout: No space left on device\n"
    )  # fmt: skip


def test_closed_streams_are_nobodys_bug():
    assert shell(f"{KMBENCH} plugins >&-") == (0, "", "")
    code, out, _ = shell(f"{KMBENCH} plugins 2>&- <&-")
    assert code == 0 and out.startswith("plugins\n")
    assert shell(f"{KMBENCH} plugins --nope 2>&-") == (2, "", "")


def scenario(folder: Path, old: str, new: str) -> str:
    text = SPREAD.read_text()
    assert old in text
    path = folder / "möge es sein.toml"
    path.write_text(text.replace(old, new))
    return str(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "spread"', "name = 3", "name = 3: expected words on one line"),
        ("[workload]", "[product]", "workload: expected a table"),
        ('name = "spread"', 'name = "s"\nera = "2.4"', "sein.toml: s: unknown era '2.4'"),
        ('name = "spread"', 'name = ""', "name = '': expected words on one line"),
        ('name = "spread"', 'name = "a\\u0000b"', "expected words on one line"),
        ("groups = 100", "groups = 99999999999", "expected at most 1048576 groups"),
        ("objects = 5", "objects = 99999999999", "error: out of memory: 159,999,999,998,"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, capsys, old, new, words):
    arguments = [scenario(tmp_path, old, new), "-s", "none", "--out", str(tmp_path / "out")]
    assert main(["run", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folders_without_a_name_in_utf_8(tmp_path, capsys):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/r\xff")
    os.mkdir(folder)
    assert main(["compare", folder]) == 2
    assert "r?: the folder's name is not UTF-8" in capsys.readouterr().err
    assert main(["run", str(SPREAD), "-s", "none", "--out", folder]) == 2
    assert "the folder's name is not UTF-8" in capsys.readouterr().err


def verbs(command: click.Command, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        yield from verbs(command.get_command(context, name), *words, name)


def test_no_file_has_the_empty_name(capsys, monkeypatch, tmp_path):
    """``--out "$UNSET"`` would write into the current folder."""
    seen = 0
    for words, command in verbs(app):
        for one in command.params:
            if isinstance(one.type, click.Path):
                assert isinstance(one.type, Named), (words, one.name)
                seen += 1
    assert seen > 25
    monkeypatch.chdir(tmp_path)
    for line in (["run", str(SPREAD), "-s", "none", "--out", ""], ["run", ""], ["compare", ""]):
        assert main(line) == 2
        said = capsys.readouterr().err
        assert "expected a name, not an empty one" in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_one_kind_of_file_for_another_says_which_command_takes_it(capsys):
    grid = SPREAD.with_name("groups.grid.toml")
    assert main(["run", str(grid)]) == 2
    assert "a grid, not a scenario; `kmbench sweep` takes it" in capsys.readouterr().err
    assert main(["sweep", str(SPREAD)]) == 2
    assert "a scenario, not a grid; `kmbench run` takes it" in capsys.readouterr().err
    assert main(["published", str(SPREAD.parent)]) == 2
    assert "internal" not in capsys.readouterr().err


def test_a_plugin_file_that_registers_nothing_is_told(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "def select(S, P, cpu, memcg, cache, gfp):\n    return cache\n"
    )
    assert main(["plugins", "-p", str(tmp_path / "mine.py")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "registers nothing; expected a function such as kmbench_register_strategies" in said
