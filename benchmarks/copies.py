"""What per-memcg copies of caches add to a desktop's slab memory, their own structures included.

    python benchmarks/copies.py [SCENARIO] [--cpus 1]...

A copy's structures are slab memory themselves: its kmem_cache and kmem_cache_node, and on SLAB the
array of free objects that a node's CPUs share, which comes from kmalloc (5.3 mm/slab.c:
enable_cpucache, setup_kmem_cache_node, alloc_arraycache).  ``slab_bytes`` does not have them.
Arrays of CPUs are per-CPU memory since 3.18 ("mm/slab: use percpu allocator for cpu cache") and no
part of it.

Prints, for services that run on all CPUs in turn and on so many each (`--cpus`, default 1 and 2),
MiB of slabs at the peak without copies (linux-5.9) and with them (linux-5.3), what the structures
of the copies take beside, and after over before.
"""

import argparse
import tempfile
from pathlib import Path

import polars as pl

import kmbench
from kmbench.core.slab_geometry import index_bucket

DESKTOP = Path(__file__).parents[1] / "workloads" / "published" / "gushchin-2020-desktop.toml"
BEFORE, AFTER = "linux-5.3", "linux-5.9"
KMEM_CACHE = 256 + 128  # with a kmem_cache_node: slots of Linux 6.18 x86_64
ARRAY_CACHE = 16  # avail, limit, batchcount, touched


def at_peak(results, strategy: str, slab: bool) -> tuple[float, float]:
    """MiB of slabs when there are most, and of the structures of the copies that there are then."""
    run = results.runs.filter(strategy=strategy).collect()["run_id"][0]
    caches = results.caches.filter(pl.col("run_id") == run).collect()
    slabs = caches.group_by("sample").agg(pl.col("slab_bytes").sum()).sort("slab_bytes")[-1]
    copies = caches.filter(pl.col("sample") == slabs["sample"][0], pl.col("memcg") > 1)
    beside = KMEM_CACHE * len(copies)
    if slab:
        for entries in copies["shared_factor"] * copies["batchcount"]:
            beside += index_bucket(ARRAY_CACHE + 8 * entries) if entries else 0
    return slabs["slab_bytes"][0] / 2**20, beside / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", type=Path, nargs="?", default=DESKTOP)
    parser.add_argument("--cpus", type=int, action="append")
    given = parser.parse_args()
    print("cpus of a service  allocator  after  before  structures  after/before  with structures")
    for cpus in (0, *(given.cpus or (1, 2))):
        for allocator in ("slub", "slab"):
            settings = {"workload.parts.boot.cpus_used": str(cpus), "allocator": f'"{allocator}"'}
            with tempfile.TemporaryDirectory() as folder:
                results = kmbench.run(
                    given.scenario, [BEFORE, AFTER], out=folder, settings=settings
                )
                before, beside = at_peak(results, BEFORE, allocator == "slab")
                after, _ = at_peak(results, AFTER, allocator == "slab")
            print(
                f"{cpus or 'all':>17}  {allocator:>9}  {after:5.1f}  {before:6.1f}  {beside:10.2f}"
                f"  {after / before:12.3f}  {after / (before + beside):15.3f}"
            )


if __name__ == "__main__":
    main()
