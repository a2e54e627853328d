"""What the page shows beside the records themselves: sections, classes, curves, lineage, cautions.

Turns what was found into plain values for the template; HTML and CSS stand in ``page.html`` and
``page.css``, drawing in ``charts.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgexfer.core.codec import encode
from edgexfer.core.record import Record
from edgexfer.report import charts, words
from edgexfer.report.collect import Found, FoundRun
from edgexfer.report.rows import Group, Row, group_rows
from edgexfer.report.sweep import Line, sweep_basis, sweep_lines
from edgexfer.report.verdict import Verdict, judge

CLASSES_SHOWN = 25
ROLE_ORDER = ("teacher", "student", "control")


@dataclass(frozen=True)
class ClassLine:
    """One class: its name, its images, and for each artefact the share that it got right."""

    name: str
    n: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class ClassTable:
    """Accuracy by class of artefacts that were measured on the same images.

    Attributes:
        rows: the artefacts, in the order of each line's shares.
        lines: the classes; the weakest alone where there are many.
        hidden: how many classes are left out.
    """

    rows: tuple[Row, ...]
    lines: tuple[ClassLine, ...]
    hidden: int


@dataclass(frozen=True)
class Section:
    """One group of comparable records with all that is drawn of it."""

    group: Group
    verdict: Verdict
    scatter: str | None
    ecdf: str | None
    per_class: tuple[ClassTable, ...]


@dataclass(frozen=True)
class SweepPart:
    """A sweep as it is shown: its lines, what they rest on, and a drawing."""

    title: str
    lines: tuple[Line, ...]
    basis: str
    drawing: str


@dataclass(frozen=True)
class RunLine:
    """One training in the table of trainings."""

    key: str
    slot: int
    run: FoundRun
    top1_pct: float | None
    n: int | None
    epochs: int


def sweep_parts(found: Found) -> list[SweepPart]:
    """Return each sweep with its table and its drawing."""
    parts = []
    for item in found.sweeps:
        lines = tuple(sweep_lines(item.sweep))
        accuracies = [arm.top1_pct for arm in item.sweep.arms]
        drawing = charts.accuracy_of_seeds(accuracies, [line.key for line in lines])
        parts.append(SweepPart(item.sweep.student, lines, sweep_basis(item.sweep), drawing))
    return parts


def make_sections(found: Found) -> tuple[list[Section], dict[str, int]]:
    """Group the records, judge and draw each group.

    Returns:
        The sections, and the palette's slot of each row's key.
    """
    rows = (Row("", f.record, _role(found, f.record)) for f in found.records)
    groups = group_rows(rows)
    slots = {r.key: charts.colour_slot(n) for g in groups for n, r in enumerate(g.rows)}
    return [_section(found, group, slots) for group in groups], slots


def run_lines(found: Found) -> list[RunLine]:
    """Return a line for each training, the teacher first."""
    lines = []
    known = {role: place for place, role in enumerate(ROLE_ORDER)}
    ordered = sorted(found.runs, key=lambda run: known.get(run.role, len(known)))
    for number, run in enumerate(ordered):
        test = run.info.result.get("test")
        test = test if isinstance(test, dict) else {}
        epochs = max((int(e["epoch"]) for e in run.events if _number(e.get("epoch"))), default=0)
        key, slot = str(number + 1), charts.colour_slot(number)
        lines.append(RunLine(key, slot, run, test.get("top1_pct"), test.get("n"), epochs))
    return lines


def draw_curves(lines: Sequence[RunLine]) -> list[str]:
    """Draw accuracy on the val images and training loss of all trainings."""
    wanted = (
        ("val", "top1_pct", "accuracy on the val images, %"),
        ("train", "loss", "training loss"),
    )
    drawn = []
    for event, name, label in wanted:
        curves = [charts.Curve(line.slot, *_course(line.run, event, name)) for line in lines]
        svg = charts.training_curves(curves, label)
        if svg is not None:
            drawn.append(svg)
    return drawn


def cautions(found: Found, sections: Sequence[Section]) -> list[str]:
    """List what a reader must know before relying on a figure; each thing once.

    Why a record is not ``ok`` stands beside its status; here only that it is not.
    """
    said: dict[str, list[str]] = {}
    for row in (r for s in sections for r in s.group.rows):
        status = words.clean(row.record.status)
        if row.record.status != "ok":
            why = "for the reasons in the table" if row.record.reasons else "without a reason"
            said.setdefault(f"{status}, {why}", []).append(row.key)
        for warning in row.record.warnings:
            said.setdefault(words.clean(warning), []).append(row.key)
    texts = [f"{words.joined(keys)}: {text}." for text, keys in said.items()]
    unfinished = [r for r in found.runs if r.info.status != "done"]
    texts += [f"The run {words.clean(r.path)} is {words.clean(r.info.status)}." for r in unfinished]
    return texts + [f"Not read: {error.what}; {error.fix}." for error in found.faults]


def absent(sections: Sequence[Section]) -> list[dict[str, str]]:
    """List the figures that could not be had, each reason once, with the rows it holds for."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in (r for s in sections for r in s.group.rows):
        for name, reason in row.record.absent.items():
            said.setdefault((name, reason), []).append(row.key)
    return [
        {"name": name, "reason": reason, "where": ", ".join(keys)}
        for (name, reason), keys in said.items()
    ]


def lineage(found: Found, sections: Sequence[Section]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return for each run, bundle and record what it was made from, with its hashes."""
    told = []
    for run in found.runs:
        info = encode(run.info)
        items = {k: info[k] for k in ("kind", "status", "created_utc", "data", "data_fingerprint")}
        items.update({k: info[k] for k in ("config", "parents", "lineage", "result")})
        if run.card is not None:
            items["model"] = encode(run.card)
        told.append((f"Run {words.clean(run.path)}", _flat(items)))
    for bundle in found.bundles:
        manifest = encode(bundle.manifest)
        items = {"manifest_sha256": bundle.manifest_sha256}
        names = ("model", "parameters", "preprocess", "calibration", "lineage", "created_utc")
        items.update({k: manifest[k] for k in names})
        items["artefacts"] = {
            a["name"]: {k: a[k] for k in ("files", "opset", "scheme", "made_by", "parent_sha256")}
            for a in manifest["artefacts"]
        }
        told.append((f"Bundle {words.clean(bundle.path)}", _flat(items)))
    paths = {id(f.record): f.path for f in found.records}
    for row in (r for s in sections for r in s.group.rows):
        record = encode(row.record)
        facts = ("bundle", "artefact", "active", "device", "settings", "lineage", "created_utc")
        items = {k: record[k] for k in facts}
        title = f"Record {row.key}: {words.clean(paths[id(row.record)])}"
        told.append((title, _flat(items)))
    return told


def _role(found: Found, record: Record) -> str:
    """Say which part a record's model plays, where the trip's folders or the bundle's name say."""
    place = found.bundle_of(record)
    role = place.role if place else str(record.bundle.get("name", ""))
    return role if role in ROLE_ORDER else ""


def _section(found: Found, group: Group, slots: dict[str, int]) -> Section:
    return Section(
        group,
        judge(found, group),
        charts.accuracy_latency(group.rows, slots),
        charts.latency_distribution(group.rows, slots),
        tuple(_class_tables(found, group)),
    )


def _class_tables(found: Found, group: Group) -> Iterable[ClassTable]:
    members: dict[tuple[Any, ...], list[Row]] = {}
    for row in group.rows:
        bundle, accuracy = found.bundle_of(row.record), row.record.accuracy
        if bundle is None or bundle.labels is None or accuracy is None:
            continue
        if len(accuracy.predictions) == len(bundle.labels):
            images = (bundle.manifest.labels, tuple(bundle.labels.tolist()))
            members.setdefault(images, []).append(row)
    for (names, labels), rows in members.items():
        where: dict[int, list[int]] = {}
        for image, label in enumerate(labels):
            where.setdefault(label, []).append(image)
        lines = [_class_line(names[c], c, where[c], rows) for c in sorted(where)]
        weakest = sorted(range(len(lines)), key=lambda i: min(lines[i].shares))[:CLASSES_SHOWN]
        kept = tuple(lines[i] for i in sorted(weakest))
        yield ClassTable(tuple(rows), kept, len(lines) - len(kept))


def _class_line(name: str, index: int, of_class: Sequence[int], rows: Sequence[Row]) -> ClassLine:
    shares = []
    for row in rows:
        said = row.record.accuracy.predictions if row.record.accuracy else ()
        shares.append(sum(said[i] == index for i in of_class) / len(of_class))
    return ClassLine(name, len(of_class), tuple(shares))


def _course(run: FoundRun, event: str, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the means of a quantity over each epoch."""
    epochs: dict[float, list[float]] = {}
    for line in run.events:
        if line.get("event") == event and _number(line.get("epoch")) and _number(line.get(name)):
            epochs.setdefault(float(line["epoch"]), []).append(float(line[name]))
    return tuple(epochs), tuple(sum(v) / len(v) for v in epochs.values())


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Return the leaves of a JSON value as ``(key path, text)``; empty ones are left out."""
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _flat(v, f"{key}.{k}" if key else k)]
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        return [leaf for i, v in enumerate(value) for leaf in _flat(v, f"{key}[{i}]")]
    if isinstance(value, list):
        return [(key, ", ".join(str(v) for v in value))] if value else []
    return [] if value is None else [(key, str(value))]
