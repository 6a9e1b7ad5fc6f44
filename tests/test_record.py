"""A recording as a whole: its command line, what it needs, what it leaves, and the real thing."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from kmbench.cli.trace_record import command, read_commands
from kmbench.errors import UsageProblem
from kmbench.trace.record import bpf, cgroups, guard, session, slabs, tracefs
from kmbench.trace.record.btf import Types, kernel_types
from kmbench.trace.record.output import check_target
from kmbench.trace.record.slabs import address_of
from kmbench.trace.record.tracefs import EVENTS, losses


def test_losses_are_counted_and_buffers_are_modest():
    assert losses({0: {"entries": 5, "overrun": 2, "dropped events": 1}, 1: {}}) == 3
    assert session.default_buffer_kb(16 << 20, 2) == session.BUFFER_KB
    assert session.default_buffer_kb(1 << 20, 64) == 4096


def test_members_are_found_in_type_information():
    strings = b"\0slab\0inuse\0inner\0int\0"
    at = {name: strings.index(name.encode() + b"\0") for name in ("slab", "inuse", "inner", "int")}
    types = struct.pack("<IIII", at["int"], 1 << 24, 4, 32)  # 1: int
    types += struct.pack("<IIIIII", 0, 5 << 24 | 1, 4, at["inuse"], 1, 0)  # 2: union { int inuse; }
    types += struct.pack("<IIIIII", at["slab"], 4 << 24 | 1, 16, 0, 2, 64)  # 3: struct slab
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    found = Types(header + types + strings)
    assert found.size("slab") == 16
    assert found.offset("slab", "inuse") == 8
    assert not found.has("slab", "objects") and found.function("slab") == 0
    with pytest.raises(ValueError, match="not BTF"):
        Types(bytes(64))
    assert len(bpf.program(3, 4)) % 8 == 0  # whole instructions


def test_constants_of_enums_are_found_in_type_information():
    strings = b"\0item\0MEMCG_SOCK\0MEMCG_KMEM\0"
    at = {name: strings.index(name.encode() + b"\0") for name in
          ("item", "MEMCG_SOCK", "MEMCG_KMEM")}  # fmt: skip
    types = struct.pack("<IIIIiIi", at["item"], 6 << 24 | 2, 4, at["MEMCG_SOCK"], 48,
                        at["MEMCG_KMEM"], 51)  # fmt: skip
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    found = Types(header + types + strings)
    assert found.enumerator("MEMCG_KMEM") == 51
    with pytest.raises(KeyError):
        found.enumerator("MEMCG_SWAP")


def test_a_kernel_of_other_structures_is_told_in_one_line(tmp_path, monkeypatch):
    """Linux 7.3 has no kmem_cache_cpu any more; others publish no types."""
    strings = b"\0kmem_cache\0name\0"
    types = struct.pack("<IIIIII", 1, 4 << 24 | 1, 8, 12, 0, 0)  # struct kmem_cache { name }
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    found = Types(header + types + strings)
    monkeypatch.setattr(slabs, "kernel_types", lambda: found)
    with pytest.raises(UsageProblem, match=r"has no kmem_cache.list \(structures are"):
        slabs.SlabWalker([], 1)
    monkeypatch.setattr(slabs, "kernel_types", lambda: kernel_types(tmp_path / "vmlinux"))
    with pytest.raises(UsageProblem, match="vmlinux: No such file or directory"):
        slabs.SlabWalker([], 1)
    (tmp_path / "vmlinux").write_bytes(bytes(64))
    with pytest.raises(UsageProblem, match="not BTF"):
        slabs.SlabWalker([], 1)


def test_variables_of_the_kernel_are_found_in_kallsyms():
    text = "ffffffff81000000 T _text\nffffffff82a3c1e0 D slab_caches\n0000000000000000 d hidden\n"
    assert address_of("slab_caches", text) == 0xFFFFFFFF82A3C1E0
    for name in ("hidden", "_text"):  # hidden by kptr_restrict; a function
        with pytest.raises(UsageProblem, match=f"does not tell {name}"):
            address_of(name, text)


def test_what_the_kernel_lacks_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(tracefs, "ROOTS", (tmp_path,))
    with pytest.raises(UsageProblem, match="tracefs is not mounted: mount -t tracefs"):
        session.check()
    (tmp_path / "instances").mkdir()
    for event in EVENTS:
        if not event.startswith("sched/"):
            (tmp_path / "events" / event).mkdir(parents=True)
    with pytest.raises(UsageProblem, match="no trace event sched/sched_process_fork, sched/"):
        session.check()


def test_the_watched_machine_needs_no_compiler():
    """Recording with --raw imports numpy and click, of all that kmbench depends on."""
    code = """
import sys
import kmbench.cli.app, kmbench.cli.trace, kmbench.cli.trace_record
import kmbench.trace.record.session, kmbench.trace.record.output, kmbench.trace.record.uniform
print(*sorted({name.partition(".")[0] for name in sys.modules} & {
    "click", "llvmlite", "numba", "numpy", "polars", "pyarrow", "rich"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["click", "numpy"]


def test_a_raw_recording_does_not_replace_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    check_target(tmp_path / "folder")
    for name in ("folder", "file"):
        (tmp_path / "file").touch()
        with pytest.raises(UsageProblem, match="exists already"):
            check_target(tmp_path / name, raw=True)


def test_commands_and_groups():
    assert read_commands(("a=ls -l",), ("true", "x")) == {
        "a": ["/bin/sh", "-c", "ls -l"], "main": ["true", "x"],
    }  # fmt: skip
    with pytest.raises(UsageProblem, match="nothing to run"):
        read_commands((), ())
    with pytest.raises(UsageProblem, match="--group main"):
        read_commands(("main=x",), ("y",))


@pytest.mark.parametrize(
    ("pairs", "word"),
    [(("a",), "NAME=CMD"), (("../a=x",), "NAME=CMD"), (("ctl=x",), "NAME=CMD"),
     (("a= ",), "no command"), (("a=x", "a=y"), "twice")],
)  # fmt: skip
def test_groups_that_make_no_sense(pairs, word):
    with pytest.raises(UsageProblem, match=word):
        read_commands(pairs, ())


def test_what_a_dead_recorder_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "state_folder", lambda: tmp_path / "state")
    (tmp_path / "part").mkdir()
    (tmp_path / "state").mkdir()
    document = {"pid": 1, "start": -1, "instance": "", "groups": [], "files": [f"{tmp_path}/part"]}
    (tmp_path / "state" / "1.json").write_text(json.dumps(document))
    (tmp_path / "state" / "2.json").write_text("{")  # the disk was full
    mine = guard.Belongings(os.getpid())
    mine.note(home="/")
    assert guard.sweep() == ([], [os.getpid()])
    assert not (tmp_path / "part").exists()
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [f"{os.getpid()}.json"]


def test_who_may_not_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(command, ["--dry-run", "--", "true"])
    assert isinstance(result.exception, UsageProblem)
    assert "needs root" in str(result.exception)


def _reason() -> str:
    try:
        session.check()
    except (UsageProblem, OSError) as problem:
        return str(problem)
    return ""


REASON = _reason()
live = pytest.mark.skipif(bool(REASON), reason=f"cannot record here: {REASON}")


def _remains() -> list[str]:
    machine = session.check()
    return [*map(str, cgroups.leftovers(machine.hierarchy)),
            *map(str, (machine.tracing / "instances").glob("kmb_*")),
            *map(str, guard.state_folder().glob("*"))]  # fmt: skip


@pytest.fixture
def alone():
    """One recording at a time, whoever else runs these tests."""
    with open(Path(tempfile.gettempdir()) / "kmbench-test-record.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@live
@pytest.mark.usefixtures("alone")
def test_a_command_is_recorded(tmp_path):
    from kmbench.trace.capture import read_capture

    out = tmp_path / "new"
    result = CliRunner().invoke(command, ["-o", str(out), "--", "ls", "/usr"])
    assert result.exit_code == 0, result.output or result.exception
    capture = read_capture(out)
    assert len(capture.events) > 100
    assert "/kmb_main" in [group.name for group in capture.setup.groups]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["events_lost"] == 0 and manifest["missed_event_pages"] == 0
    assert set(manifest["trace_events"]) >= {event.split("/")[1] for event in EVENTS[:6]}
    assert not _remains()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@live
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_it_is_stopped(tmp_path, number):
    code = "from kmbench.cli.trace_record import command; command.main()"
    argv = [sys.executable, "-c", code, "-o", str(tmp_path / "new"), "--", "sleep", "60"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    machine = session.check()
    deadline = time.monotonic() + 30
    while not (machine.hierarchy.root / "kmb_main").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(number)
    assert process.wait(30) == (-9 if number == signal.SIGKILL else 130)
    process.stderr.close()
    while _remains() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _remains()
    assert not list(tmp_path.iterdir())
