"""The live view: what it says is what the tables say at the end."""

import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import kmbench
from kmbench.cli.watch import Watch, cache_lines, group_lines, kernel_pages
from kmbench.core import events as ev
from kmbench.core.sample import TIMELINE_COLUMNS
from reclaim_box import A, B, Box

SCENARIO = kmbench.Scenario(
    "watched", "spread", parameters={"groups": 12, "objects": 30}, sample_every="1 ms"
)


@pytest.fixture(scope="module", params=["slub", "slab"])
def seen(request, tmp_path_factory):
    """The last picture of a run, its lines, and what was stored."""
    scenario = replace(SCENARIO, allocator=request.param)
    console = Console(file=io.StringIO(), width=110, force_terminal=False)
    watch, last = Watch(console, interval=0), {}

    def look(plan, S):
        last["picture"] = watch.picture(plan, S, 2.0)
        last["caches"], last["groups"] = cache_lines(S, plan), group_lines(S, plan)
        watch(plan, S)

    out = tmp_path_factory.mktemp("watched")
    results = kmbench.run(scenario, ["costa-2012"], out=out, watch=look)
    console.print(last["picture"])
    return last, console.file.getvalue(), results, scenario


def test_lines_are_the_last_sample(seen):
    last, _, results, _ = seen
    end = pl.col("sample") == pl.col("sample").max()
    caches = results.caches.filter(end).collect()
    assert {(c.name, c.objects, c.live, c.slabs, c.bytes) for c in last["caches"]} == set(
        caches.select(
            pl.col("name").cast(pl.String), "num_objs", "live_objs", "num_slabs", "slab_bytes"
        ).iter_rows()
    )
    groups = results.timeline.filter(end).collect()
    assert {(g.name, g.charged, g.used, g.objects) for g in last["groups"]} == set(
        groups.select(
            pl.col("group").cast(pl.String), "kmem_usage",
            pl.col("true_slab") + pl.col("true_pages"), "objects",
        ).iter_rows()
    )  # fmt: skip


def test_the_picture(seen):
    _, text, results, _ = seen
    events = results.runs.collect()["events"].item()
    assert f"watched, costa-2012: {events:,} events" in text
    assert "objs  active" in text
    assert "dentry-2" in text
    assert "/g0" in text


def test_watching_changes_nothing(seen, tmp_path):
    *_, watched, scenario = seen
    plain = kmbench.run(scenario, ["costa-2012"], out=tmp_path)
    for table in ("runs", "timeline", "caches", "ops"):
        assert getattr(plain, table).collect().equals(getattr(watched, table).collect()), table


def test_kernel_memory_is_charged_whichever_counter_carries_it():
    """Jointly it is in the memory counter, with user pages: also of a removed group without a row
    of its own."""
    for independent in (False, True):
        box = Box(as_posted=True, independent=independent).dentries(A, 100).dentries(B, 200)
        for memcg, pages in ((A, 7), (B, 300)):
            box.event(ev.USER_ALLOC, memcg=memcg, cache=ev.USER_DIRTY, arg=pages)
        for gone in (False, True):
            if gone:
                box.event(ev.CG_OFFLINE, memcg=B).event(ev.CG_RELEASE, memcg=B)
            box.event(ev.SAMPLE)
            t = dict(zip(TIMELINE_COLUMNS, box.sim.tables()[0], strict=True))
            last = np.flatnonzero(t["sample"] == t["sample"].max())
            of = {int(t["memcg"][row]): int(row) for row in last}
            charged = kernel_pages(box.sim.S) * 4096
            slabs = box.sim.S.cache["nr_slabs"][box.sim.S.cache["memcg"] > 1].sum() * 4096
            assert charged[A] == slabs > 0
            assert t["kmem_usage"][of[A]] == (slabs if independent else 0)
            assert t["memory_usage"][of[A]] == 307 * 4096 + (0 if independent else slabs)
            assert t["memory_kernel"][of[A]] == (0 if independent else slabs)
            if not independent:
                assert {m: t["memory_kernel"][row] for m, row in of.items()} == {
                    m: charged[m] for m in of
                }
