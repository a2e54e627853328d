"""The exponential moving average of a model's weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Ema:
    """A copy of a model that follows it slowly; the copy is what is validated and deployed.

    The decay of step t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's
    ``ExponentialMovingAverage``, so that a short training forgets its random start too. Integer
    buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start from the model as it is.

        Args:
            model: is followed; never changed here.
            decay: of long trainings, between 0 and 1.
        """
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._pairs = list(zip(_state(self.model), _state(model), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the model, after the step of this index, from 0."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        floating = [(mine, its) for mine, its in self._pairs if mine.is_floating_point()]
        torch._foreach_lerp_([m for m, _ in floating], [i for _, i in floating], weight)
        for mine, its in self._pairs:
            if not mine.is_floating_point():
                mine.copy_(its)


def _state(model: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*model.parameters(), *model.buffers())]
