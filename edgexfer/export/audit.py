"""Who is served worse, and who pays for the compression: accuracy by class and by subgroup.

The first subject, the teacher as a rule, is the reference: each further one is compared with it
image by image. Of one model the intervals of all groups hold together with 95 % confidence
(Bonferroni), those of accuracies, of gaps and of drops each by themselves, for the worst of many
groups looks bad by chance alone. Several tasks are audited each for itself, on the images that have
its label. Nothing is predicted here; that is ``evaluate``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import NormalDist

from edgexfer.core.errors import DataError, InputError, RunError, nearest
from edgexfer.core.stats import PairedDrop, images_needed, paired_drop, unpaired_drop, wilson
from edgexfer.export.evaluate import Answers, ask
from edgexfer.recipe import DataSection

CLASS = "class"
_LEVEL = "folder:"


@dataclass(frozen=True)
class GroupScore:
    """How one group of images fares with one model.

    Attributes:
        by: what divides the images: ``class``, ``folder:1``, or the column of a table.
        group: which of them.
        n: images in the group.
        correct: images with the right top-1 class.
        top1_pct: the share of them, in percent.
        low_pct: lower end of its interval.
        high_pct: upper end of it.
        gap_pt: accuracy on all other images minus that on these, in points.
        gap_low_pt: lower end of its interval.
        gap_high_pt: upper end of it.
        drop: of the reference minus this model on these images; ``None`` for the reference.
    """

    by: str
    group: str
    n: int
    correct: int
    top1_pct: float
    low_pct: float
    high_pct: float
    gap_pt: float
    gap_low_pt: float
    gap_high_pt: float
    drop: PairedDrop | None


@dataclass(frozen=True)
class SubjectAudit:
    """How all groups fare with one model, in one task.

    Attributes:
        name: folder of the run, or folder of the bundle and artefact.
        n: images.
        top1_pct: over all of them, in percent; ``None`` where it cannot run.
        groups: the groups, worst first.
        lost: images that the reference has right and this model wrong.
        won: the other way about.
        reason: why it cannot run.
        task: which of several; ``None`` for the only one.
    """

    name: str
    n: int
    top1_pct: float | None
    groups: tuple[GroupScore, ...]
    lost: tuple[str, ...]
    won: tuple[str, ...]
    reason: str | None = None
    task: str | None = None

    @property
    def title(self) -> str:
        """The model, and the task where there are several."""
        return self.name if self.task is None else f"{self.name}, task {self.task}"


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        n: test images.
        intervals: of each kind (accuracy, gap, drop) and model how many hold together.
        subjects: the reference first; of several tasks, all again for each.
    """

    n: int
    intervals: int
    subjects: tuple[SubjectAudit, ...]


def audit(subjects: Sequence[Path], data: DataSection | None, by: Sequence[str] = ()) -> Audit:
    """Measure accuracy by class, and by whatever else divides the images.

    Args:
        subjects: runs or bundles; the first is the reference for all others.
        data: the images; ``None`` takes those that the first, a run, was trained with.
        by: further divisions: ``folder:N`` for the N-th folder below the class folder (of several
            tasks, which have none, below the folder of the data or of its split), or
            ``FILE.csv:COLUMN`` for a table with a column ``image`` of paths as the data set has
            them.

    Raises:
        RunError: a subject is neither run nor bundle, or answers for other images than the first.
        DataError: the images are unusable, or no division is to be had from them.
        InputError: a table is unusable.
    """
    return compare_groups([(subject, ask(subject, data)) for subject in subjects], by)


def compare_groups(asked: Sequence[tuple[Path, Answers]], by: Sequence[str] = ()) -> Audit:
    """Do what ``audit`` does with what the subjects have answered."""
    place, first = asked[0]
    for subject, found in asked[1:]:
        if (found.keys, found.labels) != (first.keys, first.labels):
            raise RunError(f"{subject}: is tested on other images than {place}", "add --data DATA")
    if not any(answer.right is not None for answer in first.answers):
        raise RunError(f"{place}: cannot run here", "name one that can as the first")
    divisions = {
        name: dict(zip(first.keys, groups, strict=True))
        for name, groups in (divide(first, spec) for spec in by)
    }
    views: dict[str | None, Sequence[tuple[Path, Answers]]] = {None: asked}
    if first.labels_in:
        named = {task: [(s, found.in_task(task)) for s, found in asked] for task in first.labels_in}
        views = {task: view for task, view in named.items() if view[0][1].keys}
    grouped = {task: _groups(view[0][1], divisions) for task, view in views.items()}
    intervals = sum(len(set(of)) for groups in grouped.values() for of in groups.values())
    z = NormalDist().inv_cdf(1 - 0.05 / (2 * intervals))
    audits = [s for task, view in views.items() for s in _audit_task(task, view, grouped[task], z)]
    return Audit(len(first.keys), intervals, tuple(audits))


def divide(found: Answers, spec: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of a division and the group of each image.

    Raises:
        DataError: the images have no such folder, or are missing from the table.
        InputError: the table or its column is missing.
    """
    if spec.startswith(_LEVEL):
        several = bool(found.labels_in)
        pairs = zip(found.keys, found.labels, strict=True)
        return spec, tuple(_folder(key, None if several else label, spec) for key, label in pairs)
    path, _, column = spec.rpartition(":")
    if not path or not column:
        raise InputError(f"--by {spec}: is not a division", "write folder:1, or FILE.csv:COLUMN")
    table = _read_table(Path(path), column)
    missing = [key for key in found.keys if key not in table]
    if missing:
        raise DataError(
            f"{path}: has no row for {len(missing)} of {len(found.keys)} test images, "
            f"such as {missing[0]}",
            "add them; column image holds the path below the data folder",
        )
    return column, tuple(table[key] for key in found.keys)


def over_limit(found: Audit, max_gap: float | None, max_drop: float | None) -> list[str]:
    """Say which limits are missed or undecided, one line each; none where all are kept.

    A limit is kept where the whole interval is below it, and not where nothing can be compared.

    Args:
        found: an audit.
        max_gap: most points by which a group may be behind all others, for every subject.
        max_drop: most points that a group may lose from the reference to a subject.
    """
    lines = []
    for subject in found.subjects:
        if subject.top1_pct is None:
            lines.append(f"{subject.title}: not judged, it cannot run here: {subject.reason}")
        for score in subject.groups:
            here = f"{subject.title}, {score.by} {score.group!r}"
            if max_gap is not None and score.gap_high_pt > max_gap:
                gap = (score.gap_pt, score.gap_low_pt, score.gap_high_pt)
                lines.append(f"{here}: behind by {_judged(*gap, max_gap)}")
            drop = score.drop
            if max_drop is not None and drop is not None and drop.high_pt > max_drop:
                text = _judged(drop.drop_pt, drop.low_pt, drop.high_pt, max_drop)
                need = images_needed(drop, max_drop)
                if need is not None:
                    text += f"; about {need} images of it would tell"
                lines.append(f"{here}: loses {text}")
    compared = any(score.drop is not None for each in found.subjects for score in each.groups)
    if max_drop is not None and not compared:
        lines.append("nothing was compared, so no drop is known: name the reference before it")
    return lines


def to_text(found: Audit, worst: int = 5) -> str:
    """Write an audit as a table for people: the worst groups of each division and subject."""
    lines = [
        f"{found.n} test images; of a model the {found.intervals} intervals of each kind "
        "(accuracy, gap, drop) hold together with 95 % confidence"
    ]
    for subject in found.subjects:
        if subject.top1_pct is None:
            lines.append(f"{subject.title}: not run: {subject.reason}")
            continue
        compared = subject.groups[0].drop is not None
        flips = f"; {len(subject.lost)} images lost, {len(subject.won)} won" * compared
        lines.append(f"{subject.title}: {subject.top1_pct:.2f} % top-1, n={subject.n}{flips}")
        for by in dict.fromkeys(score.by for score in subject.groups):
            of = [score for score in subject.groups if score.by == by]
            lines += [f"  {_line(score)}" for score in of[:worst]]
            if len(of) > worst:
                lines.append(f"  {by}: {len(of) - worst} more groups, all better")
    return "\n".join(lines)


def _groups(
    found: Answers, divisions: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[str, ...]]:
    """Return by name of the division the group of each image, its class first."""
    others = {name: tuple(of[key] for key in found.keys) for name, of in divisions.items()}
    return {CLASS: found.labels, **others}


def _audit_task(
    task: str | None,
    asked: Sequence[tuple[Path, Answers]],
    groups: Mapping[str, Sequence[str]],
    z: float,
) -> list[SubjectAudit]:
    """Audit all subjects in one task, each further one against the first."""
    reference: Sequence[bool] | None = None
    subjects: list[SubjectAudit] = []
    for subject, found in asked:
        for answer in found.answers:
            single = len(found.answers) == 1
            name = subject.name if single else f"{subject.name}/{answer.name}"
            if answer.right is None:
                subjects.append(SubjectAudit(name, 0, None, (), (), (), answer.reason, task))
                continue
            scored = _scores(answer.right, reference, groups, z)
            pairs = list(zip(found.keys, reference or answer.right, answer.right, strict=True))
            subjects.append(
                SubjectAudit(
                    name,
                    len(found.keys),
                    100 * sum(answer.right) / len(found.keys),
                    tuple(scored),
                    lost=tuple(key for key, before, now in pairs if before and not now),
                    won=tuple(key for key, before, now in pairs if now and not before),
                    task=task,
                )
            )
            reference = reference or answer.right
    return subjects


def _scores(
    right: Sequence[bool],
    reference: Sequence[bool] | None,
    divisions: Mapping[str, Sequence[str]],
    z: float,
) -> list[GroupScore]:
    """Score the groups of each division, worst first."""
    scores = []
    for by, groups in divisions.items():
        members: dict[str, list[int]] = {}
        for place, group in enumerate(groups):
            members.setdefault(group, []).append(place)
        scored = [
            _score(by, group, right, reference, places, z) for group, places in members.items()
        ]
        scores += sorted(scored, key=lambda s: (s.top1_pct, s.group))
    return scores


def _score(
    by: str,
    group: str,
    right: Sequence[bool],
    reference: Sequence[bool] | None,
    places: Sequence[int],
    z: float,
) -> GroupScore:
    n, correct = len(places), sum(right[i] for i in places)
    rest, correct_rest = len(right) - n, sum(right) - correct
    low, high = wilson(correct, n, z)
    # A group that is all there is has nobody to be behind.
    gap = unpaired_drop(correct_rest, rest, correct, n, z) if rest else (0.0, 0.0, 0.0)
    drop = (
        None
        if reference is None
        else paired_drop([reference[i] for i in places], [right[i] for i in places], z)
    )
    return GroupScore(by, group, n, correct, 100 * correct / n, 100 * low, 100 * high, *gap, drop)


def _folder(key: str, label: str | None, spec: str) -> str:
    """Return the folder so many levels below an image's class folder, or below its split's."""
    from edgexfer.data.dataset import SPLITS

    number = spec.removeprefix(_LEVEL)
    if not number.isdigit() or int(number) < 1:
        raise InputError(
            f"--by {spec}: is not a level", "write folder:1 for the first below the class"
        )
    parts = PurePosixPath(key).parts
    if label is None:
        where, below = "the data", parts[parts[0] in SPLITS : -1]
    else:
        where = f"its class {label!r}"
        below = parts[parts.index(label) + 1 : -1] if label in parts else ()
    if len(below) < int(number):
        raise DataError(
            f"{key}: has no folder at level {number} below {where} (--by {spec})",
            "name another level, or a table: --by FILE.csv:COLUMN",
        )
    return below[int(number) - 1]


def _read_table(path: Path, column: str) -> dict[str, str]:
    """Return one column of a CSV file by the images' paths."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = list(rows.fieldnames or ())
            for name in ("image", column):
                if name not in names:
                    raise InputError(f"{path}: has no column {name!r}", nearest(name, names))
            table: dict[str, str] = {}
            for row in rows:
                # Neither empty lines nor breaks within quotes are rows.
                number, image, value = rows.line_num, row["image"], row[column]
                if value is None:
                    raise InputError(f"{path}:{number}: the row is cut short", "mend the row")
                if table.setdefault(image, value) != value:
                    what = f"{path}:{number}: {image} is {value!r}, but was {table[image]!r} above"
                    raise InputError(what, "remove one of the rows")
            return table
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})", "name a CSV file in UTF-8") from error


def _judged(value: float, low: float, high: float, limit: float) -> str:
    """Write a difference with its interval, and whether it is beyond the limit or may be."""
    how = "over" if low > limit else "which leaves open"
    return f"{value:.1f} points ({low:+.1f} to {high:+.1f}), {how} the limit of {limit:g}"


def _line(score: GroupScore) -> str:
    drop = score.drop
    against = (
        f"; drop {drop.drop_pt:+.1f} ({drop.low_pt:+.1f} to {drop.high_pt:+.1f}), "
        f"{drop.lost} lost, {drop.gained} won"
        if drop is not None
        else ""
    )
    return (
        f"{score.by} {score.group!r}: {score.top1_pct:.1f} % ({score.low_pct:.1f} to "
        f"{score.high_pct:.1f}), n={score.n}; behind the others by {score.gap_pt:+.1f} points "
        f"({score.gap_low_pt:+.1f} to {score.gap_high_pt:+.1f}){against}"
    )
