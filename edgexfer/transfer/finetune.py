"""The fine-tuning stage: images in, teacher's run out. Its strategies stand beside it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from edgexfer.core.codec import encode
from edgexfer.core.errors import RecipeError, nearest
from edgexfer.core.files import PathLike
from edgexfer.core.rundir import RunInfo
from edgexfer.recipe import DataSection, TeacherSection
from edgexfer.training.distributed import joined
from edgexfer.training.loop import fit
from edgexfer.training.objective import cross_entropy
from edgexfer.training.stage import (
    build_model,
    finish,
    images_of,
    make_feed,
    make_job,
    open_data,
    open_training,
)


def finetune(data: DataSection, teacher: TeacherSection, out: PathLike) -> RunInfo:
    """Fine-tune a teacher with one of the strategies; an unfinished run in ``out`` goes on.

    Args:
        data: the images.
        teacher: architecture, strategy and schedule.
        out: the run's folder.

    Raises:
        RecipeError: the strategy is unknown, or does not fit the weights.
        ModelError: the architecture or its weights are unusable.
        DataError: the images are unusable.
        RunError: ``out`` holds something else.
        TrainingError: the loss became non-finite, or memory ran out.
        Interrupted: by Ctrl-C or SIGTERM; the state is saved.
    """
    # 1. Refuse what cannot work before anything is written.
    strategy = get_strategy(teacher)
    dataset = open_data(data)

    with joined() as here, open_training("finetune", out, encode(teacher), data, dataset) as run:
        if here.share(run.done):
            return run.info

        # 2. The architecture with its new head; the strategy says what of it stands still.
        train = teacher.train
        built = build_model(teacher.model, len(dataset.classes), train.seed)
        frozen = strategy.prepare(built.model, teacher)

        # 3. The images to judge by, looked at now: an unreadable one must not cost a training.
        val = images_of(data, dataset, "val", built.preprocess)
        test = images_of(data, dataset, "test", built.preprocess)

        # 4. The one loop.
        feed = make_feed(data, dataset, built.preprocess, train)
        objective = cross_entropy(train.label_smoothing)
        job = make_job(run, built, train, feed, val, objective)
        job.frozen, job.title = frozen, f"{teacher.strategy} {teacher.model.name}"
        result = fit(job)

        # 5. Test once, save, and say so.
        return finish(run, built, result, dataset, test)


def get_strategy(teacher: TeacherSection) -> ModuleType:
    """Return the strategy's module: a file of ``transfer/`` with a ``prepare`` function.

    Raises:
        RecipeError: there is none of that name, or it needs weights to start from.
    """
    here = Path(__file__)
    names = {p.stem for p in here.parent.glob("*.py")} - {here.stem, "__init__"}
    if teacher.strategy not in names:
        raise RecipeError(
            f"strategy {teacher.strategy!r} is unknown", nearest(teacher.strategy, names)
        )
    strategy = importlib.import_module(f"edgexfer.transfer.{teacher.strategy}")
    if strategy.NEEDS_WEIGHTS and not (teacher.model.pretrained or teacher.model.weights):
        raise RecipeError(
            f"strategy {teacher.strategy} keeps layers as they are, but they are random",
            "add --pretrained or --weights FILE, or use --strategy scratch",
        )
    return strategy
