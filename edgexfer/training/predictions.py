"""What finished runs say of the test images: kept image by image, scored, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgexfer.bench.tasks import answers, by_task, classes_of_tasks, codes, confidences
from edgexfer.core.codec import encode
from edgexfer.core.errors import RunError
from edgexfer.core.files import PathLike, read_json, write_json
from edgexfer.core.stats import PairedDrop, paired_drop, wilson

if TYPE_CHECKING:
    import numpy as np

    from edgexfer.data.images import Images

PREDICTIONS = "predictions.json"


def keep_predictions(run: Path, logits: np.ndarray[Any, Any], images: Images) -> dict[str, Any]:
    """Keep what a model said of the test images beside its run, and return how much was right.

    Of several tasks the file holds for each image a number that stands for all its classes
    together, and under ``tasks`` the classes of each, -1 where there is no label.

    Args:
        run: the run's folder.
        logits: float32 (N, C).
        images: N of them, with their labels.

    Returns:
        ``n``, ``correct``, ``top1_pct`` and the ends of its 95 % Wilson interval; of several tasks
        the same for each under ``tasks``.
    """
    tasks, given = images.tasks, images.labels.numpy()
    said = answers(logits, tasks)
    labels, predictions = (codes(places, given, tasks) for places in (given, said))
    kept: dict[str, Any] = {
        "labels": labels,
        "predictions": predictions,
        "confidences": confidences(logits, given, tasks),
    }
    n, correct = len(labels), sum(a == b for a, b in zip(labels, predictions, strict=True))
    low, high = wilson(correct, n)
    found: dict[str, Any] = {
        "n": n,
        "correct": correct,
        "top1_pct": 100 * correct / n,
        "low_pct": 100 * low,
        "high_pct": 100 * high,
    }
    if tasks:
        both = (classes_of_tasks(places, given, tasks) for places in (given, said))
        pairs = zip(tasks, *both, strict=True)
        kept["tasks"] = {t.name: {"labels": a, "predictions": b} for t, a, b in pairs}
        found["tasks"] = encode(by_task(logits, given, tasks))
    write_json(run / PREDICTIONS, kept)
    return found


def read_rights(runs: Sequence[PathLike], task: str | None = None) -> list[list[bool]]:
    """Return for each run and test image whether the run was right.

    Args:
        runs: finished ones, tested on the same images.
        task: one of several, and of the images those that have its label; ``None`` for all tasks
            together, where an image is right with all labels that it has.

    Raises:
        RunError: a run has no predictions, or they are of different images or tasks.
    """
    kept = [_read(Path(run), task) for run in runs]
    for run, one in zip(runs, kept, strict=True):
        if one["labels"] != kept[0]["labels"]:
            raise RunError(f"{run}: was tested on other images than {runs[0]}", "use the same data")
    return [
        [a == b for a, b in zip(one["labels"], one["predictions"], strict=True) if a >= 0]
        for one in kept
    ]


def compare_runs(first: PathLike, second: PathLike) -> PairedDrop:
    """Compare two finished runs on the same test images: accuracy of the first minus the second.

    Raises:
        RunError: a run has no predictions, or they are of different images.
    """
    before, after = read_rights((first, second))
    return paired_drop(before, after)


def _read(run: Path, task: str | None) -> dict[str, Any]:
    place = run / PREDICTIONS
    if not place.is_file():
        raise RunError(f"{run}: has no {PREDICTIONS}", "finish the run first")
    kept: dict[str, Any] = read_json(place)
    if task is None:
        return kept
    if task not in kept.get("tasks", {}):
        raise RunError(f"{run}: was not tested in task {task}", "train it with the same labels")
    of_task: dict[str, Any] = kept["tasks"][task]
    return of_task
