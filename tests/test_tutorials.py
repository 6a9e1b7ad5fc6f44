"""The tutorials' commands and programs run as shown, in order, and the site builds."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kmbench.core.jit import JIT

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(
    r"<!-- test(?:: (?P<file>[\w.]+))? -->\n```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL
)


@pytest.mark.skipif(not JIT, reason="the conformance checks compile")
@pytest.mark.parametrize("page", ["tutorial.md", "fifteen.md"])
def test_what_a_tutorial_shows(tmp_path, page):
    shutil.copytree(ROOT / "workloads" / "waste", tmp_path / "workloads" / "waste")
    blocks = list(BLOCK.finditer((ROOT / "docs" / page).read_text()))
    assert len(blocks) >= 4
    for block in blocks:
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["text"])
        elif block["kind"] == "python":
            _run(tmp_path, [sys.executable, "-c", block["text"]])
        else:
            for line in block["text"].splitlines():
                name, *words = shlex.split(line)
                assert name == "kmbench"
                _run(tmp_path, [sys.executable, "-m", "kmbench", *words])


def _run(folder: Path, words: list[str]) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    assert done.stdout


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "s")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in ("commands", "metrics", "tables", "python"):
        assert (tmp_path / "s" / "reference" / page / "index.html").exists()


def test_the_reference_names_every_command_metric_and_column(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import build_reference

    import kmbench
    from kmbench.cli.app import VERBS
    from kmbench.store.catalogue import METRICS
    from kmbench.store.schema import TABLES

    pages = {name: page() for name, page in build_reference.PAGES.items()}
    for verb in VERBS:
        assert f"\n## kmbench {verb}\n" in pages["commands.md"]
    assert all(f"`{name}`" in pages["metrics.md"] for name in METRICS)
    columns = [field.name for fields in TABLES.values() for field in fields]
    assert all(f"`{name}`" in pages["tables.md"] for name in columns)
    assert all(f"\n## {name}\n" in pages["python.md"] for name in kmbench.__all__)
