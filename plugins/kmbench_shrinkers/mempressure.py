"""A userland shrinker that the kernel asks for chunks of memory, and three levels of pressure.

Source: Anton Vorontsov, "[PATCH 1/2] Add mempressure cgroup" and "[PATCH 2/2] Add shrinker
interface for mempressure cgroup", 4 January 2013 (v3.8-rc2); the user side is the posting's
Documentation/cgroups/mempressure_test.c.

Reclaim adds up what it scanned and reclaimed; once a window of 512 pages is full a work item asks
for as many chunks as were scanned in vain and tells listeners the level of the window: low, medium
from 60 % in vain, oom (here: critical) from 99 %.

``as_posted`` compares the pages scanned in a single call of shrink_lruvec with the window, as the
posted code does (__mpc_vmpressure); else those accumulated, as its comment says.  Such a call stops
once it has freed 32 pages, except at DEF_PRIORITY, where it scans 1/4096 of a group's pages: as
posted the window is full when fewer than one page in 16 can be freed, on machines of several GiB,
or when reclaim has come down to priority 4 (vmpressure_prio).

More reclaimed than scanned would wrap around in the posting; here nothing is asked for then.
"""

from kmbench.core.ops import inlined, table
from kmbench.core.shrinker_ops import call_back, clock
from kmbench.parameters import Parameter
from kmbench.shrinker import Shrinker
from kmbench_shrinkers import userland
from kmbench_shrinkers.userland import (
    CRITICAL,
    LOW,
    MEDIUM,
    ask,
    free_chunks,
    offered,
    pressure_felt,
)

WINDOW = 16 * 32  # pages: 16 * SWAP_CLUSTER_MAX
PRIO_OOM = 4  # a priority from here on down counts as a window without success
MEDIUM_FROM, OOM_FROM = 60, 99  # percent of a window scanned in vain


@inlined
def percent(scanned, reclaimed):
    """Pressure with the posting's whole numbers (vmpressure_calc_level)."""
    return (WINDOW - reclaimed * WINDOW // scanned) * 100 // WINDOW


@inlined
def level_of(scanned, reclaimed):
    """LOW, MEDIUM or CRITICAL (the posting's oom)."""
    p = percent(scanned, reclaimed)
    return CRITICAL if p >= OOM_FROM else MEDIUM if p >= MEDIUM_FROM else LOW


@inlined
def count_pages(S, U, scanned, reclaimed):
    """Add to the window, and queue the work item once it is full."""
    mp = U.mp[0]
    if scanned == 0:
        return
    pressure_felt(S, U)
    mp.scanned += scanned
    mp.reclaimed += reclaimed
    reached = scanned if U.par[0].as_posted else mp.scanned
    if reached >= WINDOW and mp.work_due == 0:
        mp.work_due = clock(S) + 1000 * U.par[0].work_us
        call_back(S, mp.work_due)


def pressure(S, U, memcg, scanned, reclaimed):
    """mpc_vmpressure."""
    count_pages(S, U, scanned, reclaimed)


def pressure_prio(S, U, memcg, prio, gfp):
    """vmpressure_prio: reclaim that gets this far is in trouble."""
    if prio <= PRIO_OOM:
        count_pages(S, U, WINDOW, 0)


@inlined
def analyse(S, U):
    """mpc_vmpressure_wk_fn: signal chunks for what was scanned in vain, and the level."""
    mp = U.mp[0]
    figure = U.figure[0]
    level = level_of(mp.scanned, mp.reclaimed)
    figure.notified_low += level == LOW
    figure.notified_medium += level == MEDIUM
    figure.notified_critical += level == CRITICAL
    bytes_wanted = max(mp.scanned - mp.reclaimed, 0) * S.k[0].page_size
    mp.scanned = 0
    mp.reclaimed = 0
    mp.work_due = 0
    nr = offered(S, U, bytes_wanted // (1024 * U.par[0].chunk_kib))
    if nr > 0:
        ask(S, U, nr)


def notified(S, U):
    """The work item or the reading thread is due."""
    mp = U.mp[0]
    if mp.work_due and mp.work_due <= S.k[0].now:
        analyse(S, U)
    free_chunks(S, U)
    if mp.work_due:
        call_back(S, mp.work_due)
    if U.app[0].due:
        call_back(S, U.app[0].due)


mempressure = Shrinker(
    name="mempressure",
    description="userland frees chunks that the kernel asks it for",
    source='Anton Vorontsov, "[PATCH 2/2] Add shrinker interface for mempressure cgroup", Jan 2013',
    hooks={
        "pressure": pressure,
        "pressure_prio": pressure_prio,
        "notified": notified,
        "told": userland.told,
    },
    tables={
        "mp": table(1, scanned="i8", reclaimed="i8", work_due="i8"),
        **userland.tables(**userland.LEVELS),
    },
    parameters=(
        Parameter("as_posted", True, "the window is compared with one call's pages, not the sum"),
        Parameter("work_us", 50, "until the work item runs", "us", 1),
        *userland.PARAMETERS,
    ),
    listener=True,
    prepare=userland.prepare,
)
