"""What a training minimises: the type of an objective, and cross entropy, the plainest of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

#: Called with a PixelModel, pixels float32 (B, 3, H, W) on 0..255 and targets (B, C), which are
#: probabilities; returns the mean loss over the batch and its parts, by name, for the log.
Objective = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Mapping[str, float | Tensor]]]


def cross_entropy(label_smoothing: float = 0.0) -> Objective:
    """Return cross entropy with probabilities as targets, as an objective.

    Args:
        label_smoothing: share of the target that is spread over all classes, 0..1 (Szegedy et al.
            2016, "Rethinking the Inception Architecture for Computer Vision", section 7).
    """

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor
    ) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        logits = model(pixels).float()
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing), {}

    return objective
