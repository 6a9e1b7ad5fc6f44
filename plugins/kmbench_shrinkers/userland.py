"""The userland reclaimer behind every listener: chunks that it could do without.

It offers chunks (TELL events), sleeps on an eventfd that sums up, and once it has been woken frees
as many as it was asked for, the oldest first, which is what the kernel swapped out first; what it
was asked for and did not have it offers again.  How long it took to notice is counted from the
first sign of pressure since it acted last.

The tables are the listener's: ``app`` is the process, ``figure`` what becomes a metric.
"""

from kmbench.core.events import USER_ANON
from kmbench.core.ops import inlined, table
from kmbench.core.shrinker_ops import call_back, clock, free_user_pages
from kmbench.parameters import Parameter

LOW, MEDIUM, CRITICAL = 0, 1, 2

PARAMETERS = (
    Parameter("chunk_kib", 1024, "size of a chunk", "KiB", 4),
    Parameter("wake_us", 200, "until userland has read its eventfd", "us", 1),
)
LEVELS = dict.fromkeys(("notified_low", "notified_medium", "notified_critical"), "i8")


def tables(**figures):
    """The tables of a listener whose record ``figure`` has these fields, too."""
    chunks = ("added", "signalled", "freed", "readded", "left")
    common = {f"chunks_{name}": "i8" for name in chunks}
    app = dict.fromkeys(("memcg", "asked", "due", "since", "noticed", "waited"), "i8")
    return {
        "app": table(1, **app),
        "figure": table(1, **common, wake_ups="i8", time_to_notice="f8", **figures),
    }


def prepare(S, U, setup, parameters):
    """Nothing was noticed yet."""
    U.figure["time_to_notice"] = float("nan")


@inlined
def pressure_felt(S, U):
    """There is pressure: the clock runs until userland acts."""
    if U.app[0].since == 0:
        U.app[0].since = clock(S) + 1


@inlined
def ask(S, U, nr):
    """Ask for `nr` chunks of those offered: the kernel takes them for freed; eventfd_signal."""
    app = U.app[0]
    U.figure[0].chunks_left -= nr
    U.figure[0].chunks_signalled += nr
    app.asked += nr
    if app.due == 0:
        app.due = clock(S) + 1000 * U.par[0].wake_us
    call_back(S, app.due)


@inlined
def offered(S, U, nr):
    """How many of `nr` chunks there are to ask for."""
    return min(nr, U.figure[0].chunks_left)


@inlined
def free_chunks(S, U):
    """If the process is due to run: free what the eventfd says, and offer again what there was
    not."""
    app = U.app[0]
    if app.due == 0 or app.due > S.k[0].now:
        return
    figure = U.figure[0]
    pages = 1024 * U.par[0].chunk_kib // S.k[0].page_size
    group = S.user[app.memcg]
    anon = S.pool[app.memcg * 3 + USER_ANON]
    while app.asked > 0:
        app.asked -= 1
        if anon.nr + group.swapped >= pages:
            from_swap = min(group.swapped, pages)
            group.swapped -= from_swap
            S.vm[0].swap_free += from_swap
            free_user_pages(S, app.memcg, USER_ANON, pages - from_swap)
            figure.chunks_freed += 1
        else:
            figure.chunks_left += 1
            figure.chunks_readded += 1
    figure.wake_ups += 1
    if app.since:
        app.noticed += 1
        app.waited += S.k[0].now + 1 - app.since
        figure.time_to_notice = app.waited / app.noticed
    app.since = 0
    app.due = 0


def told(S, U, memcg, arg):
    """Userland offers `arg` chunks, or takes some back (arg < 0)."""
    U.app[0].memcg = memcg
    figure = U.figure[0]
    change = max(arg, -figure.chunks_left)
    figure.chunks_left += change
    figure.chunks_added += change
