"""How two accuracies differ: image by image where the images are the same, with an interval.

What to conclude from a difference stands in ``verdict.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgexfer.core.stats import paired_drop, unpaired_drop
from edgexfer.report.collect import Found, FoundBundle, FoundRun
from edgexfer.report.rows import Group, Row


@dataclass(frozen=True)
class Drop:
    """How much accuracy one model loses against another.

    Attributes:
        drop_pt: in points, positive for a loss.
        low_pt: lower end of the 95 % interval.
        high_pt: upper end of it.
        n: images.
        paired: whether it was found image by image.
    """

    drop_pt: float
    low_pt: float
    high_pt: float
    n: int
    paired: bool

    @property
    def shown(self) -> bool:
        """Whether the interval excludes no difference at all."""
        return self.low_pt > 0 or self.high_pt < 0


def drop_from_fp32(found: Found, group: Group, row: Row) -> Drop | None:
    """Return the loss of a row against the FP32 artefact of its bundle; ``None`` where unknown.

    The FP32 record of the same target in the same group is taken first. Where that group has none,
    any other's serves: a machine that was too busy to be timed, or that has no such record, takes
    nothing from the accuracy that was measured elsewhere.
    """
    accuracy = row.record.accuracy
    if accuracy is not None and row.record.artefact.get("precision") == "fp32":
        return Drop(0.0, 0.0, 0.0, accuracy.n, paired=True)
    bundle = row.record.bundle.get("manifest_sha256")
    everywhere = [*group.rows, *(Row("", f.record) for f in found.records)]
    siblings = [
        r
        for r in everywhere
        if r.record.bundle.get("manifest_sha256") == bundle
        and r.record.artefact.get("precision") == "fp32"
        and r.record.accuracy
    ]
    if not siblings:
        return None
    same = [r for r in siblings if r.record.artefact.get("target") == _target(row)]
    return drop_between(found, (same or siblings)[0], row)


def drop_between(found: Found, first: Row, second: Row) -> Drop | None:
    """Return how much accuracy the second loses against the first, image by image where it can be.

    Two records can be paired when their bundles carry the same labels in the same order.
    """
    a, b = first.record.accuracy, second.record.accuracy
    if a is None or b is None or a.n == 0 or b.n == 0:
        return None
    one, two = found.bundle_of(first.record), found.bundle_of(second.record)
    labels = one.labels if one and one.labels is not None else ()
    counted = len(a.predictions) == len(b.predictions) == len(labels)
    if one and two and counted and _same_images(one, two):
        d = paired_drop(
            [p == y for p, y in zip(a.predictions, labels, strict=True)],
            [p == y for p, y in zip(b.predictions, labels, strict=True)],
        )
        return Drop(d.drop_pt, d.low_pt, d.high_pt, d.n, paired=True)
    drop, low, high = unpaired_drop(a.correct, a.n, b.correct, b.n)
    return Drop(drop, low, high, min(a.n, b.n), paired=False)


def run_gain(student: FoundRun, control: FoundRun) -> Drop | None:
    """Return the test accuracy of one run minus that of another, ``None`` where one has none.

    The runs are paired where both kept their predictions of the same images.
    """
    if not _tested(student) or not _tested(control):
        return None
    if student.predictions and control.predictions and student.labels == control.labels:
        d = paired_drop(_right(student), _right(control))
        return Drop(d.drop_pt, d.low_pt, d.high_pt, d.n, paired=True)
    a, b = student.info.result["test"], control.info.result["test"]
    drop, low, high = unpaired_drop(a["correct"], a["n"], b["correct"], b["n"])
    return Drop(drop, low, high, min(a["n"], b["n"]), paired=False)


def _same_images(one: FoundBundle, two: FoundBundle) -> bool:
    if one.labels is None or two.labels is None or one.manifest.labels != two.manifest.labels:
        return False
    a, b = one.manifest.evaluation, two.manifest.evaluation
    if a is None or b is None or one.labels != two.labels:
        return False
    return (a.data_fingerprint, a.split) == (b.data_fingerprint, b.split)


def _tested(run: FoundRun) -> bool:
    test = run.info.result.get("test")
    return (
        isinstance(test, dict)
        and all(isinstance(test.get(k), int) for k in ("n", "correct"))
        and 0 <= test["correct"] <= test["n"]
        and test["n"] > 0
    )


def _right(run: FoundRun) -> list[bool]:
    return [a == b for a, b in zip(run.labels, run.predictions, strict=True)]


def _target(row: Row) -> Any:
    return row.record.artefact.get("target")
