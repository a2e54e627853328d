"""Whether a teacher's answers are kept, where, and in how much room: decided before training.

Answers are kept for views that come again (``train.views``), or that other runs see too. Where they
lie is decided by all that decides their bits, so that every student, loss and seed of a sweep that
sees the same views finds the same files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgexfer.core.errors import (
    DiskError,
    EdgexferError,
    InputError,
    MachineError,
    RecipeError,
    RunError,
)
from edgexfer.core.files import fingerprint, free_bytes, read_json
from edgexfer.core.rundir import differences
from edgexfer.data.cache import cache_dir
from edgexfer.data.feed import TrainFeed
from edgexfer.data.pool import free_memory
from edgexfer.distill.answers import row_type
from edgexfer.recipe import StudentSection

KIND = "teacher"
META = "meta.json"
# Raised whenever the same settings would give other rows than before.
SCHEMA = "edgexfer.teacher-cache/1"


@dataclass(frozen=True)
class CachePlan:
    """What is done about the teacher's answers.

    Attributes:
        use: whether they are kept and read.
        why: the reason, for people.
        folder: where they lie.
        meta: all that decides their bits; the folder is named by its hash.
        images: rows of each file.
        classes: logits of each answer.
        top_k: how many of them are kept; ``None`` for all.
        epochs: how many epochs of views there are, a file for each.
        there: how many of those files exist.
        budget: bytes that the answers of all teachers may take together.
        writes: whether files are written; of several processes none does.
    """

    use: bool
    why: str
    folder: Path
    meta: dict[str, Any]
    images: int
    classes: int
    top_k: int | None
    epochs: int
    there: int
    budget: int
    writes: bool

    @property
    def row(self) -> np.dtype[Any]:
        """How one answer is kept."""
        return row_type(self.classes, self.top_k)

    @property
    def epoch_bytes(self) -> int:
        """Size of one file."""
        return self.images * self.row.itemsize

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return self.epochs * self.epoch_bytes

    @property
    def missing_bytes(self) -> int:
        """Size of the files that are still to be written."""
        return (self.epochs - self.there) * self.epoch_bytes if self.writes else 0

    @property
    def text(self) -> str:
        """One line that says it all, for people."""
        if not self.use:
            return f"teacher cache: none, {self.why}"
        kept = f"{self.top_k:,} of {self.classes:,}" if self.top_k else f"{self.classes:,}"
        there = f", {self.there:,} of {self.epochs:,} are there" if self.there else ""
        return (
            f"teacher cache: {self.epochs:,} epoch{'' if self.epochs == 1 else 's'} of views x "
            f"{self.images:,} images x {kept} classes, {_size(self.bytes)} in {self.folder}{there}"
        )

    def file(self, view_epoch: int) -> Path:
        """Return the place of one epoch's answers."""
        return self.folder / f"views-{view_epoch:05d}.rows"


@dataclass(frozen=True)
class _Obstacle:
    """Why answers cannot be kept, as the end of a sentence, and what to do about it."""

    error: type[EdgexferError]
    why: str
    fix: str


def plan_cache(
    student: StudentSection,
    teacher: str,
    engine: str,
    classes: Sequence[str],
    feed: TrainFeed,
    *,
    shared: bool = False,
) -> CachePlan:
    """Decide whether the teacher's answers are kept; nothing is written yet.

    Args:
        student: ``teacher_cache``, ``cache_gb``, ``cache_top_k`` and the schedule in ``train``.
        teacher: hash of everything that decides the teacher's answers.
        engine: what computes them.
        classes: of the student, in the order of the logits.
        feed: of the student.
        shared: other runs see the same views, as in a sweep.

    Raises:
        RecipeError: the cache is to be on, but takes more than ``cache_gb``, or there are several
            processes and not all answers are there.
        MachineError: the cache is to be on, but memory or disk has no room for it.
        RunError: the folder holds the answers of another teacher, or to other views.
    """
    total = student.train.epochs
    epochs = min(feed.period or total, total)
    meta = _meta(student, teacher, engine, classes, feed)
    plan = CachePlan(
        use=False,
        why="student.teacher_cache is off",
        folder=cache_dir() / KIND / fingerprint(meta)[:32],
        meta=meta,
        images=len(feed.keys),
        classes=len(classes),
        top_k=meta["top_k"],
        epochs=epochs,
        there=0,
        budget=round(student.cache_gb * 1e9),
        writes=feed.world == 1,
    )
    if student.teacher_cache == "off":
        return plan
    _refuse_foreign(plan)
    plan = replace(plan, there=sum(plan.file(e).is_file() for e in range(epochs)))
    reasons = {
        "the same views come again": epochs < total,
        "other runs see the same views": shared,
        "answers to the same views are there": plan.there > 0,
        "student.teacher_cache is on": student.teacher_cache == "on",
    }
    held = [why for why, holds in reasons.items() if holds]
    if not held:
        return replace(plan, why="no view comes again (see train.views)")
    obstacle = _obstacle(plan, feed, whole=student.teacher_cache == "on")
    if obstacle is None:
        return replace(plan, use=True, why=held[0])
    if student.teacher_cache == "on":
        raise obstacle.error(f"student.teacher_cache is on, but {obstacle.why}", obstacle.fix)
    return replace(plan, why=obstacle.why)


def _meta(
    student: StudentSection, teacher: str, engine: str, classes: Sequence[str], feed: TrainFeed
) -> dict[str, Any]:
    train, top_k = student.train, student.cache_top_k
    # Mixed images also depend on who stands beside whom.
    mix = {
        "mixup": train.mixup,
        "cutmix": train.cutmix,
        "order_seed": feed.seed,
        "batch_size": feed.batch_size,
    }
    return {
        "schema": SCHEMA,
        "teacher": teacher,
        "engine": engine,
        "classes": list(classes),
        "top_k": top_k if top_k is not None and top_k < len(classes) else None,
        "views": feed.identity(),
        "mix": mix if feed.mixes else None,
    }


def _obstacle(plan: CachePlan, feed: TrainFeed, *, whole: bool) -> _Obstacle | None:
    """Return what stands in the way; ``whole`` where several processes need all files."""
    alone = "distil with one process, or set student.teacher_cache: auto"
    if feed.world > 1 and feed.mixes:
        return _Obstacle(
            RecipeError, f"each of {feed.world} processes mixes images of its own", alone
        )
    if feed.world > 1 and plan.there < (plan.epochs if whole else 1):
        return _Obstacle(
            RecipeError,
            f"{feed.world} processes only read it, and {plan.there} of {plan.epochs} epochs of "
            "views are there",
            alone,
        )
    if plan.bytes > plan.budget:
        return _Obstacle(
            RecipeError,
            f"the answers take {_size(plan.bytes)}, student.cache_gb allows {_size(plan.budget)}",
            "raise student.cache_gb, lower train.views, or set student.cache_top_k",
        )
    free = free_bytes(cache_dir())
    if 2 * plan.missing_bytes > free:
        return _Obstacle(
            DiskError,
            f"{plan.folder.parent} has {_size(free)} free, twice {_size(plan.missing_bytes)} are "
            "wanted",
            "free some space there, or set EDGEXFER_CACHE to a folder on another disk",
        )
    memory = free_memory()
    if plan.missing_bytes and 2 * plan.epoch_bytes > memory:
        return _Obstacle(
            MachineError,
            f"an epoch's answers take {_size(plan.epoch_bytes)}, {_size(memory)} of memory are "
            "free",
            "set student.cache_top_k",
        )
    return None


def _refuse_foreign(plan: CachePlan) -> None:
    if not plan.folder.is_dir():
        return
    place = plan.folder / META
    fix = "delete the folder; it is filled anew"
    try:
        found = read_json(place)
    except InputError as error:
        if any(plan.folder.glob("*.rows")):
            raise RunError(f"{error.what}, so nobody knows whose answers lie there", fix) from error
        return
    changed = [line.partition(":")[0] for line in differences(found, plan.meta)]
    if changed:
        raise RunError(f"{plan.folder}: was made with another {', '.join(changed)}", fix)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
