"""Objects that a design makes larger: costa-2012's dentries, which point back at their cache."""

from pathlib import Path

import numpy as np
import pytest

import design_run
import kmbench
from design_run import PLUGINS, Run
from kmbench.core import events as ev
from kmbench.core.geometry import make_cache
from kmbench.core.grow import grow
from kmbench.core.slab_geometry import on_slab
from kmbench.trace.format import open_trace
from observe_core import check

RECORDED = Path(__file__).parent.parent / "workloads" / "recorded"


@pytest.mark.parametrize("allocator", ["slub", "slab"])
@pytest.mark.parametrize(("growth", "slot", "per_slab"), [(0, 192, 21), (24, 216, 18)])
def test_a_dentry_with_a_back_pointer(growth, slot, per_slab, allocator, monkeypatch):
    """4096 / 216 is 18 and leaves 208 bytes; nothing else grows."""
    monkeypatch.setattr(design_run, "ALLOCATOR", allocator)
    flags = ev.SLAB_ACCOUNT | ev.SLAB_RECLAIM_ACCOUNT
    caches = [make_cache(name, 192, era="4.19", flags=flags) for name in ("dentry", "filp")]
    run = Run("costa-2012", caches, {"object_growth": growth})
    run.alloc(2 * per_slab + 1)
    assert run.S.cache["slot"][1:3].tolist() == [slot, 192]
    assert run.pages(3) == 3 and run.S.memcg["true_slab"][3] == (2 * per_slab + 1) * slot
    assert run.S.cache["objects"][1] == per_slab
    run.alloc(3, memcg=1)  # the root's dentries, too
    assert run.S.memcg["true_slab"][1] == 3 * slot


@pytest.mark.parametrize("allocator", ["slub", "slab"])
def test_slabs_of_a_recording_are_cut_anew(allocator):
    before = open_trace(RECORDED / "limit_neg.kmtrace.parquet").setup
    before = on_slab(before) if allocator == "slab" else before
    row = [cache.name for cache in before.caches].index("dentry") + 1
    after = grow(before, {row: 24})
    assert after.caches[row - 1].size == before.caches[row - 1].size + 24
    assert [c for i, c in enumerate(after.caches, 1) if i != row] == [
        c for i, c in enumerate(before.caches, 1) if i != row
    ]
    for cache in range(1, len(before.caches) + 1):
        old, new = (s.initial_slabs[s.initial_slabs["cache"] == cache] for s in (before, after))
        assert new["inuse"].sum() == old["inuse"].sum()
        if cache != row:
            assert (old == new).all()
    slots, per_slab = old_slots(before, row), after.caches[row - 1].objects
    assert (after.initial_slabs["cache"] == row).sum() == -(-slots // per_slab)
    was, now = (s.initial_slabs["cache"][s.initial_objects["slab"] - 1] for s in (before, after))
    assert (was == now).all()
    known = np.bincount(after.initial_objects["slab"], minlength=len(after.initial_slabs) + 1)
    assert (known[1:] <= after.initial_slabs["inuse"]).all()
    same = before.initial_slabs["cache"][before.initial_objects["slab"] - 1] != row
    fields = ("objects", "inuse", "where", "cpu")
    old, new = (s.initial_slabs[s.initial_objects["slab"][same] - 1] for s in (before, after))
    assert all((old[field] == new[field]).all() for field in fields)
    given = {"object_growth": 24}
    simulation = kmbench.Simulation(before, PLUGINS.strategy("costa-2012"), given)
    check(simulation)
    assert simulation.S.cache["slot"][row] == after.caches[row - 1].size


def old_slots(setup, row):
    """Slots, used and free, of the initial slabs of a cache."""
    return int(setup.initial_slabs["objects"][setup.initial_slabs["cache"] == row].sum())
