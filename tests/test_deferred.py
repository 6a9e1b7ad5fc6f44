"""Objects that end in kfree_rcu(): found, dated by their companions, given back in batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.trace import deferred
from kmbench.trace.deferred import deferred_frees
from reference.kfree_rcu import NEVER, drain

MS = 1_000_000
ITEM, HEAD, OTHER = 0, 1, 2  # callers
BATCHED = np.array([False, True, True, False])  # the last cache has sheaves


def frees(rows, **columns):
    """(t, cpu, key) of the frees that are put in.

    rows: (t, op, key, caller) or with the size asked; task 7 in task context on CPU 0 unless
    `columns` say otherwise.
    """
    events = np.zeros(len(rows), EVENT)
    for name, part in zip(("t", "op", "obj"), zip(*(row[:3] for row in rows), strict=True),
                          strict=True):  # fmt: skip
        events[name] = part
    events["task"], events["cache"] = 7, 1
    events["arg"] = [row[4] if len(row) > 4 else 0 for row in rows]
    for name, values in columns.items():
        events[name] = values
    site = np.array([row[3] if row[1] == ev.ALLOC else -1 for row in rows], np.int32)
    out = deferred_frees(events, site, 3, BATCHED)
    assert set(out["op"].tolist()) <= {ev.FREE}
    return [(int(row["t"]), int(row["cpu"]), int(row["obj"])) for row in out]


def life(t, key, gone, size=0):
    """An item and its companion, which is freed `gone` later; keys of one life stay apart."""
    return [(t, ev.ALLOC, key, ITEM, size), (t + 10, ev.ALLOC, key + 100, HEAD),
            (t + gone, ev.FREE, key + 100, HEAD)]  # fmt: skip


def in_order(*lives):
    return sorted(row for one in lives for row in one)


AGAIN = [(20_000 * MS, ev.ALLOC, 1, OTHER)]


def test_the_companion_dates_it_and_the_timer_ends_it():
    # key 1 shows that items end unseen; key 2 is never allocated again
    rows = in_order(life(0, 1, 50), life(10_000 * MS, 2, 50), AGAIN)
    assert frees(rows) == [
        (50 + deferred.DRAIN_NS, 0, 1), (10_000 * MS + 50 + deferred.DRAIN_NS, 0, 2),
    ]  # fmt: skip


def test_what_was_allocated_again_went_with_its_batch():
    rows = in_order(life(0, 1, 50), life(1000, 2, 50), life(1 * MS, 3, 50), life(5 * MS, 4, 50),
                    [(3 * MS, ev.ALLOC, 2, OTHER)])  # fmt: skip
    done = {key: t for t, _, key in frees(rows)}
    assert done[1] == done[2] == 3 * MS - 1
    # the third was handed over later: a timer of its own, which takes the fourth along
    assert done[3] == done[4] == 1 * MS + 50 + deferred.DRAIN_NS


def test_a_full_page_of_pointers_goes_after_a_jiffy_and_a_grace_period():
    lives = [life(at * 1000, 1 + at, 50) for at in range(deferred.FULL)]
    rows = in_order(*lives, life(500 * MS, 600, 50), [(900 * MS, ev.ALLOC, 600, OTHER)])
    # keys of companions must not meet those of items
    rows = [(t, op, key + 10_000 if caller == HEAD else key, caller) for t, op, key, caller, *_ in
            [(*row, 0) for row in rows]]  # fmt: skip
    done = frees(rows)
    last = (deferred.FULL - 1) * 1000 + 50
    assert {t for t, _, key in done if key <= deferred.FULL} == {
        last + deferred.JIFFY_NS + deferred.GRACE_NS
    }


def test_who_is_not_deferred():
    seen_freed = [(0, ev.ALLOC, 5, ITEM), (10, ev.ALLOC, 6, HEAD), (20, ev.FREE, 5, ITEM)]
    assert frees(in_order(life(1000, 1, 50), seen_freed, AGAIN)) == []
    assert frees(in_order(life(0, 1, 50))) == []  # no evidence at all
    rows = in_order(life(0, 1, 50), AGAIN)
    assert len(frees(rows)) == 1
    assert frees(rows, cache=3) == []  # sheaves
    assert frees(rows, task=range(4)) == []  # another task's objects are no companions
    far = [(0, ev.ALLOC, 1, ITEM), (deferred.WITHIN_NS + 1, ev.ALLOC, 2, HEAD),
           (MS, ev.FREE, 2, HEAD)]  # fmt: skip
    assert frees(in_order(far, AGAIN)) == []


def test_companions_freed_by_interrupts_only_or_too_late_date_nothing():
    rows = in_order(life(0, 1, 50), AGAIN)
    interrupt = [0 if row[1] == ev.ALLOC else ev.CTX_SOFTIRQ for row in rows]
    assert frees(rows, gfp=interrupt) == []
    assert frees(in_order(life(0, 1, 30_000 * MS), AGAIN)) == []


def test_sizes_have_companions_of_their_own():
    # of one caller, two kinds: the second is made next to OTHER, which dies later
    second = [(2000 * MS, ev.ALLOC, 50, ITEM, 64), (2000 * MS + 5, ev.ALLOC, 51, OTHER),
              (2100 * MS, ev.FREE, 51, OTHER)]  # fmt: skip
    rows = in_order(life(0, 1, 50, size=32), second, AGAIN)
    assert [key for _, _, key in frees(rows)] == [1, 50]


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 1), st.integers(1, 400), st.booleans()),
        max_size=25,
    )
)
def test_batches_equal_the_plain_model(rows):
    rows = sorted(rows, key=lambda row: row[0])
    # moments all differ: two for each object
    items = [(t * 64 + 2 * n, cpu, t * 64 + 2 * n + wait * 64 + 1 if again else NEVER)
             for n, (t, cpu, wait, again) in enumerate(rows)]  # fmt: skip
    sizes = {"wait": 5000, "full": 4, "jiffy": 200, "grace": 900}
    t, cpu, again = (
        (np.array(part, np.int64) for part in zip(*items, strict=True))
        if items
        else ([np.zeros(0, np.int64)] * 3)
    )
    names = [(now, n) for n, now in enumerate(t)]
    names += [(now, -1 - n) for n, now in enumerate(again) if now < NEVER]
    order = np.array([n for _, n in sorted(names)], np.int64)
    got = deferred._drain(t, cpu, again, order, sizes["wait"], sizes["full"], sizes["jiffy"],
                          sizes["grace"])  # fmt: skip
    assert got.tolist() == drain(items, **sizes)
