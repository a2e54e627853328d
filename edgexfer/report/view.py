"""What the page shows: one part for each machine, devices side by side, trainings, cautions.

Turns what was found into plain values for the templates; HTML and CSS stand in ``templates``,
drawing in ``charts.py``, ``bars.py`` and ``series.py``, accuracy image by image in ``accuracy.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgexfer.core.record import STATUSES, Record
from edgexfer.report import charts, matrix, words
from edgexfer.report.again import mend
from edgexfer.report.bars import Bars, all_bars
from edgexfer.report.collect import Found, FoundRun
from edgexfer.report.draw import slot_of
from edgexfer.report.former import forgetting
from edgexfer.report.rows import Group, Row, group_rows
from edgexfer.report.series import Course, courses, draw_course
from edgexfer.report.sweep import Line, sweep_basis, sweep_lines
from edgexfer.report.verdict import Verdict, judge

ROLE_ORDER = ("teacher", "student", "control")


@dataclass(frozen=True)
class Timeline:
    """A record over time: the drawing, and how each process went."""

    row: Row
    drawing: str
    courses: tuple[Course, ...]


@dataclass(frozen=True)
class Section:
    """One group of comparable records with all that is drawn of it.

    Attributes:
        number: stands for it in the page, from 1.
        group: the records.
        verdict: what to conclude.
        scatter: accuracy against latency; ``None`` where there is nothing to draw.
        ecdf: distributions of latency; likewise.
        bars: stages, cold start, memory, energy, as far as they were measured.
        timelines: each record over time.
    """

    number: int
    group: Group
    verdict: Verdict
    scatter: str | None
    ecdf: str | None
    bars: tuple[Bars, ...]
    timelines: tuple[Timeline, ...]

    @property
    def counts(self) -> str:
        """How many records have which status."""
        statuses = [r.record.status for r in self.group.rows]
        return ", ".join(f"{statuses.count(s)} {s}" for s in STATUSES if s in statuses)


@dataclass(frozen=True)
class Matrix:
    """What a fleet's artefacts do on its machines, or on as many of them as a table takes."""

    sections: tuple[Section, ...]
    lines: tuple[matrix.Line, ...]


@dataclass(frozen=True)
class Fleet:
    """Sections that differ by machine alone: what to take on each, side by side.

    Attributes:
        settings: the way of measuring that they share.
        sections: of each machine.
        drawing: the latency of what to take on each; ``None`` where there is none.
        matrices: all artefacts on all machines.
    """

    settings: str
    sections: tuple[Section, ...]
    drawing: str | None
    matrices: tuple[Matrix, ...]


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
    former: str | None


@dataclass(frozen=True)
class CurvePart:
    """One quantity over the epochs: the drawing, and its first, last and best values by run."""

    label: str
    drawing: str
    lines: tuple[tuple[str, str, str, str], ...]


def sweep_parts(found: Found) -> list[SweepPart]:
    """Return each sweep with its table and its drawing."""
    parts = []
    for item in found.sweeps:
        lines = tuple(sweep_lines(item.sweep))
        accuracies = [arm.top1_pct for arm in item.sweep.arms]
        drawing = charts.accuracy_of_seeds(accuracies, [line.key for line in lines])
        parts.append(SweepPart(item.sweep.student, lines, sweep_basis(item.sweep), drawing))
    return parts


def grouped(found: Found) -> list[Group]:
    """Return the records that were found in groups that may be ranked, each with its role."""
    return group_rows(Row("", f.record, _role(found, f.record)) for f in found.records)


def make_sections(found: Found) -> tuple[list[Section], dict[str, int]]:
    """Group the records, judge and draw each group.

    Returns:
        The sections, and the palette's slot of each row's key.
    """
    groups = grouped(found)
    # Colours start anew with each group, so that neighbours in a chart differ.
    slots = {r.key: slot_of(n) for g in groups for n, r in enumerate(g.rows)}
    sections = [_section(found, number, group, slots) for number, group in enumerate(groups, 1)]
    return sections, slots


def fleets(sections: Sequence[Section], slots: dict[str, int]) -> list[Fleet]:
    """Put sections together that differ by machine alone; one of its own is no fleet."""
    members: dict[Any, list[Section]] = {}
    for section in sections:
        members.setdefault(section.group.method, []).append(section)
    found = []
    for of in members.values():
        if len(of) > 1:
            best = [(str(s.number), s.verdict.best) for s in of if s.verdict.best is not None]
            drawable = [(text, row) for text, row in best if row.p50_ns is not None]
            drawing = charts.devices_side_by_side(drawable, slots)
            found.append(Fleet(of[0].group.settings, tuple(of), drawing, tuple(_matrices(of))))
    return found


def _matrices(sections: Sequence[Section]) -> Iterator[Matrix]:
    for start in range(0, len(sections), matrix.MOST_MACHINES):
        part = tuple(sections[start : start + matrix.MOST_MACHINES])
        yield Matrix(part, matrix.lines([section.group for section in part]))


def run_lines(found: Found) -> list[RunLine]:
    """Return a line for each training, the teacher first."""
    lines = []
    known = {role: place for place, role in enumerate(ROLE_ORDER)}
    ordered = sorted(found.runs, key=lambda run: known.get(run.role, len(known)))
    for number, run in enumerate(ordered):
        test = run.info.result.get("test")
        test = test if isinstance(test, dict) else {}
        epochs = max((int(e["epoch"]) for e in run.events if _number(e.get("epoch"))), default=0)
        key, slot = str(number + 1), slot_of(number)
        top1, n, former = test.get("top1_pct"), test.get("n"), forgetting(run.info.result)
        lines.append(RunLine(key, slot, run, top1, n, epochs, former))
    return lines


def draw_curves(lines: Sequence[RunLine]) -> list[CurvePart]:
    """Draw accuracy on the val images and training loss of all trainings."""
    wanted = (
        ("val", "top1_pct", "accuracy on the val images, %", max),
        ("train", "loss", "training loss", min),
    )
    drawn = []
    for event, name, label, best in wanted:
        curves = [charts.Curve(line.slot, *_course(line.run, event, name)) for line in lines]
        svg = charts.training_curves(curves, label)
        if svg is not None:
            told = tuple(
                (line.key, *_ends(curve.values, best))
                for line, curve in zip(lines, curves, strict=True)
                if curve.values
            )
            drawn.append(CurvePart(label, svg, told))
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
    texts += _mends(sections)
    unfinished = [r for r in found.runs if r.info.status != "done"]
    texts += [f"The run {words.clean(r.path)} is {words.clean(r.info.status)}." for r in unfinished]
    return texts + [f"Not read: {error.what}; {error.fix}." for error in found.faults]


def _mends(sections: Sequence[Section]) -> list[str]:
    """Say what to do about invalid records, for those that were measured side by side at a time."""
    suites: dict[str, list[Record]] = {}
    for record in (row.record for section in sections for row in section.group.rows):
        suites.setdefault(str(record.settings.get("suite")), []).append(record)
    found = (mend(records, "Measure again (edgexfer bench)") for records in suites.values())
    return [text for text in found if text]


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


def _role(found: Found, record: Record) -> str:
    """Say which part a record's model plays, where the trip's folders or the bundle's name say."""
    place = found.bundle_of(record)
    names = (place.role if place else "", str(record.bundle.get("name", "")))
    return next((name for name in names if name in ROLE_ORDER), "")


def _section(found: Found, number: int, group: Group, slots: dict[str, int]) -> Section:
    timelines = []
    for row in group.rows:
        drawing = draw_course(row, slots[row.key])
        if drawing is not None:
            timelines.append(Timeline(row, drawing, tuple(courses(row))))
    return Section(
        number,
        group,
        judge(found, group),
        # A single point shows nothing that the table does not.
        charts.accuracy_latency(group.rows, slots) if len(group.usable) > 1 else None,
        charts.latency_distribution(group.rows, slots),
        tuple(all_bars(group.rows)),
        tuple(timelines),
    )


def _course(run: FoundRun, event: str, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the means of a quantity over each epoch."""
    epochs: dict[float, list[float]] = {}
    for line in run.events:
        if line.get("event") == event and _number(line.get("epoch")) and _number(line.get(name)):
            epochs.setdefault(float(line["epoch"]), []).append(float(line[name]))
    return tuple(epochs), tuple(sum(v) / len(v) for v in epochs.values())


def _ends(
    values: Sequence[float], best: Callable[[Sequence[float]], float]
) -> tuple[str, str, str]:
    """Return the first, the last and the best of a course, for people."""
    first, last, top = (words.significant(v, 4) for v in (values[0], values[-1], best(values)))
    return first, last, top


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
