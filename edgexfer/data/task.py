"""One of several tasks, for what looks at one label of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgexfer.core.errors import InputError, nearest
from edgexfer.core.files import fingerprint
from edgexfer.core.tasks import Task, spans
from edgexfer.data.dataset import SPLITS, Dataset, Split


def find_task(tasks: Sequence[Task], name: str) -> int:
    """Return the place of the task that a user names.

    Raises:
        InputError: there is none of that name, or but one task that has no name.
    """
    names = [task.name for task in tasks]
    if not names:
        raise InputError(
            f"--task {name}: the images have one label each",
            "leave it out, or name a table of labels with --labels",
        )
    if name not in names:
        raise InputError(f"--task {name}: data.labels has no such task", nearest(name, names))
    return names.index(name)


def of_task(dataset: Dataset, name: str) -> Dataset:
    """Return the images that have a label of one task, with that label and its classes alone.

    Raises:
        InputError: there is no such task.
    """
    number = find_task(dataset.tasks, name)
    start, _ = spans(dataset.tasks, 0)[number]
    splits: dict[str, Split] = {}
    contents: dict[str, tuple[str, ...]] = {}
    for split_name in SPLITS:
        split = dataset.splits[split_name]
        labels = split.labels[:, number]
        known = [i for i, label in enumerate(labels.tolist()) if label >= 0]
        keys = tuple(split.keys[i] for i in known)
        splits[split_name] = replace(split, keys=keys, labels=labels[known] - start)
        contents[split_name] = tuple(dataset.contents[split_name][i] for i in known)
    return replace(
        dataset,
        classes=dataset.tasks[number].classes,
        splits=splits,
        fingerprint=fingerprint([dataset.fingerprint, name]),
        contents=contents,
        tasks=(),
    )
