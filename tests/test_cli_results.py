"""The command line over stored results: output, errors, exit codes."""

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import polars as pl
import pytest

import make_results
from kmbench.analysis.overview import main_table
from kmbench.cli import app, doctor
from kmbench.cli.lazy import LazyGroup
from kmbench.errors import KmbenchError, PluginProblem, UsageProblem, did_you_mean
from kmbench.store.dataset import open_results


@pytest.fixture
def folder(tmp_path):
    return str(make_results.write_all(tmp_path / "results"))


@pytest.fixture
def kmbench(capfdbinary):
    """Run a command line; returns (exit code, stdout, stderr)."""

    def call(*args):
        code = app.main(args)
        out, err = capfdbinary.readouterr()
        return code, out.decode(errors="replace"), err.decode()

    return call


def is_one_error(err):
    return err.startswith("kmbench: error: ") and err.count("\n") == 1


def test_compare_prints_the_table(kmbench, folder):
    code, out, err = kmbench("compare", folder)
    assert (code, err) == (0, "")
    assert "slab utilisation" in out
    assert "costa-2012" in out


def test_compare_in_brief_is_what_run_prints(kmbench, folder):
    code, out, err = kmbench("compare", folder, "--brief", "--groups")
    assert (code, err) == (0, "")
    assert out == main_table(open_results(folder)) + "\n"


def test_compare_default_folder(kmbench, folder, monkeypatch):
    monkeypatch.chdir(os.path.dirname(folder))
    assert kmbench("compare", "--metric", "W0")[0] == 0


@pytest.mark.parametrize("form", ["md", "csv", "json", "parquet"])
def test_compare_formats(kmbench, folder, tmp_path, form):
    target = tmp_path / f"out.{form}"
    code, out, _ = kmbench("compare", folder, "--format", form, "-o", str(target))
    assert (code, out) == (0, "")
    data = target.read_bytes()
    if form == "parquet":
        assert pl.read_parquet(io.BytesIO(data)).height > 10
    else:
        assert data.endswith(b"\n")
        assert kmbench("compare", folder, "--format", form)[1].encode() == data


def test_json_is_short_for_format_json(kmbench, folder):
    code, out, _ = kmbench("compare", folder, "--json", "--metric", "W0")
    assert code == 0
    assert [row["strategy"] for row in json.loads(out)][0] == "none"
    code, _, err = kmbench("compare", folder, "--json", "--format", "csv")
    assert code == 2
    assert is_one_error(err)


def test_gate(kmbench, folder):
    assert kmbench("compare", folder, "--gate", "W0<=3x")[0] == 0
    code, out, err = kmbench("compare", folder, "--gate", "W0<=1.05x", "--metric", "W1")
    assert code == 1
    assert "slab utilisation" in out
    assert "gate failed: W0<=1.05x: costa-2012, churn: 2.364x" in err


def test_show(kmbench, folder):
    code, out, _ = kmbench("show", "costa-2012", "--dir", folder)
    assert code == 0
    assert "slab bytes over none" in out
    code, out, _ = kmbench("show", "costa", "--dir", folder, "--slabinfo", "--at", "0.5ms")
    assert out.startswith("slabinfo - version: 2.1\n")
    code, out, _ = kmbench("show", "costa", "--dir", folder, "--memcg")
    assert "web/memory.kmem.usage_in_bytes:36000\n" in out


def test_show_json(kmbench, folder):
    facts = json.loads(kmbench("show", "none", "--dir", folder, "--json")[1])
    assert facts["run_id"] == "none0000"
    assert facts["excess_slab_bytes"] == 0
    both = json.loads(
        kmbench("show", "none", "--dir", folder, "--json", "--slabinfo", "--memcg")[1]
    )
    assert both["caches"][0]["name"] == "dentry"
    assert both["groups"][3]["group"] == "/db"
    assert both["sample"] == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["compare", "nowhere"], "nowhere: no such folder"),
        (["compare", "RESULTS", "--metric", "slab_byte_mean"], "did you mean 'slab_bytes_mean'"),
        (["compare", "RESULTS", "--baseline", "non"], "did you mean 'none'"),
        (["compare", "RESULTS", "--by", "cpuss"], "did you mean 'cpus'"),
        (["compare", "RESULTS", "--gate", "rubbish"], "gate 'rubbish'"),
        (["compare", "RESULTS", "--metric", "slab_"], "known: excess_slab_bytes, idle_slab_bytes"),
        (["compare", "RESULTS", "--format", "xml"], "xml"),
        (["compare", "RESULTS", "--basline", "x"], "--baseline"),
        (["compare", "RESULTS", "-o", "/nowhere/x"], "cannot write /nowhere/x"),
        (["show"], "RUN"),
        (["show", "xyz", "--dir", "RESULTS"], "unknown run 'xyz'; known: costa-2012, linux-5.9,"),
        (["show", "linux", "--dir", "RESULTS"], "means 2 runs"),
        (["show", "none", "--dir", "RESULTS", "--slabinfo", "--at", "soon"], "time 'soon'"),
        (["comapre"], "did you mean 'compare'"),
        (["--colour"], "--colour"),
    ],
)
def test_bad_input_is_one_line_and_code_2(kmbench, folder, args, words):
    code, out, err = kmbench(*(folder if arg == "RESULTS" else arg for arg in args))
    assert (code, out) == (2, "")
    assert is_one_error(err)
    assert words in err


@pytest.mark.parametrize("keep", [0, 3, 60, 0.5, 0.99])
@pytest.mark.parametrize("table", ["runs", "timeline", "caches", "timing"])
def test_cut_files_are_named(kmbench, folder, table, keep):
    file = f"{folder}/{table}/none0000.parquet"
    with open(file, "r+b") as handle:
        size = os.path.getsize(file)
        handle.truncate(keep if isinstance(keep, int) else int(keep * size))
    verb = {
        "timeline": ["show", "none", "--dir", folder, "--memcg"],
        "caches": ["show", "none", "--dir", folder, "--slabinfo"],
    }.get(table, ["compare", folder])
    code, _, err = kmbench(*verb)
    assert code == 2
    assert is_one_error(err)
    assert file in err


def test_damaged_bytes_anywhere_are_one_line(kmbench, folder):
    """Random damage: either it does not matter, or one line names the folder and the code is 2."""
    rng = random.Random(5)
    verbs = [
        ["compare", folder],
        ["show", "none", "--dir", folder],
        ["show", "none", "--dir", folder, "--slabinfo", "--memcg"],
    ]
    for i in range(60):
        file = Path(folder) / rng.choice(["runs", "timeline", "caches", "timing"])
        file = file / "none0000.parquet"
        whole = file.read_bytes()
        data = bytearray(whole)
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        file.write_bytes(data)
        code, _, err = kmbench(*verbs[i % 3])
        assert code == 0 or (code == 2 and is_one_error(err) and folder in err), err
        file.write_bytes(whole)


def test_help_and_version(kmbench):
    code, out, _ = kmbench("--help")
    assert code == 0
    for verb in app.VERBS:
        assert f"  {verb}" in out
    assert kmbench("--version")[1].startswith("kmbench ")
    assert kmbench()[0] == 2


def test_verbs_are_imported_when_called():
    code = (
        "import sys; from kmbench.cli.app import main; main(['--help']);"
        "print(sorted({'polars', 'pyarrow', 'numba', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


class Failing(click.Command):
    def __init__(self, error):
        super().__init__("fail")
        self.error = error

    def invoke(self, ctx):
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KmbenchError("two\nlines\x0f"), 3, "kmbench: error: two lines?\n"),
        (UsageProblem("bad"), 2, "kmbench: error: bad\n"),
        (PluginProblem("worse"), 3, "kmbench: error: worse\n"),
        (click.FileError("x", "gone"), 2, "kmbench: error: Could not open file 'x': gone\n"),
        (
            ZeroDivisionError("oops\nagain"),
            3,
            "kmbench: error: internal: ZeroDivisionError: oops again "
            "(KMBENCH_DEBUG=1 shows where)\n",
        ),
    ],
)
def test_errors_become_lines_and_codes(kmbench, monkeypatch, error, code, line):
    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: Failing(error))
    assert kmbench("show") == (code, "", line)


def test_debug_lets_the_traceback_out(monkeypatch):
    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: Failing(UsageProblem("bad")))
    monkeypatch.setenv("KMBENCH_DEBUG", "1")
    with pytest.raises(UsageProblem):
        app.main(["show"])


def test_broken_pipe_is_silent(folder):
    code = f"import sys; from kmbench.cli.app import main; sys.exit(main(['compare', {folder!r}]))"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as stdout:
        done = subprocess.run([sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE)
    assert done.stderr == b""
    assert done.returncode == app.BROKEN_PIPE


def test_did_you_mean():
    assert did_you_mean("linux-5.8", ["linux-5.9", "none"]) == "; did you mean 'linux-5.9'?"
    assert did_you_mean("zzz", ["none", "linux-5.9"]) == "; known: linux-5.9, none"
    assert did_you_mean("zzz", []) == ""
    assert did_you_mean("zzz", map(str, range(20))).endswith(", ...")


# --- doctor ---


@pytest.fixture
def healthy(monkeypatch):
    """A plugin host with two plugins, one of which did not load."""
    good = SimpleNamespace(name="good", distribution="kmbench", version="1", error="")
    bad = SimpleNamespace(name="bad", distribution="kmbench-bad", version="2", error="E: why")
    host = SimpleNamespace(loaded=[good, bad], failed=[bad], strategies={"none": None})
    monkeypatch.setitem(sys.modules, "kmbench.plugins", SimpleNamespace(load_plugins=lambda: host))
    return host


def test_doctor(kmbench, healthy):
    code, out, _ = kmbench("doctor")
    assert code == 0
    for word in ("python", "numba", "pyarrow", "compile cache", "plugins", "/proc/slabinfo"):
        assert word in out
    rows = json.loads(kmbench("doctor", "--json")[1])
    assert {row["status"] for row in rows} <= {doctor.OK, doctor.WARNING}


def test_doctor_reports_what_is_broken(kmbench, healthy, monkeypatch):
    monkeypatch.setattr(doctor, "REQUIRED", ("numpy", "no_such_package"))
    code, out, _ = kmbench("doctor")
    assert code == 3
    assert "failed" in out


def test_doctor_on_plugins(healthy):
    assert list(doctor._plugins()) == [
        ("plugin bad", doctor.WARNING, "kmbench-bad 2: E: why"),
        ("plugins", doctor.OK, "1 loaded: none"),
    ]
    healthy.strategies = {}
    assert [check.status for check in doctor._plugins()] == [doctor.WARNING, doctor.FAILED]


def test_doctor_on_a_cache_folder_that_cannot_be_made(monkeypatch):
    monkeypatch.setenv("KMBENCH_CACHE", "/proc/nowhere")
    assert doctor._cache_folder().status == doctor.WARNING


def test_doctor_on_missing_kernel_files(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "KERNEL_FILES", {str(tmp_path): "x", str(tmp_path / "no"): "y"})
    assert [check.status for check in doctor._kernel_files()] == [doctor.OK, doctor.WARNING]
