"""Reading kernel memory through one small BPF program, assembled here: no compiler needed.

The program is of type BPF_PROG_TYPE_SYSCALL: it runs when asked to (BPF_PROG_TEST_RUN), in the
context of the asking task.  It works through a list of items, each a linked list of the kernel to
follow, and copies the head of every element into a map that is mapped into this process.  What
cannot be read is skipped (bpf_probe_read_kernel); the lists are read without their locks.

Numbers: Linux include/uapi/linux/bpf.h.
"""

import ctypes
import errno
import mmap
import os
import platform
import struct

import numpy as np

from kmbench.errors import UsageProblem

_SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _PROG_LOAD, _PROG_RUN = 0, 5, 10
_ARRAY, _MMAPABLE = 2, 1 << 10
_PROG_SYSCALL, _SLEEPABLE = 31, 1 << 4
_PERCPU_ARRAY = 6
_KTIME, _CURRENT_TASK, _PROBE_READ_KERNEL, _LOOKUP_PERCPU = 5, 35, 113, 195

COPY = 96  # bytes copied of every element
MAX_ITEMS = 32_768
_CONTROL = 64
_OUT_BYTES = 32 << 20
# one element: index of its item, its address, CLOCK_MONOTONIC ns, the bytes at address - back
RECORD = np.dtype([("item", "<u8"), ("at", "<u8"), ("t", "<u8"), ("data", "V96")])
# first: address of the pointer to the first element, or the element itself if `direct`;
# stop: the address that ends the list (0 always does); link: offset of the next pointer;
# back: where the copy begins, before the element; the next pointer is xored with `xor`, and with
# its own address, bytes swapped, where `swap` is -1 (CONFIG_SLAB_FREELIST_HARDENED); most: elements
ITEM = np.dtype([(name, "<u8") for name in
                 ("first", "direct", "stop", "link", "back", "xor", "swap", "most")])  # fmt: skip
_ALL = (1 << 64) - 1


def walk_item(
    first: int, *, direct: bool = False, stop: int = 0, link: int = 0, back: int = 0,
    xor: int = 0, swap: bool = False, most: int = 1,
) -> tuple:  # fmt: skip
    """A row of ITEM."""
    return (first, int(direct), stop, link, back, xor, _ALL if swap else 0, most)


class _Code:
    """BPF instructions with labels."""

    def __init__(self):
        self.rows: list[tuple[int, int, int, int | str, int]] = []
        self.labels: dict[str, int] = {}

    def op(self, code: int, dst: int = 0, src: int = 0, off: int | str = 0, imm: int = 0) -> None:
        self.rows.append((code, dst, src, off, imm))

    def label(self, name: str) -> None:
        self.labels[name] = len(self.rows)

    def map_value(self, dst: int, fd: int) -> None:
        self.op(0x18, dst, 2, 0, fd)  # BPF_LD_IMM64 with BPF_PSEUDO_MAP_VALUE
        self.op(0)

    def load(self, dst: int, src: int, off: int) -> None:
        self.op(0x79, dst, src, off)

    def store(self, dst: int, off: int, src: int) -> None:
        self.op(0x7B, dst, src, off)

    def move(self, dst: int, src: int) -> None:
        self.op(0xBF, dst, src)

    def call(self, helper: int) -> None:
        self.op(0x85, imm=helper)

    def code(self) -> bytes:
        parts = []
        for at, (code, dst, src, off, imm) in enumerate(self.rows):
            jump = self.labels[off] - at - 1 if isinstance(off, str) else off
            parts.append(struct.pack("<BBhi", code, dst | src << 4, jump, imm))
        return b"".join(parts)


def program(control: int, out: int) -> bytes:
    """The program; `control` and `out` are the descriptors of its two maps.

    Control map: item to do, number of items, bytes written, current element, elements left,
    whether inside an item, then the items.  All state is there: the program may be stopped by the
    kernel's limit on loops and asked again.
    """
    idx, nr, pos, cur, left, inside = 0, 8, 16, 24, 32, 40
    code = _Code()
    code.map_value(6, control)
    code.map_value(7, out)
    code.label("top")
    code.op(0xE5, 0, 0, "exit")  # may_goto: ends the loop when the kernel's patience does
    code.load(1, 6, idx)
    code.load(2, 6, nr)
    code.op(0x3D, 1, 2, "exit")  # idx >= nr
    code.op(0x35, 1, 0, "exit", MAX_ITEMS)
    code.move(8, 1)
    code.op(0x67, 8, imm=6)  # 64 bytes each
    code.op(0x0F, 8, 6)
    code.op(0x07, 8, imm=_CONTROL)
    code.load(2, 6, inside)
    code.op(0x55, 2, 0, "element")
    code.load(2, 8, ITEM.fields["most"][1])
    code.store(6, left, 2)
    code.load(3, 8, ITEM.fields["first"][1])
    code.load(2, 8, ITEM.fields["direct"][1])
    code.op(0x55, 2, 0, "begin")
    _read_pointer(code)
    code.label("begin")
    code.store(6, cur, 3)
    code.op(0xB7, 2, imm=1)
    code.store(6, inside, 2)
    code.label("element")
    code.load(9, 6, cur)
    code.load(2, 8, ITEM.fields["stop"][1])
    code.load(3, 6, left)
    code.op(0x15, 9, 0, "next item")
    code.op(0x15, 3, 0, "next item")
    code.op(0x1D, 9, 2, "next item")
    code.op(0x07, 3, imm=-1)
    code.store(6, left, 3)
    code.load(1, 6, pos)
    code.op(0x35, 1, 0, "exit", _OUT_BYTES - RECORD.itemsize)
    code.move(2, 1)
    code.op(0x07, 2, imm=RECORD.itemsize)
    code.store(6, pos, 2)
    code.op(0x0F, 1, 7)
    code.store(10, -16, 1)
    code.load(2, 6, idx)
    code.store(1, 0, 2)
    code.store(1, 8, 9)
    code.call(_KTIME)
    code.load(1, 10, -16)
    code.store(1, 16, 0)
    code.op(0x07, 1, imm=24)
    code.op(0xB7, 2, imm=COPY)
    code.move(3, 9)
    code.load(4, 8, ITEM.fields["back"][1])
    code.op(0x1F, 3, 4)
    code.call(_PROBE_READ_KERNEL)
    code.load(3, 8, ITEM.fields["link"][1])
    code.op(0x0F, 9, 3)
    code.move(3, 9)
    _read_pointer(code)
    code.op(0xDC, 9, imm=64)  # swap the bytes of its address
    code.load(2, 8, ITEM.fields["swap"][1])
    code.op(0x5F, 9, 2)
    code.op(0xAF, 3, 9)
    code.load(2, 8, ITEM.fields["xor"][1])
    code.op(0xAF, 3, 2)
    code.store(6, cur, 3)
    code.op(0x05, 0, 0, "top")
    code.label("next item")
    code.load(1, 6, idx)
    code.op(0x07, 1, imm=1)
    code.store(6, idx, 1)
    code.op(0xB7, 2, imm=0)
    code.store(6, inside, 2)
    code.op(0x05, 0, 0, "top")
    code.label("exit")
    code.op(0xB7, 0, imm=0)
    code.op(0x95)
    return code.code()


def roots_program(out: int, percpu: int, array: int, cache_of: int, cpus: int) -> bytes:
    """A program that finds where to start.

    It leaves in map `out`: the address of a kmem_cache (that of the running task's task_struct),
    the per-CPU pointer of the value in map `percpu` and that value's address on each CPU.

    array: offset of pptrs in struct bpf_array; cache_of: BTF id of bpf_get_kmem_cache(), 0 where
    the kernel has none.
    """
    code = _Code()
    code.map_value(6, out)
    if cache_of:
        code.call(_CURRENT_TASK)
        code.move(1, 0)
        code.op(0x85, 0, 2, 0, cache_of)
        code.op(0x15, 0, 0, "percpu")
        code.store(6, 0, 0)
    code.label("percpu")
    code.op(0x18, 3, 1, 0, percpu)  # the map itself
    code.op(0)
    code.store(6, 8, 3)  # through memory: the verifier knows no arithmetic on maps
    code.load(3, 6, 8)
    code.op(0x07, 3, imm=array)
    _read_pointer(code)
    code.store(6, 8, 3)
    for cpu in range(cpus):
        code.op(0x62, 10, 0, -16, 0)  # key 0
        code.op(0x18, 1, 1, 0, percpu)
        code.op(0)
        code.move(2, 10)
        code.op(0x07, 2, imm=-16)
        code.op(0xB7, 3, imm=cpu)
        code.call(_LOOKUP_PERCPU)
        code.op(0x15, 0, 0, f"after {cpu}")
        code.store(6, 16 + 8 * cpu, 0)
        code.label(f"after {cpu}")
    code.op(0xB7, 0, imm=0)
    code.op(0x95)
    return code.code()


def _read_pointer(code: _Code) -> None:
    """r3 = the pointer at r3, 0 where it cannot be read."""
    code.move(1, 10)
    code.op(0x07, 1, imm=-8)
    code.op(0xB7, 2, imm=8)
    code.call(_PROBE_READ_KERNEL)
    code.load(3, 10, -8)


class Reader:
    """A loaded program with its maps; use as a context manager."""

    def __init__(self):
        """Raises UsageProblem when the kernel does not let us."""
        self._fds: list[int] = []
        self._views: list[mmap.mmap] = []
        number = _SYSCALLS.get(platform.machine())
        if number is None:
            raise UsageProblem(f"no BPF system call number for {platform.machine()}")
        self._number = number
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._attr = ctypes.create_string_buffer(128)
        try:
            control = self._map(_CONTROL + MAX_ITEMS * ITEM.itemsize)
            out = self._map(_OUT_BYTES)
            self._program = self._load(program(control, out))
        except OSError as error:
            self.close()
            raise UsageProblem(
                f"BPF is not available: {error.strerror} (Linux 6.9 or later, with BPF_SYSCALL)"
            ) from None
        self._control = np.frombuffer(self._views[0], "<u8", 8)
        self._items = np.frombuffer(self._views[0], ITEM, MAX_ITEMS, _CONTROL)
        self._out = np.frombuffer(self._views[1], RECORD, _OUT_BYTES // RECORD.itemsize)
        self._out["item"] = 0  # touch the pages now

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Give program and maps back."""
        for fd in self._fds:
            os.close(fd)
        # the views stay mapped as long as somebody holds an array of them
        self._fds, self._views = [], []

    def _bpf(self, command: int, attr: bytes) -> int:
        ctypes.memset(self._attr, 0, 128)
        ctypes.memmove(self._attr, attr, len(attr))
        result = self._call(self._number, command, self._attr, 128)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def roots(self, array: int, cache_of: int, cpus: int) -> tuple[int, list[int]]:
        """Address of some kmem_cache (0: not found), and the per-CPU offset of each CPU.

        array, cache_of: see :func:`roots_program`.  Raises UsageProblem.
        """
        try:
            percpu = self._bpf(_MAP_CREATE, struct.pack("<5I", _PERCPU_ARRAY, 4, 8, 1, 0))
            self._fds.append(percpu)
            out = self._map(mmap.PAGESIZE)
            cpus = min(cpus, (mmap.PAGESIZE - 16) // 8)
            load = self._load(roots_program(out, percpu, array, cache_of, cpus))
            self._bpf(_PROG_RUN, struct.pack("<II", load, 0))
        except OSError as error:
            raise UsageProblem(f"BPF cannot find the slab caches: {error.strerror}") from None
        found = np.frombuffer(self._views.pop(), "<u8", 2 + cpus).tolist()
        return found[0], [(at - found[1]) % (1 << 64) if at else 0 for at in found[2:]]

    def _map(self, size: int) -> int:
        fd = self._bpf(_MAP_CREATE, struct.pack("<5I", _ARRAY, 4, size, 1, _MMAPABLE))
        self._fds.append(fd)
        self._views.append(mmap.mmap(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE))
        return fd

    def _load(self, code: bytes) -> int:
        text = ctypes.create_string_buffer(code, len(code))
        license_ = ctypes.create_string_buffer(b"GPL")
        log = ctypes.create_string_buffer(1 << 16) if "KMBENCH_DEBUG" in os.environ else None
        attr = struct.pack(
            "<IIQQIIQII", _PROG_SYSCALL, len(code) // 8, ctypes.addressof(text),
            ctypes.addressof(license_), 1 if log else 0, len(log) if log else 0,
            ctypes.addressof(log) if log else 0, 0, _SLEEPABLE,
        )  # fmt: skip
        try:
            fd = self._bpf(_PROG_LOAD, attr)
        except OSError:
            if log:
                raise RuntimeError(log.value.decode()[-4000:]) from None
            raise
        self._fds.append(fd)
        return fd

    def prepare(self, items: np.ndarray) -> None:
        """Set the work of the next :meth:`run`: rows of ITEM, MAX_ITEMS at most."""
        if len(items) > MAX_ITEMS:
            raise UsageProblem(f"{len(items)} lists to walk; expected {MAX_ITEMS} at most")
        self._items[: len(items)] = items
        self._control[:6] = (0, len(items), 0, 0, 0, 0)
        self._run_attr = struct.pack("<II", self._program, 0)

    def run(self) -> None:
        """Do the prepared work.  Raises OSError."""
        control = self._control
        while control[0] < control[1]:
            before = int(control[0]), int(control[2])
            self._bpf(_PROG_RUN, self._run_attr)
            if before == (int(control[0]), int(control[2])):
                raise OSError(errno.ENOSPC, "more slabs than the walk has room for")

    def records(self) -> np.ndarray:
        """A copy of what the last run read, RECORD rows in the order of the items."""
        return self._out[: int(self._control[2]) // RECORD.itemsize].copy()

    def walk(self, items: list[tuple]) -> np.ndarray:
        """:meth:`prepare`, :meth:`run` and :meth:`records` at once."""
        self.prepare(np.array(items, ITEM))
        self.run()
        return self.records()

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes of kernel memory; zeros where it cannot be read."""
        items = [walk_item(at + off, direct=True) for off in range(0, size, COPY)]
        rows = self.walk(items)
        return b"".join(row.tobytes() for row in rows["data"])[:size]

    def pointer(self, at: int) -> int:
        """The 8 bytes at `at`."""
        return int.from_bytes(self.read(at, 8), "little")
