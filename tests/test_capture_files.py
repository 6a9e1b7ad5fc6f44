"""Captures as files: turned into trace files, damaged, incomplete."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kmbench.core import events as ev
from kmbench.errors import UsageProblem
from kmbench.trace.capture import lost_events, read_capture
from kmbench.trace.convert import convert_capture
from kmbench.trace.format import open_trace
from kmbench.trace.recording import open_recording
from kmbench.trace.truth import read_truth
from trace_capture import of_op, write_capture


def test_conversion_whole_and_cut(tmp_path):
    truth = {
        "caches": {"dentry": {"scoreable": True, "live_end": 1, "live_end_from_events": 1,
                              "slabs_made": 2, "slabs_gone": 1}},
        "memcgs": {"/job": {"scoreable": True}},
    }  # fmt: skip
    folder = write_capture(
        tmp_path / "c", truth=truth, events=[{"t": 1, "obj": 600}, {"t": 600, "obj": 601}],
        snapshots=[{"t": 100, "cache": 0, "num_slabs": 4}, {"t": 500, "cache": 0, "num_slabs": 5}],
        memcgs=[{"t0": 120, "t1": 130, "memcg": 2, "kmem_usage": 4096}],
    )  # fmt: skip
    whole, cut = tmp_path / "w.kmtrace.parquet", tmp_path / "k.kmtrace.parquet"
    convert_capture(folder, whole)
    convert_capture(folder, cut, seconds=300e-9)
    with open_trace(whole) as file:
        assert np.array_equal(file.read(), read_capture(folder).events)
    with open_trace(cut) as file:
        assert file.read()["t"].max() < 300
    assert read_truth(whole).readings.equals(read_truth(folder).readings)
    assert read_truth(cut).readings["t"].max() < 300
    assert read_truth(whole).caches["dentry"]["live_end"] == 1
    assert read_truth(cut).caches["dentry"]["live_end"] is None
    with pytest.raises(UsageProblem, match="above 0"):
        convert_capture(folder, cut, seconds=0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"events": [{"cache": 99}]}, "column cache holds 99"),
        ({"events": [{"memcg": 3}]}, "column memcg holds 3"),
        ({"events": [{"obj": -7}]}, "column obj holds -7"),
        ({"events": [{"t": 5, "obj": 9}, {"t": 4, "obj": 8}]}, "goes backwards"),
        (
            {"events": [{"obj": 9}, {"obj": 700, "op": 1, "flags": 4}]},
            "expected a row of slabs.parquet",
        ),
        ({"slabs": [{"slab": 4}]}, "column slab"),
        ({"manifest": {"memcgs": ["/x"]}}, "expected the root"),
        ({"manifest": {"nproc": "two"}}, "field nproc"),
        ({"manifest": {"dumps": {}}}, "no entry for cache dentry"),
        ({"manifest": {"sites": 3}}, "field sites"),
        ({"manifest": {"sites": ["a", 3]}}, "field sites holds 3; expected 0 or more str"),
        ({"manifest": {"dump_t": [-1]}}, "field dump_t has 1 values; expected 2 or more int"),
        ({"manifest": {"caches": [3]}}, "field caches holds 3; expected 0 or more dict"),
        ({"slabdump": [{"pfn": 1, "objects": 21}]}, "0 slabs"),
    ],
)
def test_bad_captures_are_told_in_one_line(tmp_path, change, expected):
    folder = write_capture(tmp_path / "c", **change)
    with pytest.raises(UsageProblem, match=expected) as info:
        read_capture(folder)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["manifest.json", "events.parquet", "slabdump.parquet"])
def test_missing_and_broken_files(tmp_path, name):
    folder = write_capture(tmp_path / "c")
    (folder / name).write_bytes(b"PAR1 {")
    with pytest.raises(UsageProblem, match=name):
        read_capture(folder)
    (folder / name).unlink()
    with pytest.raises(UsageProblem, match="no such file"):
        read_capture(folder)


def test_damaged_text_is_told_and_damaged_metadata_does_not_matter(tmp_path):
    folder = write_capture(tmp_path / "c", aux=[{"ev": "marker", "s": "START"}])
    aux = pq.read_table(folder / "aux.parquet")
    pq.write_table(aux.replace_schema_metadata({b"x": b"\xff"}), folder / "aux.parquet")
    assert len(of_op(read_capture(folder), ev.MARK)) == 1
    bad = pa.array([b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(aux.set_column(aux.column_names.index("s"), "s", bad), folder / "aux.parquet")
    with pytest.raises(UsageProblem, match="aux.parquet: damaged data"):
        read_capture(folder)


def test_what_the_recorder_lost_is_said(tmp_path):
    assert lost_events({}) == lost_events({"ring_stats": None, "missed_event_pages": None}) == 0
    cpu = {"entries": "900", "overrun": "40", "commit overrun": "0", "dropped events": 2}
    stats = {"ring_stats": {"0": cpu, "1": cpu | {"overrun": "x"}}, "missed_event_pages": 1}
    assert lost_events(stats) == 40 + 2 + 2 + 1
    folder = write_capture(tmp_path / "c", manifest=stats, events=[{"t": 1, "obj": 600}])
    with open_recording(folder) as recording:
        assert recording.source["events_lost"] == 45
    convert_capture(folder, tmp_path / "c.kmtrace.parquet")
    with open_recording(tmp_path / "c.kmtrace.parquet") as recording:
        assert recording.source["events_lost"] == 45


def test_readings_of_unknown_groups_are_refused(tmp_path):
    folder = write_capture(tmp_path / "c", memcgs=[{"memcg": 9}])
    with pytest.raises(UsageProblem, match="memcgs.parquet: column memcg holds 9; expected below"):
        read_truth(folder)
