"""A whole recording, from plan to folder: the folder appears complete or not at all."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from kmbench.errors import UsageProblem
from kmbench.trace.record.session import Plan, Progress, Recorder


def check_target(out: Path) -> None:
    """Raises UsageProblem when a capture cannot be put at `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageProblem(f"{out} exists already; give another -o")
    parent = out.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UsageProblem(f"{parent} is not a folder that can be written to")


def record(plan: Plan, out: Path, what: str, say: Progress) -> dict[str, Any]:
    """Run `plan` and write the capture folder `out`; returns its manifest.

    what: one line for people.  Raises UsageProblem; whatever happens, nothing is left but `out`.
    """
    check_target(out)
    out = out.absolute()
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    with Recorder(plan, say) as recorder:
        recorder.note_file(partial)
        try:
            partial.mkdir()
            return _record_into(partial, out, recorder, plan, what, say)
        except OSError as error:
            raise UsageProblem(f"{out} cannot be written: {error.strerror or error}") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _record_into(partial, out, recorder, plan, what, say) -> dict[str, Any]:
    parts = recorder.run()
    say("assembling the capture")
    # late, so that these libraries do nothing while the kernel is being watched
    from kmbench.trace.record.assemble import Recording, assemble, write_tables
    from kmbench.trace.record.symbols import Symbols
    from kmbench.trace.record.verdicts import truth

    groups = [{"name": name, "cmd": argv} for name, argv in plan.commands.items()]
    parts["manifest"] = {"name": out.name, "what": what,
                         "spec": {"groups": groups, "max_s": plan.duration_s},
                         **parts["manifest"]}  # fmt: skip
    tables = assemble(Recording(**parts), Symbols.of_kernel())
    write_tables(tables, partial)
    for name, document in (("manifest", tables.manifest), ("truth", truth(tables))):
        (partial / f"{name}.json").write_text(json.dumps(document))
    if out.is_dir():
        out.rmdir()
    partial.replace(out)
    return tables.manifest
