"""Pressure as userland is told of it: golden levels, windows, modes, stall triggers.

The hooks run as plain Python on tables of their own; no engine is compiled.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmbench.core.events import GFP_KERNEL, GFP_NOIO
from kmbench.core.state import FIELDS, UNLIMITED
from kmbench.core.vm import POOL, USER, VM
from kmbench.errors import UsageProblem
from kmbench_shrinkers import mempressure, psi, userland, vmpressure

MS = 1_000_000
GROUPS = ("/", "/a", "/a/b", "/a/b/c")  # rows 1 to 4, each below the one before it
LOW, MEDIUM, CRITICAL = userland.LOW, userland.MEDIUM, userland.CRITICAL


def rows(length, dtype):
    return np.zeros(length, dtype).view(np.recarray)


class Kernel:
    """As much of a machine as a listener sees; its group /a has 100 chunks of 256 pages in swap."""

    def __init__(self, listener, **given):
        parameters = {p.name: p.default for p in listener.parameters} | given
        tables = {
            name: rows(len(GROUPS) + 1 if "memcg" in spec.sized_by else 16, spec.dtype)
            for name, spec in listener.all_tables().items()
        }
        for name in parameters.keys() & set(tables["par"].dtype.names):
            tables["par"][name] = parameters[name]
        self.U = SimpleNamespace(**tables)
        self.S = SimpleNamespace(
            k=rows(1, FIELDS["k"]), vm=rows(1, VM), memcg=rows(len(GROUPS) + 1, FIELDS["memcg"]),
            user=rows(len(GROUPS) + 1, USER), pool=rows(3 * (len(GROUPS) + 1), POOL),
        )  # fmt: skip
        self.S.k["page_size"], self.S.k["nr_groups"], self.S.k["nr_cpus"] = 4096, 5, 2
        self.S.vm["notify_due"] = self.S.vm["kswapd_due"] = UNLIMITED
        self.S.memcg["parent"] = [0, 0, 1, 2, 3]
        self.S.user["swapped"][2] = 25_600
        self.hooks = listener.hooks
        setup = SimpleNamespace(groups=[SimpleNamespace(name=name) for name in GROUPS])
        listener.prepare(self.S, self.U, setup, parameters)
        userland.told(self.S, self.U, 2, 100)

    def __getattr__(self, name):
        return lambda *args: self.hooks[name](self.S, self.U, *args)

    def run_until(self, now):
        """Time passes: what the listener asked to be called back for happens."""
        while self.S.vm[0].notify_due <= now:
            self.S.k["now"] = self.S.vm[0].notify_due
            self.S.vm["notify_due"] = UNLIMITED
            self.notified()
        self.S.k["now"] = now

    @property
    def figure(self):
        return self.U.figure[0]


@pytest.mark.parametrize(
    ("scanned", "reclaimed", "percent", "level"),
    [
        (512, 512, 0, LOW), (512, 300, 41, LOW), (512, 205, 59, LOW), (512, 204, 60, MEDIUM),
        (512, 6, 98, MEDIUM), (512, 5, 99, CRITICAL), (512, 0, 100, CRITICAL),
        (600, 240, 60, MEDIUM),
    ],
)  # fmt: skip
def test_levels_of_mempressure(scanned, reclaimed, percent, level):
    assert mempressure.percent(scanned, reclaimed) == percent
    assert mempressure.level_of(scanned, reclaimed) == level


@pytest.mark.parametrize(
    ("scanned", "reclaimed", "percent", "level"),
    [
        (512, 512, 0, LOW), (512, 300, 41, LOW), (512, 205, 59, LOW), (512, 200, 60, MEDIUM),
        (512, 100, 80, MEDIUM), (512, 26, 94, MEDIUM), (512, 25, 95, CRITICAL),
        (512, 0, 100, CRITICAL), (100, 600, 0, LOW),
    ],
)  # fmt: skip
def test_levels_of_vmpressure(scanned, reclaimed, percent, level):
    assert vmpressure.percent(scanned, reclaimed) == percent
    assert vmpressure.level_of(scanned, reclaimed) == level


CALLS = st.lists(st.tuples(st.integers(0, 700), st.integers(0, 700)), max_size=60)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(calls=CALLS, as_posted=st.booleans())
def test_both_readings_of_the_window(calls, as_posted):
    """One call's pages, or their sum, must reach 512; chunks are asked for what was in vain."""
    kernel = Kernel(mempressure.mempressure, as_posted=as_posted)
    scanned = reclaimed = asked = 0
    levels = [0, 0, 0]
    for i, (s, r) in enumerate(calls, 1):
        r = min(r, s)
        kernel.pressure(1, s, r)
        scanned, reclaimed = scanned + s, reclaimed + r
        if (s if as_posted else scanned) >= 512:
            levels[mempressure.level_of(scanned, reclaimed)] += 1
            asked += min((scanned - reclaimed) // 256, 100 - asked)
            scanned = reclaimed = 0
        kernel.run_until(i * MS)
        assert kernel.figure.chunks_signalled == kernel.figure.chunks_freed == asked
    names = ("notified_low", "notified_medium", "notified_critical")
    assert [kernel.figure[name] for name in names] == levels
    assert kernel.U.mp[0].scanned == scanned and kernel.U.mp[0].reclaimed == reclaimed


def test_low_priorities_count_as_windows_in_vain():
    for listener, prio in ((mempressure.mempressure, 4), (vmpressure.vmpressure, 3)):
        kernel = Kernel(listener)
        kernel.pressure_prio(1, prio + 1, GFP_KERNEL)
        kernel.run_until(MS)
        assert kernel.figure.notified_critical == 0
        kernel.pressure_prio(1, prio, GFP_KERNEL)
        kernel.run_until(2 * MS)
        assert kernel.figure.notified_critical == 1


def test_what_userland_does_not_have_it_offers_again():
    kernel = Kernel(mempressure.mempressure, as_posted=False)
    kernel.S.user["swapped"] = 0
    kernel.S.user["swapped"][2] = 300  # one chunk, and a bit
    kernel.pressure(1, 1024, 0)
    kernel.run_until(MS)
    f = kernel.figure
    assert (f.chunks_signalled, f.chunks_freed, f.chunks_readded) == (4, 1, 3)
    assert f.chunks_left == 100 - 4 + 3 and kernel.S.vm[0].swap_free == 256


def test_time_to_notice_runs_from_the_first_sign():
    kernel = Kernel(mempressure.mempressure, as_posted=False, work_us=50, wake_us=200)
    kernel.pressure(1, 511, 0)
    kernel.run_until(3 * MS)
    kernel.pressure(1, 1, 0)
    kernel.run_until(10 * MS)
    assert kernel.figure.time_to_notice == 3 * MS + 250_000 and kernel.figure.wake_ups == 1


# what of the listeners is signalled by a window at medium in /a/b
MODES = {
    ("/a/b low",): (1,),
    ("/a/b critical",): (0,),
    ("/a low", "/a/b low"): (0, 1),  # default: nobody above one that was told
    ("/a low", "/a/b critical"): (1, 0),  # but above one that wants worse
    ("/a low,hierarchy", "/a/b low"): (1, 1),
    ("/a low,local", "/a/b critical"): (0, 0),
    ("/a/b low,local", "/a low"): (1, 0),
    ("/ medium", "/a/b/c low"): (1, 0),  # never downwards
    ("/a/b low", "/a/b medium"): (1, 1),  # all of one group
}


@pytest.mark.parametrize("listeners", MODES)
def test_modes_along_the_hierarchy(listeners):
    kernel = Kernel(vmpressure.vmpressure, listeners=list(listeners))
    kernel.pressure_tree(3, 300, 50, GFP_KERNEL)
    kernel.pressure_tree(3, 211, 30, GFP_KERNEL)
    kernel.run_until(MS)
    assert kernel.figure.notified_medium == 0
    kernel.pressure_tree(2, 400, 0, GFP_KERNEL)  # another group's window
    kernel.pressure_tree(3, 999, 0, GFP_NOIO)  # userland cannot help with that
    kernel.pressure_tree(3, 1, 0, GFP_KERNEL)
    kernel.run_until(2 * MS)
    assert kernel.figure.notified_medium == 1
    assert tuple(kernel.U.event["signals"][: len(listeners)]) == MODES[listeners]
    assert kernel.figure.wake_ups == (sum(MODES[listeners]) > 0)


def test_the_whole_machine_is_the_roots_pressure():
    kernel = Kernel(vmpressure.vmpressure, listeners=["/ low"], chunks=3)
    kernel.pressure_tree(0, 512, 512, GFP_KERNEL)
    kernel.run_until(MS)
    assert kernel.U.event["signals"][0] == 1 and kernel.figure.chunks_freed == 3


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        ("/x low", "unknown group '/x'"),
        ("/a loud", "unknown level 'loud'"),
        ("/a low,down", "unknown mode 'down'"),
    ],
)
def test_bad_listeners_are_one_line(listener, message):
    with pytest.raises(UsageProblem, match=message):
        Kernel(vmpressure.vmpressure, listeners=[listener])


def stalls(kernel, every, ns, until, io_ns=0):
    """A stall of `ns` every so often on one CPU; when the trigger fired."""
    fired, times = 0, []
    for now in range(every, until + 1, every):
        kernel.run_until(now)
        kernel.stalled(ns, io_ns)
        if kernel.figure.notified > fired:
            fired = kernel.figure.notified
            times.append(kernel.U.psi[0].last_event)
    return times


def test_a_trigger_fires_once_a_window():
    kernel = Kernel(psi.psi, threshold_us=50_000, window_us=1_000_000, busy_cpus=1)
    times = stalls(kernel, 10 * MS, MS, 5000 * MS)  # 10 % stalled: 50 ms within half a second
    assert 500 * MS <= times[0] <= 700 * MS
    steps = np.diff(times)
    assert len(times) >= 4 and (steps >= 1000 * MS).all() and (steps <= 1110 * MS).all()


def test_less_than_the_threshold_never_fires():
    kernel = Kernel(psi.psi, threshold_us=50_000, window_us=1_000_000, busy_cpus=1)
    assert stalls(kernel, 10 * MS, 400_000, 5000 * MS) == []  # 4 %
    assert kernel.figure.psi_some_time == pytest.approx(0.2)


def test_windows_are_interpolated():
    """After a window that grew by 80 ms, a quarter into the next, which grew by 10: 10 + 60."""
    kernel = Kernel(psi.psi, window_us=1_000_000)
    kernel.U.psi["some"] = 80 * MS
    assert psi.window_update(kernel.U, 1001 * MS) == 80 * MS
    kernel.U.psi["some"] = 90 * MS
    assert psi.window_update(kernel.U, 1251 * MS) == 10 * MS + 60 * MS


def test_some_full_and_idle_cpus():
    one = Kernel(psi.psi, busy_cpus=1)
    one.stalled(10 * MS, 6 * MS)
    assert (one.figure.psi_some_time, one.figure.psi_full_time) == (0.01, 0.01)
    shared = Kernel(psi.psi, busy_cpus=1, tasks_per_cpu=2)
    shared.stalled(10 * MS, 6 * MS)
    assert (shared.figure.psi_some_time, shared.figure.psi_full_time) == (0.01, 0.004)
    both = Kernel(psi.psi)  # two CPUs, the other one runs on
    both.stalled(10 * MS, 0)
    assert both.figure.psi_some_time == 0.005


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold_us": 2000, "window_us": 1000}, "expected at most window_us, 1000"),
        ({"window_us": 20_000_000}, "expected at most 10000000 us"),
    ],
)
def test_bad_triggers_are_one_line(given, message):
    with pytest.raises(UsageProblem, match=message):
        Kernel(psi.psi, **given)
