"""kmbench's own trace files: what is written is read, and bad input is told in one line."""

import base64
import json
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kmbench.core import events as ev
from kmbench.core.events import EVENT
from kmbench.core.geometry import make_cache
from kmbench.core.setup import (
    INITIAL_OBJECT,
    INITIAL_SHEAF,
    INITIAL_SLAB,
    GroupSpec,
    Machine,
    Setup,
)
from kmbench.errors import UsageProblem
from kmbench.trace import format as fmt
from kmbench.trace.format import open_trace, write_trace

SETUP = Setup(
    machine=Machine(cpus=2),
    era="6.18",
    caches=(make_cache("dentry", 192), make_cache("filp", 192, flags=ev.SLAB_ACCOUNT)),
    groups=(GroupSpec("/", 0), GroupSpec("/a"), GroupSpec("/a/b", 2, 100, -1, False)),
    nr_objects=50,
    initial_slabs=np.array([(1, 21, 3, 0, 3, 0, 0), (2, 21, 20, 1, 1, 1, 1)], INITIAL_SLAB),
    initial_objects=np.array([(1, 1, 0, 0), (2, 2, 2, 0)], INITIAL_OBJECT),
    initial_sheaves=np.array([(1, 1, 0, 0)], INITIAL_SHEAF),
)


def make_events(n=1000, seed=1):
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT)
    events["t"] = np.cumsum(rng.integers(0, 1000, n))
    events["op"] = rng.integers(0, 2, n)
    events["obj"] = rng.integers(1, SETUP.nr_objects, n)
    events["cache"] = rng.integers(1, 3, n)
    events["memcg"] = rng.integers(1, 4, n)
    events["cpu"] = rng.integers(0, 2, n)
    events["gfp"] = ev.GFP_KERNEL | ev.CTX_MEMALLOC
    return events


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "x.kmtrace.parquet"
    write_trace(path, SETUP, make_events(), what="a test", source={"kernel": "none"})
    return path


def problem(call, *args):
    with pytest.raises(UsageProblem) as info:
        call(*args)
    text = str(info.value)
    assert "\n" not in text and text
    return text


def rewrite(path, change):
    """Write the trace again with `change` applied to its table."""
    with pq.ParquetFile(path) as file:
        head = {b"kmbench.trace": file.metadata.metadata[b"kmbench.trace"]}
    pq.write_table(change(pq.read_table(path).replace_schema_metadata(head)), path)


def read_all(path):
    with open_trace(path) as file:
        return file.read()


def test_round_trip(trace):
    with open_trace(trace) as file:
        assert np.array_equal(file.read(), make_events())
        for got, wanted in zip(file.setup, SETUP, strict=True):
            assert np.array_equal(got, wanted) if isinstance(got, np.ndarray) else got == wanted
        assert file.info.events == 1000
        assert (file.info.name, file.info.what) == ("x", "a test")
        assert file.info.source == {"kernel": "none"}


def test_same_input_gives_the_same_bytes(trace, tmp_path):
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / trace.name
    write_trace(again, SETUP, make_events(), what="a test", source={"kernel": "none"})
    assert again.read_bytes() == trace.read_bytes()


def test_streams_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(fmt, "ROW_GROUP", 64)
    path = tmp_path / "y.kmtrace.parquet"
    events = make_events(300)
    info = write_trace(path, SETUP, (events[at : at + 50] for at in range(0, 300, 50)))
    assert info.events == 300
    with open_trace(path) as file:
        batches = list(file.batches())
    assert max(map(len, batches)) <= 64
    assert np.array_equal(np.concatenate(batches), events)


def test_empty_trace(tmp_path):
    path = tmp_path / "e.kmtrace.parquet"
    write_trace(path, SETUP, np.zeros(0, EVENT))
    assert len(read_all(path)) == 0


def test_missing_and_foreign_files(tmp_path, trace):
    assert "no such file" in problem(open_trace, tmp_path / "no.kmtrace.parquet")
    assert "folder" in problem(open_trace, tmp_path)
    text = tmp_path / "text.kmtrace.parquet"
    text.write_text("hello")
    assert "Parquet" in problem(open_trace, text)
    other = tmp_path / "other.kmtrace.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    assert "expected a kmbench trace" in problem(open_trace, other)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
def test_truncated(trace, keep):
    data = trace.read_bytes()
    trace.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    assert str(trace) in problem(open_trace, trace)


def test_wrong_columns(trace):
    def to_text(table):
        at = table.schema.get_field_index("memcg")
        return table.set_column(at, "memcg", table["memcg"].cast(pa.string()))

    rewrite(trace, to_text)
    assert "column memcg is string; expected int32" in problem(open_trace, trace)
    rewrite(trace, lambda table: table.drop_columns(["memcg"]))
    assert "column memcg is missing" in problem(open_trace, trace)


def test_empty_cells(trace):
    def blank(table):
        values = table["arg"].to_pylist()
        values[7] = None
        at = table.schema.get_field_index("arg")
        return table.set_column(at, "arg", pa.array(values, pa.int32()))

    rewrite(trace, blank)
    assert "column arg has empty cells" in problem(read_all, trace)


def test_event_count_must_match(trace):
    rewrite(trace, lambda table: table.slice(0, 10))
    assert "field events is 1000; expected 10" in problem(open_trace, trace)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("op", ev.NR_OPS, f"0 to {ev.NR_OPS - 1}"),
        ("cpu", 2, "2 CPUs"),
        ("memcg", 4, "group row"),
        ("memcg", -1, "group row"),
        ("obj", 50, "handle"),
        ("obj", 0, "handle"),
        ("cache", 3, "cache row"),
        ("cache", 0, "cache row"),
        ("arg", -5, "bytes"),
        ("t", 0, "time"),
    ],
)
def test_values_out_of_range(trace, name, value, expected):
    def change(table):
        events = make_events()
        events["op"][500] = ev.ALLOC
        events[name][500] = value
        return fmt._to_table(events).replace_schema_metadata(table.schema.metadata)

    rewrite(trace, change)
    text = problem(read_all, trace)
    assert f"event 500: field {name} is {value}" in text and expected in text


@pytest.mark.parametrize(
    ("op", "field", "value"),
    [
        (ev.PAGE_ALLOC, "arg", 11),
        (ev.PAGE_ALLOC, "cache", 4),
        (ev.PERCPU_ALLOC, "arg", -1),
        (ev.CG_CREATE, "arg", 0),
        (ev.CG_OFFLINE, "memcg", 1),
        (ev.LIMIT_WRITE, "arg", -2),
        (ev.LIMIT_WRITE, "cache", 2),
        (ev.ATTACH, "arg", 9),
        (ev.SHRINK, "cache", 3),
    ],
)
def test_every_op_is_checked_when_written(tmp_path, op, field, value):
    good = np.zeros(1, EVENT)
    good["op"], good["obj"], good["memcg"], good["cache"] = op, 1, 2, 1
    good["arg"] = 1
    write_trace(tmp_path / "good.kmtrace.parquet", SETUP, good)
    good[field] = value
    text = problem(write_trace, tmp_path / "bad.kmtrace.parquet", SETUP, good)
    assert f"field {field} is {value}" in text
    assert [path.name for path in tmp_path.iterdir()] == ["good.kmtrace.parquet"]


@pytest.mark.parametrize(("flags", "expected"), [(0, [0, 1]), (32, [1, 1])])
def test_files_from_before_slabs_told_their_vectors(trace, flags, expected):
    """Then those of a cache with SLAB_ACCOUNT had one, or with the flag for mostly charged ones."""

    def age(table):
        document = json.loads(table.schema.metadata[b"kmbench.trace"])
        setup = document["setup"]
        names = setup.pop("slab_fields")
        data = zlib.decompress(base64.b64decode(setup["initial_slabs"]))
        assert names[-1] == "vector"
        rows = len(SETUP.initial_slabs)
        setup["initial_slabs"] = base64.b64encode(zlib.compress(data[:-rows])).decode()
        setup["caches"][0][setup["cache_fields"].index("flags")] = flags
        return table.replace_schema_metadata({b"kmbench.trace": json.dumps(document)})

    rewrite(trace, age)
    with open_trace(trace) as file:
        assert file.setup.initial_slabs["vector"].tolist() == expected


def test_bad_names_and_places(tmp_path):
    assert "expected NAME" in problem(write_trace, tmp_path / "x.parquet", SETUP, make_events())
    lost = tmp_path / "nowhere" / "x.kmtrace.parquet"
    assert "cannot be written" in problem(write_trace, lost, SETUP, make_events())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda doc: doc.update(version=2), "field version is 2"),
        (lambda doc: doc["setup"].pop("caches"), "field caches is missing"),
        (lambda doc: doc["setup"]["caches"][0].pop(), "row of"),
        (lambda doc: doc["setup"]["groups"][1].__setitem__(1, 9), "parent is 9"),
        (lambda doc: doc["setup"]["groups"][1].__setitem__(1, "x"), "not int"),
        (lambda doc: doc["setup"]["groups"][1].__setitem__(2, -7), "memory_limit is -7"),
        (lambda doc: doc["setup"].update(initial_slabs="AAAA"), "setup"),
        (lambda doc: doc["setup"].update(slab_fields=["cache"]), "slab_fields is"),
        (lambda doc: doc["setup"].update(nr_objects=1), "initial_objects.obj"),
        (lambda doc: doc.update(setup=None), "setup"),
        (lambda doc: doc.pop("sha256"), "damaged"),
    ],
)
def test_damaged_head(trace, change, expected):
    def damage(table):
        document = json.loads(table.schema.metadata[b"kmbench.trace"])
        change(document)
        return table.replace_schema_metadata({b"kmbench.trace": json.dumps(document)})

    rewrite(trace, damage)
    assert expected in problem(open_trace, trace)
