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
