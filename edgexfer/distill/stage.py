"""The distillation stage: a teacher and images in, a student's run out.

What the teacher brings is in ``lesson.py``; several seeds and losses in ``sweep.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from edgexfer.core.codec import encode
from edgexfer.core.errors import RecipeError
from edgexfer.core.files import PathLike
from edgexfer.core.progress import say
from edgexfer.core.rundir import RunInfo
from edgexfer.distill.health import against_student
from edgexfer.distill.lesson import Lesson, Pupil, prepare_lesson
from edgexfer.distill.teacher import load_teacher
from edgexfer.distill.terms import Term, hard_weight, parse_loss, unmixable
from edgexfer.models.create import check_name
from edgexfer.profiles import find_profile
from edgexfer.quantize.ranges import write_ranges
from edgexfer.recipe import DataSection, ExportSection, StudentSection
from edgexfer.training.distributed import joined
from edgexfer.training.loop import fit
from edgexfer.training.multitask import join_balance, label_objective, make_balance
from edgexfer.training.stage import (
    Built,
    build_model,
    finish,
    images_of,
    make_feed,
    make_job,
    open_data,
    open_training,
)

if TYPE_CHECKING:
    from edgexfer.data.dataset import Dataset
    from edgexfer.data.images import Images
    from edgexfer.quantize.aware import AwareStudent

# Settings that decide what is trained beside a run, or how fast, but nothing of the run itself.
_BESIDE = ("control", "seeds", "assistants", "teacher_cache", "cache_gb")
# Files by whose content, not by whose name, a run is known: the teacher's identity holds it.
_FILES = ("class_map", "teacher_card")
_TAUGHT = (
    *("loss", "temperature", "w_soft", "w_hard", "standardise", "soft_warmup"),
    *("teacher_weights", "teacher_engine", "cache_top_k"),
)


def distill(
    data: DataSection,
    teachers: Sequence[PathLike],
    student: StudentSection,
    out: PathLike,
    *,
    shared: bool = False,
) -> RunInfo:
    """Train a student on its teacher's answers; an unfinished run in ``out`` goes on.

    Args:
        data: the images.
        teachers: each a finished run, a bundle or an ONNX file; none at all trains the same student
            on the same schedule with the labels alone: the control.
        student: architecture, one sum of losses, and schedule.
        out: the run's folder.
        shared: other runs ask the teacher about the same views, so that its answers are worth
            keeping.

    Raises:
        RunError: the teacher is unfinished, or ``out`` holds something else.
        ModelError: the teacher lacks one of the data's classes, knows no more than chance, or has
            not the layers that a feature loss names.
        RecipeError: the loss is unknown, its weights are all 0, or it cannot be used with mixup.
        DataError: the images are unusable.
        MachineError: the teacher's answers are to be kept, and there is no room.
        TrainingError: the loss became non-finite, or memory ran out.
        Interrupted: by Ctrl-C or SIGTERM; the state is saved.
    """
    # 1. Refuse what cannot work before anything is written.
    terms = check_student(student)
    dataset = open_data(data)
    balance = make_balance(dataset.tasks, student.train)
    _refuse_tasks(student, terms, dataset)
    guide = (
        load_teacher(
            teachers,
            dataset.classes,
            class_map=student.class_map,
            card=student.teacher_card,
            weights=student.teacher_weights,
        )
        if teachers
        else None
    )
    kind = "distill" if guide else "control"
    parents = {"teacher": guide.identity} if guide else {}
    config = _config(student, terms if guide else ())

    with (
        joined() as here,
        open_training(kind, out, config, data, dataset, parents) as run,
        ExitStack() as closing,
    ):
        if here.share(run.done):
            return run.info
        if here.leader:
            for note in dataset.notes:
                say(note)

        # 2. The student, from the seed alone, so that the control begins with the same weights.
        train = student.train
        built = build_model(student.model, len(dataset.classes), train.seed)
        # The images to judge by, looked at now: an unreadable one must not cost a training.
        val = images_of(data, dataset, "val", built.preprocess)
        test = images_of(data, dataset, "test", built.preprocess)

        aware = _quantized(built, dataset, student, test) if student.qat_for else None
        trained = built if aware is None else replace(built, model=aware)

        # 3. The teacher, checked before hours are spent on it.
        split = "train+unlabelled" if guide and data.unlabelled else "train"
        feed = make_feed(data, dataset, built.preprocess, train, split)
        lesson: Lesson | None = None
        if guide:
            pupil = Pupil(student, terms, trained, feed, val, dataset.classes, balance)
            lesson = prepare_lesson(guide, str(teachers[0]), pupil, run, here, shared=shared)
            if lesson.features:
                closing.enter_context(lesson.features)

        # 4. The one loop.
        by_labels = label_objective(dataset.tasks, balance, train.label_smoothing)
        objective = lesson.objective if lesson else by_labels
        job = make_job(run, trained, train, feed, val, objective)
        join_balance(job, balance)
        if lesson and lesson.features:
            lesson.join(job)
        result = fit(job)
        if aware is not None and here.leader:
            write_ranges(run, aware.finish(built.model))

        # 5. Test once, save, and say so.
        found: dict[str, Any] = {}
        if lesson:
            health = against_student(lesson.health, result.val_top1_pct)
            found["teacher"] = encode(health)
        return finish(run, built, result, dataset.classes, test, found)


def _quantized(
    built: Built, dataset: Dataset, student: StudentSection, test: Images
) -> AwareStudent:
    """Put the quantization of the target into the student, its ranges from training images."""
    from edgexfer.quantize.aware import prepare
    from edgexfer.quantize.calibration import draw_calibration

    measured = chain.from_iterable(test.batches())
    images = ExportSection().calibration_images
    calibration = draw_calibration(dataset, images, built.preprocess, measured=measured)
    return prepare(built.model, calibration, find_profile(str(student.qat_for)))


def _refuse_tasks(student: StudentSection, terms: Sequence[Term], dataset: Dataset) -> None:
    """Refuse what cannot be done for a student of several tasks."""
    if not dataset.tasks:
        return
    if student.cache_top_k is not None:
        raise RecipeError(
            "student.cache_top_k keeps the largest logits of all, the data has several tasks",
            "leave it out: all logits are kept then",
        )
    balance = student.train.balance
    if balance != "fixed" and any(term.facts.features for term in terms):
        raise RecipeError(
            f"train.balance is {balance}, but a feature loss trains along something of its own",
            "take fixed, with train.task_weights, or logit losses alone",
        )


def check_student(student: StudentSection) -> tuple[Term, ...]:
    """Read the sum of losses, and refuse settings that cannot be trained.

    Args:
        student: with one sum of losses.

    Raises:
        RecipeError: naming the term or the setting.
        ModelError: the architecture is unknown.
        ProfileError: the target of ``qat_for`` is unknown.
    """
    check_name(student.model.name, pretrained=student.model.pretrained)
    terms = _check_losses(student)
    _check_target(student, terms)
    return terms


def _check_target(student: StudentSection, terms: Sequence[Term]) -> None:
    """Refuse a target that the student cannot be trained for."""
    from edgexfer.quantize.aware import refuse_target

    if student.qat_for is None:
        return
    refuse_target(find_profile(student.qat_for))
    if not (student.model.weights or student.model.pretrained):
        raise RecipeError(
            "student.qat_for needs a student that is trained in float already",
            "distil it without --qat-for first, then give that run as --weights",
        )
    inside = [term.label for term in terms if term.facts.features]
    if inside:
        raise RecipeError(
            f"loss {inside[0]} looks into the student, which student.qat_for has rebuilt",
            "take logit losses for the quantized student",
        )


def _check_losses(student: StudentSection) -> tuple[Term, ...]:
    """Read the sum of losses, and refuse one that means nothing or cannot be computed."""
    terms = parse_loss(student.loss, w_soft=student.w_soft)
    if hard_weight(terms, student.w_hard) + sum(term.weight for term in terms) <= 0:
        raise RecipeError(
            f"loss {student.loss!r}: all its weights and w_hard are 0",
            "give at least one of them a weight",
        )
    apart = unmixable(terms)
    if apart and (student.train.mixup or student.train.cutmix):
        raise RecipeError(
            f"loss {apart[0]} needs one true class of each image, but train.mixup or cutmix is on",
            "set both to 0, or take kd or dist",
        )
    # Feature maps are not kept, and to make them is to ask the teacher.
    if student.teacher_cache == "on" and any(term.facts.features for term in terms):
        raise RecipeError(
            "student.teacher_cache is on, but a feature loss needs the teacher's layers each time",
            "leave out --teacher-cache, or take logit losses alone",
        )
    return terms


def _config(student: StudentSection, terms: Sequence[Term]) -> dict[str, Any]:
    """Return the settings by which a run is known again, its losses with their weights."""
    config: dict[str, Any] = encode(student)
    for name in (*_BESIDE, *_FILES, *(() if terms else _TAUGHT)):
        config.pop(name)
    if terms:
        config["terms"] = encode(tuple(terms))
        config["w_hard"] = hard_weight(terms, student.w_hard)
    return config
