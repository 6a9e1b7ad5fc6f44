"""Objects given to kfree_rcu(), which the kernel frees untraced, in batches, some time later.

Linux 6.18 mm/slab_common.c: kvfree_call_rcu() collects pointers per CPU.  The first one starts a
timer of five seconds (KFREE_DRAIN_JIFFIES); a page full of pointers (KVFREE_BULK_MAX_ENTR) shortens
it to a jiffy.  Then the batch waits for a grace period and is given back in bulk.  Until then all
of it stays charged.

Which callers' objects end so is read off the recording: none is seen freed, and their slots are
allocated again.  When an object was handed over is dated by its companion: an object that the same
task allocated next to it and that is freed, in the open, in the same breath (the ep_head of an
epoll item, the file of a timerfd, the second bucket of a bound port).
"""

from typing import NamedTuple

import numpy as np

from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.core.specialise import cached

WITHIN_NS = 15_000  # from an object to its companion
# the timer wheel rounds 1250 jiffies of 4 ms up by up to 64 (kernel/time/timer.c:calc_wheel_index)
DRAIN_NS = 5_128_000_000
FULL = 507  # pointers in a page: (4096 - 40) / 8
JIFFY_NS = 4_000_000
GRACE_NS = 20_000_000
SHARE = 0.9  # of a caller's objects that have such a companion, at least
WRONG = 0.02  # of those, that outlive the object, at most
DATED = 0.1  # of those, that are freed by a task: what only interrupts free waited for RCU itself
_INTERRUPT = ev.CTX_INTERRUPT
_NEVER = np.iinfo(np.int64).max


class _Fates(NamedTuple):
    after: np.ndarray  # i4 per event: the next one on the same key, -1 without
    freed: np.ndarray  # i8 per site: objects seen freed
    lost: np.ndarray  # i8 per site: objects whose slot was allocated again without


@cached
def _follow(events, site, last, after, freed, lost):  # pragma: no cover - compiled
    for i in range(len(events)):
        key = events[i].obj
        before = last[key]
        if before >= 0 and events[before].op == 0:
            after[before] = i
            if site[before] >= 0:
                if events[i].op == 0:
                    lost[site[before]] += 1
                else:
                    freed[site[before]] += 1
        last[key] = i


@cached
def _companions(events, site, after, kind, within, near, dated, wrong, ages, stamp):
    # pragma: no cover - compiled
    for i in range(len(events)):
        d = kind[i]
        if d < 0:
            continue
        gone = events[after[i]].t if after[i] >= 0 else np.iinfo(np.int64).max
        for step in (1, -1):
            j = i + step
            while 0 <= j < len(events) and abs(events[j].t - events[i].t) <= within:
                s = site[j]
                if (
                    events[j].op == 0 and events[j].task == events[i].task
                    and s >= 0 and kind[j] < 0 and stamp[s] != i
                ):  # fmt: skip
                    stamp[s] = i
                    near[d, s] += 1
                    if after[j] < 0:
                        wrong[d, s] += after[i] >= 0
                    elif events[after[j]].op == 1:
                        if events[after[j]].t > gone:
                            wrong[d, s] += 1
                        elif not events[after[j]].gfp & _INTERRUPT:
                            dated[d, s] += 1
                            ages[d, s] += events[after[j]].t - events[i].t
                j += step


@cached
def _hand_over(events, site, after, kind, partner, within, item, when):
    # pragma: no cover - compiled
    n = 0
    for i in range(len(events)):
        if kind[i] < 0:
            continue
        wanted = partner[kind[i]]
        found = -1
        for step in (1, -1):
            j = i + step
            while wanted >= 0 and found < 0 and 0 <= j < len(events):
                if abs(events[j].t - events[i].t) > within:
                    break
                if events[j].op == 0 and site[j] == wanted and events[j].task == events[i].task:
                    found = j
                j += step
        if found >= 0 and after[found] >= 0 and events[after[found]].op == 1:
            item[n] = i
            when[n] = after[found]
            n += 1
    return n


@cached
def _drain(t, cpu, again, order, drain, full, jiffy, grace):  # pragma: no cover - compiled
    """When each object is given back; `order`: by time, adds (n) and proofs (-1 - n) of a free."""
    out = np.full(len(t), np.iinfo(np.int64).max, np.int64)
    batch = np.full(len(t), -1, np.int64)
    ready = np.zeros(len(t) + 257, np.int64)
    first = np.full(256, -1, np.int64)  # chain of what waits, oldest first
    last = np.full(256, -1, np.int64)
    following = np.full(len(t), -1, np.int64)
    count = np.zeros(256, np.int64)
    due = np.full(256, np.iinfo(np.int64).max, np.int64)
    nr = 0
    for entry in range(len(order) + 256):
        # at the very end every CPU's timer still runs out
        n = order[entry] if entry < len(order) else 0
        proof = n < 0
        n = -1 - n if proof else n
        c = cpu[n] if entry < len(order) else entry - len(order)
        now = (again[n] if proof else t[n]) if entry < len(order) else np.iinfo(np.int64).max
        if first[c] >= 0 and due[c] <= now:
            ready[nr] = due[c] + (grace if t[last[c]] > due[c] - grace else 0)
            n_left = first[c]
            while n_left >= 0:
                batch[n_left] = nr
                n_left = following[n_left]
            nr += 1
            first[c], count[c], due[c] = -1, 0, np.iinfo(np.int64).max
        if entry >= len(order):
            continue
        if not proof:
            if first[c] < 0:
                first[c], due[c] = n, now + drain
            else:
                following[last[c]] = n
            last[c] = n
            count[c] += 1
            if count[c] >= full:
                due[c] = min(due[c], now + jiffy)
        elif batch[n] < 0:
            ready[nr] = now - 1
            while first[c] >= 0 and batch[n] < 0:
                batch[first[c]] = nr
                first[c] = following[first[c]]
                count[c] -= 1
            nr += 1
            due[c] = t[first[c]] + drain if first[c] >= 0 else np.iinfo(np.int64).max
    # what was seen allocated again had been given back before, with the rest of its batch
    for n in range(len(t)):
        if batch[n] >= 0 and again[n] - 1 >= t[n]:
            ready[batch[n]] = min(ready[batch[n]], again[n] - 1)
    for n in range(len(t)):
        if batch[n] >= 0:
            out[n] = max(ready[batch[n]], t[n])
    return out


def _fates(events: np.ndarray, site: np.ndarray, nr_sites: int) -> _Fates:
    top = int(events["obj"].max(initial=0)) + 1
    fates = _Fates(
        np.full(len(events), -1, np.int32), np.zeros(nr_sites, np.int64),
        np.zeros(nr_sites, np.int64),
    )  # fmt: skip
    _follow(events, site, np.full(top, -1, np.int32), *fates)
    return fates


def _kinds(events: np.ndarray, site: np.ndarray, fates: _Fates, batched: np.ndarray) -> np.ndarray:
    """Number of the kind (i4) of each allocation that ends in kfree_rcu(), -1 for all others.

    Of one kind are objects of one caller and size: those of __register_sysctl_table() tell tables
    apart.
    """
    kind = np.full(len(events), -1, np.int32)
    # frees have site -1, the entry that is added
    deferred = np.append(fates.lost > 100 * fates.freed, False)
    made = np.flatnonzero(deferred[site]) if deferred.any() else np.zeros(0, np.int64)
    made = made[batched[events["cache"][made]]]
    key = site[made].astype(np.int64) << 32 | events["arg"][made]
    kind[made] = np.unique(key, return_inverse=True)[1].ravel()
    return kind


def _partners(events, site, after, kind, nr_sites: int) -> np.ndarray:
    """Site of the companion per kind, -1 without: of those that fit, the longest-lived."""
    total = np.bincount(kind[kind >= 0])[:, None]
    near, dated, wrong, ages = (np.zeros((len(total), nr_sites), np.int64) for _ in range(4))
    stamp = np.full(nr_sites, -1, np.int64)
    _companions(events, site, after, kind, WITHIN_NS, near, dated, wrong, ages, stamp)
    fits = (near >= SHARE * total) & (wrong <= WRONG * near) & (dated > DATED * near)
    age = np.where(fits, ages / np.maximum(dated, 1), -1.0)
    return np.where(fits.any(axis=1), np.argmax(age, axis=1), -1)


def deferred_frees(
    events: np.ndarray, site: np.ndarray, nr_sites: int, batched: np.ndarray
) -> np.ndarray:
    """FREE events for the objects that ended in kfree_rcu().

    events: EVENT array of the slab operations with keys in ``obj``, in time order.
    site: i4 per event, the caller of an allocation; -1 for frees and unknown ones.
    batched: bool per cache row; false for caches with sheaves, which collect such objects there.
    """
    fates = _fates(events, site, nr_sites)
    kind = _kinds(events, site, fates, batched)
    count = int(np.count_nonzero(kind >= 0))
    if not count:
        return np.zeros(0, EVENT)
    partner = _partners(events, site, fates.after, kind, nr_sites)
    item, when = np.zeros(count, np.int64), np.zeros(count, np.int64)
    n = _hand_over(events, site, fates.after, kind, partner, WITHIN_NS, item, when)
    order = np.argsort(events["t"][when[:n]], kind="stable")
    item, when = item[:n][order], when[:n][order]
    out = events[item].copy()
    t, cpu = events["t"][when], events["cpu"][when].astype(np.int64)
    again = np.where(fates.after[item] >= 0, events["t"][fates.after[item]], _NEVER)
    seen = np.flatnonzero((again < _NEVER) & (again > t))
    moments = np.concatenate([t, again[seen]])
    names = np.concatenate([np.arange(len(t)), -1 - seen])
    back = _drain(t, cpu, again, names[np.argsort(moments, kind="stable")],
                  DRAIN_NS, FULL, JIFFY_NS, GRACE_NS)  # fmt: skip
    out["t"], out["cpu"], out["op"], out["gfp"] = back, cpu, ev.FREE, 0
    out = out[back < again]
    return out[np.argsort(out["t"], kind="stable")]
