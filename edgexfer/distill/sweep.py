"""Several trainings of one student: seeds, losses, the control, and assistants on the way.

::

    OUT/                    the student: first loss, first seed
    OUT-control/            the same student without the teacher
    OUT-assistant-1/        each model between teacher and student
    OUT-sweep/LOSS/seed-S/  further losses and seeds
    OUT-sweep/sweep.json    what they came to, with intervals

Each of them is an ordinary run, done once: a sweep that was interrupted goes on, and one that is
asked for with more seeds trains only those. One training is the matter of ``stage.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgexfer.core.errors import RecipeError
from edgexfer.core.files import PathLike, make_dir, sha256_bytes
from edgexfer.core.rundir import RunInfo
from edgexfer.core.sweep import CONTROL, Sweep, write_sweep
from edgexfer.distill.stage import check_student, distill
from edgexfer.distill.terms import split_losses
from edgexfer.models.create import check_name
from edgexfer.recipe import DataSection, ModelSection, StudentSection
from edgexfer.training.sweeps import Training, beside, summarise


@dataclass(frozen=True)
class Outcome:
    """What a distillation with all that was asked beside it came to.

    Attributes:
        student: the run at ``OUT``.
        control: the run at ``OUT-control``; ``None`` where none was asked for.
        control_place: where it lies.
        sweep: over seeds and losses; ``None`` where there is one of each.
        folder: where the sweep lies.
    """

    student: RunInfo
    control: RunInfo | None
    control_place: Path
    sweep: Sweep | None
    folder: Path


def distill_all(
    data: DataSection,
    teachers: Sequence[PathLike],
    student: StudentSection,
    out: PathLike,
    *,
    control: PathLike | None = None,
) -> Outcome:
    """Train the student, its assistants, its control, and all of it with every seed and loss.

    All seeds see the same augmented views, so that the teacher's answers to them serve all; what a
    seed decides is the first weights, the order of the images, which of them are mixed, and
    dropout.

    Args:
        data: the images.
        teachers: runs, bundles or ONNX files.
        student: what is trained; ``loss`` may be several sums with commas between them.
        out: folder of the student's run.
        control: folder of the control's first run; unset takes ``OUT-control``.

    Raises:
        RecipeError: no teacher is named, two of the losses are the same, or a setting cannot be
            trained; nothing is, then.
        EdgexferError: as ``distill`` raises it; what was trained before is kept.
    """
    if not teachers:
        raise RecipeError("no teacher is named", "name a run, a bundle or an ONNX file")
    check_all(student)
    here = Path(out)
    losses = split_losses(student.loss)
    without = beside(here, CONTROL) if control is None else Path(control)
    trainings = _trainings(here, without, losses, student)
    guides = teachers
    for number, name in enumerate(student.assistants, 1):
        # Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant", AAAI 2020.
        middle = ModelSection(name, size=student.model.size)
        section = replace(student, model=middle, loss=losses[0], qat_for=None)
        place = beside(here, f"assistant-{number}")
        distill(data, guides, section, place)
        guides = (place,)
        # These speak of the teacher; an assistant is one model that knows the data's own classes.
        student = replace(student, teacher_weights=(), class_map=None, teacher_card=None)

    # Mixed images also depend on the order, which is each seed's own.
    mixes = student.train.mixup or student.train.cutmix
    shared = len(losses) > 1 or (student.seeds > 1 and not mixes)
    infos: dict[Training, RunInfo] = {}
    first = student.train.seed
    view_seed = first if student.train.view_seed is None else student.train.view_seed
    for training in trainings:
        train = student.train
        if training.seed != first:
            train = replace(train, seed=training.seed, view_seed=view_seed)
        alone = training.arm == CONTROL
        section = replace(student, loss=losses[0] if alone else training.arm, train=train)
        infos[training] = distill(
            data, () if alone else guides, section, training.place, shared=shared
        )

    folder = beside(here, "sweep")
    sweep = None
    # One of several processes of a training has no results; the leader speaks for all.
    if len(losses) * student.seeds > 1 and all(info.result for info in infos.values()):
        baseline = CONTROL if student.control else None
        sweep = summarise(folder, infos, student.model.name, baseline)
        write_sweep(make_dir(folder), sweep)
    labels_alone = next((i for t, i in infos.items() if t.arm == CONTROL), None)
    return Outcome(infos[trainings[0]], labels_alone, without, sweep, folder)


def check_all(student: StudentSection) -> None:
    """Refuse, before anything is trained, what one of the trainings would refuse.

    Raises:
        RecipeError: naming the loss or the setting.
        ModelError: the student's or an assistant's architecture is unknown.
        ProfileError: the target of ``qat_for`` is unknown.
    """
    for loss in split_losses(student.loss):
        check_student(replace(student, loss=loss))
    for name in student.assistants:
        check_name(name)


def _trainings(
    out: Path, control: Path, losses: Sequence[str], student: StudentSection
) -> list[Training]:
    """List what is trained, seed by seed, so that an interrupted sweep has whole comparisons."""
    texts = ["".join(loss.split()) for loss in losses]
    if len(set(texts)) < len(texts):
        raise RecipeError(f"student.loss {student.loss!r} names a loss twice", "name it once")
    slugs = [re.sub(r"[^\w.+-]", "_", text) for text in texts]
    names = [
        slug if slugs.count(slug) == 1 else f"{slug}-{sha256_bytes(text.encode())[:8]}"
        for slug, text in zip(slugs, texts, strict=True)
    ]
    found = []
    for seed in range(student.train.seed, student.train.seed + student.seeds):
        first = seed == student.train.seed
        for loss, name in zip(losses, names, strict=True):
            place = beside(out, "sweep") / name / f"seed-{seed}"
            found.append(Training(loss, seed, out if first and loss == losses[0] else place))
        if student.control:
            place = beside(out, "sweep") / CONTROL / f"seed-{seed}"
            found.append(Training(CONTROL, seed, control if first else place))
    return found
