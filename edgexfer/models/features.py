"""What a model hands to its head: the features that losses beside cross entropy look at."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgexfer.models.head import head_names, head_parameters


def feature_size(model: nn.Module) -> int:
    """Return how many features go into the head."""
    return next(int(p.shape[1]) for p in head_parameters(model).values() if p.ndim > 1)


class HeadInput(nn.Module):
    """Catches what goes into a model's head whenever the model runs with gradients.

    The hook stands on the head itself, so that it makes no difference whether the model is called
    bare, in a ``PixelModel``, or by DDP. It has no parameters; as a module it can stand in a
    training's auxiliary one, which tells the loop that somebody looks into the model.
    """

    def __init__(self, model: nn.Module) -> None:
        """Open the hook on a model's head, the first of two."""
        super().__init__()
        caught: list[Tensor] = []

        # A plain function over a list: a deep copy of the model keeps both as they are, and what
        # it is validated on runs without gradients.
        def catch(module: nn.Module, inputs: Any) -> None:
            del module
            if torch.is_grad_enabled():
                caught[:] = [inputs[0]]

        self._caught = caught
        self._handle = model.get_submodule(head_names(model)[0]).register_forward_pre_hook(catch)

    def forward(self) -> Tensor:
        """Return the features (B, F) of the model's last run, in float32, and forget them."""
        features = self._caught.pop().float()
        return features.mean((2, 3)) if features.ndim == 4 else features

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()
        self._caught.clear()
