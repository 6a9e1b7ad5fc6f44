"""Captures of a real kernel: a folder of Parquet tables and a manifest, as kmbench input."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from kmbench.core.events import EVENT, SLAB_ACCOUNT
from kmbench.core.geometry import era_of
from kmbench.core.setup import INITIAL_OBJECT, CacheSpec, Machine, Setup
from kmbench.errors import UsageProblem
from kmbench.trace.capture_state import (
    HANDLE_SHIFT,
    field,
    initial_objects,
    items,
    read_caches,
    read_groups,
    read_initial_slabs,
    slab_caches,
)
from kmbench.trace.capture_stream import read_aux, read_stream
from kmbench.trace.gap import untraced_allocations
from kmbench.trace.grace import alive_before
from kmbench.trace.handles import Repairs, assign_handles
from kmbench.trace.tables import read_json


class Capture(NamedTuple):
    """A recording, ready to be replayed."""

    setup: Setup
    events: np.ndarray  # EVENT, time order
    manifest: dict  # the capture's own
    repairs: Repairs
    vectors: dict[str, int]  # left out, made less given back until the end of the workload


def lost_events(manifest: dict) -> int:
    """How many events the recorder's ring buffers lost; pages of unknown loss count once each."""
    total = int(manifest.get("missed_event_pages") or 0)
    stats = manifest.get("ring_stats")
    for row in stats.values() if isinstance(stats, dict) else ():
        for name in ("overrun", "commit overrun", "dropped events"):
            text = str(row.get(name, 0)) if isinstance(row, dict) else ""
            total += int(text) if text.isdigit() else 0
    return total


def is_capture(path: Path) -> bool:
    """Whether `path` is a folder that looks like a capture."""
    return (path / "manifest.json").is_file() and (path / "events.parquet").is_file()


def mostly_charged(caches: tuple[CacheSpec, ...], asked: np.ndarray) -> np.ndarray:
    """Which caches (bool) have SLAB_ACCOUNT, or had most of their objects made with __GFP_ACCOUNT.

    Where a recording does not tell it slab by slab, the slabs of those had obj_cgroup vectors
    before it began: without, the replay makes 335 to 1,012 vectors too many for buffer_head alone.

    asked: per cache, allocations with the flag less those without.
    """
    always = np.array([cache.flags & SLAB_ACCOUNT != 0 for cache in caches], np.bool_)
    return always | (asked > 0)


def _era(kernel: str) -> str:
    """Era of a manifest's `kernel` ("Linux HOST RELEASE ..."), 6.18 where it tells no release."""
    found = re.search(r"\s(\d+)\.(\d+)[\s.-]", f"{kernel} ")
    return era_of(int(found[1]), int(found[2])) if found else "6.18"


def read_capture(folder: str | Path) -> Capture:
    """Read a capture folder.

    Where an object lies in memory is taken from the recording only for objects that existed
    before it; every later one is placed by the model.

    Raises UsageProblem naming the file, the field and what was expected.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    manifest = read_json(path)
    rows = slab_caches(path, manifest)
    names = [row["name"] for row in rows]
    sheaves = [field(path, row, "sheaf_capacity", int) > 0 for row in rows]
    paths = items(path, manifest, "memcgs", str)
    aux = read_aux(folder)
    created = set(aux.filter(pl.col("ev") == "cgroup_mkdir")["s"])
    groups = read_groups(path, manifest, created)
    group_rows = {name: row for row, name in enumerate(paths, 1)}
    parents = [group.parent for group in groups]
    sites = items(path, manifest, "sites", str)
    # before the events, after the workload, after the final shrink
    dump_times = items(path, manifest, "dump_t", int, 2)
    stream = read_stream(folder, sites, names, group_rows, parents, aux, dump_times, sheaves)
    caches = read_caches(path, manifest, stream.accounted_caches)
    charged = mostly_charged(caches, stream.asked)
    initial = read_initial_slabs(folder, manifest, caches, charged)
    first_frees = stream.handles[stream.first_frees]
    slab_of = first_frees >> HANDLE_SHIFT
    if len(slab_of) and int(slab_of.max()) >= len(initial.row_of_slab):
        raise UsageProblem(
            f"{folder / 'events.parquet'}: column obj names slab {int(slab_of.max())};"
            f" expected a row of slabs.parquet ({len(initial.row_of_slab)} rows)"
        )
    slab_rows = initial_objects(first_frees, initial)
    keys = stream.first_frees[slab_rows > 0]
    cpus = field(path, manifest, "nproc", int)
    unseen = np.zeros(0, EVENT)
    if dump_times[0] < -1:
        slab_of_key = np.zeros(stream.keys, np.int32)
        slab_of_key[keys] = slab_rows[slab_rows > 0]
        unseen = untraced_allocations(
            folder, initial.slabs, caches, stream.raw, slab_of_key, cpus, stream.keys,
            dump_times[1] - 1,
        )  # fmt: skip
    early = alive_before(stream.raw, stream.role, stream.keys, keys)
    extra = np.concatenate([unseen, early])
    done = assign_handles(
        stream.raw, stream.role, extra[np.argsort(extra["t"], kind="stable")],
        stream.keys + len(unseen), keys, len(caches), dump_times[1],
    )  # fmt: skip
    objects = np.zeros(len(keys), INITIAL_OBJECT)
    objects["obj"] = np.arange(1, len(keys) + 1)
    objects["slab"] = slab_rows[slab_rows > 0]
    setup = Setup(
        machine=Machine(
            cpus=cpus,
            memory_pages=field(path, manifest, "memtotal_kb", int) // 4,
        ),
        era=_era(str(manifest.get("kernel", ""))),
        caches=caches,
        groups=groups,
        nr_objects=done.nr_objects,
        initial_slabs=initial.slabs,
        initial_objects=objects,
        initial_sheaves=initial.sheaves,
    )
    vectors = {
        spec.name: int(count) for spec, count in zip(caches, done.vectors[1:], strict=True) if count
    }
    return Capture(setup, done.events, manifest, done.repairs, vectors)
