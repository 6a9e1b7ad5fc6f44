"""Feeds damaged input to every reader: no traceback, no hang, no memory blow-up.

    python benchmarks/fuzz.py [--inputs N] [--kind KIND] [--seed S] [--json]

Every input is a valid file with bytes changed, removed, repeated or replaced by words that matter,
and follows from its kind and number alone.  Readers must answer or refuse in one line.  They run in
worker processes, so a crash counts as one and the next input goes on; more than 10 s count as a
hang, more than 1 GiB on top of the start as a blow-up.  Exit code 1 when any happened; what failed
is printed with its kind and number, which ``--kind KIND --seed NUMBER --inputs 1`` repeats.
"""

import argparse
import faulthandler
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

import kmbench
from kmbench.core import events as ev
from kmbench.core.geometry import make_cache
from kmbench.core.setup import GroupSpec, Machine, Setup
from kmbench.errors import KmbenchError
from kmbench.sweep.grid import load_grid
from kmbench.trace.format import open_trace, write_trace

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the writers of small captures
HANG_S = 10
MOST_BYTES = 1 << 30
WORDS = (
    b"-1", b"0", b"1e308", b"nan", b"9223372036854775808", b"18446744073709551615", b"\xff\xfe",
    b"\0", b"[", b"{", b'"', b"'", b"=", b"\n", b"true", b"{}", b"[[]]", b"../", b"1 TiB",
)  # fmt: skip


def damage(data: bytes, draw: random.Random) -> bytes:
    """`data` with some bytes changed, cut, repeated, moved or replaced by words that matter."""
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 1, 2, 8))):
        at = draw.randrange(len(made) + 1)
        end = min(len(made), at + draw.choice((1, 1, 2, 4, 16, 256)))
        match draw.randrange(7):
            case 0:
                made[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del made[at:end]
            case 2:
                made[at:at] = made[at:end]
            case 3:
                made[at:end] = draw.choice(WORDS)
            case 4:
                made[at:at] = draw.choice(WORDS)
            case 5:
                del made[at:]
            case 6:
                other = draw.randrange(len(made) + 1)
                made[other:other] = made[at:end]
    return bytes(made)


# --- one kind of input each: a valid file, and what reads it ---


class Kind:
    """A reader and the files that it is fed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = {path: path.read_bytes() for path in self.prepare()}

    def prepare(self) -> list[Path]:
        """Write a valid input; the files that are damaged, one at a time."""
        raise NotImplementedError

    def read(self) -> None:
        """Read it."""
        raise NotImplementedError

    def feed(self, number: int) -> None:
        """Damage one file, read, and put the file back."""
        draw = random.Random(number)
        path = draw.choice(list(self.files))
        try:
            path.write_bytes(damage(self.files[path], draw))
            self.read()
        finally:
            path.write_bytes(self.files[path])

    def write(self, name: str, text: str) -> Path:
        """A file of the input."""
        path = self.folder / name
        path.write_text(text)
        return path


class ScenarioFile(Kind):
    """Scenario files, up to the plans of their runs."""

    def prepare(self):
        """A scenario with every table."""
        return [self.write("scenario.toml", (
            'name = "s"\ndescription = "d"\nera = "6.18"\nseed = 3\nteardown = true\n'
            'sample_every = "10 ms"\n[machine]\ncpus = 2\nnodes = 1\nmemory = "1 GiB"\n'
            'page_size = 4096\n[workload]\nplugin = "spread"\ngroups = 10\nobjects = 5\n'
            'freed = 0.5\n[strategies.none]\n[strategies.costa-2012]\nindependent = true\n'
        ))]  # fmt: skip

    def read(self):
        """Load it."""
        kmbench.load_scenario(self.folder / "scenario.toml")


class GridFile(Kind):
    """Grid files of sweeps, up to their combinations."""

    def prepare(self):
        """A grid with every key."""
        scenario = ROOT / "workloads" / "waste" / "spread.toml"
        return [self.write("grid.toml", (
            f'scenario = "{scenario}"\nstrategies = ["none"]\nseeds = 2\n'
            'filters = ["workload.groups * 2 <= 20 and not workload.size == 64"]\n[product]\n'
            '"workload.groups" = [1, 10]\n[zip]\n"workload.size" = [64, 192]\n'
            '"workload.objects" = [5, 6]\n'
        ))]  # fmt: skip

    def read(self):
        """Load it and make some of its points."""
        for _, _ in zip(range(20), load_grid(self.folder / "grid.toml").points(()), strict=False):
            pass


class TraceFile(Kind):
    """Trace files."""

    def prepare(self):
        """A trace of some hundred events."""
        setup = Setup(
            Machine(memory_pages=1024), "6.18", (make_cache("a", 64),),
            (GroupSpec("/", 0), GroupSpec("/g")), 400,
        )  # fmt: skip
        stream = np.zeros(399, ev.EVENT)
        stream["t"], stream["obj"] = np.arange(399) * 1000, np.arange(1, 400)
        stream["memcg"], stream["cache"] = 2, 1
        path = self.folder / "t.kmtrace.parquet"
        write_trace(path, setup, stream, what="fuzz")
        return [path]

    def read(self):
        """Read all its events."""
        with open_trace(self.folder / "t.kmtrace.parquet") as trace:
            trace.read()


class CaptureFolder(Kind):
    """Capture folders."""

    def prepare(self):
        """The small capture of the tests."""
        import trace_capture

        trace_capture.write_capture(self.folder / "capture")
        return [path for path in (self.folder / "capture").rglob("*") if path.is_file()]

    def read(self):
        """Read it."""
        from kmbench.trace.capture import read_capture

        read_capture(self.folder / "capture")


class ResultFiles(Kind):
    """Files of a results dataset."""

    def prepare(self):
        """Two runs; the files of one have no checksum, as if another program had written them."""
        import pyarrow.parquet as pq

        import make_results

        for strategy in ("none", "linux-6.18"):
            make_results.write(self.folder / "results", strategy)
        files = sorted((self.folder / "results").rglob("*.parquet"))
        for path in files:
            if path.name.startswith("none"):
                pq.write_table(pq.read_table(path), path)
        return files

    def read(self):
        """Read every table, and compare."""
        from kmbench.analysis.compare import compare

        results = kmbench.open_results(self.folder / "results")
        with results.reading():
            for table in ("runs", "timeline", "caches", "ops", "failures", "timing"):
                getattr(results, table).collect()
        compare(results)


class TextImport(Kind):
    """Text of ftrace, perf and trace-cmd."""

    def prepare(self):
        """The samples of the tests."""
        made = []
        for source in sorted((ROOT / "tests" / "data" / "import").glob("*.txt")):
            made.append(self.write(source.name, source.read_text()))
        return [path for path in made if path.name not in ("slabinfo.txt", "memory.stat.txt")]

    def feed(self, number):
        """Damage one file and import that one."""
        from kmbench.trace.importers import import_trace

        draw = random.Random(number)
        path = self.folder / "damaged.txt"
        path.write_bytes(damage(self.files[draw.choice(list(self.files))], draw))
        import_trace([str(path)], self.folder / "damaged.kmtrace.parquet")


class Profile(Kind):
    """Hardware profiles."""

    def prepare(self):
        """One that comes with kmbench."""
        source = sorted((ROOT / "kmbench" / "hardware").rglob("*.toml"))[0]
        return [self.write("profile.toml", source.read_text())]

    def read(self):
        """Load it."""
        from kmbench.hardware.profile import load_profile

        load_profile(self.folder / "profile.toml")


class AsvJson(Kind):
    """Results of asv."""

    def prepare(self):
        """One machine, one benchmark."""
        folder = self.folder / "asv"
        (folder / "box").mkdir(parents=True)
        result = {
            "version": 2, "commit_hash": "0123456789abcdef", "env_name": "e", "date": 1700000000000,
            "params": {"machine": "box", "python": "3.11"}, "python": "3.11", "requirements": {},
            "env_vars": {}, "durations": {}, "result_columns": ["result", "params", "version"],
            "results": {"engine.Throughput.track_ns": [[1.5, 2.5], [["'none'", "'x'"]], "v"]},
        }  # fmt: skip
        benchmarks = {
            "version": 2,
            "engine.Throughput.track_ns": {
                "name": "engine.Throughput.track_ns", "unit": "ns", "param_names": ["strategy"],
                "params": [["'none'", "'x'"]], "type": "track", "version": "v",
            },
        }  # fmt: skip
        files = {
            folder / "benchmarks.json": benchmarks,
            folder / "box" / "machine.json": {"machine": "box", "version": 1, "cpu": "c"},
            folder / "box" / "01234567-e.json": result,
        }
        for path, content in files.items():
            path.write_text(json.dumps(content))
        return list(files)

    def read(self):
        """Import it."""
        from kmbench.store.speed import import_asv

        import_asv(self.folder / "asv", self.folder / "imported")


KINDS = {
    "scenario": ScenarioFile, "grid": GridFile, "trace": TraceFile, "capture": CaptureFolder,
    "results": ResultFiles, "text": TextImport, "profile": Profile, "asv": AsvJson,
}  # fmt: skip


# --- feeding ---


def work(kind: str, first: int, last: int, pipe) -> None:
    """Feed the inputs `first` to `last`, telling the number before and the verdict after each."""
    sys.stderr = open("/dev/null", "w")  # noqa: SIM115 - libraries print what they cannot parse
    with tempfile.TemporaryDirectory() as name:
        feeder = KINDS[kind](Path(name))
        with suppress(KmbenchError):
            feeder.feed(first)  # imports and compiles
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(first, last):
            pipe.send((number, "", ""))
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            verdict, text = "answered", ""
            try:
                feeder.feed(number)
            except KmbenchError as error:
                verdict = "refused" if "\n" not in str(error) else "traceback"
                text = str(error)
            except BaseException as error:  # also what Rust raises for its panics
                verdict, text = "traceback", "".join(traceback.format_exception(error))
            faulthandler.cancel_dump_traceback_later()
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) << 10
            if grown > MOST_BYTES:
                verdict, text = "memory", f"{grown >> 20} MiB"
            pipe.send((number, verdict, text))
            if verdict == "memory":
                return


def feed(kind: str, first: int, last: int) -> tuple[Counter, list[tuple[str, int, str]]]:
    """Verdicts of inputs `first` to `last`, in as many processes as it takes."""
    counts: Counter = Counter()
    failures = []
    spawn = multiprocessing.get_context("spawn")
    while first < last:
        ours, theirs = spawn.Pipe(duplex=False)
        worker = spawn.Process(target=work, args=(kind, first, last, theirs))
        worker.start()
        theirs.close()
        began = time.monotonic()
        try:
            while True:
                number, verdict, text = ours.recv()
                if not verdict:
                    began = time.monotonic()
                    first = number
                    continue
                counts[verdict] += 1
                first = number + 1
                if verdict in ("traceback", "memory"):
                    failures.append((kind, number, f"{verdict}: {text}"))
        except EOFError:
            worker.join()
        if worker.exitcode:
            verdict = "hang" if time.monotonic() - began >= HANG_S else "crash"
            counts[verdict] += 1
            failures.append((kind, first, f"{verdict}: exit code {worker.exitcode}"))
            first += 1
    return counts, failures


def main() -> None:
    """Feed and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="of all kinds together")
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--seed", type=int, default=0, help="number of the first input")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = [options.kind] if options.kind else list(KINDS)
    each = -(-options.inputs // len(kinds))
    rows, failures = {}, []
    for kind in kinds:
        counts, failed = feed(kind, options.seed, options.seed + each)
        rows[kind] = counts
        failures += failed
    verdicts = ("answered", "refused", "traceback", "hang", "memory", "crash")
    if options.json:
        print(json.dumps({"counts": rows, "failures": failures}))
    else:
        print("kind      " + "".join(f"{verdict:>11}" for verdict in verdicts))
        for kind, counts in {**rows, "all": sum(rows.values(), Counter())}.items():
            print(f"{kind:<10}" + "".join(f"{counts[verdict]:>11,}" for verdict in verdicts))
        for kind, number, text in failures[:20]:
            print(f"\n{kind} {number}: {text[-1500:]}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
