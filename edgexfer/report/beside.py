"""The report as Markdown, for a pull request or a wiki, and as CSV, one row per record."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgexfer.core.record import TaskAccuracy
from edgexfer.core.stats import Quantile, ece_pct
from edgexfer.report import words
from edgexfer.report.accuracy import Hop
from edgexfer.report.collect import Found
from edgexfer.report.rows import Row
from edgexfer.report.view import Matrix, RunLine, Section

MARK = "<!-- made by edgexfer report -->"
_LONGEST = 2000
_QUANTILES = ("p50", "p90", "p95", "p99")
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def figures(found: Found, row: Row, section: Section) -> dict[str, Any]:
    """Return a record as one flat line of plain values; ``None`` where there is none."""
    r, accuracy = row.record, row.record.accuracy
    flat: dict[str, Any] = {
        "record": row.key,
        "status": r.status,
        "reasons": "; ".join(r.reasons),
        "group": section.number,
        "machine": section.group.machine,
        "settings": section.group.settings,
        "scenario": row.scenario,
        "model": row.model,
        **{name: r.artefact.get(name) for name in ("name", "target", "backend", "precision")},
        "top1_pct": accuracy and accuracy.top1_pct,
        "top1_low_pct": accuracy and accuracy.low_pct,
        "top1_high_pct": accuracy and accuracy.high_pct,
        "images": accuracy and accuracy.n,
        "ece_pct": ece_of(found, row),
    }
    for name in _QUANTILES:
        known: Quantile | None = r.latency.get(name)
        flat[f"{name}_ns"] = known and known.value
        flat[f"{name}_upper99_ns"] = known and known.upper99
    flat.update(
        samples=max((q.n for q in r.latency.values()), default=None),
        processes=len(r.processes),
        images_per_s=row.per_s,
        sustained_ratio=r.sustained and r.sustained.ratio,
        speedup=row.speedup,
        size_bytes=row.size_bytes,
        memory_host_bytes=r.memory.get("host_bytes"),
        memory_device_bytes=r.memory.get("device_bytes"),
        energy_net_mj=r.power and r.power.net_mj,
        energy_gross_mj=r.power and r.power.gross_mj,
        energy_sensor=r.power and f"{r.power.sensor}:{r.power.rail}",
        cold_start_ns=r.cold_start.get("total_ns"),
        definitions=r.definitions,
        labels_sha256=r.data.get("labels_sha256"),
        artefact_sha256=r.artefact.get("sha256"),
        manifest_sha256=r.bundle.get("manifest_sha256"),
        created_utc=r.created_utc,
        file=next(str(f.path) for f in found.records if f.record is r),
    )
    return {name: v[:_LONGEST] if isinstance(v, str) else v for name, v in flat.items()}


def ece_of(found: Found, row: Row) -> float | None:
    """Return the calibration error of a record in percent; ``None`` without its bundle's labels."""
    bundle, accuracy = found.bundle_of(row.record), row.record.accuracy
    if bundle is None or bundle.labels is None or accuracy is None:
        return None
    if len(accuracy.predictions) != len(bundle.labels):
        return None
    pairs = zip(accuracy.predictions, bundle.labels, strict=True)
    return ece_pct(accuracy.confidences, [said == label for said, label in pairs])


def to_csv(lines: Sequence[Mapping[str, Any]], unread: Sequence[str]) -> str:
    """Return one row per record; what could not be read is a row with its reason.

    Args:
        lines: from ``figures``, of equal keys; may be empty.
        unread: why each file could not be read.
    """
    heads = list(lines[0]) if lines else ["record", "status", "reasons"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, heads, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _cell(value) for name, value in line.items()})
    for reason in unread:
        writer.writerow({"record": "", "status": "unreadable", "reasons": _cell(reason)})
    return stream.getvalue()


def to_markdown(page: Mapping[str, Any]) -> str:
    """Return the verdict, the cautions and the tables of a page as GitHub-flavoured Markdown.

    Args:
        page: the values that the HTML page is made of.
    """
    sections: Sequence[Section] = page["sections"]
    lines = [MARK, "", f"# {plain(page['title'])}", "", plain(page["summary"]), ""]
    for section in sections:
        lines += [f"**{plain(section.verdict.headline)}** On {plain(section.group.machine)}.", ""]
        lines += [f"- {plain(sentence)}" for sentence in section.verdict.sentences]
        lines.append("")
    if page["helped"]:
        lines += [plain(page["helped"]), ""]
    if page["cautions"]:
        lines += ["## Before you rely on this", ""]
        lines += [f"- {plain(text)}" for text in page["cautions"]]
        lines.append("")
    for matrix in (matrix for fleet in page["fleets"] for matrix in fleet.matrices):
        lines += ["## Each artefact on each machine", "", *_table(_lines(matrix))]
    for section in sections:
        lines += [f"## {plain(section.group.machine)}", "", f"{plain(section.group.settings)}.", ""]
        if section.group.apart:
            lines += [f"Apart from the others: {plain('; '.join(section.group.apart))}.", ""]
        lines += _table([_record(row) for row in section.group.rows])
    for table in page["task_tables"]:
        lines += ["## Accuracy in each task", "", *_table([_tasks(*line) for line in table.lines])]
    hops = [h for images in page["image_sets"] for h in images.hops] + page["run_hops"]
    if hops:
        lines += ["## What each hop changed", "", *_table([_hop(hop) for hop in hops])]
    lines += _forgotten(page["runs"])
    if page["absent"]:
        lines += ["## What was not measured", ""]
        lines += _table(
            [{n: plain(line[n]) for n in ("name", "reason", "where")} for line in page["absent"]]
        )
    return "\n".join(lines).rstrip() + "\n"


def plain(text: object) -> str:
    """Return text in which Markdown sees no markup."""
    shown = words.clean(text, _LONGEST)
    return re.sub(r"([\\`*_\[\]<>|#!~&$@])", r"\\\1", shown)


def _forgotten(runs: Sequence[RunLine]) -> list[str]:
    said = [f"- {plain(f'{line.run.role}, {line.former}')}." for line in runs if line.former]
    return ["## What was forgotten", "", *said, ""] if said else []


def _record(row: Row) -> dict[str, str]:
    record = row.record
    return {
        "": row.key,
        "model": plain(row.model),
        "artefact": plain(row.artefact),
        "accuracy": words.percent(row.top1_pct),
        "p50": words.milliseconds(row.p50_ns),
        "p90": words.milliseconds(row.p90_ns),
        "images/s": words.MISSING if row.per_s is None else words.significant(row.per_s),
        "speed-up": words.times(row.speedup),
        "size": words.size(row.size_bytes),
        "memory": words.size(row.memory_bytes),
        "energy": words.energy(record.power.net_mj if record.power else None),
        "status": plain("; ".join([record.status, *record.reasons])),
    }


def _lines(matrix: Matrix) -> list[dict[str, str]]:
    """Return a line for each artefact with a column for each machine."""
    heads = [plain(f"{each.number} {each.group.machine}") for each in matrix.sections]
    return [
        {
            "model": plain(line.first.model),
            "artefact": plain(line.first.artefact),
            **{
                head: "; ".join(_on_machine(row, section) for row in rows) or words.MISSING
                for head, section, rows in zip(heads, matrix.sections, line.cells, strict=True)
            },
        }
        for line in matrix.lines
    ]


def _on_machine(row: Row, section: Section) -> str:
    """Say how fast and how right a record is, and what the verdict on its machine makes of it."""
    if row.per_s is None:
        speed = [f"p50 {words.milliseconds(row.p50_ns)}", f"p90 {words.milliseconds(row.p90_ns)}"]
    else:
        speed = [f"{words.significant(row.per_s)} images/s"]
    known = [text for text in speed if words.MISSING not in text]
    right = [f"{words.percent(row.top1_pct)} right"] if row.record.accuracy else []
    doubt = [] if row.record.status == "ok" else [plain(row.record.status)]
    told = ", ".join([section.verdict.words[row.key], *known, *right, *doubt])
    return f"{row.key}: {told}"


def _tasks(row: Row, scores: Sequence[TaskAccuracy]) -> dict[str, str]:
    known = {plain(score.name): score for score in scores}
    shares = {name: words.percent(score.top1_pct) for name, score in known.items()}
    eces = {f"{name}, ECE": words.percent(score.ece_pct) for name, score in known.items()}
    named = {"": row.key, "model": plain(row.model), "artefact": plain(row.artefact)}
    return {**named, **shares, **eces}


def _hop(hop: Hop) -> dict[str, str]:
    before, after = (words.percent(ece) for ece in hop.ece_pct)
    return {
        "from": plain(hop.names[0]),
        "to": plain(hop.names[1]),
        "task": plain(hop.task or ""),
        "images": str(hop.n),
        "flips": f"{hop.changed} ({words.percent(hop.flip_pct)})",
        "lost": str(hop.lost),
        "gained": str(hop.gained),
        "accuracy lost": (
            f"{words.signed(hop.drop.drop_pt)} pt "
            f"({words.signed(hop.drop.low_pt)} to {words.signed(hop.drop.high_pt)})"
        ),
        "ECE": f"{before} → {after}",
    }


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return rows of equal keys as a table; a column without any value is left out."""
    heads = [h for h in rows[0] if any(row[h] not in ("", words.MISSING) for row in rows)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return [*lines, *(f"| {' | '.join(row[h] for h in heads)} |" for row in rows), ""]


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, str):
        shown = words.clean(value, _LONGEST)
        return f"'{shown}" if shown.startswith(_FORMULA) else shown
    return "" if value is None else value
