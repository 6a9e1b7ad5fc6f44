"""The site builds, and its reference is complete."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


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
