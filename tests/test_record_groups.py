"""Memory cgroups of both versions as a recording finds, makes and reads them."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from canned_recording import canned_pages, canned_recording, event, formats, page
from kmbench.errors import UsageProblem
from kmbench.trace.record import cgroups, guard, kmem, snapshots, tasks
from kmbench.trace.record.assemble import assemble
from kmbench.trace.record.stream import build_table
from kmbench.trace.record.tracefs import Format
from kmbench.trace.record.verdicts import truth

DATA = Path(__file__).parent / "data" / "cgroup_v2"  # as the kernels of that release print it


def test_memory_hierarchies_of_both_versions():
    one = "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n"
    two = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
    found = cgroups.parse_mounts(two + one, "4:memory:/a/b\n0::/c\n")
    assert found == (Path("/sys/fs/cgroup/memory"), 1, 4)
    assert cgroups.membership("4:memory:/a/b\n0::/c\n", found) == "/a/b"
    unified = cgroups.parse_mounts(two, "0::/c\n")
    assert unified == (Path("/sys/fs/cgroup"), 2, 0)
    assert cgroups.membership("0::/c\n", unified) == "/c"
    assert cgroups.parse_mounts("proc /proc proc rw 0 0\n", "") is None


def test_a_unified_hierarchy_is_found_filled_and_read(tmp_path, monkeypatch):
    """Version 2 from a tree of files; benchmarks/record_v2.sh does it with a real kernel."""
    root = tmp_path / "cgroup"
    (root / "kmb_a").mkdir(parents=True)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"cgroup2 {root} cgroup2 rw 0 0\n")
    monkeypatch.setattr(cgroups, "_MOUNTS", mounts)
    (root / "cgroup.controllers").write_text("cpu io\n")
    with pytest.raises(UsageProblem, match="has no memory controller"):
        cgroups.find_hierarchy()
    (root / "cgroup.controllers").write_text("cpu memory io\n")
    (root / "memory.stat").write_text("anon 4096\nslab 8192\n")
    with pytest.raises(UsageProblem, match="no `kernel`; it came with Linux 5.18"):
        cgroups.find_hierarchy()
    (root / "memory.stat").write_bytes((DATA / "memory.stat.6.18").read_bytes())
    (root / "cgroup.subtree_control").write_text("cpu pids\n")
    hierarchy = cgroups.find_hierarchy()
    assert hierarchy == (root, 2, 0)
    assert not cgroups.is_delegated(hierarchy)
    cgroups.delegate(hierarchy)
    assert (root / "cgroup.subtree_control").read_text() == "+memory"
    assert cgroups.make(hierarchy, "kmb_b").is_dir()
    for name, text in (("memory.stat", "anon 4096\nfile 0\nkernel 28672\nfile_mapped 5\n"),
                       ("memory.current", "40960\n"),
                       ("memory.events", "low 0\nmax 2\n")):  # fmt: skip
        (root / "kmb_a" / name).write_text(text)
    sampler = snapshots.Sampler.__new__(snapshots.Sampler)
    sampler._hierarchy, sampler._flush, sampler._fds = hierarchy, False, []
    sampler._groups = {}
    assert sampler._find_groups() == 2  # kmb_b has no files, as a group that is just going
    texts = [os.pread(fd, 4096, 0) for fd in sampler._groups["/kmb_a"]]
    sampler.close()
    assert list(sampler._groups) == []

    # the same recording as that of version 1, but of hierarchy 0
    recording = canned_recording()
    reading = snapshots.Reading(1500, 1510, texts[0])
    shots = [shot._replace(groups=[("/kmb_a", reading, *texts[1:])])
             for shot in recording.snapshots]  # fmt: skip
    recording = recording._replace(hierarchy=hierarchy, snapshots=shots, pages=canned_pages(0))
    made = assemble(recording)
    assert made.manifest["memcgs"] == ["/", "/host0", "/kmb_ctl", "/kmb_a"]
    memcgs = made.tables["memcgs"].to_pylist()
    assert {(row["memcg"], row["kmem_usage"], row["mem_usage"], row["failcnt"], row["cache"])
            for row in memcgs} == {(3, 28672, 40960, 2, 0)}  # fmt: skip


def test_foreign_groups_are_never_touched(tmp_path):
    hierarchy = cgroups.Hierarchy(tmp_path, 1, 4)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "kmb_x").mkdir()
    with pytest.raises(UsageProblem, match="begins with kmb_"):
        cgroups.make(hierarchy, "web")
    assert not cgroups.remove(hierarchy, tmp_path / "web")
    assert not cgroups.remove(hierarchy, tmp_path / "web" / "kmb_x")
    assert (tmp_path / "web" / "kmb_x").is_dir()


def test_files_of_both_versions_are_read():
    stat = b"anon 4096\nfile 8192\nkernel 12288\nfile_mapped 1\n"
    assert snapshots.kmem_bytes(stat, 2) == 12288
    assert snapshots.kmem_bytes(b"4096\n", 1) == 4096
    assert snapshots.failures(b"low 0\nhigh 0\nmax 3\n", 2) == 3
    assert snapshots.failures(b"7\n", 1) == 7
    assert snapshots.user_bytes(stat, 2) == (4096, 8192, 1)
    assert snapshots.user_bytes(b"", 1) == (None, None, None)
    assert snapshots.in_brackets(b"126(12) C0=73(7)") == 12
    assert snapshots.first_number(b"0(0)") == 0
    stat = "1 (a) b) S 0 1 1 0 -1 4194560 0" + " 0" * 12 + " 42\n"
    assert tasks.parse_flags(stat) == 4194560


@pytest.mark.parametrize(
    ("release", "kernel", "user"),
    [("6.1", 593_920, (495_616, 913_408, 28_672)), ("6.12", 651_264, (577_536, 995_328, 20_480)),
     ("6.18", 692_224, (704_512, 1_159_168, 143_360))],
)  # fmt: skip
def test_memory_stat_of_real_kernels(release, kernel, user):
    text = (DATA / f"memory.stat.{release}").read_bytes()
    assert snapshots.kmem_bytes(text, 2) == kernel
    assert snapshots.user_bytes(text, 2) == user
    assert (
        snapshots.failures(b"low 0\nhigh 0\nmax 3\noom 0\noom_kill 0\noom_group_kill 0\n", 2) == 3
    )


def test_a_counter_s_changes_have_the_fields_that_are_read():
    found = Format((DATA / "mod_memcg_state.format.6.18").read_text())
    assert found.name == "mod_memcg_state"
    assert {key: found.fields[key] for key in ("id", "item", "val")} == {
        "id": (8, 8), "item": (16, 4), "val": (20, 4),
    }  # fmt: skip


def _counter_pages() -> dict[int, bytes]:
    """/kmb_a with a group below it, removed and made again; 78 is of another hierarchy."""

    def change(number: int, pages: int) -> tuple[int, bytes]:
        return 10, event("mod_memcg_state", 11, id=number, item=52, val=pages)

    def made(number: int, path: str, root: int = 0) -> tuple[int, bytes]:
        return 10, event("cgroup_mkdir", 10, root=root, id=number, path=path)

    return {0: page(1000, [
        change(5, 100), made(77, "/kmb_a"), made(78, "/kmb_a", 9), change(77, 3), change(78, 50),
        made(79, "/kmb_a/in"), made(80, "/kmb_ab"), change(79, 4), change(80, 1), change(77, -2),
        made(81, "/kmb_a"), change(81, 9), change(79, -4),
    ])}  # fmt: skip


def test_kernel_memory_is_summed_up_from_every_change_of_the_counter():
    levels = kmem.KmemLevels(build_table(_counter_pages(), formats(), 4096), 0)
    pages = {t: levels.at("/kmb_a", t) for t in (1015, 1020, 1040, 1079, 1080, 1100, 1110, 1120)}
    assert pages == {1015: None, 1020: 0, 1040: 3 * 4096, 1079: 3 * 4096, 1080: 7 * 4096,
                     1100: 5 * 4096, 1110: 0, 1120: 9 * 4096}  # fmt: skip
    assert levels.at("/kmb_ab", 5000) == 4096
    assert levels.at("/", 5000) is None  # there before the recording


def _v2_recording(source: str):
    """The canned recording on cgroup v2: memory.stat says 4 pages, the counter 2, then 5."""
    recording = canned_recording()
    changes = [(0, event("cgroup_mkdir", 10, root=0, id=77, path="/kmb_a")),
               (300, event("mod_memcg_state", 11, id=77, item=52, val=2)),
               (205, event("mod_memcg_state", 11, id=77, item=52, val=3))]  # fmt: skip
    pages = {**canned_pages(0), 2: page(1005, changes)}
    shots = []
    for shot, t in zip(recording.snapshots, (1400, 1600), strict=True):
        reading = snapshots.Reading(t, t + 10, b"anon 0\nkernel 16384\n")
        groups = [("/kmb_a", reading, b"40960\n", b"max 0\n", b"")]
        shots.append(shot._replace(groups=groups))
    manifest = recording.manifest | {"kmem_source": source}
    return recording._replace(hierarchy=cgroups.Hierarchy(Path("/cg"), 2, 0), pages=pages,
                              snapshots=shots, manifest=manifest)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "usage", "off"),
    [(kmem.TRACED, [2 * 4096, 5 * 4096], (1.5, 2)), (kmem.FLUSHED, [16384, 16384], None)],
)
def test_the_counter_is_believed_more_than_memory_stat(source, usage, off):
    made = assemble(_v2_recording(source))
    assert made.tables["memcgs"].column("kmem_usage").to_pylist() == usage
    quality = made.manifest["quality"]
    if off:
        assert off == (quality["memory_stat_off_pages_mean"],
                       quality["memory_stat_off_pages_worst"])  # fmt: skip
    else:
        assert "memory_stat_off_pages_mean" not in quality


def test_groups_read_from_a_memory_stat_that_nothing_flushed_are_no_judges(monkeypatch):
    monkeypatch.setattr("kmbench.trace.record.verdicts.MAX_BATCHED", 1.0)
    fit = truth(assemble(_v2_recording(kmem.FLUSHED)))["memcgs"]["/kmb_a"]
    stale = truth(assemble(_v2_recording(kmem.STALE)))["memcgs"]["/kmb_a"]
    assert fit["scoreable"] and not stale["scoreable"]
    made = assemble(_v2_recording(kmem.FLUSHED))
    aux = made.tables["aux"]
    kept = aux.filter(pc.not_equal(aux["ev"].cast(pa.string()), "cgroup_mkdir"))
    older = made._replace(tables=made.tables | {"aux": kept})
    assert not truth(older)["memcgs"]["/kmb_a"]["scoreable"]  # it was there before


def test_which_kernels_flush_memory_stat_with_cpu_stat():
    flushes = [kmem.cpu_stat_flushes(release) for release in
               ("5.18.0", "6.1.0-50-cloud-amd64", "6.12.117+deb13", "6.15.1", "6.16.0-rc1",
                "6.18.44-fc", "7.0.1", "strange")]  # fmt: skip
    assert flushes == [True, True, True, True, False, False, False, False]


def test_cpu_stat_is_read_first_where_it_flushes(tmp_path, monkeypatch):
    group = tmp_path / "kmb_a"
    group.mkdir()
    for name in ("memory.stat", "memory.current", "memory.events", "cpu.stat"):
        (group / name).write_text("kernel 4096\n")
    order = []
    for flush in (True, False):
        sampler = snapshots.Sampler.__new__(snapshots.Sampler)
        sampler._hierarchy = cgroups.Hierarchy(tmp_path, 2, 0)
        sampler._flush, sampler._fds, sampler._groups, sampler.snapshots = flush, [], {}, []
        sampler._cgroups = sampler._slabinfo = sampler._vmstat = os.open("/dev/null", os.O_RDONLY)
        sampler._sysfs = []
        read = os.pread

        def pread(fd, size, at, read=read):
            order.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            return read(fd, size, at)

        monkeypatch.setattr(os, "pread", pread)
        sampler.snapshot()
        monkeypatch.setattr(os, "pread", read)
        sampler.close()
        os.close(sampler._cgroups)
        names = [name for name in order if "." in name]
        assert names[: 2 if flush else 1] == ["cpu.stat", "memory.stat"][0 if flush else 1 :]
        order.clear()


def test_the_controller_is_taken_back_when_nobody_else_has_groups(tmp_path, monkeypatch):
    control = tmp_path / "cgroup.subtree_control"
    control.write_text("cpu memory\n")
    hierarchy = cgroups.Hierarchy(tmp_path, 2, 0)
    assert cgroups.is_delegated(hierarchy)
    assert cgroups.is_delegated(cgroups.Hierarchy(tmp_path / "none", 1, 4))
    monkeypatch.setattr(cgroups, "find_hierarchy", lambda: hierarchy)
    monkeypatch.setattr(guard, "state_folder", lambda: tmp_path.parent / "state")
    for delegated, other, text in (
        ("", False, "cpu memory\n"), ("memory", True, "cpu memory\n"),
        ("memory", False, "-memory"),
    ):  # fmt: skip
        mine = guard.Belongings(1)
        mine.note(group=tmp_path / "kmb_a", delegated=delegated)
        (tmp_path / "kmb_a").mkdir()
        if other:
            (tmp_path / "web").mkdir()
        assert guard.take_away(mine.path) == []
        assert control.read_text() == text
        if other:
            (tmp_path / "web").rmdir()
