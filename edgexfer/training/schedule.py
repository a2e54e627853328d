"""The learning rate as a function of the step: linear warm-up, then a cosine or falling steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from torch.optim import Optimizer

from edgexfer.core.errors import RecipeError
from edgexfer.recipe import TrainSection

# What is left of the rate after each milestone.
_FALL = 0.1


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then a cosine (Loshchilov and Hutter 2017, without restarts), or falling steps.

    Attributes:
        steps: of the whole training.
        warmup: steps of warm-up; may be a fraction.
        floor: factor at the end of the cosine.
        milestones: steps at which the rate falls to a tenth; none for the cosine.
    """

    steps: int
    warmup: float
    floor: float
    milestones: tuple[int, ...] = ()

    @classmethod
    def of(cls, section: TrainSection, steps_per_epoch: int) -> Schedule:
        """Return the schedule that a section asks for, counted in steps."""
        return cls(
            steps=section.epochs * steps_per_epoch,
            warmup=min(section.warmup, section.epochs / 2) * steps_per_epoch,
            floor=section.min_lr,
            milestones=tuple(epoch * steps_per_epoch for epoch in section.milestones),
        )

    def factor(self, step: int) -> float:
        """Return the factor on the peak learning rate for the step of this index, from 0.

        A milestone inside the warm-up lowers what is left of it.
        """
        ramp = min((step + 1) / self.warmup, 1.0) if step < self.warmup else 1.0
        return ramp * self._decay(step)

    def set(self, optimizer: Optimizer, step: int) -> float:
        """Set every group's rate for a step, and return the highest of them.

        A group's own peak is kept beside it as ``initial_lr``.
        """
        factor = self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        return max(float(group["lr"]) for group in optimizer.param_groups)

    def _decay(self, step: int) -> float:
        if self.milestones:
            return _FALL ** sum(step >= milestone for milestone in self.milestones)
        share = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(max(share, 0), 1)))


def refuse_schedule(section: TrainSection) -> None:
    """Refuse a schedule whose keys do not fit each other.

    Raises:
        RecipeError: naming the key and a value that works.
    """
    milestones, epochs = section.milestones, section.epochs
    shown = ", ".join(str(epoch) for epoch in milestones)
    checks = (
        (
            section.schedule == "step" or not milestones,
            f"train.milestones is [{shown}], but train.schedule is {section.schedule}",
            "set train.schedule to step, or leave out train.milestones",
        ),
        (
            section.schedule != "step" or bool(milestones),
            "train.schedule is step, but train.milestones is empty",
            "name the epochs at which the rate falls to a tenth, such as [150, 180, 210] of 240",
        ),
        (
            all(a < b for a, b in pairwise(milestones)),
            f"train.milestones is [{shown}], which does not increase",
            "give each epoch once, in order",
        ),
        (
            all(epoch < epochs for epoch in milestones),
            f"train.milestones is [{shown}], but train.epochs is {epochs}",
            f"give epochs from 1 to {epochs - 1}, or train longer",
        ),
    )
    for good, what, fix in checks:
        if not good:
            raise RecipeError(what, fix)
