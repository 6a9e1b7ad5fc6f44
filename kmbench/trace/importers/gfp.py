"""Allocation flags as a trace prints them, as the bits of Linux 6.18.

Names: include/trace/events/mmflags.h (``__GFP_ZERO``, from 4.6 on) and before it
include/trace/events/gfpflags.h (``GFP_ZERO``, ``GFP_WAIT``).  A tool that cannot resolve the names
prints the bits in hex; they moved with include/linux/gfp.h of 4.4, 4.10, 4.19 and 5.1.
"""

from kmbench.core import events as ev

_COMP, _NOWARN, _WRITE, _RETRY = 0x40000, 0x2000, 0x1000, 0x4000
_NOMEMALLOC, _HARDWALL, _THISNODE = 0x80000, 0x100000, 0x200000
_HIGHMEM, _DMA, _DMA32, _MOVABLE, _ATOMIC = 0x2, 0x1, 0x4, 0x8, 0x200
_RECLAIM = ev.GFP_NOIO  # both: what GFP_WAIT and __GFP_RECLAIM mean
_USER = ev.GFP_KERNEL | _HARDWALL
_HIGHUSER = _USER | _HIGHMEM
_LIGHT = _HIGHUSER | _MOVABLE | _COMP | _NOMEMALLOC | _NOWARN

GFP_COMP, GFP_DMA, GFP_MOVABLE = _COMP, _DMA, _MOVABLE

# single bits, without their leading underscores
_BITS = {
    "DMA": _DMA, "HIGHMEM": _HIGHMEM, "DMA32": _DMA32, "MOVABLE": _MOVABLE,
    "RECLAIMABLE": ev.GFP_RECLAIMABLE, "HIGH": ev.GFP_HIGH, "IO": ev.GFP_IO, "FS": ev.GFP_FS,
    "ZERO": ev.GFP_ZERO, "DIRECT_RECLAIM": ev.GFP_DIRECT_RECLAIM, "WAIT": _RECLAIM,
    "KSWAPD_RECLAIM": ev.GFP_KSWAPD_RECLAIM, "RECLAIM": _RECLAIM, "WRITE": _WRITE,
    "NOWARN": _NOWARN, "RETRY_MAYFAIL": _RETRY, "REPEAT": _RETRY, "NOFAIL": ev.GFP_NOFAIL,
    "NORETRY": ev.GFP_NORETRY, "MEMALLOC": ev.GFP_MEMALLOC, "COMP": _COMP,
    "NOMEMALLOC": _NOMEMALLOC, "HARDWALL": _HARDWALL, "THISNODE": _THISNODE,
    "ACCOUNT": ev.GFP_ACCOUNT, "ATOMIC": 0, "KMEMCG": ev.GFP_ACCOUNT, "ZEROTAGS": 0x800000,
    "COLD": 0, "NOTRACK": 0, "OTHER_NODE": 0, "NO_KSWAPD": 0, "NOACCOUNT": 0, "NOLOCKDEP": 0,
    "SKIP_ZERO": 0, "SKIP_KASAN": 0, "SKIP_KASAN_POISON": 0, "SKIP_KASAN_UNPOISON": 0,
    "CMA": 0, "NO_OBJ_EXT": 0,
}  # fmt: skip

# combinations, which every release prints without underscores
_COMBINED = {
    "GFP_KERNEL": ev.GFP_KERNEL, "GFP_KERNEL_ACCOUNT": ev.GFP_KERNEL_ACCOUNT,
    "GFP_NOFS": ev.GFP_NOFS, "GFP_NOIO": ev.GFP_NOIO, "GFP_ATOMIC": ev.GFP_ATOMIC,
    "GFP_NOWAIT": ev.GFP_NOWAIT, "GFP_USER": _USER, "GFP_HIGHUSER": _HIGHUSER,
    "GFP_HIGHUSER_MOVABLE": _HIGHUSER | _MOVABLE, "GFP_DMA": _DMA, "GFP_DMA32": _DMA32,
    "GFP_TEMPORARY": ev.GFP_KERNEL | ev.GFP_RECLAIMABLE, "GFP_IOFS": ev.GFP_IO | ev.GFP_FS,
    "GFP_TRANSHUGE_LIGHT": _LIGHT, "GFP_TRANSHUGE": _LIGHT | ev.GFP_DIRECT_RECLAIM,
    "none": 0,
}  # fmt: skip

# names of single bits that only kernels before 4.6 print without underscores
OLD_NAMES = tuple(
    f"GFP_{name}"
    for name in ("ZERO", "WAIT", "NOWARN", "REPEAT", "NORETRY", "COMP", "NOTRACK", "NOMEMALLOC")
)

_SAME = {bit: bit for bit in (1, 2, 4, 8, 0x20, 0x40, 0x80)}
_MIDDLE = {
    0x200: _NOWARN, 0x400: _RETRY, 0x800: ev.GFP_NOFAIL, 0x1000: ev.GFP_NORETRY,
    0x2000: ev.GFP_MEMALLOC, 0x4000: _COMP, 0x8000: ev.GFP_ZERO, 0x10000: _NOMEMALLOC,
    0x20000: _HARDWALL, 0x40000: _THISNODE,
}  # fmt: skip
_SINCE_44 = _SAME | _MIDDLE | {
    0x10: ev.GFP_RECLAIMABLE, 0x100000: ev.GFP_ACCOUNT, 0x400000: ev.GFP_DIRECT_RECLAIM,
}  # fmt: skip
# layout -> bit in the trace -> bits of 6.18
LAYOUTS = {
    "3.x": _SAME | _MIDDLE | {
        0x10: _RECLAIM, 0x80000: ev.GFP_RECLAIMABLE, 0x100000: ev.GFP_ACCOUNT, 0x1000000: _WRITE,
    },
    "4.4": _SINCE_44 | {0x1000000: _WRITE, 0x2000000: ev.GFP_KSWAPD_RECLAIM},
    "4.10": _SINCE_44 | {0x800000: _WRITE, 0x1000000: ev.GFP_KSWAPD_RECLAIM},
    "4.19": _SAME | _MIDDLE | {
        0x10: ev.GFP_RECLAIMABLE, 0x100: _WRITE, 0x100000: ev.GFP_ACCOUNT,
        0x200000: ev.GFP_DIRECT_RECLAIM, 0x400000: ev.GFP_KSWAPD_RECLAIM,
    },
    "5.1": {1 << bit: 1 << bit for bit in range(24) if 1 << bit != _ATOMIC},
}  # fmt: skip
_LAYOUT_OF_ERA = {
    "3.5": "3.x", "3.8": "3.x", "3.13": "3.x", "4.5": "4.4", "4.19": "4.19",
}  # fmt: skip


def layout_of_value(value: int) -> str | None:
    """Layout in which `value` is a GFP_KERNEL; None when it is none in any."""
    if value & 0xC0 != 0xC0:
        return None
    for layout, both in (
        ("5.1", 0xC00), ("4.4", 0x2400000), ("4.10", 0x1400000), ("4.19", 0x600000),
    ):  # fmt: skip
        if value & both == both:
            return layout
    return "3.x" if value & 0x10 else None


def layout_of_era(era: str) -> str:
    """Layout of the bits of the kernels that `era` stands for."""
    return _LAYOUT_OF_ERA.get(era, "5.1")


def gfp_bits(text: str, layout: str) -> tuple[int, bool]:
    """Bits of Linux 6.18 (0-23) for flags as printed, and whether every part was understood."""
    bits, known = 0, True
    for part in text.split("|"):
        name = part.removeprefix("__")
        if part in _COMBINED:
            bits |= _COMBINED[part]
        elif name.startswith("GFP_") and name[4:] in _BITS:
            bits |= _BITS[name[4:]]
        else:
            try:
                value = int(part, 16)
            except ValueError:
                known = False
                continue
            if not 0 <= value < 1 << 32:
                known = False
                continue
            for bit, meant in LAYOUTS[layout].items():
                if value & bit:
                    bits |= meant
    return bits & 0xFFFFFF, known
