"""What counts as charged: kernel memory, whichever counter carries it."""

import numpy as np
import pytest

import kmbench
import streams
from kmbench.analysis.overview import main_table
from kmbench.core import events as ev
from kmbench.core.jit import JIT
from kmbench.core.sample import TIMELINE_COLUMNS

EVENTS = 400 if JIT else 120
BYPASS = ("souhlal-2012-v1",)  # dying tasks go past its memory counter
KMEM_ALONE = ("none", "ubc-2006", "tcp-memcontrol")


@pytest.mark.parametrize(("name", "parameters"), streams.STRATEGIES)
def test_where_both_counters_carry_it_they_agree(name, parameters):
    setup, events = streams.seeded_case(3, EVENTS)
    if "caches" in parameters:
        present = [cache.name for cache in setup.caches]
        kept = [cache for cache in parameters["caches"] if cache in present]
        parameters = {**parameters, "caches": kept}
    strategy = kmbench.load_plugins().strategy(name)
    simulation = kmbench.Simulation(setup, strategy, parameters, 3)
    sample = np.zeros(1, ev.EVENT)
    sample["op"] = ev.SAMPLE
    for i in range(0, len(events), 10):
        simulation.feed(events[i : i + 10])
        sample["t"] = events["t"][i : i + 10][-1]
        simulation.feed(sample)
    t = dict(zip(TIMELINE_COLUMNS, simulation.tables()[0], strict=True))
    groups = t["memcg"] > 1
    kmem, memory = t["kmem_usage"][groups], t["memory_kernel"][groups]
    assert kmem.any() or memory.any() or name in KMEM_ALONE
    if parameters.get("independent", name in (*KMEM_ALONE, "costa-2012")):
        assert not memory.any()
    elif name == "costa-2012":
        assert not kmem.any()
    elif name in BYPASS:
        assert (memory <= kmem).all()
    else:
        assert (memory == kmem).all()


def test_joint_accounting_is_shown_as_charged(tmp_path):
    """It read "0 B, error 100 %": the kmem counter of a design that charges the other one."""
    tables, rows = [], []
    for independent in (True, False):
        scenario = kmbench.Scenario(
            "joint", "spread", parameters={"groups": 8, "objects": 100}, sample_every="1 ms",
            strategies={"costa-2012": {"independent": independent}},
        )  # fmt: skip
        results = kmbench.run(scenario, ["none", "costa-2012"], out=tmp_path / str(independent))
        rows.append(results.runs.filter(strategy="costa-2012").collect().to_dicts()[0])
        tables.append(main_table(results))
    assert rows[0]["kmem_charged_mean"] == rows[1]["kmem_charged_mean"] > 0
    for metric in ("charge_error_median", "charge_error_p95", "overcharge_bytes"):
        assert rows[0][metric] == rows[1][metric]
    assert tables[0] == tables[1]
