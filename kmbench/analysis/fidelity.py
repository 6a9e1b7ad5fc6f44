"""Tables and pictures of how faithful replays were: predicted against real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from kmbench.analysis.picture import Curve, text_chart
from kmbench.analysis.tables import Column, Grid, as_text

if TYPE_CHECKING:
    from kmbench.trace.validate import Validation

SLABS, ACTIVE, PARTIAL, KMEM = "slabs", "active_objs", "partial_slabs", "kmem"
MISSED = " !"


def _value(quantity: str, value: float | None) -> str:
    if value is None:
        return "-"
    if "differ" in quantity or "missed" in quantity:
        return f"{value:.0f}"
    if "error" in quantity or quantity.startswith("slabs made") or "returned" in quantity:
        return f"{value:.3%}"
    return f"{value:.1%}"


def _bound(quantity: str, bound: str) -> str:
    sign, limit = bound.split()
    if "differ" in quantity or "missed" in quantity:
        return bound
    return f"{sign} {float(limit) * 100:g} %"


def verdict_table(validations: Sequence[Validation], pooled: dict[str, float | None]) -> str:
    """One row a bounded quantity, one column a recording; ``!`` marks what misses its bound.

    A recording need not have all quantities: without groups to score it has none of kmem.
    pooled: quantity -> value over all recordings together, shown when there are several.
    """
    several = len(validations) > 1
    columns = [Column("quantity", left=True), Column("bound", left=True)]
    columns += [Column(v.name) for v in validations] + ([Column("all")] if several else [])
    rows = []
    scored = [{row.quantity: row for row in v.score.rows} for v in validations]
    for quantity, bound in _bounds(validations).items():
        cells = [quantity, _bound(quantity, bound)]
        for own in scored:
            row = own.get(quantity)
            missed = row is not None and row.passed is False
            cells.append(_value(quantity, row and row.value) + (MISSED if missed else ""))
        if several:
            cells.append(_value(quantity, pooled.get(quantity)))
        rows.append(cells)
    for kind, column in (("exact", "exact"), ("within", "within")):
        cells = [f"caches {kind}", ""]
        pairs = []
        for v in validations:
            items = v.score.items.filter(pl.col("kind") == SLABS)
            pairs.append((int((items[column] == 1).sum()), len(items)))
        if several:
            pairs.append((sum(a for a, _ in pairs), sum(b for _, b in pairs)))
        rows.append([*cells, *(f"{a} of {b}" for a, b in pairs)])
    return as_text(Grid("", columns, rows, lead=2))


def _bounds(validations: Sequence[Validation]) -> dict[str, str]:
    """Every quantity that a recording has, in the order of the one that has most."""
    fullest = sorted(validations, key=lambda v: len(v.score.rows), reverse=True)
    return {row.quantity: row.bound for v in fullest for row in v.score.rows}


def cache_rows(details: pl.DataFrame) -> list[dict[str, Any]]:
    """Errors of every cache, of its slabs, active objects and partial slabs; worst first."""
    kinds = {
        kind: {row["item"]: row for row in details.filter(pl.col("kind") == kind).to_dicts()}
        for kind in (SLABS, ACTIVE, PARTIAL)
    }
    ordered = sorted(
        kinds[SLABS].values(),
        key=lambda row: (-(row["mean_error"] or 0) / max(row["mean_real"], 1), row["item"]),
    )
    return [
        {"cache": row["item"], **{kind: kinds[kind].get(row["item"]) for kind in kinds}}
        for row in ordered
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def cache_table(details: pl.DataFrame, worst: int) -> str:
    """The `worst` caches: error of each kind of reading, median and 95th percentile."""
    columns = [Column("cache", left=True), Column("real slabs")]
    for group in ("slabs", "active objects", "partial slabs"):
        columns += [Column(head, group) for head in ("exact", "p50", "p95")]
    rows = []
    for entry in _with_errors(details)[:worst]:
        row = [entry["cache"], _number(entry[SLABS]["mean_real"])]
        for kind in (SLABS, ACTIVE, PARTIAL):
            found = entry[kind]
            if found is None:
                row += ["-", "-", "-"]
            else:
                row += [f"{found['exact']:.0%}", _number(found["p50"]), _number(found["p95"])]
        rows.append(row)
    return as_text(Grid("", columns, rows))


def _with_errors(details: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        entry
        for entry in cache_rows(details)
        if any(row and row["exact"] < 1 for row in map(entry.get, (SLABS, ACTIVE, PARTIAL)))
    ]


def _wrong_groups(details: pl.DataFrame) -> pl.DataFrame:
    return details.filter((pl.col("kind") == KMEM) & (pl.col("exact") < 1))


def group_table(details: pl.DataFrame, worst: int) -> str:
    """The `worst` groups: error of kmem in bytes."""
    heads = ("readings", "real B", "exact", "p50 B", "p95 B", "worst B")
    found = _wrong_groups(details).head(worst)
    rows = [
        [
            row["item"], f"{row['readings']:,}", _number(row["mean_real"]), f"{row['exact']:.1%}",
            _number(row["p50"]), _number(row["p95"]), _number(row["worst"]),
        ]
        for row in found.to_dicts()
    ]  # fmt: skip
    return as_text(Grid("", (Column("group", left=True), *map(Column, heads)), rows))


def charts(validation: Validation, items: int = 1) -> list[tuple[str, list[Curve]]]:
    """Real and predicted curves of the worst `items` caches and groups of a replay.

    Those without an error are left out.
    """
    caches = [
        (SLABS, row["cache"]) for row in cache_rows(validation.details) if row[SLABS]["exact"] < 1
    ]
    groups = _wrong_groups(validation.details)["item"].to_list()
    chosen = caches[:items] + [(KMEM, group) for group in groups[:items]]
    out = []
    for kind, item in chosen:
        rows = validation.score.readings.filter(
            (pl.col("kind") == kind) & (pl.col("item") == item)
        ).sort("t")
        known = rows.filter(pl.col("predicted").is_not_null())
        unit = "kmem bytes" if kind == KMEM else "slabs"
        out.append(
            (
                f"{validation.name}: {unit} of {item}",
                [
                    Curve("real", "o", rows["t"].to_numpy(), rows["real"].to_numpy()),
                    Curve("predicted", "x", known["t"].to_numpy(), known["predicted"].to_numpy()),
                ],
            )
        )
    return out


def live_text(validation: Validation) -> str:
    """Live objects at the end, where replay, ledger and kernel, or the vectors, do not agree."""
    columns = [Column("live at the end", left=True), Column("replay"), Column("ledger"),
               Column("drift"), Column("vectors"), Column("recorded")]  # fmt: skip
    rows = [
        [row.cache, f"{row.replay:,}", f"{row.ledger:,}",
         "-" if row.drift is None else f"{row.drift:+,}", f"{row.vectors:,}",
         "-" if row.recorded_vectors is None else f"{row.recorded_vectors:,}"]
        for row in validation.score.live
        if row.differs or row.drift or row.recorded_vectors not in (None, row.vectors)
    ]  # fmt: skip
    return as_text(Grid("", columns, rows)) if rows else ""


def report(validation: Validation, worst: int) -> str:
    """Tables and pictures of one replay."""
    v = validation
    took = f"{v.engine_s * 1e3:.0f} ms, {v.nr_events / v.engine_s / 1e6:.1f} M events/s"
    parts = [
        f"{v.name}: {v.nr_events:,} events under {v.strategy} ({v.skipped:,} of them skipped), "
        f"engine {took}"
    ]
    if v.lost:
        parts.append(f"the recorder lost {v.lost:,} events or more: what they did is not replayed")
    if worst:
        scored = v.details["kind"].value_counts()
        total = dict(scored.iter_rows())
        wrong = len(_with_errors(v.details)), len(_wrong_groups(v.details))
        kinds = ("caches", total.get(SLABS, 0)), ("groups", total.get(KMEM, 0))
        for table, nr_wrong, (name, nr) in zip(
            (cache_table, group_table), wrong, kinds, strict=True
        ):
            if nr_wrong:
                parts.append(table(v.details, worst))
            parts.append(f"{nr - nr_wrong} of {nr} {name}: every reading exact")
        if live := live_text(v):
            parts.append(live)
        parts += [text_chart(title, curves) for title, curves in charts(v)]
    return "\n\n".join(parts)
