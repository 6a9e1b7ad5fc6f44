"""From what was recorded to a capture folder, at once or by way of a raw recording."""

import json

import numpy as np
import numpy.lib.recfunctions as rfn
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from canned_recording import canned_recording
from kmbench.cli import trace_assemble
from kmbench.errors import UsageProblem
from kmbench.trace.capture import read_capture
from kmbench.trace.record import raw, snapshots
from kmbench.trace.record.assemble import assemble, write_tables
from kmbench.trace.record.slabs import LISTED
from kmbench.trace.record.verdicts import truth


def test_a_capture_is_assembled_and_can_be_read(tmp_path):
    made = assemble(canned_recording())
    document = truth(made)
    write_tables(made, tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(made.manifest))
    (tmp_path / "truth.json").write_text(json.dumps(document))
    events = made.tables["events"].to_pydict()
    sites = made.manifest["sites"]
    assert [sites[site] for site in events["site"]].count("alloc_empty_file+0x10") == 5
    assert sites[events["site"][-2]] == "__send_signal_locked+0x4"
    # charged: in task context, not in the softirq, not what a task does after its exit
    assert [flags & 3 for flags in events["flags"] if flags & 1] == [3, 3, 3, 1, 1]
    assert 8 in [flags & 8 for flags in events["flags"]]
    assert events["cache"].count(1) == 1  # kmalloc-large
    assert made.manifest["dropped_null_ptr"] == 1
    slabs = made.tables["slabs"].to_pydict()
    assert sorted(slabs["pfn"]) == [5, 0x100]
    old = slabs["pfn"].index(5)
    assert slabs["t_alloc"][old] == -1
    assert (slabs["vector0"][old], slabs["vector0"][1 - old]) == (1, -1)
    assert made.manifest["dumps"]["filp"][0]["vectors"] == 1
    assert slabs["t_free"][slabs["pfn"].index(0x100)] > 0
    assert made.tables["pages"].column("op").to_pylist() == [0, 1]
    aux = made.tables["aux"].to_pydict()
    assert [text for name, text in zip(aux["ev"], aux["s"], strict=True) if name == "marker"] == [
        "START"
    ]
    assert aux["s"].count("/kmb_a") == 2 and "/other" not in aux["s"]
    capture = read_capture(tmp_path)
    assert [group.name for group in capture.setup.groups] == ["/", "/host0", "/kmb_ctl", "/kmb_a"]
    group = document["memcgs"]["/kmb_a"]  # of few objects, one was freed untraced
    assert (group["readings"], group["untraced_frees"], group["scoreable"]) == (2, 1, False)
    assert document["caches"]["filp"]["why_not"] == "fewer than 200 events"


def test_a_raw_recording_says_the_same_elsewhere(tmp_path):
    """Saved on the machine that is watched, assembled on another."""
    path = tmp_path / "one.kmraw.npz"
    recording = canned_recording()
    reading = snapshots.Reading(1, 2, b"0,0,\xff 7")
    shots = [shot._replace(sysfs=reading) for shot in recording.snapshots]
    recording = recording._replace(snapshots=shots)
    raw.save(recording, path)
    again = raw.load(path)
    assert again.snapshots == recording.snapshots and again.tasks == recording.tasks
    assert again.hierarchy == recording.hierarchy and again.pages == recording.pages
    one, two = assemble(recording), assemble(again)
    assert one.manifest == two.manifest
    assert {name: table.to_pydict() for name, table in one.tables.items()} == {
        name: table.to_pydict() for name, table in two.tables.items()
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.kmraw.npz"]


def test_a_raw_recording_from_before_vectors_were_read(tmp_path):
    path = tmp_path / "one.kmraw.npz"
    raw.save(canned_recording(), path)
    with np.load(path) as file:
        arrays = dict(file)
    for at in range(3):
        kept = [name for name in LISTED.names if name != "vector"]
        arrays[f"listed{at}"] = rfn.repack_fields(arrays[f"listed{at}"][kept])
    del arrays["vector0"], arrays["vector1"]
    np.savez(path, **arrays)
    made = assemble(raw.load(path))
    assert set(made.tables["slabs"].column("vector0").to_pylist()) == {-1}
    assert set(made.tables["slabdump"].column("vector").to_pylist()) == {-1}
    assert "vectors" not in made.manifest["dumps"]["filp"][0]


def test_assemble_makes_the_folder(tmp_path):
    raw.save(canned_recording(), tmp_path / "one.kmraw.npz")
    out = tmp_path / "one"
    argv = [str(tmp_path / "one.kmraw.npz"), "-o", str(out), "--json"]
    result = CliRunner().invoke(trace_assemble.command, argv)
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    events = pq.read_table(out / "events.parquet")
    assert (document["slab_events"], document["snapshots"]) == (len(events), 2)
    assert json.loads((out / "manifest.json").read_text())["name"] == "canned"
    result = CliRunner().invoke(trace_assemble.command, argv)
    assert isinstance(result.exception, UsageProblem) and "exists already" in str(result.exception)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", None])
def test_what_is_no_raw_recording_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "one.kmraw.npz"
    if content is None:
        np.savez(path, document=np.frombuffer(b'{"version": 1}', np.uint8))
    else:
        path.write_bytes(content)
    with pytest.raises(UsageProblem, match="expected what `kmbench trace record --raw` writes"):
        raw.load(path)


def test_a_raw_recording_of_another_version_is_refused(tmp_path):
    path = tmp_path / "one.kmraw.npz"
    np.savez(path, document=np.frombuffer(b'{"version": 99}', np.uint8))
    with pytest.raises(UsageProblem, match="version 99; expected 1"):
        raw.load(path)
    with pytest.raises(UsageProblem, match="No such file"):
        raw.load(tmp_path / "none.kmraw.npz")


@pytest.mark.parametrize(
    ("kernel", "era"),
    [("Linux box 6.18.44-fc #1 SMP x86_64", "6.18"), ("Linux box 7.3.4+deb13 #1", "6.18"),
     ("Linux box 6.12.117+deb13-amd64 #1", "6.12"), ("Linux box 6.1.0-50 #1", "5.16"),
     ("Linux box 3.2.0 #1", "3.5"), ("Linux", "6.18")],
)  # fmt: skip
def test_the_allocator_is_that_of_the_recorded_kernel(tmp_path, kernel, era):
    recording = canned_recording()
    made = assemble(recording._replace(manifest=recording.manifest | {"kernel": kernel}))
    write_tables(made, tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(made.manifest))
    assert read_capture(tmp_path).setup.era == era
