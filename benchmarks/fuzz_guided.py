"""Fuzzes the importers guided by coverage: inputs that reach new code are kept and changed again.

    pip install atheris
    python benchmarks/fuzz_guided.py -runs=20000

The input is the text of a trace, of /proc/slabinfo or of memory.stat, chosen by its first byte;
seeds are short texts of each kind.  An importer must answer or refuse in one line: anything else
raised ends the run and leaves the input in a file, as libFuzzer does.  Other options are
libFuzzer's (-max_total_time=, -rss_limit_mb=, a folder of inputs).  What is compiled (the scanner
of words) cannot guide: it is run, not observed.
"""

import sys
import tempfile
from pathlib import Path

import atheris

from kmbench.errors import KmbenchError

COMPILED = ["caches", "names", "objects", "scan", "words"]

with atheris.instrument_imports(
    include=["kmbench.trace.importers"],
    exclude=[f"kmbench.trace.importers.{name}" for name in COMPILED],
):
    from kmbench.trace.importers import import_trace
    from kmbench.trace.importers.snapshots import read_memory_stat, read_slabinfo

TRACE = b"""# tracer: nop
     bash-1 [000] d..1. 1.000000: kmalloc: call_site=f+0x1 ptr=00000000aa bytes_req=60 bytes_alloc=64 gfp_flags=GFP_KERNEL node=-1 accounted=false
     bash-1 [000] d..1. 1.000009: kfree: call_site=f+0x1 ptr=00000000aa
     bash-1 [001] d..1. 1.000010: kmem_cache_alloc: call_site=g ptr=00000000bb name=dentry bytes_req=192 bytes_alloc=192 gfp_flags=GFP_KERNEL|__GFP_ACCOUNT node=-1 accounted=true
"""  # noqa: E501
SLABINFO = b"""slabinfo - version: 2.1
# name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
dentry 40 42 192 21 1 : tunables 0 0 0 : slabdata 2 2 0
"""
MEMORY_STAT = b"anon 4096\nkernel 8192\nslab 4096\nslab_reclaimable 4096\n"
SEEDS = {"trace": b"t" + TRACE, "slabinfo": b"s" + SLABINFO, "memory.stat": b"m" + MEMORY_STAT}


def main() -> None:
    """Hand over to libFuzzer, which ends the process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = folder / "seeds"
        seeds.mkdir()
        for kind, text in SEEDS.items():
            (seeds / kind).write_bytes(text)
        given, target = folder / "given.txt", folder / "made.kmtrace.parquet"

        def one(data: bytes) -> None:
            given.write_bytes(data[1:])
            try:
                if data[:1] == b"s":
                    read_slabinfo(given)
                elif data[:1] == b"m":
                    read_memory_stat(given)
                else:
                    import_trace([str(given)], target)
            except KmbenchError:
                pass

        atheris.Setup([*sys.argv, str(seeds)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
