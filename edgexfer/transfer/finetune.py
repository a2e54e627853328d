"""The fine-tuning stage: images in, teacher's run out. Its strategies stand beside it."""

from __future__ import annotations

from edgexfer.core.codec import encode
from edgexfer.core.files import PathLike
from edgexfer.core.progress import say
from edgexfer.core.rundir import RunInfo
from edgexfer.recipe import DataSection, TeacherSection
from edgexfer.training.distributed import joined
from edgexfer.training.multitask import join_balance, label_objective, make_balance
from edgexfer.training.stage import (
    build_model,
    finish,
    images_of,
    make_feed,
    make_job,
    open_data,
    open_training,
    train_along,
)
from edgexfer.transfer.adaptation import one_class_in_answers, one_class_in_folders
from edgexfer.transfer.plan import (
    Plan,
    Subject,
    get_strategy,
    read_options,
    read_parents,
    refuse_tasks,
)

# Settings that decide what is trained beside a run, but nothing of the run itself.
_BESIDE = ("guard", "seeds")


def finetune(data: DataSection, teacher: TeacherSection, out: PathLike) -> RunInfo:
    """Fine-tune a teacher with one of the strategies; an unfinished run in ``out`` goes on.

    Args:
        data: the images.
        teacher: architecture, strategy and schedule.
        out: the run's folder.

    Raises:
        RecipeError: the strategy or one of its options is unknown, or does not fit the weights.
        ModelError: the architecture or its weights are unusable.
        DataError: the images are unusable.
        RunError: ``out`` holds something else.
        TrainingError: the loss became non-finite, or memory ran out.
        Interrupted: by Ctrl-C or SIGTERM; the state is saved.
    """
    # 1. Refuse what cannot work before anything is written.
    strategy = get_strategy(teacher)
    options = read_options(strategy, teacher)
    dataset = open_data(data)
    refuse_tasks(strategy, teacher, dataset)
    train = teacher.train
    # Defaults are spelled out, so that a run is known by what it did and not by what was typed.
    config = {**encode(teacher), "strategy_options": encode(options) or {}}
    for name in _BESIDE:
        config.pop(name)

    parents = read_parents(strategy, options)
    balance = make_balance(dataset.tasks, train)

    with joined() as here, open_training("finetune", out, config, data, dataset, parents) as run:
        if here.share(run.done):
            return run.info
        if here.leader:
            for note in dataset.notes:
                say(note)

        # 2. The architecture with its new head; the strategy says what becomes of it.
        built = build_model(teacher.model, len(dataset.classes), train.seed)
        subject = Subject(built, teacher, options, data, dataset)
        plan: Plan = strategy.prepare(subject)
        warnings = one_class_in_folders(subject) if plan.balanced else ()
        if here.leader:
            for line in (*(f"warning: {w}" for w in warnings), *_unheard(data, teacher, plan)):
                say(line)

        # 3. The images to judge by, looked at now: an unreadable one must not cost a training.
        val = images_of(data, dataset, "val", built.preprocess)
        test = images_of(data, dataset, "test", built.preprocess)

        # 4. The one loop.
        trained_on = plan.dataset or dataset
        feed = make_feed(
            data, trained_on, built.preprocess, train, plan.split, balanced=plan.balanced
        )
        objective = plan.objective or label_objective(dataset.tasks, balance, train.label_smoothing)
        job = make_job(run, built, train, feed, val, objective)
        job.frozen, job.thaw = plan.frozen, plan.thaw
        job.title = f"{teacher.strategy} {teacher.model.name}"
        if plan.auxiliary is not None:
            train_along(job, plan.auxiliary, "auxiliary")
        join_balance(job, balance)
        result = plan.train(job)
        if plan.finish is not None:
            plan.finish()

        # 5. Test once, save, and say so.
        found = dict(plan.results()) if plan.results and here.leader else {}
        if plan.balanced and here.leader:
            found["unlabelled_images"] = int((feed.labels < 0).sum())
            found["warnings"] = [*warnings, *(() if warnings else one_class_in_answers(subject))]
        classes = plan.classes or dataset.classes
        return finish(run, built, result, classes, test, found)


def _unheard(data: DataSection, teacher: TeacherSection, plan: Plan) -> tuple[str, ...]:
    """Say that images without labels are not looked at, where some are named."""
    if data.unlabelled is None or plan.balanced:
        return ()
    return (f"strategy {teacher.strategy} does not look at {data.unlabelled}: no labels",)
