"""The distribution that `kmbench plugins new` makes."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from kmbench.errors import UsageProblem
from kmbench.plugins import load_plugins

__all__ = ["make_distribution"]

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "kmbench-{name}"
version = "0.1.0"
description = "{name}: a kernel memory accounting strategy for kmbench"
requires-python = ">=3.11"
dependencies = ["kmbench>={version}"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points.kmbench]
{name} = "{module}"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""

MODULE = '''\
"""{name}: every accounted object pays for its slot, rounded up to whole pages."""

import kmbench
from kmbench.core.ops import (
    COUNTER_KMEM, NOMEM, PLUGIN_PATH, SLAB_ACCOUNT, Ops, Path, count, counter_charge,
    counter_uncharge, css_get, css_put, inlined,
)

CHARGE = PLUGIN_PATH  # the first path that this strategy counts


@inlined
def pages(S, cache):
    return (S.cache[cache].slot + S.k[0].page_size - 1) >> S.k[0].page_shift


def post_alloc(S, P, cpu, memcg, cache, gfp, slab, billed):
    """Charge the object's group, if the cache is accounted."""
    if memcg <= 1 or S.cache[cache].slab_flags & SLAB_ACCOUNT == 0:
        return billed
    count(S, CHARGE)
    if counter_charge(S, COUNTER_KMEM, memcg, pages(S, cache)):
        return NOMEM
    css_get(S, memcg, pages(S, cache))
    return memcg


def obj_free(S, P, cpu, cache, billed, slab):
    """Give back what the object was charged."""
    if billed > 0:
        counter_uncharge(S, COUNTER_KMEM, billed, pages(S, cache), 0)
        css_put(S, billed, pages(S, cache))


@kmbench.hookimpl
def kmbench_register_strategies(register):
    register(
        kmbench.Strategy(
            name="{name}",
            description="every accounted object pays for whole pages",
            source="the template of kmbench plugins new",
            hooks={{"post_alloc": post_alloc, "obj_free": obj_free}},
            paths=(Path("charge", "charge", Ops(br=2, ptr=1)),),
        )
    )
'''

TESTS = """\
import kmbench
import pytest
from kmbench.testing import CHECKS


@pytest.mark.parametrize("check", CHECKS)
def test_conforms(kmbench_conformance, check):
    kmbench_conformance("{name}", check)


def test_it_is_registered_by_this_distribution():
    plugins = kmbench.load_plugins()
    assert plugins.origin(plugins.strategy("{name}")).distribution == "kmbench-{name}"
"""

CI = """\
name: test
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python: ["3.11", "3.12", "3.13"]
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: ${{{{ matrix.python }}}}
      - run: python -m pip install -e '.[test]'
      - run: python -m pytest
      - run: kmbench plugins check {name}
"""

README = """\
# kmbench-{name}

A strategy for [kmbench](https://pypi.org/project/kmbench/).

```sh
python -m pip install -e '.[test]'
python -m pytest
kmbench plugins check {name}
kmbench run SCENARIO.toml -s none -s {name}
```
"""

FILES = {
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    "{module}/__init__.py": MODULE,
    "tests/test_{module}.py": TESTS,
    ".github/workflows/test.yml": CI,
}


def make_distribution(name: str, folder: Path) -> Path:
    """Write the distribution ``kmbench-NAME`` into `folder` and return where it is.

    Raises UsageProblem for a name that cannot be one, that is taken, or a folder that is there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageProblem(f"name {name!r}: expected small letters, digits and single hyphens")
    plugins = load_plugins()
    if name in plugins.strategies:
        raise UsageProblem(f"strategy {name!r} is there already, from "
                           f"{plugins.origin(plugins.strategy(name)).distribution}")  # fmt: skip
    root = folder / f"kmbench-{name}"
    values = {
        "name": name, "module": f"kmbench_{name.replace('-', '_')}", "version": version("kmbench"),
    }  # fmt: skip
    try:
        root.mkdir(parents=True)
        for path, text in FILES.items():
            file = root / path.format(**values)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.format(**values), encoding="utf-8")
    except FileExistsError:
        raise UsageProblem(f"{root} is there already") from None
    except OSError as error:
        raise UsageProblem(f"cannot write {root}: {error.strerror or error}") from None
    return root
