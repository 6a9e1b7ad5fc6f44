"""Many runs in few files: one file per table, for datasets that are published."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from kmbench.store.dataset import Results, write_parquet
from kmbench.store.schema import arrow_schema

__all__ = ["pack"]


def pack(
    results: Results,
    folder: str | os.PathLike[str],
    tables: Iterable[str] = ("ops", "runs"),
    name: str = "all",
) -> None:
    """Write the ``tables`` of ``results`` to ``folder/<table>/<name>.parquet``.

    Readers find them there as they find single runs.  The same runs give the same bytes, in
    whatever order they were made.  Raises :class:`kmbench.errors.UsageProblem` when ``results``
    cannot be read or the folder cannot be written.
    """
    for table in sorted(tables, key=lambda table: table == "runs"):  # the proof comes last
        schema = arrow_schema(table)
        with results.reading():
            frame = getattr(results, table).collect()
        keys = ["run_id"] if table == "runs" else ["run_id", *_order(table)]
        words = [field for field, kind in frame.schema.items() if kind == pl.Categorical]
        frame = frame.with_columns(pl.col(words).cast(pl.String)).sort(keys, maintain_order=True)
        frame = frame.rechunk()  # a dictionary for the whole column, not one per file it came from
        write_parquet(Path(folder) / table / f"{name}.parquet", frame.to_arrow().cast(schema))


def _order(table: str) -> list[str]:
    return {"ops": ["phase", "path"], "timeline": ["sample", "memcg"],
            "caches": ["sample", "cache"]}.get(table, [])  # fmt: skip
