"""The tables that samples are written to: what they hold does not depend on the buffers."""

import numpy as np
import pytest

import kmbench
from kmbench import simulate
from kmbench.core import events as ev
from kmbench.core.setup import CacheSpec, GroupSpec, Machine, Setup

CACHE = CacheSpec("dentry", 256, 256, 0, 16, 0, 0, 0, 0, flags=ev.SLAB_ACCOUNT)


@pytest.mark.parametrize("groups", [100, 700])  # a sample fits the smallest buffer, or not
def test_tables_do_not_depend_on_the_size_of_the_buffers(groups, monkeypatch):
    specs = tuple(GroupSpec(f"g{row}") for row in range(groups))
    setup = Setup(Machine(memory_pages=4096), "6.18", (CACHE,), (GroupSpec("/", 0), *specs), 64)
    events = np.zeros(40, ev.EVENT)
    events["op"] = np.tile([ev.ALLOC, ev.SAMPLE], 20)
    events["obj"][::2] = np.arange(1, 21)
    events["memcg"], events["cache"], events["gfp"] = 2, 1, ev.GFP_KERNEL_ACCOUNT
    events["t"] = np.arange(40)
    tables = []
    for rows in (1, 1 << 16):
        monkeypatch.setattr(simulate, "BUFFER_ROWS", rows)
        simulation = kmbench.Simulation(setup, kmbench.load_plugins().strategy("linux-6.18"))
        simulation.feed(events)
        tables.append(simulation.tables())
    for small, large in zip(*tables, strict=True):
        assert np.array_equal(small, large)
    assert tables[0][0].shape[1] == 20 * (groups + 1)
