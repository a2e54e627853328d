"""The table that bench, run and quickstart print: plain text, aligned by display width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgexfer.core.record import Record
from edgexfer.report import words
from edgexfer.report.columns import aligned
from edgexfer.report.rows import Group, Row, group_rows, value_of

_LEFT = {"model", "artefact", "status"}
_LATENCY = ("p50", "p90")
# What says how fast where single latencies do not say it all.
_SPEED = {
    "offline": ("images/s",),
    "server": ("queries/s", "p99"),
    "sustained": (*_LATENCY, "at first", "at last", "slow-down"),
}


def summary_table(
    records: Sequence[Record],
    *,
    reference: str | None = None,
    roles: Mapping[str, str] | None = None,
) -> str:
    """Return records as a table; those of other machines or settings stand apart.

    Args:
        records: in any order; failed ones are shown with their reason.
        reference: name of the artefact that the speed-up refers to; ``None`` takes the FP32 record
            of the torch backend, of the teacher or of the model with the most parameters.
        roles: ``teacher``, ``student`` or ``control`` by the ``manifest_sha256`` of a bundle.

    Returns:
        Lines without a final line break; latencies in milliseconds, rates per second, sizes in SI
        units. Of a scenario that measures no single latencies, the columns are those of its rate.
    """
    known = roles or {}
    rows = (Row("", r, known.get(str(r.bundle.get("manifest_sha256")), "")) for r in records)
    groups = group_rows(rows, reference)
    usual = all(group.scenario == "single_stream" for group in groups)
    return "\n\n".join(_table(g, titled=len(groups) > 1 or not usual) for g in groups)


def _table(group: Group, *, titled: bool) -> str:
    cells = [_cells(row) for row in group.rows]
    related = ["speed-up"] if group.reference is not None else []
    speed = _SPEED.get(group.scenario, _LATENCY)
    heads = ["model", "artefact", "accuracy", "size", *speed, *related, "status"]
    lines = [f"{group.machine}, {group.settings}"] if titled else []
    lines += aligned(heads, cells, _LEFT)
    if group.reference is not None:
        name = group.reference.full_name
        over = f"its own rate over that of {name}"
        lines.append(f"speed-up: {over if group.by_throughput else f'p50 of {name} over its own'}")
    if group.scenario == "sustained":
        lines.append(
            "slow-down: the last fifth of a run (at last) over its first minute (at first)"
        )
    return "\n".join(lines + [_reasons(row) for row in group.rows if row.record.reasons])


def _reasons(row: Row) -> str:
    """Say in one line why a record is not ok: the first reason, and how many more there are."""
    first, *more = row.record.reasons
    rest = f" (and {words.count(len(more), 'reason')} more)" if more else ""
    name = words.clean(row.artefact, 40)
    return f"{name} is {words.clean(row.record.status, 20)}: {words.clean(first, 160)}{rest}"


def _cells(row: Row) -> dict[str, str]:
    kept, served = row.record.sustained, row.record.server
    rate = words.MISSING if row.per_s is None else words.significant(row.per_s)
    return {
        "model": words.clean(row.model, 40),
        "artefact": words.clean(row.artefact, 40),
        "accuracy": words.percent(row.top1_pct),
        "size": words.size(row.size_bytes),
        "p50": words.milliseconds(row.p50_ns),
        "p90": words.milliseconds(row.p90_ns),
        "images/s": rate,
        "queries/s": rate,
        "p99": words.milliseconds(value_of(served.p99) if served else None),
        "at first": words.milliseconds(kept.first_ns if kept else None),
        "at last": words.milliseconds(kept.last_ns if kept else None),
        "slow-down": f"{kept.ratio:.2f}×" if kept else words.MISSING,
        "speed-up": words.times(row.speedup),
        "status": words.clean(row.record.status, 20),
    }
