"""The distillation stage: teacher's run and images in, student's run out."""

from __future__ import annotations

import math

import torch

from edgexfer.core.codec import encode
from edgexfer.core.errors import ModelError, RecipeError
from edgexfer.core.files import PathLike
from edgexfer.core.model import read_card
from edgexfer.core.rundir import RunDir, RunInfo
from edgexfer.data.images import Images
from edgexfer.distill.losses import entropy, get_loss
from edgexfer.distill.objective import Distillation
from edgexfer.distill.teacher import Teacher, load_teacher
from edgexfer.models.groups import parameter_groups
from edgexfer.recipe import DataSection, StudentSection
from edgexfer.training.distributed import joined
from edgexfer.training.loop import Job, Objective, fit
from edgexfer.training.objective import cross_entropy
from edgexfer.training.stage import (
    build_model,
    finish,
    images_of,
    make_feed,
    open_data,
    open_training,
)

_BATCH = 64


def distill(
    data: DataSection, teacher: PathLike | None, student: StudentSection, out: PathLike
) -> RunInfo:
    """Train a student on the teacher's soft logits; an unfinished run in ``out`` goes on.

    Args:
        data: the images.
        teacher: a finished run; ``None`` trains the same student on the same schedule with the
            labels alone: the control.
        student: architecture, loss and schedule.
        out: the run's folder.

    Raises:
        RunError: the teacher is unfinished, or ``out`` holds something else.
        ModelError: the teacher lacks one of the data's classes, or knows no more than chance.
        RecipeError: the loss is unknown, or all its weights are 0.
        DataError: the images are unusable.
        TrainingError: the loss became non-finite, or memory ran out.
        Interrupted: by Ctrl-C or SIGTERM; the state is saved.
    """
    # 1. Refuse what cannot work before anything is written.
    loss = get_loss(student.loss)
    w_soft = 0.9 if student.w_soft is None else student.w_soft
    w_hard = 0.1 if student.w_hard is None else student.w_hard
    if w_soft + w_hard <= 0:
        raise RecipeError("w_soft and w_hard are both 0", "give at least one of them a weight")
    dataset = open_data(data)
    parents = {"teacher": read_card(teacher).weights_sha256} if teacher else {}
    kind = "distill" if teacher else "control"
    config = encode(student)
    for name in ("control",) if teacher else ("control", "loss", "temperature", "w_soft", "w_hard"):
        config.pop(name)

    with joined() as here, open_training(kind, out, config, data, dataset, parents) as run:
        if here.share(run.done):
            return run.info

        # 2. The student, from the seed alone, so that the control begins with the same weights.
        guide = load_teacher(teacher, dataset.classes) if teacher else None
        train = student.train
        built = build_model(student.model, len(dataset.classes), train.seed)
        # The images to judge by, looked at now: an unreadable one must not cost a training.
        val = images_of(data, dataset, "val", built.preprocess)
        test = images_of(data, dataset, "test", built.preprocess)

        # 3. The teacher, checked before hours are spent on it.
        objective: Objective = cross_entropy(train.label_smoothing)
        if teacher and guide:
            guide.to(memory_format=torch.channels_last).to(here.device)
            _check_teacher(guide, teacher, run, val, student.temperature)
            objective = Distillation(
                guide,
                loss,
                student.temperature,
                w_soft,
                w_hard,
                train.label_smoothing,
            )

        # 4. The one loop.
        job = Job(
            run=run,
            model=built.model,
            preprocess=built.preprocess,
            section=train,
            feed=make_feed(data, dataset, built.preprocess, train),
            val=val,
            objective=objective,
            groups=parameter_groups(
                built.model,
                lr=train.lr,
                backbone_lr=train.backbone_lr,
                weight_decay=train.weight_decay,
                decay_all=train.decay_all,
            ),
            frozen=[],
            title=f"{kind} {built.name}",
        )
        result = fit(job)

        # 5. Test once, save, and say so.
        return finish(run, built, result, dataset, test)


def at_chance(correct: int, n: int, classes: int) -> bool:
    """Say whether so many right answers are no more than guessing gives.

    The bound is three standard deviations above chance; of a few images that may be more than all
    of them, so it lies at most halfway between chance and perfect.
    """
    chance = 1 / classes
    deviation = math.sqrt(chance * (1 - chance) / n)
    return correct / n < min(chance + 3 * deviation, (1 + chance) / 2)


def _check_teacher(
    teacher: Teacher, place: PathLike, run: RunDir, val: Images, temperature: float
) -> None:
    """Refuse a teacher that knows no more than chance; log what it knows and how soft it is.

    It is asked just as the student will ask it: at the student's geometry, for its classes.
    """
    classes = len(teacher.order)
    device = teacher.order.device
    batches = [range(i, min(i + _BATCH, len(val))) for i in range(0, len(val), _BATCH)]
    logits = torch.cat([teacher(val.pixels(b).to(device).float()).cpu() for b in batches])
    correct = int((logits.argmax(1) == val.labels).sum())
    n = len(val)
    if at_chance(correct, n, classes):
        raise ModelError(
            f"{place}: the teacher has {100 * correct / n:.1f} % on {n} val images, chance is "
            f"{100 / classes:.1f} %",
            "fine-tune the teacher on this data first, and check its class names",
        )
    run.log(
        {
            "event": "teacher",
            "step": 0,
            "val_top1_pct": 100 * correct / n,
            "n": n,
            "reordered_classes": teacher.reordered,
            "soft_entropy_share": entropy(logits, temperature),
        }
    )
