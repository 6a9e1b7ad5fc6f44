"""What asking a superblock's shrinker for a group costs in the kernel that runs here.

    python benchmarks/visits_kernel.py [--groups 1000] [--mounts 1000] [--rounds 3]    (root)

Every group looks up a name that is not there in every one of as many overlay mounts, which leaves a
dentry on a list of its own and sets the bit of that shrinker; remounting drops the dentries
(shrink_dcache_sb) and leaves the bits.  A write to drop_caches then asks for every group and
mount, finds nothing, clears the bit and asks again; the one after it finds no bits, and is taken
off.  Groups are called kmb_visits/*, mounts are in a namespace of their own, and both are gone at
the end.

Prints ns a visit of each round, and what the paths `shrinker_bit` and `shrinker_empty` cost on the
profile given (`--hardware`, default recording-vm).
"""

import argparse
import ctypes
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from kmbench.analysis.pricing import path_prices
from kmbench.core.paths import PATHS, SHRINKER_BIT, SHRINKER_EMPTY
from kmbench.hardware.profile import load_profile

CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE, MNT_DETACH = (
    0x20000, 1, 32, 16384, 1 << 18, 2
)  # fmt: skip
ROOTS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *args: str | int | None) -> None:
    """A call of libc; OSError if it fails."""
    given = [a.encode() if isinstance(a, str) else a for a in args]
    if getattr(libc, function)(*given):
        error = ctypes.get_errno()
        raise OSError(error, f"{function}{args}: {os.strerror(error)}")


def mounts_below(folder: str, nr: int, stack: ExitStack) -> list[str]:
    """As many superblocks, which show nothing; in this process's own namespace."""
    call("unshare", CLONE_NEWNS)
    call("mount", "none", "/", None, MS_REC | MS_PRIVATE, None)
    call("mount", "tmpfs", folder, "tmpfs", 0, None)
    stack.callback(call, "umount2", folder, MNT_DETACH)
    for name in ("below", "above"):
        os.mkdir(f"{folder}/{name}")
    made = []
    for i in range(nr):
        path = f"{folder}/{i}"
        os.mkdir(path)
        call("mount", "o", path, "overlay", 0, f"lowerdir={folder}/above:{folder}/below")
        stack.callback(call, "umount2", path, MNT_DETACH)
        made.append(path)
    return made


def make_groups(root: Path, nr: int, stack: ExitStack) -> list[Path]:
    """As many memory cgroups, removed again by `stack`."""
    top = root / "kmb_visits"
    for path in (top, *(top / str(i) for i in range(nr))):
        path.mkdir()
        stack.callback(path.rmdir)
        if path == top and (root / "cgroup.controllers").exists():
            (top / "cgroup.subtree_control").write_text("+memory")
    return [top / str(i) for i in range(nr)]


def look_up(root: Path, groups: list[Path], mounts: list[str]) -> None:
    """From each group in turn, a name in every mount; then its dentries go, the bits stay."""
    try:
        for i, group in enumerate(groups):
            (group / "cgroup.procs").write_text(str(os.getpid()))
            for path in mounts:
                os.path.exists(f"{path}/{i}")
    finally:
        (root / "cgroup.procs").write_text(str(os.getpid()))
    for path in mounts:
        call("mount", "o", path, "overlay", MS_REMOUNT | MS_RDONLY, None)


def drop_slab() -> float:
    """ns that a write of 2 to drop_caches takes."""
    with open("/proc/sys/vm/drop_caches", "wb", buffering=0) as file:
        began = time.perf_counter_ns()
        file.write(b"2")
        return time.perf_counter_ns() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=1000)
    parser.add_argument("--mounts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hardware", default="recording-vm")
    given = parser.parse_args()
    root = next((r for r in ROOTS if (r / "cgroup.procs").exists()), None)
    if root is None or os.geteuid():
        sys.exit("visits_kernel: needs root and a memory cgroup hierarchy")
    prices = path_prices(enumerate(PATHS), load_profile(given.hardware))
    print(f"{given.groups} groups, {given.mounts} mounts, Linux {os.uname().release}")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        mounts = mounts_below(folder, given.mounts, stack)
        groups = make_groups(root, given.groups, stack)
        for _ in range(given.rounds):
            drop_slab()  # what else is cached
            look_up(root, groups, mounts)
            full, *idle = (drop_slab() for _ in range(4))
            visit = (full - min(idle)) / (given.groups * given.mounts)
            print(f"{visit:8.1f} ns a visit", flush=True)
    price = prices[SHRINKER_BIT] + prices[SHRINKER_EMPTY]
    print(f"{price:8.1f} ns as counted, {given.hardware}")


if __name__ == "__main__":
    main()
