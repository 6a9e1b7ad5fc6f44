"""`kmbench trace info`: what a recording holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kmbench.cli.output import Named, emit, json_option


@click.command("info")
@click.argument("recording", type=Named())
@click.option("--caches", "list_caches", is_flag=True, help="List caches, busiest first.")
@click.option("--groups", "list_groups", is_flag=True, help="List groups, busiest first.")
@json_option
def command(recording: Path, list_caches: bool, list_groups: bool, as_json: bool) -> None:
    """Show the machine, the state at the start and the events of RECORDING.

    RECORDING is a capture folder or a trace file.
    """
    facts = read_facts(recording)
    if as_json:
        from kmbench.analysis.tables import as_json as json_text

        text = json_text(facts)
    else:
        text = _text(facts, list_caches, list_groups)
    emit(f"{text}\n".encode(), None)


def read_facts(path: Path) -> dict[str, Any]:
    """What a recording holds, as a plain document; reads it once from start to end."""
    import numpy as np

    from kmbench.core.events import ALLOC, CG_CREATE, OP_NAMES
    from kmbench.trace.recording import open_recording
    from kmbench.trace.truth import read_truth

    with open_recording(path) as recording:
        setup = recording.setup
        ops = np.zeros(len(OP_NAMES), np.int64)
        caches = np.zeros(len(setup.caches) + 1, np.int64)
        groups = np.zeros(len(setup.groups) + 1, np.int64)
        first = last = None
        for batch in recording.batches:
            if not len(batch):
                continue
            first = int(batch["t"][0]) if first is None else first
            last = int(batch["t"][-1])
            ops += np.bincount(batch["op"], minlength=len(OP_NAMES))
            made = batch["op"] == ALLOC
            caches += np.bincount(batch["cache"][made], minlength=len(caches))
            groups += np.bincount(batch["memcg"], minlength=len(groups))
    duration = 0 if first is None or last is None else last - first
    inuse = np.bincount(
        setup.initial_slabs["cache"], setup.initial_slabs["inuse"], minlength=len(caches)
    )
    slabs = np.bincount(setup.initial_slabs["cache"], minlength=len(caches))
    return {
        "path": str(path),
        "name": recording.name,
        "what": recording.what,
        "source": recording.source,
        "era": setup.era,
        "machine": setup.machine._asdict(),
        "readings": _readings(path, read_truth),
        "events": recording.nr_events,
        "duration_s": duration / 1e9,
        "events_per_s": recording.nr_events / duration * 1e9 if duration else None,
        "ops": {OP_NAMES[i]: int(n) for i, n in enumerate(ops) if n},
        "handles": setup.nr_objects - 1,
        "initial_slabs": len(setup.initial_slabs),
        "initial_objects": int(setup.initial_slabs["inuse"].sum()),
        "groups_created": int(ops[CG_CREATE]),
        "caches": [
            {"name": c.name, "size": c.size, "order": c.order, "objects": c.objects,
             "initial_slabs": int(slabs[i]), "initial_objects": int(inuse[i]),
             "allocs": int(caches[i])}
            for i, c in enumerate(setup.caches, 1)
        ],
        "groups": [
            {"name": g.name, "online_at_start": g.online, "events": int(groups[i])}
            for i, g in enumerate(setup.groups, 1)
        ],
    }  # fmt: skip


def _readings(path: Path, read_truth) -> dict[str, int] | None:
    """Readings of the machine by kind; None where the recording has none."""
    from kmbench.errors import UsageProblem

    try:
        truth = read_truth(path)
    except UsageProblem:
        return None
    return dict(truth.readings.group_by("kind", maintain_order=True).len().iter_rows())


def _text(facts: dict[str, Any], list_caches: bool, list_groups: bool) -> str:
    from kmbench.analysis.tables import Column, Grid, as_text

    machine, readings = facts["machine"], facts["readings"]
    rate = f", {facts['events_per_s']:,.0f} events/s" if facts["events_per_s"] else ""
    used = [c for c in facts["caches"] if c["allocs"]]
    facts_lines = [
        ("what", facts["what"] or "-"),
        ("kernel", facts["source"].get("kernel", f"era {facts['era']}")),
        ("machine", f"{machine['cpus']} CPUs, {machine['memory_pages'] // 256:,} MiB"),
        ("duration", f"{facts['duration_s']:.3f} s{rate}"),
        ("caches", f"{len(facts['caches'])}, {len(used)} of them used"),
        ("groups", f"{len(facts['groups'])}, {facts['groups_created']} of them made meanwhile"),
        ("at the start", f"{facts['initial_slabs']:,} slabs with {facts['initial_objects']:,} "
                         "objects"),
        ("readings", ", ".join(f"{n:,} {kind}" for kind, n in readings.items())
                     if readings else "none: cannot be validated"),
    ]  # fmt: skip
    lines = [f"{facts['name']} ({facts['path']})"]
    lines += [f"  {name:<13}{value}" for name, value in facts_lines]
    lines.append(f"  {'events':<13}{facts['events']:,}")
    lines += [f"  {'':<13}{n:>12,} {op}" for op, n in facts["ops"].items()]
    parts = ["\n".join(lines)]
    if list_caches:
        rows = sorted(facts["caches"], key=lambda c: (-c["allocs"], c["name"]))
        heads = ("size", "order", "objects", "initial_slabs", "initial_objects", "allocs")
        parts.append(as_text(Grid(
            "", (Column("cache", left=True), *(Column(head.replace("_", " ")) for head in heads)),
            [(c["name"], *(f"{c[head]:,}" for head in heads)) for c in rows],
        )))  # fmt: skip
    if list_groups:
        rows = sorted(facts["groups"], key=lambda g: (-g["events"], g["name"]))
        parts.append(as_text(Grid(
            "", (Column("group", left=True), Column("at the start", left=True), Column("events")),
            [(g["name"], "yes" if g["online_at_start"] else "no", f"{g['events']:,}")
             for g in rows],
        )))  # fmt: skip
    return "\n\n".join(parts)
