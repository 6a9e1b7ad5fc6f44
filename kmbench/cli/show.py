"""`kmbench show`: one run as the kernel's files would show it, at any sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kmbench.cli.output import DEFAULT_DIR, Named, emit, json_option

if TYPE_CHECKING:
    from kmbench.store.dataset import Run

__all__ = ["command"]


@click.command("show")
@click.argument("run")
@click.option(
    "--dir", "folder", default=DEFAULT_DIR, show_default=True, type=Named(),
    help="Folder of results.",
)  # fmt: skip
@click.option("--slabinfo", is_flag=True, help="Caches in the format of /proc/slabinfo.")
@click.option("--group", metavar="PATH", help="With --slabinfo: the group's memory.kmem.slabinfo.")
@click.option("--memcg", is_flag=True, help="The memory.* files of every group.")
@click.option("--stat", is_flag=True, help="The memory.stat of every group.")
@click.option(
    "--cgroup", "version", type=click.Choice(["1", "2"]), default="1", show_default=True,
    help="With --memcg and --stat: whose files.",
)  # fmt: skip
@click.option(
    "--perfetto", metavar="FILE.json[.gz]", type=Named(dir_okay=False),
    help="Write all counters over model time for ui.perfetto.dev.",
)  # fmt: skip
@click.option("--at", metavar="TIME", help="Model time (1.5s, 20ms, plain ns) [default: the end].")
@json_option
def command(
    run: str,
    folder: Path,
    slabinfo: bool,
    group: str | None,
    memcg: bool,
    stat: bool,
    version: str,
    perfetto: Path | None,
    at: str | None,
    as_json: bool,
) -> None:
    """Show the run whose id starts with RUN (or the only run of the strategy RUN).

    Without --slabinfo, --memcg and --stat: what was run, and its metrics.
    """
    from kmbench.analysis.show import parse_time
    from kmbench.analysis.tables import as_json as as_json_text
    from kmbench.errors import UsageProblem
    from kmbench.store.dataset import open_results

    if group is not None and not slabinfo:
        raise UsageProblem("--group: expected with --slabinfo")
    when = None if at is None else parse_time(at)
    found = open_results(folder).run(run)
    if perfetto:
        from kmbench.analysis.perfetto import write_perfetto

        events = write_perfetto(found, perfetto)
        facts = {"run_id": found.run_id, "file": str(perfetto), "events": events}
        text = as_json_text(facts) if as_json else f"{perfetto}: {events:,} events of {run}"
        emit(f"{text}\n".encode(), None)
        return
    with found.reading():
        if slabinfo or memcg or stat:
            wanted = _Wanted(slabinfo, group, memcg, stat, int(version))
            text = _files(found, wanted, when, as_json)
        else:
            text = as_json_text(_facts(found)) if as_json else _summary(found)
    emit(f"{text}\n".encode(), None)


class _Wanted(NamedTuple):
    """Which of the kernel's files."""

    slabinfo: bool
    group: str | None
    memcg: bool
    stat: bool
    version: int


def _files(run: Run, wanted: _Wanted, when: int | None, as_json: bool) -> str:
    """The kernel's files at the sample of time ``when`` (ns), as text or as JSON."""
    from kmbench.analysis import show
    from kmbench.analysis.tables import as_json as as_json_text

    sample, t = show.sample_at(run, when)
    caches, groups = show.caches_at(run, sample), show.groups_at(run, sample)
    content: dict[str, Any] = {"run_id": run.run_id, "sample": sample, "t": t}
    texts = []
    if wanted.slabinfo:
        own = caches if wanted.group is None else show.copies_of(caches, groups, wanted.group)
        content["caches"] = own.drop("run_id", "t", "sample").to_dicts()
        texts.append(show.slabinfo_text(own))
    if wanted.memcg:
        texts.append(show.memcg_text(groups, wanted.version))
    if wanted.stat:
        texts.append(show.stat_text(groups, caches, wanted.version))
    if wanted.memcg or wanted.stat:
        content["groups"] = groups.drop("run_id", "t", "sample").to_dicts()
    return as_json_text(content) if as_json else "\n\n".join(texts)


def _facts(run: Run) -> dict[str, Any]:
    """The row of ``runs``, its W3 and its timing."""
    from kmbench.analysis.compare import load_runs
    from kmbench.store.dataset import open_results

    return load_runs(open_results(run.path), [run.run_id]).row(0, named=True)


def _summary(run: Run) -> str:
    from kmbench.analysis.metrics import METRICS, direction_mark, format_value
    from kmbench.analysis.tables import Column, Grid, as_text

    facts = _facts(run)
    about = [[name, _words(value)] for name, value in facts.items() if _is_fact(name, value)]
    measured = [
        [m.label, m.id, direction_mark(m.direction), format_value(m, facts[m.name])]
        for m in METRICS.values()
        if facts[m.name] is not None
    ]
    plain = [Column("run", left=True), Column(run.run_id, left=True)]
    heads = [Column("metric", left=True), Column("id", left=True), Column(""), Column("value")]
    parts = [Grid("", plain, about), Grid("", heads, measured)]
    return "\n\n".join(as_text(grid) for grid in parts)


def _words(value: object) -> str:
    """The value; JSON with blanks, so that lines can end in it."""
    text = str(value)
    return json.dumps(json.loads(text)) if text.startswith(("{", "[")) else text


def _is_fact(name: str, value: object) -> bool:
    from kmbench.analysis.metrics import METRICS

    return name not in METRICS and name != "run_id" and value is not None
