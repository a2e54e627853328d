"""Accuracy of models that were measured on the same images: by class, and what each hop changed.

Of several tasks each is looked at for itself, on the images that have its label.
A hop is a step from one model to the next: teacher to student, FP32 to INT8. What is drawn of it,
and examples of the images that it changed, stand in ``changes.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgexfer.core.record import TaskAccuracy
from edgexfer.core.stats import ece_pct, paired_drop
from edgexfer.core.tasks import classes_of
from edgexfer.report.collect import Found, FoundBundle, FoundRun
from edgexfer.report.compare import Drop
from edgexfer.report.rows import Row

CLASSES_SHOWN = 25


@dataclass(frozen=True)
class Subject:
    """A model as it answered, wherever it did: rows of one artefact with the same answers.

    Attributes:
        rows: the records; the first stands for all.
        predictions: the class of each image; of several tasks, one number for all or those of one.
        confidences: the probability of each; empty where that is not known.
    """

    rows: tuple[Row, ...]
    predictions: tuple[int, ...]
    confidences: tuple[float, ...]

    @property
    def row(self) -> Row:
        """The record that stands for it."""
        return self.rows[0]


@dataclass(frozen=True)
class ClassLine:
    """One class: its name, its images, and for each subject the share that it got right."""

    name: str
    n: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Hop:
    """What a step from one model to the next changed, image by image.

    Attributes:
        before: the first; for a hop between trainings ``None``.
        after: the second; likewise.
        names: both, for people.
        n: images.
        changed: images whose answer is another.
        lost: of those, images that only the first got right.
        gained: of those, images that only the second got right.
        drop: how much accuracy it costs.
        ece_pct: calibration errors of both, in percent; ``None`` where one has no probabilities.
        task: which of several; ``None`` for the only one, or for all together.
    """

    before: Subject | None
    after: Subject | None
    names: tuple[str, str]
    n: int
    changed: int
    lost: int
    gained: int
    drop: Drop
    ece_pct: tuple[float | None, float | None]
    task: str | None = None

    @property
    def flip_pct(self) -> float:
        """Share of the images whose answer is another, in percent."""
        return 100 * self.changed / self.n


@dataclass(frozen=True)
class ImageSet:
    """Subjects that were measured on the same images, in one task.

    Attributes:
        bundle: one that carries the images.
        task: which of several; ``None`` for the only one.
        names: of the classes.
        labels: class of each image.
        numbers: place of each image among those of the bundle.
        subjects: the models: teacher, student, its quantised forms.
        lines: the classes; the weakest alone where there are many.
        hidden: how many classes are left out.
        hops: what each step changed.
    """

    bundle: FoundBundle
    task: str | None
    names: tuple[str, ...]
    labels: tuple[int, ...]
    numbers: tuple[int, ...]
    subjects: tuple[Subject, ...]
    lines: tuple[ClassLine, ...]
    hidden: int
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class TaskTable:
    """Accuracy of each of several tasks.

    Attributes:
        names: of the tasks.
        lines: each record, and what it says of each task.
    """

    names: tuple[str, ...]
    lines: tuple[tuple[Row, tuple[TaskAccuracy, ...]], ...]


def task_tables(rows: Iterable[Row]) -> list[TaskTable]:
    """Return the accuracies of records of several tasks, one table for each list of tasks."""
    lines: dict[tuple[str, ...], list[tuple[Row, tuple[TaskAccuracy, ...]]]] = {}
    for row in rows:
        tasks = row.record.accuracy.tasks if row.record.accuracy else ()
        if tasks:
            lines.setdefault(tuple(task.name for task in tasks), []).append((row, tasks))
    return [TaskTable(names, tuple(of)) for names, of in lines.items()]


def image_sets(found: Found, rows: Iterable[Row]) -> list[ImageSet]:
    """Return the sets of images on which at least one record was measured, with what they show.

    Of several tasks each has a set of its own.
    """
    members: dict[Any, tuple[FoundBundle, list[Row]]] = {}
    for row in rows:
        bundle, accuracy = found.bundle_of(row.record), row.record.accuracy
        if bundle is None or bundle.labels is None or accuracy is None:
            continue
        if len(accuracy.predictions) == len(bundle.labels):
            evaluation = bundle.manifest.evaluation
            data = evaluation and (evaluation.data_fingerprint, evaluation.split)
            key = (bundle.manifest.labels, data, bundle.labels)
            members.setdefault(key, (bundle, []))[1].append(row)
    return [images for place, of in members.values() for images in _image_sets(place, of)]


def run_hops(found: Found) -> list[Hop]:
    """Return what changed from the teacher to the student in their trainer, on the test images."""
    teacher, student = found.run_of("teacher"), found.run_of("student")
    if teacher is None or student is None:
        return []
    if not teacher.predictions or teacher.labels != student.labels:
        return []
    if teacher.card is None or student.card is None or teacher.card.classes != student.card.classes:
        return []
    names = (f"teacher ({teacher.card.name})", f"student ({student.card.name})")
    return [_hop(None, None, names, student.labels, (teacher, student))]


def _image_sets(bundle: FoundBundle, rows: Sequence[Row]) -> Iterable[ImageSet]:
    """Yield what is shown of a bundle's images, once for each task."""
    assert bundle.labels is not None
    subjects, tasks = _subjects(rows), bundle.manifest.tasks
    if not tasks:
        numbers = tuple(range(len(bundle.labels)))
        yield _image_set(bundle, None, bundle.manifest.labels, (bundle.labels, numbers), subjects)
    for place, task in enumerate(tasks):
        given = bundle.labels_in[task.name]
        numbers = tuple(i for i, label in enumerate(given) if label >= 0)
        if not numbers:
            continue
        own = [
            replace(
                subject,
                predictions=tuple(
                    classes_of(subject.predictions[i], tasks)[place] for i in numbers
                ),
                confidences=(),  # those that are kept are of all tasks together
            )
            for subject in subjects
        ]
        labels = tuple(given[i] for i in numbers)
        yield _image_set(bundle, task.name, task.classes, (labels, numbers), own)


def _image_set(
    bundle: FoundBundle,
    task: str | None,
    names: tuple[str, ...],
    images: tuple[tuple[int, ...], tuple[int, ...]],
    subjects: Sequence[Subject],
) -> ImageSet:
    labels, numbers = images
    where: dict[int, list[int]] = {}
    for image, label in enumerate(labels):
        where.setdefault(label, []).append(image)
    lines = [_class_line(names[c], c, where[c], subjects) for c in sorted(where)]
    weakest = sorted(range(len(lines)), key=lambda i: min(lines[i].shares))[:CLASSES_SHOWN]
    kept = tuple(lines[i] for i in sorted(weakest))
    hops = tuple(replace(hop, task=task) for hop in _hops(subjects, labels))
    hidden = len(lines) - len(kept)
    return ImageSet(bundle, task, names, labels, numbers, tuple(subjects), kept, hidden, hops)


def _subjects(rows: Sequence[Row]) -> list[Subject]:
    """Put rows of one artefact with the same answers together; the teacher first, FP32 next."""
    same: dict[Any, list[Row]] = {}
    for row in rows:
        accuracy = row.record.accuracy
        if accuracy is not None:
            artefact = row.record.artefact.get("sha256"), row.artefact
            same.setdefault((artefact, accuracy.predictions), []).append(row)
    found = []
    for of in same.values():
        accuracy = of[0].record.accuracy
        assert accuracy is not None
        found.append(Subject(tuple(of), accuracy.predictions, accuracy.confidences))
    return sorted(found, key=lambda s: (not _is_teacher(s), not _is_fp32(s)))


def _hops(subjects: Sequence[Subject], labels: Sequence[int]) -> Iterable[Hop]:
    """Yield teacher to student and FP32 to each other precision, of each bundle and target."""
    teacher = next((s for s in subjects if _is_teacher(s)), None)
    for subject in subjects:
        if subject is teacher:
            continue
        before = teacher if _is_fp32(subject) else _fp32_of(subject, subjects)
        if before is not None:
            names = (_name(before), _name(subject))
            yield _hop(before, subject, names, labels, (before, subject))


def _hop(
    before: Subject | None,
    after: Subject | None,
    names: tuple[str, str],
    labels: Sequence[int],
    answers: tuple[Subject | FoundRun, Subject | FoundRun],
) -> Hop:
    first, second = answers
    rights = [[p == y for p, y in zip(a.predictions, labels, strict=True)] for a in answers]
    pairs = list(zip(first.predictions, second.predictions, strict=True))
    d = paired_drop(rights[0], rights[1])
    return Hop(
        before,
        after,
        names,
        len(labels),
        sum(a != b for a, b in pairs),
        sum(a and not b for a, b in zip(*rights, strict=True)),
        sum(b and not a for a, b in zip(*rights, strict=True)),
        Drop(d.drop_pt, d.low_pt, d.high_pt, d.n, paired=True),
        (ece_pct(first.confidences, rights[0]), ece_pct(second.confidences, rights[1])),
    )


def _fp32_of(subject: Subject, subjects: Sequence[Subject]) -> Subject | None:
    """Return the FP32 form of the same bundle, of the same target where there is one."""
    bundle = subject.row.record.bundle.get("manifest_sha256")
    target = subject.row.record.artefact.get("target")
    siblings = [
        s for s in subjects if _is_fp32(s) and s.row.record.bundle.get("manifest_sha256") == bundle
    ]
    same = [s for s in siblings if s.row.record.artefact.get("target") == target]
    return next(iter(same or siblings), None)


def _is_fp32(subject: Subject) -> bool:
    return bool(subject.row.record.artefact.get("precision") == "fp32")


def _is_teacher(subject: Subject) -> bool:
    """Say whether it is the teacher: by its role, else by its backend, which nothing else takes."""
    torch = subject.row.record.artefact.get("backend") == "torch"
    return subject.row.role == "teacher" or (not subject.row.role and torch)


def _name(subject: Subject) -> str:
    return subject.row.full_name


def _class_line(name: str, index: int, images: Sequence[int], of: Sequence[Subject]) -> ClassLine:
    shares = (sum(s.predictions[i] == index for i in images) / len(images) for s in of)
    return ClassLine(name, len(images), tuple(shares))
