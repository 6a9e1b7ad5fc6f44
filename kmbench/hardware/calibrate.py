"""Measures what operations cost on this machine, as a hardware profile.

    kmbench hardware calibrate -o this.toml
    python -m kmbench.hardware.calibrate > this.toml      # needs numpy, numba, pluggy

Every cost is the median over repeats, with quartiles; :func:`doubts` says whether somebody else was
at work.  User space cannot turn interrupts off, enter the kernel's RCU or queue its work items:
those costs are made of measured parts, or derived, and their source says so.  Loads from memory
include misses of the TLB.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kmbench.errors import UsageProblem
from kmbench.hardware.profile import COSTS, MOST_NS, Cost, Profile

__all__ = ["calibrate", "doubts"]

CPU = "/sys/devices/system/cpu/cpu{}/"
SPECULATION = "/sys/devices/system/cpu/vulnerabilities/spec_rstack_overflow"
LINE = 8  # int64 words
FEW_TURNS = 50
TURNS_NS = 10_000_000  # what a repeat with several threads may take
LEVELS = ("ptr_l1", "ptr_l2", "ptr_l3")
ASSUMED_CACHES = {1: 32 << 10, 2: 1 << 20, 3: 16 << 20}
IDLE = 0.05  # CPUs that others keep busy where nobody else is at work
STEADY = 0.1  # of a median: quartiles nearer than that
Sample = tuple[float, float, float]  # median, first and third quartile, ns
Tell = Callable[[str, Cost], None]


def calibrate(name: str = "", quick: bool = False, tell: Tell = lambda name, cost: None) -> Profile:
    """The profile of this machine; `quick` measures less, for a profile of the right form.

    `tell` is called with every cost as it is found.  Raises UsageProblem where compiled code cannot
    be measured or threads cannot be pinned.
    """
    from numba.core import config

    if config.DISABLE_JIT:
        raise UsageProblem("calibration measures compiled code: unset NUMBA_DISABLE_JIT")
    if not hasattr(os, "sched_setaffinity"):
        raise UsageProblem("calibration pins threads to CPUs: it needs Linux")
    bench = _Bench(*((5, 20_000) if quick else (21, 200_000)))
    allowed = sorted(os.sched_getaffinity(0))
    threads = _threads_per_core(allowed)
    details: dict[str, Any] = {"cpu": _cpu_model(), "repeats": bench.repeats}
    costs: dict[str, Cost] = {}

    def keep(found: Iterator[tuple[str, Cost]]) -> None:
        for cost, value in found:
            costs[cost] = value
            tell(cost, value)

    began, others = time.monotonic(), _others_s()
    try:
        os.sched_setaffinity(0, {allowed[0]})
        keep(_own_costs(bench))
        keep(_loads(bench, quick))
        os.sched_setaffinity(0, allowed)
        keep(_shared_costs(bench, allowed, costs["ptr_memory"].ns, details))
    finally:
        os.sched_setaffinity(0, allowed)
    both = sum(costs[kind].ns for kind in ("pcpu", "cas", "call"))
    pair = 4 * costs["br"].ns + 3 * costs["ptr_l1"].ns + 2 * both
    costs["alloc"] = Cost(
        2 * pair,
        "derived: twice the fast path of an allocation and a free, for slow paths among them",
    )
    costs["work"] = Cost(
        3 * costs["spin"].ns + 2 * costs["line_socket"].ns,
        "derived: three locked sections and two lines of another core",
    )
    for kind, cost in costs.items():
        if (most := max((cost.ns, *(cost.quartiles or ())))) > MOST_NS:
            raise UsageProblem(
                f"{kind} took {most:,.0f} ns, expected up to {MOST_NS:,.0f}: others keep the CPUs"
                " busy; calibrate when they are done"
            )
    took = time.monotonic() - began
    details["took_s"] = round(took, 1)
    details["others_cpus"] = round(max(0.0, _others_s() - others) / took, 2)
    if threads > 1:
        details["smt"] = "assumed: 16 to 28 % more than one thread (Marr et al., 2002)"
    return Profile(
        name=name or platform.node() or "this-machine",
        description=f"calibrated: {details['cpu']}, Linux {platform.release()}",
        costs={cost: costs[cost] for cost in COSTS},
        cpus=len(allowed),
        nodes=max(1, len({_read(CPU.format(c) + "topology/physical_package_id") for c in allowed})),
        threads_per_core=threads,
        smt=1.22 if threads > 1 else 1.0,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        memory=f"{max(1, os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30)} GiB",
        details=details,
    )


def doubts(profile: Profile) -> list[str]:
    """What to know before a calibrated profile is used, in a sentence each."""
    found = []
    others = profile.details.get("others_cpus", 0.0)
    if others > IDLE:
        found.append(f"others kept {others:g} CPUs busy meanwhile: repeat when they are done")
    wide = [f"{name} ({cost.spread:.0%})" for name, cost in profile.costs.items()
            if cost.spread is not None and cost.spread > STEADY]  # fmt: skip
    if wide:
        found.append(f"quartiles are more than {STEADY:.0%} of the median apart: {', '.join(wide)}")
    if profile.cpus == 1:
        found.append("one CPU only: lines and locks between CPUs are not measured but assumed")
    return found


class _Bench:
    """Times compiled loops."""

    def __init__(self, repeats: int, nr: int):
        self.repeats, self.nr = repeats, nr

    def __call__(self, probe: Callable, *args: Any, nr: int = 0) -> Sample:
        """Nanoseconds of one operation of ``probe(*args, nr)``."""
        nr = nr or self.nr
        probe(*args, 16)
        times = []
        for _ in range(self.repeats):
            began = time.perf_counter_ns()
            probe(*args, nr)
            times.append((time.perf_counter_ns() - began) / nr)
        return _quartiles(times)

    def together(self, cpus: list[int], probe: Callable, *, turns: bool = False) -> Sample:
        """Nanoseconds of one operation of any of several threads, each pinned to one of `cpus`."""
        from kmbench.hardware import probes

        nr = FEW_TURNS  # a first look: on a busy machine a turn may take milliseconds
        times: list[float] = []
        for repeat in range(self.repeats + 1):
            words = np.zeros(8 * LINE, np.int64)
            start = np.zeros(2 * LINE, np.int64)
            took: dict[int, int] = {}

            def work(me: int, cpu: int, nr=nr, words=words, start=start, took=took) -> None:
                os.sched_setaffinity(0, {cpu})
                met = probes.meet(start, 0, len(cpus))
                began = time.perf_counter_ns()
                probe(words, nr, me) if turns else probe(words, nr)
                if met:
                    took[me] = time.perf_counter_ns() - began

            threads = [threading.Thread(target=work, args=pair) for pair in enumerate(cpus)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if len(took) < len(cpus):
                raise UsageProblem("calibration: threads on other CPUs do not get to run")
            ns = max(max(took.values()), 1) / nr
            if repeat == 0:
                nr = max(FEW_TURNS, min(self.nr // 4, int(TURNS_NS / ns)))
            else:
                times.append(ns / len(cpus))
        return _quartiles(times)


def _quartiles(times: list[float]) -> Sample:
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
    return float(median), float(low), float(high)


def _cost(sample: Sample, source: str, scale: float = 1.0) -> Cost:
    median, low, high = (value * scale for value in sample)
    return Cost(median, source, (low, high))


def _own_costs(bench: _Bench) -> Iterator[tuple[str, Cost]]:
    """What a CPU does by itself."""
    from kmbench.hardware import probes

    words = np.zeros(4 * LINE, np.int64)
    rng = np.random.default_rng(1)
    steady = bench(probes.branches, np.ones(1 << 14, np.int64))
    mixed = bench(probes.branches, rng.integers(0, 2, 1 << 14))
    missed = max(0.0, 2 * (mixed[0] - steady[0]))  # every second one is mispredicted
    source = f"measured: a predicted branch, and 1 % of a misprediction ({missed:.2f} ns)"
    yield "br", _cost(tuple(ns + 0.01 * missed for ns in steady), source)
    yield "pcpu", _cost(bench(probes.own, words), "measured: load, add, store of one word")
    yield "cas", _cost(
        bench(probes.own_exchanges, words),
        "measured: compare and exchange of 16 bytes without lock prefix" if probes.X86
        else "measured: atomic compare and exchange, relaxed",
    )  # fmt: skip
    call = _call_cost(bench, words)
    yield "call", call
    yield "rcu", _rcu_cost(bench(probes.sections, words), call)
    atom = _cost(bench(probes.atomics, words), "measured: atomic add, uncontended")
    yield "atom", atom
    yield (
        "spin",
        _cost(
            bench(probes.locks, np.zeros(2 * LINE, np.int64)),
            "measured: an atomic compare and exchange, a release, a count",
        ),
    )
    if probes.X86:
        yield (
            "irq",
            _cost(
                bench(probes.flags, words),
                "measured: flags saved and restored; turning interrupts off takes the kernel and "
                "is not in it",
            ),
        )
    else:
        yield "irq", Cost(atom.ns, "assumed: as an atomic operation; not measurable")


def _call_cost(bench: _Bench, words: np.ndarray) -> Cost:
    """A call and its return, by the instructions that this kernel returns with."""
    from kmbench.hardware import probes

    if not probes.X86:
        own = bench(probes.own, words)[0]
        return Cost(4 * own, "assumed: as four operations on one's own data")
    if "Safe RET" in _read(SPECULATION):
        return _cost(
            bench(probes.safe_calls, words),
            "measured: a call and a mispredicted return, as this kernel returns (Safe RET)",
        )
    return _cost(bench(probes.plain_calls, words), "measured: a call and its return")


def _rcu_cost(section: Sample, call: Cost) -> Cost:
    """An RCU read section: a preemptible kernel calls a function to enter and one to leave."""
    if "PREEMPT" not in platform.version():
        return _cost(section, "measured: a count up and down; the kernel's is not reached")
    median, low, high = (ns + 2 * call.ns for ns in section)
    return Cost(
        median, "measured: two calls, for this kernel is preemptible, and a count up and down",
        (low, high),
    )  # fmt: skip


def _loads(bench: _Bench, quick: bool) -> Iterator[tuple[str, Cost]]:
    """Dependent loads by cache level."""
    from kmbench.hardware import probes

    caches = _caches()
    memory = 64 << 20 if quick else min(max(4 * caches[3], 256 << 20), 512 << 20)
    sizes = [caches[1] // 2, caches[2] // 2, min(caches[3] // 2, max(4 * caches[2], 8 << 20))]
    for level, size in zip((*LEVELS, "ptr_memory"), (*sizes, memory), strict=True):
        lines = max(size // 64, 16)
        order = np.random.default_rng(2).permutation(lines) * LINE
        following = np.zeros(lines * LINE, np.int64)
        following[order] = np.roll(order, -1)
        beyond = "" if level != "ptr_memory" or size > caches[3] else ", within the last level"
        sample = bench(probes.chase, following, nr=max(bench.nr, min(lines, 2_000_000)))
        yield (
            level,
            _cost(sample, f"measured: pointer chase over {size >> 10} KiB in random order{beyond}"),
        )


def _shared_costs(
    bench: _Bench, cpus: list[int], memory_ns: float, details: dict[str, Any]
) -> Iterator[tuple[str, Cost]]:
    """Lines and locks between CPUs, by distance; on one CPU there is nothing to measure."""
    from kmbench.hardware import probes

    probes.ping_pong(np.zeros(LINE, np.int64), 0, 0)
    probes.hand_over(np.zeros(8 * LINE, np.int64), 1)
    probes.meet(np.zeros(LINE, np.int64), 0, 1)
    pairs = _pairs(cpus)
    costs: dict[str, Cost] = {}
    for name, words in (
        ("line_core", "another thread of the core"), ("line_socket", "another core of the socket"),
        ("line_remote", "another socket"),
    ):  # fmt: skip
        found = [bench.together([*pair], probes.ping_pong, turns=True) for pair in pairs[name]]
        if found:
            sample = sorted(found)[len(found) // 2]
            costs[name] = _cost(
                sample, f"measured: two threads write one word in turn, from {words} "
                f"({len(found)} pairs of CPUs)",
            )  # fmt: skip
    for name, like in (
        ("line_socket", "line_core"), ("line_socket", "line_remote"), ("line_core", "line_socket"),
        ("line_remote", "line_socket"),
    ):  # fmt: skip
        if name not in costs and like in costs:
            costs[name] = Cost(costs[like].ns, f"no such CPUs here: as {like}")
    if not costs:
        for name in ("line_core", "line_socket", "line_remote", "wait"):
            yield name, Cost(memory_ns, "assumed: as a load from memory; there is one CPU only")
        return
    yield from costs.items()
    near = pairs["line_socket"] or pairs["line_core"] or pairs["line_remote"]
    lock = bench.together([*near[0]], probes.hand_over)
    waited = max(0.0, lock[0] - costs["line_socket"].ns)
    yield "wait", Cost(
        waited, f"measured: hand-over of a ticket lock between two cores ({lock[0]:.1f} ns) "
        "without the fetch of one line",
    )  # fmt: skip
    for nr in sorted({2, len(cpus) // 2, len(cpus)}):
        if nr >= 2:
            sample = bench.together(cpus[:nr], probes.atomics)
            details[f"atomic_add_by_{nr}_cpus_ns"] = round(sample[0], 2)


def _pairs(cpus: list[int]) -> dict[str, list[tuple[int, int]]]:
    """Pairs of CPUs by distance, at most five each: the first CPU with others."""
    core = {c: (_read(CPU.format(c) + "topology/physical_package_id"),
                _read(CPU.format(c) + "topology/core_id")) for c in cpus}  # fmt: skip
    first = cpus[0]
    found: dict[str, list] = {"line_core": [], "line_socket": [], "line_remote": []}
    for other in cpus[1:]:
        if core[first] == core[other] and core[first][1]:
            kind = "line_core"
        else:
            kind = "line_socket" if core[first][0] == core[other][0] else "line_remote"
        found[kind].append((first, other))
    return {kind: of[:: max(1, len(of) // 5)][:5] for kind, of in found.items()}


def _others_s() -> float:
    """CPU seconds since boot that were not this process's; with what a host took away."""
    fields = _read("/proc/stat").partition("\n")[0].split()[1:9]
    if len(fields) < 8:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - time.process_time()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _caches() -> dict[int, int]:
    """Bytes of the data caches by level, of the first CPU."""
    found = dict(ASSUMED_CACHES)
    for index in Path(CPU.format(0) + "cache").glob("index*"):
        size, level = _read(str(index / "size")), _read(str(index / "level"))
        if _read(str(index / "type")) != "Instruction" and level.isdigit() and size[:-1].isdigit():
            found[int(level)] = int(size[:-1]) << {"K": 10, "M": 20}.get(size[-1], 0)
    return found


def _threads_per_core(cpus: list[int]) -> int:
    cores = {_read(CPU.format(c) + "topology/thread_siblings_list") or str(c) for c in cpus}
    return max(1, round(len(cpus) / len(cores)))


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "cpu"):
            return value.strip()
    return platform.machine()


if __name__ == "__main__":
    made = calibrate(quick="--quick" in sys.argv)
    sys.stdout.write(made.to_toml())
    for doubt in doubts(made):
        print(f"warning: {doubt}", file=sys.stderr)
