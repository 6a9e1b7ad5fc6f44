"""A recording whose capture cannot be written: the work was watched once and may not come again."""

import errno
import json
import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from canned_recording import canned_recording
from kmbench.cli import trace_assemble
from kmbench.errors import KmbenchError, UsageProblem
from kmbench.trace.record import assemble, output, raw, session

PLAN = session.Plan({"a": ["true"]}, None, 0.1, 1024)


class Recorded:
    """A recorder that has recorded."""

    def __init__(self, plan, say):
        self.noted: list[Path] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def note_file(self, path):
        self.noted.append(path)

    def run(self):
        return canned_recording()


@pytest.fixture(autouse=True)
def recorded(monkeypatch, tmp_path):
    """Nothing is traced, and temporary files have a folder of their own."""
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    monkeypatch.setattr(output, "Recorder", Recorded)
    monkeypatch.setattr(output.tempfile, "tempdir", str(elsewhere))
    return elsewhere


@contextmanager
def small_disk(path: Path):
    """A file system of one page at `path`."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(path)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def record(out: Path, **options) -> str:
    with pytest.raises(KmbenchError) as caught:
        output.record(PLAN, out, "a test", lambda text: None, **options)
    return str(caught.value)


def finished(said: str, out: Path) -> dict:
    """What the command that was named makes of what was kept."""
    (path,) = re.findall(r"`kmbench trace assemble '?([^'`]+)'?`", said)
    result = CliRunner().invoke(trace_assemble.command, [path, "-o", str(out), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads((out / "manifest.json").read_text())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("kept_raw", [False, True])
def test_a_full_disk_costs_no_recording(tmp_path, recorded, kept_raw):
    with small_disk(tmp_path / "full") as disk:
        out = disk / ("one.kmraw.npz" if kept_raw else "one")
        said = record(out, raw=kept_raw)
        assert list(disk.iterdir()) == []
    assert said.startswith(f"{out} cannot be written: ")
    assert "No space left on device" in said and "\n" not in said
    assert [entry.name for entry in recorded.iterdir()] == ["one.kmraw.npz"]
    assert finished(said, tmp_path / "two")["what"] == "a test"


def test_beside_where_there_is_room(tmp_path, monkeypatch):
    """The capture does not fit, or its assembly fails in a way that nobody has foreseen."""

    def full(tables, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    def wrong(recording):
        raise IndexError("one too many")

    (tmp_path / "one.kmraw.npz").write_text("of somebody else")
    with monkeypatch.context() as patched:
        patched.setattr(assemble, "write_tables", full)
        said = record(tmp_path / "one")
        patched.setattr(assemble, "assemble", wrong)
        other = record(tmp_path / "other")
    kept = tmp_path / f"one.{os.getpid()}.kmraw.npz"
    assert f"the raw recording is {kept}: " in said
    assert other.startswith(f"{tmp_path}/other cannot be assembled: IndexError: one too many; ")
    assert (tmp_path / "one.kmraw.npz").read_text() == "of somebody else"
    for at, text in enumerate((said, other)):
        assert finished(text, tmp_path / f"made{at}")["what"] == "a test"


def test_nowhere_is_told(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output, "save", full)
    monkeypatch.setattr(assemble, "write_tables", full)
    with pytest.raises(UsageProblem, match="which is lost$"):
        output.record(PLAN, tmp_path / "one", "a test", lambda text: None)
    assert raw.SUFFIX not in "".join(entry.name for entry in tmp_path.iterdir())
