"""Tasks: what a model answers that has several heads on one backbone, each with its own classes.

The outputs of all heads stand beside each other, as those of one layer do; a label is a place among
them. A model of one task, whose outputs are its classes, has no list of tasks at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple


@dataclass(frozen=True)
class Task:
    """One question that a model answers about an image.

    Attributes:
        name: of letters, digits and underscores; the artefact's output is ``logits_NAME``.
        classes: the answers, in the order of the task's outputs.
    """

    name: str
    classes: Tuple[str, ...]


def spans(tasks: Sequence[Task], outputs: int) -> Tuple[Tuple[int, int], ...]:
    """Return for each task its first output and the one behind its last.

    Args:
        tasks: in the order of the outputs; empty for the one task of an ordinary model.
        outputs: how many the model has.
    """
    if not tasks:
        return ((0, outputs),)
    found = []
    start = 0
    for task in tasks:
        found.append((start, start + len(task.classes)))
        start += len(task.classes)
    return tuple(found)


def class_names(tasks: Sequence[Task]) -> Tuple[str, ...]:
    """Return the names of all outputs, ``TASK=CLASS``."""
    return tuple(f"{task.name}={name}" for task in tasks for name in task.classes)


def code_of(classes: Sequence[int], tasks: Sequence[Task]) -> int:
    """Return one number for the classes of all tasks: they are its digits.

    Each task's is in base of how many classes it has. A missing one, -1, counts as 0: two codes of
    an image whose missing labels were left out of both are equal where the others are.

    Args:
        classes: of each task, places among its own classes.
        tasks: in the same order.
    """
    code = 0
    for place, task in zip(classes, tasks):
        code = code * len(task.classes) + max(place, 0)
    return code


def classes_of(code: int, tasks: Sequence[Task]) -> Tuple[int, ...]:
    """Return the class in each task that ``code_of`` made a number of."""
    found = []
    for task in reversed(tasks):
        code, place = divmod(code, len(task.classes))
        found.append(place)
    return tuple(reversed(found))
