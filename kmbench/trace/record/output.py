"""A whole recording, from plan to folder: the folder appears complete or not at all."""

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kmbench.errors import KmbenchError, UsageProblem
from kmbench.trace.record.raw import SUFFIX, Recording, partial_of, save
from kmbench.trace.record.session import Plan, Progress, Recorder


def check_target(out: Path, *, raw: bool = False) -> None:
    """Raises UsageProblem when a capture, or a raw recording, cannot be put at `out`."""
    if out.exists() and (raw or not out.is_dir() or any(out.iterdir())):
        raise UsageProblem(f"{out} exists already; give another -o")
    parent = out.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageProblem(f"{parent} is not a folder that can be written to")


def record(plan: Plan, out: Path, what: str, say: Progress, *, raw: bool = False) -> dict[str, Any]:
    """Run `plan` and write the capture folder `out`; returns its manifest.

    what: one line for people.
    raw: write the raw recording as file `out` instead, and return what is known of it.

    Raises UsageProblem; whatever happens, nothing is left but `out`.  Where that cannot be written,
    the raw recording is, if there is a place for it: the work that was watched may not come again.
    """
    check_target(out, raw=raw)
    out = out.absolute()
    partial = partial_of(out)
    with Recorder(plan, say) as recorder:
        recorder.note_file(partial)
        recording = recorder.run()
        groups = [{"name": name, "cmd": argv} for name, argv in plan.commands.items()]
        recording.manifest["what"] = what
        recording.manifest["spec"] = {"groups": groups, "max_s": plan.duration_s}

        def keep() -> str:
            return _keep(recording, out, say, recorder.note_file)

        try:
            if not raw:
                return write_capture(recording, out, say)
            save(recording, out)
            return recording.manifest
        except OSError as error:
            raise UsageProblem(f"{_unwritable(out, error)}; {keep()}") from None
        except UsageProblem as problem:
            raise UsageProblem(f"{problem}; {keep()}") from None
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise KmbenchError(f"{out} cannot be assembled: {why}; {keep()}") from error


def _keep(recording: Recording, out: Path, say: Progress, note: Callable[[Path], None]) -> str:
    """Put the raw recording where there is room for it, and say where and how to go on."""
    say("keeping the raw recording")
    name = out.name.removesuffix(SUFFIX)
    for folder in (out.parent, Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/dev/shm")):
        path = folder / f"{name}{SUFFIX}"
        if path.exists():
            path = folder / f"{name}.{os.getpid()}{SUFFIX}"
        note(partial_of(path))
        try:
            save(recording, path, compressed=True)
        except OSError:
            continue
        where = shlex.quote(str(path))
        return f"the raw recording is {where}: `kmbench trace assemble {where}` makes the capture"
    return "nor is there room for the raw recording anywhere, which is lost"


def write_capture(recording: Recording, out: Path, say: Progress) -> dict[str, Any]:
    """Assemble `recording` into the new folder `out`; returns the manifest.

    Raises UsageProblem.
    """
    say("assembling the capture")
    # late, so that these libraries do nothing while the kernel is being watched
    from kmbench.trace.record.assemble import assemble, write_tables
    from kmbench.trace.record.verdicts import truth

    out = out.absolute()
    partial = partial_of(out)
    recording = recording._replace(manifest={"name": out.name, **recording.manifest})
    try:
        partial.mkdir()
        tables = assemble(recording)
        write_tables(tables, partial)
        for name, document in (("manifest", tables.manifest), ("truth", truth(tables))):
            (partial / f"{name}.json").write_text(json.dumps(document))
        if out.is_dir():
            out.rmdir()
        partial.replace(out)
    except OSError as error:
        raise UsageProblem(_unwritable(out, error)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return tables.manifest


def _unwritable(out: Path, error: OSError) -> str:
    return f"{out} cannot be written: {error.strerror or error}"
