"""Answers of a model with one or several tasks, beside the labels.

Of several tasks an image may lack the labels of some, -1. An image is right where every label that
it has is: so each image counts once, and what is said of images holds for one task and for many.
"""

from __future__ import annotations

from typing import Any, Sequence, Tuple

import numpy as np

from edgexfer.core.record import TaskAccuracy
from edgexfer.core.stats import ece_pct, wilson
from edgexfer.core.tasks import Task, code_of, spans


def answers(logits: Any, tasks: Sequence[Task] = ()) -> Any:
    """Return the place of each task's largest output.

    Args:
        logits: (N, C).
        tasks: of the model; empty for one.

    Returns:
        int64, (N, T), places among all outputs.
    """
    found = spans(tasks, logits.shape[1])
    return np.stack([a + logits[:, a:b].argmax(axis=1) for a, b in found], axis=1)


def marks(logits: Any, labels: Any, tasks: Sequence[Task] = ()) -> Tuple[Any, Any]:
    """Compare answers with labels.

    Args:
        logits: (N, C).
        labels: int64, (N,) or (N, T), places among the outputs; -1 for none.
        tasks: of the model; empty for one.

    Returns:
        Two bool arrays (N, T): whether an answer is right, where a label is missing too; and
        whether there is a label.
    """
    wanted = labels.reshape(len(labels), -1)
    known = wanted >= 0
    return (answers(logits, tasks) == wanted) | ~known, known


def right(logits: Any, labels: Any, tasks: Sequence[Task] = ()) -> Any:
    """Return for each image whether all labels that it has are right, bool (N,)."""
    return marks(logits, labels, tasks)[0].all(axis=1)


def codes(places: Any, labels: Any, tasks: Sequence[Task] = ()) -> Tuple[int, ...]:
    """Return answers or labels as one number an image: of one task its class, of several a code.

    Of what an image has no label of, nothing is counted: two models' codes are equal where they
    agree on what can be told, and those of answers and labels where all is right.

    Args:
        places: int64, (N, T), as ``answers`` returns them, or labels.
        labels: int64, (N,) or (N, T).
        tasks: of the model; empty for one.
    """
    if not tasks:
        return tuple(places.reshape(-1).tolist())
    return tuple(code_of(row, tasks) for row in zip(*classes_of_tasks(places, labels, tasks)))


def classes_of_tasks(
    places: Any, labels: Any, tasks: Sequence[Task]
) -> Tuple[Tuple[int, ...], ...]:
    """Return the answers or labels of each task as places among its own classes.

    Args:
        places: int64, (N, T), as ``answers`` returns them, or labels.
        labels: int64, (N, T).
        tasks: of the model, T of them.

    Returns:
        T times N, -1 where the image has no label of the task.
    """
    starts = np.array([start for start, _ in spans(tasks, 0)])
    own = np.where(labels >= 0, places - starts, -1)
    return tuple(tuple(column) for column in own.T.tolist())


def confidences(logits: Any, labels: Any = None, tasks: Sequence[Task] = ()) -> Tuple[float, ...]:
    """Return the probability that softmax gives the answer for each image, to four places.

    Of several tasks it is the product over those that the image has a label of. Empty where a logit
    is not finite: no probability follows from it.

    Args:
        logits: (N, C).
        labels: int64, (N, T), which say what an image has a label of; only read for several tasks.
        tasks: of the model; empty for one.
    """
    if not np.isfinite(logits).all():
        return ()
    values = np.asarray(logits, dtype=np.float64)
    total = np.ones(len(values))
    for number, (start, end) in enumerate(spans(tasks, values.shape[1])):
        part = values[:, start:end]
        top = 1 / np.exp(part - part.max(axis=1, keepdims=True)).sum(axis=1)
        total *= np.where(labels[:, number] >= 0, top, 1.0) if tasks else top
    return tuple(round(float(p), 4) for p in total)


def by_task(logits: Any, labels: Any, tasks: Sequence[Task]) -> Tuple[TaskAccuracy, ...]:
    """Return the accuracy of each task on the images that have its label; empty for one task."""
    if not tasks:
        return ()
    good, known = marks(logits, labels, tasks)
    found = []
    for number, (start, end) in enumerate(spans(tasks, logits.shape[1])):
        asked = known[:, number]
        n, hits = int(asked.sum()), good[asked, number].tolist()
        low, high = wilson(sum(hits), n) if n else (0.0, 1.0)
        share = 100.0 * sum(hits) / n if n else None
        ece = ece_pct(confidences(logits[asked, start:end]), hits)
        found.append(
            TaskAccuracy(tasks[number].name, n, sum(hits), share, 100.0 * low, 100.0 * high, ece)
        )
    return tuple(found)
