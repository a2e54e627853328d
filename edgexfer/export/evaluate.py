"""Accuracy of a run, or of each artefact of a bundle, on a data set's test split."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgexfer.bench.job import load_artefact, read_profile
from edgexfer.core.backend import get_backend
from edgexfer.core.bundle import MANIFEST, Manifest, verify_files
from edgexfer.core.errors import BackendError, ModelError, RunError
from edgexfer.core.record import TaskAccuracy
from edgexfer.core.rundir import INFO, read_run
from edgexfer.core.stats import wilson
from edgexfer.core.tasks import Task
from edgexfer.recipe import DataSection

if TYPE_CHECKING:
    import numpy as np

    from edgexfer.core.preprocess import Preprocess
    from edgexfer.data.images import Images


@dataclass(frozen=True)
class ClassScore:
    """Accuracy on the images of one class.

    Attributes:
        n: images of the class.
        correct: those that were classified rightly.
    """

    n: int
    correct: int


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of one model or artefact.

    Attributes:
        name: ``model`` for a run, the artefact's name for a bundle.
        n: images; 0 where it could not run.
        correct: images with the right top-1 class.
        top1_pct: the share of them, in percent; ``None`` where it could not run.
        low_pct: lower end of the 95 % Wilson interval.
        high_pct: upper end of it.
        classes: the same for each class, by name; of several tasks, for each combination.
        tasks: the same for each of several tasks; empty for one.
        reason: why it could not run.
    """

    name: str
    n: int
    correct: int
    top1_pct: float | None
    low_pct: float
    high_pct: float
    classes: dict[str, ClassScore]
    reason: str | None = None
    tasks: tuple[TaskAccuracy, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What one model or artefact says of the test images.

    Attributes:
        name: ``model`` for a run, the artefact's name for a bundle.
        right: for each image, whether its top-1 class is the label, of several tasks each label
            that it has; ``None`` where it cannot run.
        reason: why it cannot.
        tasks: accuracy of each of several tasks; empty for one.
        right_in: by name of the task, the same as ``right`` for its label alone; empty for one.
    """

    name: str
    right: tuple[bool, ...] | None
    reason: str | None = None
    tasks: tuple[TaskAccuracy, ...] = ()
    right_in: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """What a run or bundle says of the test images of a data set.

    Attributes:
        keys: names of the images.
        labels: their classes, by name; of several tasks all that it has, with commas between them.
        classes: all classes, in the data set's order; of several tasks, all combinations.
        answers: one for a run, one for each artefact of a bundle.
        labels_in: by name of the task, the class of each image in it, ``None`` without a label;
            empty for one task.
    """

    keys: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    answers: tuple[Answer, ...]
    labels_in: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    def in_task(self, task: str) -> Answers:
        """Return what is said in one of several tasks of the images that have a label of it."""
        given = self.labels_in[task]
        known = [i for i, label in enumerate(given) if label is not None]
        labels = tuple(label for label in given if label is not None)
        answers = (
            Answer(a.name, None, a.reason)
            if a.right is None
            else Answer(a.name, tuple(a.right_in[task][i] for i in known))
            for a in self.answers
        )
        keys = tuple(self.keys[i] for i in known)
        return Answers(keys, labels, tuple(sorted(set(labels))), tuple(answers))


def evaluate(subject: Path, data: DataSection | None) -> list[Evaluation]:
    """Measure top-1 accuracy on the test split of a data set; see ``ask``."""
    found = ask(subject, data)
    return [_score(answer, found.labels, found.classes) for answer in found.answers]


def ask(subject: Path, data: DataSection | None) -> Answers:
    """Classify the test images of a data set.

    Args:
        subject: a run or a sealed bundle.
        data: the data set; ``None`` takes the one that a run was trained with.

    Raises:
        RunError: ``subject`` is neither, or a bundle was given without data.
        ModelError: the data has a class that the model does not know.
        DataError: the images are unusable.
    """
    if (subject / MANIFEST).is_file():
        if data is None:
            raise RunError(f"{subject}: a bundle does not know its data set", "add --data DATA")
        return _ask_bundle(subject, verify_files(subject), data)
    if not (subject / INFO).is_file():
        raise RunError(
            f"{subject}: is neither a run nor a bundle",
            "name a folder that finetune, distill or export has made, such as TRIP/student",
        )
    info = read_run(subject)
    return _ask_run(subject, data or DataSection(**info.data))


def to_text(results: list[Evaluation]) -> str:
    """Write results as a table for people, the worst class of each beside it."""
    width = max(len(r.name) for r in results)
    lines = []
    for r in results:
        if r.top1_pct is None:
            lines.append(f"{r.name:{width}}  not run: {r.reason}")
            continue
        if r.tasks:
            lines.append(
                f"{r.name:{width}}  {r.top1_pct:6.2f} % right in all tasks (95 % interval "
                f"{r.low_pct:.1f} to {r.high_pct:.1f}), n={r.n}"
            )
            lines += [f"{'':{width}}  {task_in_words(task)}" for task in r.tasks]
            continue
        scored = {k: v for k, v in r.classes.items() if v.n}
        worst = min(scored, key=lambda k: scored[k].correct / scored[k].n)
        share = 100 * scored[worst].correct / scored[worst].n
        lines.append(
            f"{r.name:{width}}  {r.top1_pct:6.2f} % top-1 (95 % interval {r.low_pct:.1f} to "
            f"{r.high_pct:.1f}), n={r.n}; worst class {worst!r} {share:.1f} %"
        )
    return "\n".join(lines)


def task_in_words(task: TaskAccuracy) -> str:
    """Say what the accuracy of one of several tasks is."""
    if task.top1_pct is None:
        return f"task {task.name}: no labels"
    ece = "" if task.ece_pct is None else f", calibration error {task.ece_pct:.1f} %"
    return (
        f"task {task.name}: {task.top1_pct:.2f} % top-1 (95 % interval {task.low_pct:.1f} to "
        f"{task.high_pct:.1f}), n={task.n}{ece}"
    )


def _ask_run(run: Path, data: DataSection) -> Answers:
    from edgexfer.models.store import load_model
    from edgexfer.training.evaluate import predict_logits

    model, card = load_model(run)
    images, order, classes = _test_images(run, data, card.preprocess, card.classes)
    _refuse_other_tasks(run, card.tasks, images)
    logits = predict_logits(model, card.preprocess, images)
    return _answers(images, classes, [_answer("model", logits, images, order, card.tasks)])


def _ask_bundle(bundle: Path, manifest: Manifest, data: DataSection) -> Answers:
    import numpy as np

    from edgexfer.bench.accuracy import predict

    images, order, classes = _test_images(bundle, data, manifest.preprocess, manifest.labels)
    _refuse_other_tasks(bundle, manifest.tasks, images)
    answers = []
    for artefact in manifest.artefacts:
        try:
            profile = read_profile(bundle, manifest, artefact)
            session = load_artefact(bundle, artefact, profile, get_backend(artefact.backend))
        except BackendError as error:
            answers.append(Answer(artefact.name, None, error.what))
            continue
        with closing(session):
            parts = [predict(session, some, manifest.preprocess) for some in images.batches()]
        logits = np.concatenate(parts)
        answers.append(_answer(artefact.name, logits, images, order, manifest.tasks))
    return _answers(images, classes, answers)


def _test_images(
    where: Path, data: DataSection, preprocess: Preprocess, model_classes: tuple[str, ...]
) -> tuple[Images, list[int], tuple[str, ...]]:
    from edgexfer.models.classes import match_classes
    from edgexfer.training.stage import images_of, open_data

    dataset = open_data(data)
    order = match_classes(model_classes, dataset.classes, str(where))
    return images_of(data, dataset, "test", preprocess), order, dataset.classes


def _refuse_other_tasks(where: Path, tasks: tuple[Task, ...], images: Images) -> None:
    """Refuse labels of other tasks than the model's."""
    ours, theirs = ([task.name for task in found] or ["one"] for found in (tasks, images.tasks))
    if ours != theirs:
        raise ModelError(
            f"{where}: answers the tasks {', '.join(ours)}, the data has labels of "
            f"{', '.join(theirs)}",
            "name the table of labels that it was trained with (--labels), in the same order",
        )


def _answer(
    name: str, logits: np.ndarray, images: Images, order: list[int], tasks: tuple[Task, ...]
) -> Answer:
    import numpy as np

    from edgexfer.bench.tasks import by_task, marks

    given = images.labels.numpy()
    labels = np.where(given >= 0, np.asarray(order)[given], -1)
    good, _ = marks(logits, labels, tasks)
    columns = zip(tasks, good.T.tolist(), strict=False)
    return Answer(
        name,
        tuple(good.all(axis=1).tolist()),
        tasks=by_task(logits, labels, tasks),
        right_in={task.name: tuple(column) for task, column in columns},
    )


def _answers(images: Images, classes: tuple[str, ...], answers: list[Answer]) -> Answers:
    from edgexfer.bench.tasks import classes_of_tasks

    keys, found = tuple(images.keys), tuple(answers)
    if not images.tasks:
        labels = tuple(classes[i] for i in images.labels.tolist())
        return Answers(keys, labels, classes, found)
    given = images.labels.numpy()
    columns = zip(images.tasks, classes_of_tasks(given, given, images.tasks), strict=True)
    labels_in = {
        task.name: tuple(task.classes[i] if i >= 0 else None for i in column)
        for task, column in columns
    }
    labels = tuple(", ".join(classes[i] for i in row if i >= 0) for row in given.tolist())
    return Answers(keys, labels, tuple(sorted(set(labels))), found, labels_in)


def _score(answer: Answer, labels: tuple[str, ...], classes: tuple[str, ...]) -> Evaluation:
    if answer.right is None:
        return Evaluation(answer.name, 0, 0, None, 0.0, 100.0, {}, answer.reason)
    n, correct = len(labels), sum(answer.right)
    low, high = wilson(correct, n)
    of_class: dict[str, list[bool]] = {c: [] for c in classes}
    for label, right in zip(labels, answer.right, strict=True):
        of_class[label].append(right)
    scores = {c: ClassScore(len(found), sum(found)) for c, found in of_class.items()}
    share, ends = 100 * correct / n, (100 * low, 100 * high)
    return Evaluation(answer.name, n, correct, share, *ends, scores, tasks=answer.tasks)
