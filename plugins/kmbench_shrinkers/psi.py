"""Pressure stall information: a trigger on the time that tasks lose for want of memory.

Source: Linux 6.18 kernel/sched/psi.c (psi_trigger_create, psi_rtpoll_work, update_triggers,
window_update); tasks are in memstall during direct reclaim, reclaim of a full group, and kswapd's
turns (mm/page_alloc.c:__perform_reclaim, mm/memcontrol.c:try_charge_memcg, mm/vmscan.c:
balance_pgdat).

*some* is time in which a task of a CPU was stalled, *full* time in which nothing else could run
there: all of it where a CPU has one task, else what reclaim spent on the CPU, for others run while
it writes pages.  CPUs are averaged over those that are not idle (collect_percpu_times).

The trigger is polled ten times a window once there is stall: it fires when the stall of a sliding
window reaches the threshold, at most once a window.  Userland frees ``chunks`` of its own then.
The whole machine's pressure is modelled (/proc/pressure/memory), not that of groups; refaults and
swap-ins do not stall.
"""

from kmbench.core.alarm import JIFFY
from kmbench.core.ops import inlined, table
from kmbench.core.shrinker_ops import call_back, clock
from kmbench.core.state import UNLIMITED
from kmbench.errors import UsageProblem
from kmbench.parameters import Parameter
from kmbench.shrinker import Shrinker
from kmbench_shrinkers import userland
from kmbench_shrinkers.userland import ask, free_chunks, offered, pressure_felt

UPDATES_PER_WINDOW = 10
WINDOW_MAX_US = 10_000_000


@inlined
def total(U):
    """Stall time of the trigger's state so far, ns."""
    return U.psi[0].full if U.par[0].full else U.psi[0].some


@inlined
def window_reset(U, now, growth):
    """A window begins now; the one before it grew by `growth`."""
    w = U.window[0]
    w.start = now
    w.value = total(U)
    w.prev_growth = growth


@inlined
def window_update(U, now):
    """Stall of the last window's length, the part before this window interpolated."""
    w = U.window[0]
    size = 1000 * U.par[0].window_us
    elapsed = now - w.start
    growth = total(U) - w.value
    if elapsed > size:
        window_reset(U, now, growth)
    else:
        growth += w.prev_growth * (size - elapsed) // size
    return growth


@inlined
def update_trigger(S, U, now):
    """Fire if the threshold was reached and the last event is a window ago (update_triggers)."""
    p = U.psi[0]
    new_stall = total(U) != p.polled
    p.polled = total(U)
    if new_stall:
        growth = window_update(U, now)
        if growth >= 1000 * U.par[0].threshold_us:
            p.pending = 1
    if p.pending == 0 or now < p.last_event + 1000 * U.par[0].window_us:
        return
    p.pending = 0
    p.last_event = now
    U.figure[0].notified += 1
    ask(S, U, offered(S, U, U.par[0].chunks))


@inlined
def poll(S, U, now):
    """psi_rtpoll_work: the monitor runs a window on from the last stall."""
    p = U.psi[0]
    period = 1000 * U.par[0].window_us // UPDATES_PER_WINDOW
    if total(U) != p.seen:
        if now > p.until:
            window_reset(U, now, 0)
            p.polled = total(U)
            p.next_update = now + period
        p.until = now + period * UPDATES_PER_WINDOW
    p.seen = total(U)
    p.due = 0
    if now > p.until:
        return
    if now >= p.next_update:
        update_trigger(S, U, now)
        p.next_update = now + period
    p.due = p.next_update + JIFFY


def stalled(S, U, ns, io_ns):
    """Time that a task spent in memstall; the monitor wakes up a tick later."""
    p = U.psi[0]
    if ns == 0:
        return
    pressure_felt(S, U)
    busy = U.par[0].busy_cpus if U.par[0].busy_cpus else S.k[0].nr_cpus
    p.some_carry += ns
    p.full_carry += ns - io_ns if U.par[0].tasks_per_cpu > 1 else ns
    p.some += p.some_carry // busy
    p.full += p.full_carry // busy
    p.some_carry %= busy
    p.full_carry %= busy
    U.figure[0].psi_some_time = p.some / 1e9
    U.figure[0].psi_full_time = p.full / 1e9
    if p.due == 0:
        p.due = clock(S) + JIFFY
        call_back(S, p.due)


def notified(S, U):
    """The monitor or userland is due."""
    p = U.psi[0]
    if p.due and p.due <= S.k[0].now:
        poll(S, U, S.k[0].now)
    free_chunks(S, U)
    due = UNLIMITED
    if p.due:
        due = p.due
    if U.app[0].due:
        due = min(due, U.app[0].due)
    if due < UNLIMITED:
        call_back(S, due)


def prepare(S, U, setup, parameters):
    """As psi_trigger_create: 0 < threshold <= window <= 10 s; nothing has fired yet."""
    userland.prepare(S, U, setup, parameters)
    threshold, window = parameters["threshold_us"], parameters["window_us"]
    if threshold > window:
        raise UsageProblem(
            f"shrinker psi: threshold_us = {threshold}: expected at most window_us, {window}"
        )
    if window > WINDOW_MAX_US:
        raise UsageProblem(
            f"shrinker psi: window_us = {window}: expected at most {WINDOW_MAX_US} us"
        )
    U.psi["until"] = -1
    U.psi["last_event"] = -1000 * window


psi = Shrinker(
    name="psi",
    description="a trigger on the time that tasks lose for want of memory",
    source="Linux 6.18 kernel/sched/psi.c",
    hooks={"stalled": stalled, "notified": notified, "told": userland.told},
    tables={
        "psi": table(
            1, **dict.fromkeys(
                ("some", "full", "some_carry", "full_carry", "seen", "polled", "until", "due",
                 "next_update", "pending", "last_event"), "i8",
            ),
        ),
        "window": table(1, start="i8", value="i8", prev_growth="i8"),
        **userland.tables(notified="i8", psi_some_time="f8", psi_full_time="f8"),
    },
    parameters=(
        Parameter("full", False, "the trigger is on full, not on some"),
        Parameter("threshold_us", 50_000, "stall that fires it", "us", 1),
        Parameter("window_us", 1_000_000, "in such a window", "us", 1),
        Parameter("chunks", 2, "chunks that userland frees when it is told", "", 0),
        Parameter("busy_cpus", 0, "CPUs that are not idle; 0 = all", "", 0),
        Parameter("tasks_per_cpu", 1, "tasks that are ready to run on a busy CPU", "", 1),
        *userland.PARAMETERS,
    ),
    listener=True,
    prepare=prepare,
)  # fmt: skip
