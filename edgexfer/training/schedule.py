"""The learning rate as a function of the step: linear warm-up, then a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer


@dataclass(frozen=True)
class Schedule:
    """Warm-up and cosine (Loshchilov and Hutter 2017, without restarts), counted in steps.

    Attributes:
        steps: of the whole training.
        warmup: steps of warm-up; may be a fraction.
        floor: factor at the end of the cosine.
    """

    steps: int
    warmup: float
    floor: float

    def factor(self, step: int) -> float:
        """Return the factor on the peak learning rate for the step of this index, from 0."""
        if step < self.warmup:
            return min((step + 1) / self.warmup, 1.0)
        share = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def set(self, optimizer: Optimizer, step: int) -> float:
        """Set every group's rate for a step, and return the highest of them.

        A group's own peak is kept beside it as ``initial_lr``.
        """
        factor = self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        return max(float(group["lr"]) for group in optimizer.param_groups)
