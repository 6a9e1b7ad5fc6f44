"""The metric catalogue: name, id, unit, direction and definition of every metric, once.

Tables, Parquet metadata and documentation all take their words from here.  Metrics with
``source="runs"`` are columns of the table ``runs``; the others are derived when results are read.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from kmbench.core.events import CAUSE_NAMES

__all__ = ["METRICS", "STORED", "Metric"]

Direction = Literal["lower", "higher"]
Source = Literal["runs", "compare", "timing"]


class Metric(NamedTuple):
    """One number about a run."""

    name: str
    """Column and option name."""
    id: str
    """Short identifier: A accuracy, W waste, R reclaim, I isolation, U userland's shrinker, Z
    removed groups, O operations, T time, F failures, S simulator."""
    unit: str
    """``B`` bytes, ``1`` a fraction of one, ``ops``, ``count``, ``s``, ``ns``, ``events/s`` or
    ``pairs/s``."""
    direction: Direction | None
    """Which way is better; ``None`` for a plain fact."""
    label: str
    """Words for the first column of a table."""
    definition: str
    """What is summed over what.  ``slot`` is the cache's size, ``S`` the bytes of a slab."""
    source: Source = "runs"
    """``runs``: stored; ``compare``: needs another run of the pair; ``timing``: wall clock."""
    headline: bool = False
    """Shown when nobody asks for particular metrics."""


_CAUSE_WORDS = {
    "not_selected": "its cache is not one the strategy accounts",
    "pending": "the group's copy of the cache was still being made",
    "interrupt": "it was allocated in interrupt context",
    "kthread": "it was allocated by a kernel thread",
    "nofail": "the allocation was __GFP_NOFAIL",
    "dying": "the task was dying",
    "vector": "the slab's obj_cgroup vector could not be allocated",
    "charge_failed": "the charge failed and the object was handed out all the same",
    "removed": "its group was removed and the bill dropped",
    "mm_owner": "it was allocated by a thread whose mm's owner is in the root group",
}


def _unaccounted(cause: str) -> Metric:
    return Metric(
        f"unaccounted_{cause}_bytes",
        f"A1.{cause}",
        "B",
        "lower",
        f"unaccounted: {cause.replace('_', ' ')}",
        f"The part of A1 whose cause is: {_CAUSE_WORDS[cause]}.",
    )


_CATALOGUE = (
    Metric(
        "kmem_charged_mean", "A0", "B", None, "kmem charged",
        "Kernel memory charged to the groups right below the root, byte stocks included, summed; "
        "mean over samples.  Of a group it is the kmem counter or, where a design charges the "
        "memory counter alone, that one less user pages and page stocks.",
        headline=True,
    ),
    Metric(
        "true_mean", "A0.true", "B", None, "kmem truly used",
        "Kernel memory that tasks of groups other than the root really allocated: slots of live "
        "objects plus kernel pages and per-CPU bytes; mean over samples.",
        headline=True,
    ),
    Metric(
        "charge_error_median", "A5.median", "1", "lower", "charge error, median",
        "|charged - true| / true over online groups and samples, both with descendants; charged "
        "as in A0, true is what the group's tasks really allocated.  Pairs with true = 0 are left "
        "out.",
        headline=True,
    ),
    Metric(
        "charge_error_p95", "A5.p95", "1", "lower", "charge error, p95",
        "95th percentile of the charge error A5.",
        headline=True,
    ),
    Metric(
        "unaccounted_bytes", "A1", "B", "lower", "unaccounted",
        "Slots of live objects that belong to a group other than the root and are billed to "
        "nobody; mean over samples.",
    ),
    *(_unaccounted(cause) for cause in CAUSE_NAMES[1:]),
    Metric(
        "unaccounted_share", "A2", "1", "lower", "unaccounted share",
        "A1 over the slots of all live objects of groups other than the root, both summed over "
        "samples.",
        headline=True,
    ),
    Metric(
        "misattributed_bytes", "A3", "B", "lower", "misattributed",
        "Slots of live objects billed to a group that is neither their owner's nor above it: to "
        "that of the owner of their task's mm; at the end of the run.",
    ),
    Metric(
        "shared_bytes", "A3.shared", "B", "lower", "paid by the first toucher",
        "Of each live cached object that is billed to a group, its slot times 1 - 1/k, where k "
        "groups have it: that of its owner and those whose ACCESS events found it since it was "
        "made; at the end of the run.  Groups from the 16th row on count as one: a share is at "
        "most a sixteenth too low.  Null unless the run models reclaim.",
    ),
    Metric(
        "overcharge_bytes", "A4", "B", "lower", "overcharge",
        "Sum over groups of max(0, charged as in A0 without descendants - slots and pages billed "
        "to it): slack of partial slabs, stocks and rounding; mean over samples.",
        headline=True,
    ),
    Metric(
        "limit_overshoot_bytes", "A6", "B", "lower", "limit overshoot",
        "Most by which any counter of any group was above its limit: charges that were forced, and "
        "limits written below usage.",
    ),
    Metric(
        "limit_overshoot_share", "A6.share", "1", "lower", "overshoot by the limit",
        "Most by which any counter was above its limit, over that limit as it is at the end of the "
        "run; counters without a limit, or with one of 0, are left out.",
    ),
    Metric(
        "leak_bytes", "A7", "B", "lower", "charge leaked",
        "Usage left once every task, object and stock of the groups is gone; null unless the run "
        "tore everything down.",
    ),
    Metric(
        "slab_bytes_mean", "W0", "B", "lower", "slab bytes, mean",
        "Pages held by all slabs; mean over samples.",
        headline=True,
    ),
    Metric(
        "slab_bytes_peak", "W0.peak", "B", "lower", "slab bytes, peak",
        "Pages held by all slabs; highest sample.",
    ),
    Metric(
        "excess_slab_bytes", "W3", "B", "lower", "slab bytes over none",
        "W0 minus W0 of strategy `none` on the same workload bytes and seed.",
        source="compare", headline=True,
    ),
    Metric(
        "slab_utilisation", "W1", "1", "higher", "slab utilisation",
        "Slots of live objects over the bytes of all slabs; mean over samples.",
        headline=True,
    ),
    Metric(
        "slabinfo_utilisation", "W2", "1", "higher", "utilisation by slabinfo",
        "active_objs * size over the bytes of all slabs, in the words of /proc/slabinfo (free "
        "objects held per CPU count as active); mean over samples.",
    ),
    Metric(
        "duplicate_partials", "W4", "count", "lower", "duplicate partials",
        "Pairs of cache and node for which at least two copies (the root cache is one) have slabs "
        "on the node's partial list; mean over samples.",
    ),
    Metric(
        "duplicate_partial_bytes", "W4.bytes", "B", "lower", "free in duplicate partials",
        "Free slots on the partial lists of the copies that W4 counts, on whatever node; mean over "
        "samples.",
    ),
    Metric(
        "metadata_bytes", "W5", "B", "lower", "accounting metadata",
        "Bytes that exist only to account: obj_cgroup vectors, copies of kmem_cache, growth of "
        "objects; mean over samples.",
        headline=True,
    ),
    Metric(
        "internal_fragmentation", "W6", "1", "lower", "internal fragmentation",
        "1 - object sizes / slots of live objects, both summed over caches; mean over samples.",
    ),
    Metric(
        "kmalloc_slack_bytes", "W6.kmalloc", "B", "lower", "kmalloc slack",
        "Object size minus bytes asked for, over live objects of kmalloc caches; mean over "
        "samples.",
    ),
    Metric(
        "idle_slab_bytes", "W7", "B", "lower", "idle slab bytes",
        "Free slab memory kept on CPU slabs, CPU partial lists, sheaves and as empty slabs of "
        "node lists; mean over samples.",
        headline=True,
    ),
    Metric(
        "zombie_groups", "Z1", "count", "lower", "zombie groups",
        "Removed groups that charged pages or copies of caches keep alive; mean over samples.",
    ),
    Metric(
        "zombie_lifetime", "Z2", "s", "lower", "zombie lifetime",
        "Time from a group's removal until no charge keeps it alive, mean over removed groups; "
        "those that still live count up to the end of the run.  Null if none was removed.",
    ),
    Metric(
        "zombie_bytes", "Z3", "B", "lower", "charged to zombies",
        "Pages charged to removed groups that they keep alive; mean over samples.",
    ),
    Metric(
        "dead_caches", "Z4", "count", "lower", "dead caches",
        "Copies of caches whose group was removed and that were not destroyed yet; at the end of "
        "the run.",
    ),
    *(
        Metric(
            f"left_to_{heir}_bytes", f"Z5.{heir}", "B", None, f"left to {heir}",
            "Live memory (slots, kernel pages, per-CPU bytes) that tasks of removed groups "
            f"allocated and that {words}; at the end of the run.  Null if no group was removed.",
        )
        for heir, words in (
            ("zombies", "a removed group, kept alive by it, is still billed for"),
            ("parent", "an ancestor other than the root is billed for"),
            ("root", "the root is billed for"),
            ("nobody", "nobody is billed for"),
        )
    ),
    Metric(
        "ops_per_alloc", "O1", "ops", "lower", "ops per alloc",
        "Counted operations of phases alloc, slab, page and charge per allocated object: all that "
        "an object costs but its own free path, giving slabs and charges back included.",
        headline=True,
    ),
    Metric(
        "ops_per_free", "O2", "ops", "lower", "ops per free",
        "Counted operations of phase free per freed object.",
    ),
    Metric(
        "atoms_per_alloc", "O3", "ops", "lower", "atomics per alloc",
        "Atomic operations on shared cache lines in the phases of O1 per allocated object.",
        headline=True,
    ),
    Metric(
        "line_moves_per_alloc", "O4", "ops", "lower", "line moves per alloc",
        "Times that a CPU had to fetch a counter's or a list_lock's line which another CPU wrote "
        "last, per allocated object.",
    ),
    Metric(
        "lock_waits_per_alloc", "O5", "ops", "lower", "lock waits per alloc",
        "Times that a lock was taken which another CPU had taken less than a microsecond of model "
        "time before, per allocated object.",
    ),
    Metric(
        "hot_line_writes", "O6", "ops", "lower", "writes of the hottest line",
        "Writes of the line that moved most, per allocated object; 0 if none moved.",
    ),
    Metric(
        "alloc_ns", "T1", "ns", "lower", "allocation",
        "Operations of phases alloc, slab and page per allocated object, times the costs of the "
        "hardware profile.",
        headline=True,
    ),
    Metric(
        "free_ns", "T2", "ns", "lower", "free",
        "The same for phase free, per freed object.",
        headline=True,
    ),
    Metric(
        "charge_ns", "T3", "ns", "lower", "charging",
        "The same for phase charge, per allocated object: charges and what gives them back.",
        headline=True,
    ),
    Metric(
        "line_ns", "T4", "ns", "lower", "shared lines",
        "The same for moves of shared lines and waits for locks, per allocated object.",
    ),
    Metric(
        "pair_ns", "T5", "ns", "lower", "alloc and free in all",
        "T1 + T2 + T3 + T4: what an object costs from its allocation to its free.",
        headline=True,
    ),
    Metric(
        "overhead_ns", "T6", "ns", "lower", "over none",
        "T5 minus T5 of strategy `none` on the same workload bytes and seed.",
        source="compare", headline=True,
    ),
    Metric(
        "pairs_per_s", "T7", "pairs/s", "higher", "pairs/s on all CPUs",
        "Objects allocated and freed per second if all CPUs that run the workload did nothing "
        "else, taking turns at every shared line: mean value analysis of a server for each line "
        "and a delay; of workloads that say how many CPUs run at once.",
    ),
    Metric(
        "alloc_p50_ns", "T8.p50", "ns", "lower", "allocation, median",
        "Upper end of the bucket (an eighth of an octave) with half of all allocations: counted "
        "operations of each one, charging included, at the hardware's costs; with latency = true.",
    ),
    Metric(
        "alloc_p99_ns", "T8.p99", "ns", "lower", "allocation, 99th percentile",
        "The same of 99 in 100.",
    ),
    Metric(
        "alloc_p999_ns", "T8.p999", "ns", "lower", "allocation, 99.9th percentile",
        "The same of 999 in 1000.",
    ),
    Metric(
        "free_p99_ns", "T9.p99", "ns", "lower", "free, 99th percentile",
        "The same of 99 in 100 frees; what an RCU period or a work item does later is not in it.",
    ),
    Metric(
        "failed_allocs", "F1", "count", "lower", "failed allocations",
        "Allocations of the stream that returned NULL.",
        headline=True,
    ),
    Metric(
        "enomem_failures", "F2.enomem", "count", "lower", "limits that failed an operation",
        "Operations that met a limit and returned ENOMEM or NULL.",
    ),
    Metric(
        "absorbed_failures", "F2.absorbed", "count", "lower", "limits that were absorbed",
        "Charges that met a limit and went through after all: reclaim made room, or flags and "
        "context force them.",
    ),
    Metric(
        "forced_charge_bytes", "F5", "B", "lower", "forced charges",
        "Bytes of charges that went through although some level was over its limit.",
    ),
    Metric(
        "work_items_lost", "F6.lost", "count", "lower", "work items lost",
        "Work items that could not be queued for want of memory or of room.",
    ),
    Metric(
        "work_items_duplicate", "F6.duplicate", "count", "lower", "work items in vain",
        "Work items that found their copy of a cache made already.",
    ),
    Metric(
        "reclaim_efficiency", "R1", "1", "higher", "freed / scanned objects",
        "Cached objects freed over cached objects scanned by the shrinker.",
    ),
    Metric(
        "reclaim_returned", "R1.pages", "1", "higher", "pages returned",
        "Bytes of slabs that went empty while a shrinker ran over slots of the objects it freed.",
    ),
    Metric(
        "reclaim_targeting", "R2", "1", "higher", "freed from the full group",
        "In reclaim for a group over its limit: slots freed of its own subtree's objects over all "
        "slots freed.",
    ),
    Metric(
        "reclaim_damage", "R3", "count", "lower", "evictions regretted per MiB",
        "Objects evicted in the reclaim of others, or of the whole machine, that were wanted again "
        "within 10 s, per MiB of objects freed.",
    ),
    Metric(
        "enomem_reclaimable", "R4", "count", "lower", "ENOMEM with reclaimable",
        "Operations that failed over a limit while the group had unused cached objects.",
    ),
    Metric(
        "victim_hit_ratio_kept", "I1.hits", "1", "higher", "victim's hit ratio kept",
        "Hit ratio of the victim group beside its neighbour over that alone.",
    ),
    Metric(
        "victim_rate_kept", "I1.rate", "1", "higher", "victim's rate kept",
        "Accesses that succeeded per time spent in them, stalls included, of the victim group "
        "beside its neighbour over alone.",
    ),
    Metric(
        "victim_latency_growth", "I1.p99", "1", "lower", "victim's p99 growth",
        "99th percentile of the time of an access of the victim, beside its neighbour over alone; "
        "powers of two.",
    ),
    Metric(
        "interference_bytes", "I2", "B", "lower", "unbilled while kswapd ran",
        "Slots of live objects of groups that nobody paid for, mean over the turns of kswapd.",
    ),
    Metric(
        "shrinker_visits", "R.visits", "count", "lower", "shrinker visits",
        "Times that a shrinker was asked for a group.",
    ),
    Metric(
        "visit_time", "R.visits.time", "s", "lower", "asking shrinkers",
        "Operations of those visits, of which nothing is freed yet, times the costs of the "
        "hardware profile: phase reclaim.",
    ),
    Metric(
        "swapped_bytes", "R.swap", "B", "lower", "swapped out",
        "Anonymous memory written to swap.",
    ),
    Metric(
        "chunks_added", "U1.added", "count", None, "chunks offered",
        "Chunks of memory that userland offered to its mempressure shrinker.",
    ),
    Metric(
        "chunks_signalled", "U1.signalled", "count", None, "chunks signalled",
        "Chunks that the kernel asked userland to free.",
    ),
    Metric(
        "chunks_freed", "U1.freed", "count", None, "chunks freed",
        "Chunks that userland freed in answer.",
    ),
    Metric(
        "chunks_readded", "U1.readded", "count", None, "chunks re-added",
        "Chunks that userland was asked for, did not have, and offered again.",
    ),
    Metric(
        "chunks_left", "U1.left", "count", None, "chunks left",
        "Chunks that the kernel may still ask for at the end: offered + re-added - signalled.",
    ),
    Metric(
        "wake_ups", "U2", "count", None, "wake-ups",
        "Times that userland woke up to free chunks.",
    ),
    Metric(
        "notified_low", "U2.low", "count", None, "windows of low pressure",
        "Windows of scanned pages whose level was low.",
    ),
    Metric(
        "notified_medium", "U2.medium", "count", None, "windows of medium pressure",
        "Windows of scanned pages of which at least 60 % were scanned in vain.",
    ),
    Metric(
        "notified_critical", "U2.critical", "count", None, "windows of critical pressure",
        "Windows at the highest level: from 99 % in vain (mempressure's oom) or 95 % (vmpressure), "
        "or when reclaim came down to the priority that stands for it.",
    ),
    Metric(
        "notified", "U2.psi", "count", None, "stall triggers fired",
        "Times that the stall of a window reached the trigger's threshold (psi).",
    ),
    Metric(
        "time_to_notice", "U3", "ns", "lower", "time to notice",
        "From the first sign of pressure since userland last acted until it acts, mean.",
    ),
    Metric(
        "psi_some_time", "U4.some", "s", "lower", "stall time, some",
        "Time in which some task was stalled for want of memory, mean over CPUs that are not idle.",
    ),
    Metric(
        "psi_full_time", "U4.full", "s", "lower", "stall time, full",
        "The same in which nothing else could run on that CPU.",
    ),
    Metric(
        "oom_kills", "F3", "count", "lower", "OOM kills",
        "Processes (groups) that the OOM killer killed.",
    ),
    Metric(
        "oom_wrong_kills", "F3.wrong", "count", "lower", "wrong victims",
        "OOM kills of a group that was not the largest real user below the limit.",
    ),
    Metric(
        "reclaim_stalls", "F4", "count", "lower", "stalls",
        "Allocations and charges given up after 100 rounds of reclaim.",
    ),
    Metric(
        "stall_time", "F4.time", "s", "lower", "time in direct reclaim",
        "Model time that tasks spent in reclaim of their own.",
    ),
    Metric(
        "failed_groups", "F8", "count", "lower", "groups without an id",
        "Groups that could not be made because online groups and removed ones that are still alive "
        "hold all ids (mkdir says ENOSPC).",
    ),
    Metric(
        "events_per_s", "S1", "events/s", "higher", "simulator events/s",
        "Events per second of the engine alone, without reading and compiling.  Wall clock: "
        "differs from run to run.",
        source="timing",
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _CATALOGUE}
"""Every metric by name, in the order of tables."""

STORED: tuple[Metric, ...] = tuple(metric for metric in _CATALOGUE if metric.source == "runs")
"""The metrics that are columns of ``runs``."""
