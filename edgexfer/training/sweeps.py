"""Several trainings that are compared: what they came to, with intervals.

Which they are is decided by ``distill/sweep.py`` (with and without a teacher) and
``transfer/guard.py`` (with and without transfer). Each is an ordinary run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgexfer.core.errors import RunError
from edgexfer.core.files import read_json
from edgexfer.core.rundir import RunInfo
from edgexfer.core.stats import SeededGain, seeded_gain
from edgexfer.core.sweep import SCHEMA, Arm, Sweep
from edgexfer.training.stage import PREDICTIONS


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
    rights = {arm: _rights([t.place for t in infos if t.arm == arm]) for arm in arms}
    first = next(iter(infos.values()))
    return Sweep(
        schema=SCHEMA,
        student=model,
        teacher_top1_pct=first.result.get("teacher", {}).get("val_top1_pct"),
        n=len(rights[against][0]),
        baseline=against,
        arms=tuple(
            _arm(
                folder,
                {t: i for t, i in infos.items() if t.arm == arm},
                None if arm == against else seeded_gain(rights[arm], rights[against]),
            )
            for arm in arms
        ),
    )


def beside(out: Path, ending: str) -> Path:
    """Return the folder beside ``OUT`` whose name is longer by ``ending``."""
    named = out if out.name not in ("", "..") else out.resolve()
    return named.parent / f"{named.name}-{ending}"


def _arm(folder: Path, infos: Mapping[Training, RunInfo], gain: SeededGain | None) -> Arm:
    top1 = tuple(float(info.result["test"]["top1_pct"]) for info in infos.values())
    return Arm(
        name=next(iter(infos)).arm,
        runs=tuple(_relative(t.place, folder) for t in infos),
        seeds=tuple(t.seed for t in infos),
        top1_pct=top1,
        mean_pct=sum(top1) / len(top1),
        images_per_s=tuple(float(i.result["fit"]["images_per_s"]) for i in infos.values()),
        gain=gain,
    )


def _rights(places: Sequence[Path]) -> list[list[bool]]:
    """Return for each run and test image whether the run was right."""
    saved = [read_json(place / PREDICTIONS) for place in places]
    for place, one in zip(places, saved, strict=True):
        if one["labels"] != saved[0]["labels"]:
            raise RunError(
                f"{place}: was tested on other images than {places[0]}", "use the same data"
            )
    return [[a == b for a, b in zip(s["labels"], s["predictions"], strict=True)] for s in saved]


def _relative(place: Path, folder: Path) -> str:
    return Path(os.path.relpath(place, folder)).as_posix()
