"""Several trainings that are compared: what they came to, with intervals.

Which they are is decided by ``distill/sweep.py`` (with and without a teacher) and
``transfer/guard.py`` (with and without transfer). Each is an ordinary run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgexfer.core.rundir import RunInfo
from edgexfer.core.stats import seeded_gain
from edgexfer.core.sweep import SCHEMA, Arm, Sweep
from edgexfer.training.predictions import read_rights


@dataclass(frozen=True)
class Training:
    """One of the trainings.

    Attributes:
        arm: the way of training, which several seeds share.
        seed: of the training.
        place: folder of its run.
    """

    arm: str
    seed: int
    place: Path


def summarise(
    folder: Path, infos: Mapping[Training, RunInfo], model: str, baseline: str | None
) -> Sweep:
    """Compare ways of training, each with the same seeds and test images.

    Of several tasks they are compared in all together first, then in each.

    Args:
        folder: of the sweep; the runs are named relative to it.
        infos: what each run says of itself.
        model: the architecture that is trained.
        baseline: what the others are compared with, named last; ``None`` takes the first.

    Raises:
        RunError: two runs were tested on different images.
    """
    arms = list(dict.fromkeys(t.arm for t in infos))
    arms.sort(key=lambda arm: arm == baseline)
    against = arms[0] if baseline is None else baseline
    first = next(iter(infos.values()))
    tasks = [t["name"] for t in first.result["test"].get("tasks", ()) if t["n"]]
    compared = [_compare(folder, infos, arms, against, task) for task in (None, *tasks)]
    return Sweep(
        schema=SCHEMA,
        student=model,
        teacher_top1_pct=first.result.get("teacher", {}).get("val_top1_pct"),
        n=int(first.result["test"]["n"]),
        baseline=against,
        arms=tuple(arm for found in compared for arm in found),
    )


def beside(out: Path, ending: str) -> Path:
    """Return the folder beside ``OUT`` whose name is longer by ``ending``."""
    named = out if out.name not in ("", "..") else out.resolve()
    return named.parent / f"{named.name}-{ending}"


def _compare(
    folder: Path,
    infos: Mapping[Training, RunInfo],
    arms: Sequence[str],
    against: str,
    task: str | None,
) -> list[Arm]:
    """Return what each way of training came to, in one of several tasks or in all."""
    read = dict(zip(infos, read_rights([t.place for t in infos], task), strict=True))
    rights = {arm: [right for t, right in read.items() if t.arm == arm] for arm in arms}
    found = []
    for arm in arms:
        runs = {t: info for t, info in infos.items() if t.arm == arm}
        top1 = tuple(100 * sum(right) / len(right) for right in rights[arm])
        found.append(
            Arm(
                name=arm,
                runs=tuple(_relative(t.place, folder) for t in runs),
                seeds=tuple(t.seed for t in runs),
                top1_pct=top1,
                mean_pct=sum(top1) / len(top1),
                images_per_s=tuple(float(i.result["fit"]["images_per_s"]) for i in runs.values()),
                gain=None if arm == against else seeded_gain(rights[arm], rights[against]),
                task=task,
            )
        )
    return found


def _relative(place: Path, folder: Path) -> str:
    return Path(os.path.relpath(place, folder)).as_posix()
