"""The table that bench, run and quickstart print: plain text, aligned by display width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgexfer.core.record import Record
from edgexfer.report import words
from edgexfer.report.columns import aligned
from edgexfer.report.rows import Group, Row, group_rows

_HEADS = ("model", "artefact", "accuracy", "size", "p50", "p90", "speed-up", "status")
_LEFT = {"model", "artefact", "status"}


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
        Lines without a final line break; latencies in milliseconds, sizes in SI units.
    """
    known = roles or {}
    rows = (Row("", r, known.get(str(r.bundle.get("manifest_sha256")), "")) for r in records)
    groups = group_rows(rows, reference)
    return "\n\n".join(_table(group, titled=len(groups) > 1) for group in groups)


def _table(group: Group, *, titled: bool) -> str:
    cells = [_cells(row) for row in group.rows]
    heads = [h for h in _HEADS if h != "speed-up" or group.reference is not None]
    lines = [f"{group.machine}, {group.settings}"] if titled else []
    lines += aligned(heads, cells, _LEFT)
    if group.reference is not None:
        lines.append(f"speed-up: p50 of {group.reference.full_name} over its own")
    return "\n".join(lines + [_reasons(row) for row in group.rows if row.record.reasons])


def _reasons(row: Row) -> str:
    """Say in one line why a record is not ok: the first reason, and how many more there are."""
    first, *more = row.record.reasons
    rest = f" (and {words.count(len(more), 'reason')} more)" if more else ""
    name = words.clean(row.artefact, 40)
    return f"{name} is {words.clean(row.record.status, 20)}: {words.clean(first, 160)}{rest}"


def _cells(row: Row) -> dict[str, str]:
    return {
        "model": words.clean(row.model, 40),
        "artefact": words.clean(row.artefact, 40),
        "accuracy": words.percent(row.top1_pct),
        "size": words.size(row.size_bytes),
        "p50": words.milliseconds(row.p50_ns),
        "p90": words.milliseconds(row.p90_ns),
        "speed-up": words.times(row.speedup),
        "status": words.clean(row.record.status, 20),
    }
