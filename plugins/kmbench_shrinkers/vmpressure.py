"""vmpressure: levels of memory pressure, told to listeners along the hierarchy.

Source: Linux 6.18 mm/vmpressure.c (3.10 and later; the modes came with 4.13).  Every round of
reclaim adds what it scanned and reclaimed to the group that it is for, the root when the whole
machine is short; once 512 pages were scanned a work item tells the level of that window: medium
from 60 % in vain, critical from 95 %, or when reclaim has come down to priority 3.

A listener is bound to a group, with the lowest level that it wants and a mode.  The group's own
come first, then its ancestors': *default* ones only if nobody below was told, *local* ones never
for pressure from below, *hierarchy* ones always.

Userland frees ``chunks`` of its own whenever one of the listeners is signalled.  Pressure on
sockets (the other half of vmpressure()) is not modelled.
"""

from kmbench.core.events import GFP_FS, GFP_IO
from kmbench.core.ops import inlined, outlined, table
from kmbench.core.shrinker_ops import call_back, clock
from kmbench.core.state import UNLIMITED
from kmbench.errors import UsageProblem, unknown
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

WINDOW = 16 * 32  # pages: SWAP_CLUSTER_MAX * 16
CRITICAL_PRIO = 3  # ilog2(100 / 10)
MEDIUM_FROM, CRITICAL_FROM = 60, 95  # percent
ROOT = 1
MOST = 16  # listeners
LEVEL_NAMES = ("low", "medium", "critical")
DEFAULT, HIERARCHY, LOCAL = 0, 1, 2
MODE_NAMES = ("default", "hierarchy", "local")


@inlined
def percent(scanned, reclaimed):
    """Pressure with the kernel's whole numbers (vmpressure_calc_level)."""
    if reclaimed >= scanned:
        return 0
    scale = scanned + reclaimed
    return (scale - reclaimed * scale // scanned) * 100 // scale


@inlined
def level_of(scanned, reclaimed):
    """LOW, MEDIUM or CRITICAL."""
    p = percent(scanned, reclaimed)
    return CRITICAL if p >= CRITICAL_FROM else MEDIUM if p >= MEDIUM_FROM else LOW


@inlined
def count_pages(S, U, memcg, scanned, reclaimed, gfp):
    """vmpressure() of a tree: add to the group's window, and queue its work item once it is full.

    Only pressure that userland can help with counts: GFP_NOIO reclaim does not.
    """
    if scanned == 0 or gfp & (GFP_IO | GFP_FS) == 0:
        return
    pressure_felt(S, U)
    v = U.vmpr[max(memcg, ROOT)]
    v.scanned += scanned
    v.reclaimed += reclaimed
    if v.scanned >= WINDOW and v.work_due == 0:
        v.work_due = clock(S) + 1000 * U.par[0].work_us
        call_back(S, v.work_due)


def pressure_tree(S, U, memcg, scanned, reclaimed, gfp):
    """shrink_node is through with all groups."""
    count_pages(S, U, memcg, scanned, reclaimed, gfp)


def pressure_prio(S, U, memcg, prio, gfp):
    """vmpressure_prio."""
    if prio <= CRITICAL_PRIO:
        count_pages(S, U, memcg, WINDOW, 0, gfp)


@outlined
def tell(S, U, memcg, level):
    """vmpressure_work_fn: tell the group's listeners and its ancestors' of a window's level.

    Whether any was signalled.
    """
    signalled = False
    ancestor = False
    while memcg > 0:
        told_here = False
        for row in range(U.listeners[0].nr):
            e = U.event[row]
            if e.memcg != memcg or level < e.level:
                continue
            if (ancestor and e.mode == LOCAL) or (signalled and e.mode == DEFAULT):
                continue
            e.signals += 1
            told_here = True
        signalled = signalled or told_here
        ancestor = True
        memcg = S.memcg[memcg].parent
    return signalled


@outlined
def analyse(S, U, memcg):
    """A full window: its level is told, and userland wakes up."""
    v = U.vmpr[memcg]
    figure = U.figure[0]
    level = level_of(v.scanned, v.reclaimed)
    v.scanned = 0
    v.reclaimed = 0
    v.work_due = 0
    figure.notified_low += level == LOW
    figure.notified_medium += level == MEDIUM
    figure.notified_critical += level == CRITICAL
    if tell(S, U, memcg, level):
        ask(S, U, offered(S, U, U.par[0].chunks))


def notified(S, U):
    """Work items or userland are due."""
    due = UNLIMITED
    for memcg in range(ROOT, S.k[0].nr_groups):
        if U.vmpr[memcg].work_due and U.vmpr[memcg].work_due <= S.k[0].now:
            analyse(S, U, memcg)
        if U.vmpr[memcg].work_due:
            due = min(due, U.vmpr[memcg].work_due)
    free_chunks(S, U)
    if U.app[0].due:
        due = min(due, U.app[0].due)
    if due < UNLIMITED:
        call_back(S, due)


def prepare(S, U, setup, parameters):
    """Bind the listeners to their groups: "GROUP LEVEL[,MODE]"."""
    userland.prepare(S, U, setup, parameters)
    groups = [group.name for group in setup.groups]
    wanted = parameters["listeners"]
    where = "shrinker vmpressure: listeners"
    if len(wanted) > MOST:
        raise UsageProblem(f"{where}: {len(wanted)} of them; expected at most {MOST}")
    for row, text in enumerate(wanted):
        group, _, words = text.rpartition(" ")
        level, _, mode = words.partition(",")
        if group not in groups:
            raise unknown("group", group, groups).within(where)
        if level not in LEVEL_NAMES:
            raise unknown("level", level, LEVEL_NAMES).within(where)
        if (mode or "default") not in MODE_NAMES:
            raise unknown("mode", mode, MODE_NAMES).within(where)
        e = U.event[row : row + 1]
        e["memcg"] = groups.index(group) + 1
        e["level"] = LEVEL_NAMES.index(level)
        e["mode"] = MODE_NAMES.index(mode or "default")
    U.listeners["nr"] = len(wanted)


vmpressure = Shrinker(
    name="vmpressure",
    description="levels of memory pressure, told to listeners along the hierarchy",
    source="Linux 6.18 mm/vmpressure.c",
    hooks={
        "pressure_tree": pressure_tree,
        "pressure_prio": pressure_prio,
        "notified": notified,
        "told": userland.told,
    },
    tables={
        "vmpr": table("memcg", scanned="i8", reclaimed="i8", work_due="i8"),
        "event": table(MOST, memcg="i8", level="i8", mode="i8", signals="i8"),
        "listeners": table(1, nr="i8"),
        **userland.tables(**userland.LEVELS),
    },
    parameters=(
        Parameter("listeners", ["/ low"], 'as "GROUP LEVEL[,MODE]"'),
        Parameter("chunks", 2, "chunks that userland frees when it is told", "", 0),
        Parameter("work_us", 50, "until the work item runs", "us", 1),
        *userland.PARAMETERS,
    ),
    listener=True,
    prepare=prepare,
)
