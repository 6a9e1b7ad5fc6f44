"""A userland shrinker that the kernel asks for chunks of memory.

Source: Anton Vorontsov, "[PATCH 1/2] Add mempressure cgroup" and "[PATCH 2/2] Add shrinker
interface for mempressure cgroup", 4 January 2013 (v3.8-rc2); the user side is the posting's
tools/testing/mempressure_test.c.

Userland offers chunks of a size.  Reclaim adds up what it scanned and reclaimed; once a window of
512 pages is full a work item asks for as many chunks as were scanned in vain, through an eventfd
that sums up.  The thread that reads it frees chunks that it has, and offers the rest again.

``as_posted`` compares a single call's scanned pages with the window, as the posted code does; else
those accumulated, as its comment says.  More reclaimed than scanned would wrap around in the
posting; here nothing is asked for then.
"""

from kmbench.core.events import USER_ANON
from kmbench.core.ops import inlined, table
from kmbench.core.shrinker_ops import call_back, free_user_pages
from kmbench.core.state import UNLIMITED
from kmbench.parameters import Parameter
from kmbench.shrinker import Shrinker

WINDOW = 16 * 32  # pages: 16 * SWAP_CLUSTER_MAX
PRIO_OOM = 4  # a priority from here on down counts as a window without success
MEDIUM, OOM = 60, 99  # percent of a window scanned in vain


@inlined
def level_of(scanned, reclaimed):
    """Pressure in percent, with the posting's whole numbers (mpc_level)."""
    return (WINDOW - reclaimed * WINDOW // scanned) * 100 // WINDOW


@inlined
def count_pages(S, U, scanned, reclaimed):
    """Add to the window, and queue the work item once it is full."""
    mp = U.mp[0]
    if scanned == 0:
        return
    mp.scanned += scanned
    mp.reclaimed += reclaimed
    reached = scanned if U.par[0].as_posted else mp.scanned
    if reached >= WINDOW and mp.work_due == 0:
        mp.work_due = S.k[0].now + 1000 * U.par[0].work_us
        call_back(S, mp.work_due)


def pressure(S, U, memcg, scanned, reclaimed):
    """mpc_vmpressure."""
    count_pages(S, U, scanned, reclaimed)


def pressure_prio(S, U, memcg, prio):
    """mpc_vmpressure_prio: reclaim that gets this far is in trouble."""
    if prio <= PRIO_OOM:
        count_pages(S, U, WINDOW, 0)


@inlined
def ask_for_chunks(S, U):
    """The work item: signal chunks for what was scanned in vain (mpc_shrinkers)."""
    mp = U.mp[0]
    figure = U.figure[0]
    level = level_of(mp.scanned, mp.reclaimed)
    mp.medium += level >= MEDIUM
    mp.oom += level >= OOM
    bytes_wanted = max(mp.scanned - mp.reclaimed, 0) * S.k[0].page_size
    mp.scanned = 0
    mp.reclaimed = 0
    nr = min(figure.chunks_left, bytes_wanted // (1024 * U.par[0].chunk_kib))
    if nr > 0:
        figure.chunks_left -= nr
        figure.chunks_signalled += nr
        mp.eventfd += nr
        if mp.user_due == 0:
            mp.user_due = S.k[0].now + 1000 * U.par[0].wake_us


@inlined
def free_chunks(S, U):
    """The reading thread: free what the eventfd says, swapped memory first as it is the oldest,
    and offer again what there was not."""
    mp = U.mp[0]
    figure = U.figure[0]
    pages = 1024 * U.par[0].chunk_kib // S.k[0].page_size
    group = S.user[mp.memcg]
    anon = S.pool[mp.memcg * 3 + USER_ANON]
    while mp.eventfd > 0:
        mp.eventfd -= 1
        if anon.nr + group.swapped >= pages:
            from_swap = min(group.swapped, pages)
            group.swapped -= from_swap
            S.vm[0].swap_free += from_swap
            free_user_pages(S, mp.memcg, USER_ANON, pages - from_swap)
            figure.chunks_freed += 1
        else:
            figure.chunks_left += 1
            figure.chunks_readded += 1


def notified(S, U):
    """The work item or the reading thread is due."""
    mp = U.mp[0]
    now = S.k[0].now
    if mp.work_due and mp.work_due <= now:
        mp.work_due = 0
        ask_for_chunks(S, U)
    if mp.user_due and mp.user_due <= now:
        mp.user_due = 0
        free_chunks(S, U)
    due = UNLIMITED
    if mp.work_due:
        due = mp.work_due
    if mp.user_due:
        due = min(due, mp.user_due)
    if due < UNLIMITED:
        call_back(S, due)


def told(S, U, memcg, arg):
    """Userland writes "<eventfd> arg": it offers as many chunks, or takes some back (arg < 0)."""
    U.mp[0].memcg = memcg
    figure = U.figure[0]
    change = max(arg, -figure.chunks_left)
    figure.chunks_left += change
    figure.chunks_added += change


mempressure = Shrinker(
    name="mempressure",
    description="userland frees chunks that the kernel asks it for",
    source='Anton Vorontsov, "[PATCH 2/2] Add shrinker interface for mempressure cgroup", Jan 2013',
    hooks={
        "pressure": pressure,
        "pressure_prio": pressure_prio,
        "notified": notified,
        "told": told,
    },
    tables={
        "mp": table(
            1, memcg="i8", scanned="i8", reclaimed="i8", work_due="i8", user_due="i8",
            eventfd="i8", medium="i8", oom="i8",
        ),
        "figure": table(
            1, chunks_added="i8", chunks_signalled="i8", chunks_freed="i8", chunks_readded="i8",
            chunks_left="i8",
        ),
    },
    parameters=(
        Parameter("as_posted", True, "the window is compared with one call's pages, not the sum"),
        Parameter("chunk_kib", 1024, "size of a chunk", "KiB", 4),
        Parameter("work_us", 50, "until the work item runs", "us", 1),
        Parameter("wake_us", 200, "until userland has read its eventfd", "us", 1),
    ),
    listener=True,
)  # fmt: skip
