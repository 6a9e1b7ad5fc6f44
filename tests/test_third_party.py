"""A strategy of another installed distribution is found, runs alike and compiles once."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import kmbench
from kmbench.core.jit import JIT

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The benchmark that lays out a third-party distribution, and the folder it lies in."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("third_party", BENCHMARKS / "third_party.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.install_copy(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield module, tmp_path
    for name in [n for n in sys.modules if n.startswith("kmbench_elsewhere")]:
        del sys.modules[name]


def test_it_registers_with_its_distribution(elsewhere):
    plugins = kmbench.load_plugins()
    assert not plugins.failed
    origin = plugins.origin(plugins.strategy("costa-elsewhere"))
    assert (origin.distribution, origin.version) == ("kmbench-elsewhere", "1.0")


def test_it_gives_the_same_tables(elsewhere, tmp_path):
    made = kmbench.Scenario(
        name="t", workload="spread", parameters={"groups": 9, "objects": 40, "freed": 0.5},
        sample_every="10 us",
    )  # fmt: skip
    results = kmbench.run(made, ["costa-2012", "costa-elsewhere"], out=tmp_path / "results")
    timeline = results.timeline.collect()
    first, second = (part.drop("run_id") for _, part in timeline.group_by("run_id"))
    assert first.equals(second)
    assert np.ptp(results.runs.select("slab_bytes_mean").collect().to_numpy()) == 0


@pytest.mark.skipif(not JIT, reason="nothing is compiled without JIT")
def test_its_second_start_finds_the_compiled_engine(elsewhere):
    module, folder = elsewhere
    (cold, first), (warm, second) = module.starts(folder)
    assert (first, second) == (False, True)
    assert warm < cold
