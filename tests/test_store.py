"""The results dataset: what is written reads back, and nothing half-written is ever seen."""

import os
import re
import subprocess
import sys
import zlib
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import make_results
from kmbench.errors import KmbenchError, UsageProblem
from kmbench.store import dataset
from kmbench.store.catalogue import METRICS, STORED
from kmbench.store.dataset import Results, open_results, write_parquet, write_run
from kmbench.store.pack import pack
from kmbench.store.schema import SCHEMA_VERSION, TABLES, arrow_schema, make_table, polars_schema
from kmbench.store.seal import Damaged, unseal


@pytest.fixture
def folder(tmp_path):
    return make_results.write_all(tmp_path / "results")


def test_every_table_reads_back_with_its_schema(folder):
    results = open_results(folder)
    for table in TABLES:
        frame = getattr(results, table)
        assert isinstance(frame, pl.LazyFrame)
        assert frame.collect().schema == polars_schema(table)
    assert results.runs.collect().height == 4
    assert results.timeline.collect().height == 4 * 2 * 4
    assert results.failures.collect().height == 0
    timing = results.timing.collect()
    assert timing["when"].max() == datetime(2026, 1, 1, tzinfo=UTC)


def test_tables_join_on_run_id(folder):
    results = open_results(folder)
    joined = results.timeline.join(results.runs, on="run_id").collect()
    assert joined.height == 32
    assert joined.filter(pl.col("group") == "/web")["strategy"].n_unique() == 4


@pytest.mark.parametrize("table", TABLES)
def test_every_field_has_a_meaning_and_files_carry_version_and_units(folder, table):
    file = next((folder / table).glob("*.parquet"))
    schema = pq.read_schema(file)
    assert schema.metadata[b"kmbench.schema"] == str(SCHEMA_VERSION).encode()
    assert schema.metadata[b"kmbench.table"] == table.encode()
    for field in schema:
        assert field.metadata[b"meaning"], field.name
        assert field.metadata.get(b"direction") in (None, b"lower", b"higher")


def test_metric_columns_take_their_words_from_the_catalogue():
    schema = arrow_schema("runs")
    for metric in STORED:
        words = schema.field(metric.name).metadata
        assert words[b"meaning"].decode() == metric.definition
        assert words[b"unit"].decode() == metric.unit
        assert words.get(b"direction", b"").decode() == (metric.direction or "")
    assert len({metric.id for metric in METRICS.values()}) == len(METRICS)


def test_the_same_run_gives_the_same_bytes_in_two_processes(tmp_path):
    code = (
        "import sys, make_results, pathlib; make_results.write(pathlib.Path(sys.argv[1]), 'none')"
    )
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        path = os.pathsep.join(filter(None, sys.path))
        env = os.environ | {"PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=env)
    for table in TABLES:
        first, second = (next((folder / table).iterdir()).read_bytes() for folder in folders)
        assert first == second, table


def test_columns_of_numpy_are_not_copied():
    t = np.arange(1000, dtype=np.int64)
    columns = {field.name: t for field in TABLES["caches"] if field.name not in ("run_id", "name")}
    table = make_table("caches", columns | {"name": (t % 2, ["a", "b"])}, "r")
    assert table.column("t").chunk(0).buffers()[1].address == t.ctypes.data
    assert table.column("name").to_pylist()[:3] == ["a", "b", "a"]
    assert set(table.column("run_id").to_pylist()) == {"r"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": [1]}, "unknown column 'colour'"),
        ({"path": None}, "column 'path' is missing"),
        ({"count": [1, 2]}, "another length"),
    ],
)
def test_wrong_columns_are_refused(change, words):
    columns = make_results.ops(3, 8) | change
    with pytest.raises(KmbenchError, match=words):
        make_table("ops", {k: v for k, v in columns.items() if v is not None}, "r")


def test_a_run_without_its_proof_is_not_seen(folder):
    before = open_results(folder).run_ids()
    (folder / "runs" / f"{before[0]}.parquet").unlink()
    results = open_results(folder)
    assert results.run_ids() == before[1:]
    assert before[0] not in results.timeline.collect()["run_id"].unique().to_list()


@pytest.mark.parametrize("table", list(TABLES))
def test_killed_while_writing_any_table_then_repeated(folder, monkeypatch, table):
    before = {t: getattr(open_results(folder), t).collect() for t in TABLES}
    real = os.replace

    def killed(source, target):
        if f"/{table}/" in str(target):
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(dataset.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            make_results.write(folder, "none", seed=7)
    for name, rows in before.items():
        assert getattr(open_results(folder), name).collect().equals(rows)
    make_results.write(folder, "none", seed=7)
    assert open_results(folder).runs.collect().height == 5


def test_temporary_files_are_never_read_and_old_ones_removed(tmp_path):
    target = tmp_path / "runs" / "x.parquet"
    target.parent.mkdir()
    left = [target.with_name(f".x.parquet.{pid}.tmp") for pid in (1, 2)]
    for file in left:
        file.write_bytes(b"half")
    os.utime(left[0], (0, 0))
    write_parquet(target, pa.table({"a": [1]}))
    assert not left[0].exists()
    assert left[1].exists()
    target.unlink()
    assert open_results(tmp_path).run_ids() == []


def test_writing_again_replaces(folder):
    make_results.write(folder, "none", workload="first")
    run_id = make_results.write(folder, "none", workload="first")
    assert open_results(folder).run(run_id).runs.collect().height == 1


def test_file_without_newer_columns_and_with_unknown_ones(folder):
    file = next((folder / "caches").glob("none*"))
    old = pq.read_table(file).drop_columns(["slab_bytes", "requested"])
    metadata = old.schema.metadata
    new = old.append_column("future", pa.array([1] * old.num_rows))
    pq.write_table(new.replace_schema_metadata(metadata), file)
    frame = open_results(folder).caches.filter(pl.col("run_id") == "none0000").collect()
    assert frame["requested"].null_count() == frame.height == 4
    assert "future" not in frame.columns


def _replace_version(file, version):
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({b"kmbench.schema": version}), file)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: f.write_bytes(b""), "not a Parquet file"),
        (lambda f: f.write_bytes(b"hello world, not parquet"), "not a Parquet file"),
        (lambda f: f.write_bytes(f.read_bytes()[:-100]), "cut short"),
        (lambda f: f.write_bytes(b"PAR1PAR1"), "cut short"),
        (lambda f: f.write_bytes(b"PAR1" + b"\xff" * 60 + b"PAR1"), "damaged Parquet"),
        (lambda f: pq.write_table(pa.table({"a": [1]}), f), "not one of kmbench"),
        (lambda f: _replace_version(f, b"99"), "newer kmbench"),
        (lambda f: (f.unlink(), f.mkdir()), "Is a directory"),
    ],
)
def test_damaged_proof_is_named(folder, damage, words):
    file = folder / "runs" / "none0000.parquet"
    damage(file)
    with pytest.raises(UsageProblem, match=words) as caught:
        open_results(folder)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("table", ["timeline", "caches"])
def test_damaged_table_is_named_when_it_is_read(folder, table):
    file = folder / table / "none0000.parquet"
    data = bytearray(file.read_bytes())
    data[4:400] = b"\xff" * 396
    file.write_bytes(data)
    results = open_results(folder)
    with pytest.raises(UsageProblem, match="damaged") as caught, results.reading():
        getattr(results, table).collect()
    assert str(file) in str(caught.value)


def test_no_byte_can_change_without_being_noticed(tmp_path):
    make_results.write(tmp_path, "none")
    file = next((tmp_path / "ops").iterdir())
    whole = file.read_bytes()
    assert unseal(file, b"kmbench.table") == b"ops"
    key = whole.index(b"\x18\x0dkmbench.crc32")
    places = {*range(0, len(whole), 9), *range(key, key + 26), *range(len(whole) - 9, len(whole))}
    for at in sorted(places):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            assert unseal(file, b"kmbench.table") is None  # not found: others read it through
            assert key <= at < key + 17 or at >= len(whole) - 8
        except Damaged:
            pass
    file.write_bytes(whole)
    (digits,) = re.findall(rb"kmbench\.crc32\x18\x08([0-9a-f]{8})", whole)
    assert int(digits, 16) == zlib.crc32(whole.replace(digits, b"00000000"))


def test_files_of_other_writers_have_no_checksum_and_are_read_through(tmp_path):
    make_results.write(tmp_path, "none")
    file = next((tmp_path / "ops").iterdir())
    before = open_results(tmp_path).ops.collect()
    pq.write_table(pq.read_table(file), file)
    assert unseal(file, b"kmbench.table") is None
    assert open_results(tmp_path).ops.collect().equals(before)
    whole = file.read_bytes()
    file.write_bytes(whole[:20] + b"\xff" * 20 + whole[40:])
    with pytest.raises(UsageProblem, match="damaged"):
        open_results(tmp_path).ops.collect()


def test_missing_folder_and_file_for_folder(tmp_path):
    with pytest.raises(UsageProblem, match="no such folder"):
        open_results(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UsageProblem, match="not a folder"):
        open_results(tmp_path / "file")
    assert open_results(tmp_path).runs.collect().is_empty()


def test_cannot_write(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(UsageProblem, match="cannot write"):
        make_results.write(tmp_path / "results", "none")


def test_run_by_prefix_and_by_strategy(folder):
    results = open_results(folder)
    run = results.run("cos")
    assert run.run_id == "costa20120000"
    assert run.row["strategy"] == "costa-2012"
    assert run.caches.collect()["run_id"].unique().to_list() == ["costa20120000"]
    assert results.run("linux-5.9").run_id == "linux590000"
    with pytest.raises(UsageProblem, match="means 2 runs: .*linux590000"):
        results.run("linux")
    with pytest.raises(UsageProblem, match="did you mean 'costa-2012'"):
        results.run("kosta-2012")


def test_several_runs_in_one_file(folder, tmp_path):
    """A compacted dataset: any file name, as long as it is the same in every table."""
    for table in TABLES:
        parts = [pq.read_table(file) for file in sorted((folder / table).iterdir())]
        write_parquet(tmp_path / "one" / table / "part.parquet", pa.concat_tables(parts))
    results = open_results(tmp_path / "one")
    assert len(results.run_ids()) == 4
    run = results.run("none")
    assert run.timeline.collect().height == 8
    assert run.row["strategy"] == "none"


def test_tables_that_are_absent_are_stored_empty(tmp_path):
    run = open_results(make_results.write_all(tmp_path / "a")).run("none").row
    run = {k: v for k, v in run.items() if v is not None}
    write_run(tmp_path / "b", run, {})
    results = open_results(tmp_path / "b")
    assert results.timeline.collect().is_empty()
    assert results.timing.collect().is_empty()
    assert results.run("none").row["slab_bytes_mean"] == run["slab_bytes_mean"]


def test_packed_runs_read_as_before_and_have_the_same_bytes(folder, tmp_path):
    results = open_results(folder)
    pack(results, tmp_path / "a", TABLES)
    names = sorted(path.stem for path in (folder / "runs").iterdir())
    pack(Results(folder, names[::-1]), tmp_path / "b", TABLES)
    packed = open_results(tmp_path / "a")
    for table in TABLES:
        file = tmp_path / "a" / table / "all.parquet"
        assert file.read_bytes() == (tmp_path / "b" / table / "all.parquet").read_bytes(), table
        assert pq.read_schema(file).metadata.items() >= arrow_schema(table).metadata.items()
        columns = [name for name in arrow_schema(table).names if name != "run_id"]
        text = pl.all().cast(pl.String)
        before = getattr(results, table).select(columns).collect().select(text).sort(pl.all())
        after = getattr(packed, table).select(columns).collect().select(text).sort(pl.all())
        assert after.equals(before), table
    assert packed.run_ids() == results.run_ids()
