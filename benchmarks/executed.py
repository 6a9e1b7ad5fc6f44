"""What the kernel that runs here executes for accounting, counted instruction by instruction.

    pip install unicorn capstone
    python benchmarks/executed.py [--group /sys/fs/cgroup/memory/kmb_executed]    (root)

An emulator executes the kernel's own text on copies of its memory, which a BPF program reads a page
at a time; nothing is written back.  Pairs are __kmalloc_noprof(size, GFP_KERNEL_ACCOUNT) and kfree,
a message is msgsnd and msgrcv, and like other system calls begins at do_syscall_64, by this task in
the root memcg and in a group that is made for it.  What is counted comes after some like it; what
an RCU period frees later is not there.

Prints for each an allocation and its free (a message) in the root, in the group, and what is more:
instructions, the calls and returns among them, calls of __rcu_read_lock (`sections`), locked
instructions (`atomics`), branches, instructions on per-CPU data, loads and stores that are not the
stack's; lines of code and of data.  Of messages, sent again and again, also what misses in caches
that replace the least recently used: lines of code in 32 KiB of 8 ways and in 64 KiB of 16, data in
32 KiB, and decoded instructions, 8 of a line in a row in 64 sets of 8, and 9 in 64 sets of 12.

Needs x86-64, kernel symbols and BPF; refuses where somebody traces slab events.  BPF programs that
others attached are left out, as are the entry of a system call and the user's own code.
"""

import argparse
import bisect
import ctypes
import mmap
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM

import capstone
import unicorn
from caches import LINE, decoded, lines, misses
from unicorn import x86_const as x86

GFP_KERNEL_ACCOUNT = 0x400CC0
CLOSE, SOCKETPAIR, MSGSND, MSGRCV, EVENTFD, PIPE = 3, 53, 69, 70, 290, 293
STACK, STACK_SIZE, STOP, USER = 0xFFFF_C0DE_0000_0000, 1 << 16, 0xFFFF_C0DF_0000_0000, 1 << 28
PAGE = 4096
WARM, TRIES = 4, 50
Executed = list[tuple[int, capstone.CsInsn]]
Accesses = list[tuple[int, int]]  # address, bytes
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attributes: bytes) -> int:
    given = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = libc.syscall(321, command, given, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return result


class Memory:
    """Pages of the kernel's memory, read by a BPF program."""

    def __init__(self):
        def op(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
            return struct.pack("<BBhi", code, dst | src << 4, off, imm)

        array = bpf(0, struct.pack("<5I", 2, 4, PAGE, 1, 1 << 10))  # BPF_MAP_CREATE, mmapable
        self.page_read = mmap.mmap(array, PAGE, mmap.MAP_SHARED, mmap.PROT_READ)
        text = (
            op(0x79, 6, 1) + op(0xBF, 7, 1)  # r6 = the address
            + op(0x85, imm=35) + op(0x7B, 7, 0, 8)  # get_current_task
            + op(0x62, 10, 0, -4)  # key = 0
            + op(0x18, 1, 1, 0, array) + op(0) + op(0xBF, 2, 10) + op(0x07, 2, imm=-4)
            + op(0x85, imm=1) + op(0x55, 0, 0, 2)  # map_lookup_elem
            + op(0xB7, 0, imm=-1) + op(0x95)
            + op(0xBF, 1, 0) + op(0xB7, 2, imm=PAGE) + op(0xBF, 3, 6)
            + op(0x85, imm=113) + op(0x95)  # probe_read_kernel
        )  # fmt: skip
        code, licence = ctypes.create_string_buffer(text), ctypes.create_string_buffer(b"GPL")
        where = ctypes.addressof(code), ctypes.addressof(licence)
        kind = struct.pack("<IIQQIIQII", 31, len(text) // 8, *where, 0, 0, 0, 0, 1 << 4)
        self.program = bpf(5, kind)  # BPF_PROG_LOAD, of type syscall, sleepable
        self.context = ctypes.create_string_buffer(16)

    def page(self, address: int) -> bytes:
        """The page that an address is in; OSError if the kernel has none."""
        struct.pack_into("<Q", self.context, 0, address & -PAGE)
        run = struct.pack(
            "<IIIIQQIIIIQ", self.program, 0, 0, 0, 0, 0, 0, 0, 16, 0, ctypes.addressof(self.context)
        )
        given = ctypes.create_string_buffer(run.ljust(128, b"\0"), 128)
        failed = libc.syscall(321, 10, given, 128) < 0  # BPF_PROG_TEST_RUN
        if failed or struct.unpack_from("<i", given, 4)[0] < 0:
            raise OSError(f"{address:#x}: not readable")
        return self.page_read[:PAGE]

    def task(self) -> int:
        """The struct task_struct of this task."""
        return struct.unpack_from("<Q", self.context, 8)[0]

    def read(self, address: int, size: int) -> bytes:
        last = self.page(address + size - 1) if (address ^ address + size - 1) & -PAGE else b""
        return (self.page(address) + last)[address % PAGE :][:size]


class Kernel:
    """The text of the running kernel, executed on copies of its memory."""

    def __init__(self):
        self.memory = Memory()
        symbols = [line.split()[:3] for line in Path("/proc/kallsyms").read_text().splitlines()]
        found = sorted((int(at, 16), name) for at, kind, name in symbols if kind in "tT"
                       and not name.startswith("__pfx_"))  # fmt: skip
        self.starts, self.names = [at for at, _ in found], [name for _, name in found]
        self.at = {name: at for at, name in reversed(found)}
        self.disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self.disassembler.detail = True
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cpus[:1])  # the copies are those of another, which is idle
        offsets = self._operand("idle_cpu", "rdi*8") % (1 << 64)  # __per_cpu_offset
        self.per_cpu = struct.unpack("<Q", self.memory.read(offsets + 8 * cpus[-1], 8))[0]
        self.current = (self.per_cpu + self._operand("__rcu_read_lock", "gs:")) % (1 << 64)
        self.preempt_count = (self.per_cpu + self._operand("_raw_spin_lock", "gs:")) % (1 << 64)
        self.forget()

    def _operand(self, function: str, text: str) -> int:
        """Where the first operand of a function that looks like this is, without registers."""
        start = self.at[function]
        for found in self.disassembler.disasm(self.memory.read(start, 128), start):
            for operand in found.operands:
                if operand.type == capstone.x86.X86_OP_MEM and text in found.op_str:
                    after = found.address + found.size
                    return operand.mem.disp + (after if "rip" in found.op_str else 0)
        raise OSError(f"{function}: no operand {text}")

    def forget(self) -> None:
        """Drop all copies."""
        self.engine = engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        engine.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        engine.mem_map(STACK, STACK_SIZE)
        engine.mem_map(STOP, PAGE)
        engine.mem_map(USER, 4 * PAGE)
        engine.reg_write(x86.UC_X86_REG_GS_BASE, self.per_cpu)
        engine.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._copy)
        engine.hook_add(unicorn.UC_HOOK_INSN_INVALID, self._pass)
        engine.hook_add(unicorn.UC_HOOK_CODE, self._passed)
        engine.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, self._accessed)
        self.passed: list[int] = []
        self.accesses: Accesses = []
        self.known: dict[int, capstone.CsInsn] = {}

    def _copy(self, engine, kind, address, size, value, _) -> bool:
        try:
            for page in {address & -PAGE, (address + size - 1) & -PAGE}:
                if not any(low <= page <= high for low, high, _ in engine.mem_regions()):
                    engine.mem_map(page, PAGE)
                    engine.mem_write(page, self.memory.page(page))
                    if page == self.current & -PAGE:
                        engine.mem_write(self.current, struct.pack("<Q", self.memory.task()))
                        engine.mem_write(self.preempt_count, struct.pack("<I", 1 << 31))
        except OSError:
            return False
        return True

    def _pass(self, engine, _) -> bool:
        at = engine.reg_read(x86.UC_X86_REG_RIP)
        if engine.mem_read(at, 3) not in (b"\x0f\x01\xca", b"\x0f\x01\xcb"):  # clac, stac
            return False
        engine.reg_write(x86.UC_X86_REG_RIP, at + 3)
        return True

    def _passed(self, engine, address, size, _) -> None:
        if not (self.passed and self.passed[-1] == address):  # a repeated string instruction is one
            self.passed.append(address)

    def _accessed(self, engine, kind, address, size, value, _) -> None:
        self.accesses.append((address, size))

    def call(self, name: str, *args: int) -> int:
        """What a function of the kernel returns."""
        engine, top = self.engine, STACK + STACK_SIZE - 264
        engine.mem_write(top, struct.pack("<Q", STOP))
        engine.reg_write(x86.UC_X86_REG_RSP, top)
        for register, value in zip((x86.UC_X86_REG_RDI, x86.UC_X86_REG_RSI), args, strict=True):
            engine.reg_write(register, value)
        engine.emu_start(self.at[name], STOP, count=1_000_000)
        return engine.reg_read(x86.UC_X86_REG_RAX)

    def system_call(self, nr: int, *args: int) -> int:
        """What a system call of this task returns; struct pt_regs as entry_SYSCALL_64 leaves it."""
        order = ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx",
                 "si", "di", "orig_ax", "ip", "cs", "flags", "sp", "ss")  # fmt: skip
        regs = dict.fromkeys(order, 0) | {"orig_ax": nr, "cs": 0x33, "ss": 0x2B, "flags": 0x202}
        regs |= {"ip": USER, "cx": USER, "r11": 0x202, "sp": USER + 2 * PAGE}
        regs |= zip(("di", "si", "dx", "r10", "r8"), args, strict=False)
        self.engine.mem_write(STACK, struct.pack("<21Q", *regs.values()))
        self.call("do_syscall_64", STACK, nr)
        return struct.unpack("<q", self.engine.mem_read(STACK + 8 * order.index("ax"), 8))[0]

    def executed(self) -> Executed:
        """Instructions since the last time, with addresses; without attached BPF programs."""
        found = []
        text = range(self.at["_stext"], self.at["_etext"])
        for at in self.passed:
            if at not in text:
                continue
            if at not in self.known:
                code = bytes(self.engine.mem_read(at, min(15, PAGE - at % PAGE)))
                self.known[at] = next(self.disassembler.disasm(code, at), None) or next(
                    self.disassembler.disasm(self.memory.read(at, 15), at)
                )
            found.append((at, self.known[at]))
        self.passed = []
        if any("trace_event" in self.function(at) for at in self.known):
            raise OSError("somebody traces events of this kernel: repeat when they are done")
        return found

    def function(self, at: int) -> str:
        return self.names[bisect.bisect_right(self.starts, at) - 1]


def counts(kernel: Kernel, executed: Executed, accesses: Accesses, whole: bool) -> Counter:
    found: Counter = Counter()
    for at, one in executed:
        name = one.mnemonic
        found["instructions"] += 1
        found["calls"] += name == "call"
        found["returns"] += name.startswith("ret")
        found["sections"] += at == kernel.at["__rcu_read_lock"]
        found["atomics"] += name.startswith("lock ")
        found["branches"] += name.startswith("j") and name != "jmp"
        found["per CPU"] += "gs:" in one.op_str
    own = range(STACK, STACK + STACK_SIZE)
    found["loads and stores"] = sum(at not in own for at, _ in accesses)
    code = [(line,) for at, one in executed for line in lines(at, one.size)]
    data = [(line,) for at, size in accesses for line in lines(at, size)]
    found["lines of code"] = len(set(code))
    found["lines of data"] = len({line for (line,) in data if line * LINE not in own})
    if whole:
        passed = [(at, one.size) for at, one in executed]
        found["missing: code, 64 x 8 lines"] = misses(code, 64, 8)
        found["missing: code, 64 x 16 lines"] = misses(code, 64, 16)
        found["missing: data, 64 x 8 lines"] = misses(data, 64, 8)
        found["missing: decoded, 64 x 8 of 8"] = misses(decoded(passed, 8), 64, 8)
        found["missing: decoded, 64 x 12 of 9"] = misses(decoded(passed, 9), 64, 12)
    return found


def pairs(kernel: Kernel, size: int, run: int) -> Counter:
    """An allocation and its free, the mean of a run of them."""
    for _ in range(WARM):
        kernel.passed, kernel.accesses = [], []
        objects = [kernel.call("__kmalloc_noprof", size, GFP_KERNEL_ACCOUNT) for _ in range(run)]
        for obj in objects:
            kernel.call("kfree", obj, 0)
    found = counts(kernel, kernel.executed(), kernel.accesses, False)
    return Counter({name: nr if "lines" in name else nr / run for name, nr in found.items()})


def descriptors(kernel: Kernel, nr: int, *args: int) -> Counter:
    """A system call that makes file descriptors, and close; the mean of some."""
    total: Counter = Counter()
    for turn in range(2 * WARM):
        kernel.passed, kernel.accesses = [], []
        made = kernel.system_call(nr, *args)
        if made < 0:
            raise OSError(f"system call {nr} returned {made}")
        for fd in [made] if made else struct.unpack("<ii", kernel.engine.mem_read(USER, 8)):
            kernel.system_call(CLOSE, fd)
        if turn >= WARM:
            total += counts(kernel, kernel.executed(), kernel.accesses, False)
    return Counter({name: nr / WARM for name, nr in total.items()})


def message(kernel: Kernel, size: int) -> Counter:
    """A message of a queue, sent and received."""
    queue = libc.msgget(0, 0o600)
    try:
        kernel.engine.mem_write(USER, struct.pack("<q", 1))
        for _ in range(WARM):
            kernel.passed, kernel.accesses = [], []
            took = (kernel.system_call(MSGSND, queue, USER, size, 0),
                    kernel.system_call(MSGRCV, queue, USER, size, 0, 0))  # fmt: skip
            if took != (0, size):
                raise OSError(f"msgsnd and msgrcv returned {took}")
        return counts(kernel, kernel.executed(), kernel.accesses, True)
    finally:
        libc.msgctl(queue, 0, None)


def enter(folder: Path) -> None:
    (folder / "cgroup.procs").write_text(str(os.getpid()))
    for _ in range(10):  # the next accounted allocation finds the task's obj_cgroup
        os.close(os.open("/", os.O_RDONLY))


def counted(kernel: Kernel, case: Callable[[Kernel], Counter]) -> Counter:
    """A case, again where the copies had the task about to be preempted or a list half changed."""
    for left in reversed(range(TRIES)):
        kernel.forget()
        try:
            return case(kernel)
        except (OSError, unicorn.UcError) as problem:
            if not left:
                raise OSError(f"not steady in {TRIES} tries, the last: {problem}") from None
            time.sleep(0.1)
    raise AssertionError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--group", type=Path, default="/sys/fs/cgroup/memory/kmb_executed",
                        help="folder of the group to make, beside the root's files")  # fmt: skip
    group = parser.parse_args().group
    cases = {f"{size} B, {run} at a time": (lambda kernel, size=size, run=run:
                                            pairs(kernel, size, run))
             for size, run in ((64, 1), (1024, 64), (4096, 1))}  # fmt: skip
    cases |= {f"message of {size} B": (lambda kernel, size=size: message(kernel, size))
              for size in (8, 2000, 2001, 4048)}  # fmt: skip
    cases |= {name: (lambda kernel, call=call: descriptors(kernel, *call)) for name, call in (
        ("eventfd, close", (EVENTFD, 0, 0)), ("pipe, close", (PIPE, USER, 0)),
        ("socketpair, close", (SOCKETPAIR, AF_UNIX, SOCK_STREAM, 0, USER)),
    )}  # fmt: skip
    try:
        kernel = Kernel()
        group.mkdir()
        try:
            for name, case in cases.items():
                found = []
                for folder in (group.parent, group):
                    enter(folder)
                    found.append(counted(kernel, case))
                root, own = found
                print(f"{name:30} {'root':>8} {'group':>8} {'more':>8}")
                for what in own:
                    more = own[what] - root[what]
                    print(f"  {what:28} {root[what]:8.5g} {own[what]:8.5g} {more:+8.4g}")
        finally:
            enter(group.parent)
            group.rmdir()
    except (OSError, KeyError) as problem:
        print(f"executed.py: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
