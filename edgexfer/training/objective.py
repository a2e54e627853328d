"""What a training minimises: the type of an objective, and cross entropy, the plainest of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.data.feed import Batch


@dataclass(frozen=True)
class Views:
    """Which views of which images a batch holds, and where in the training it stands.

    Attributes:
        index: int64 (B,) on the CPU, places in ``TrainFeed.keys``.
        epoch: from 0.
        step: within the epoch, from 0.
        steps_per_epoch: how many steps an epoch has.
        view_epoch: decides the views, with ``index``; where it comes again, so do they.
        rehearsal: whether the step is only timed; nothing of it may be kept.
    """

    index: Tensor
    epoch: int
    step: int
    steps_per_epoch: int
    view_epoch: int = 0
    rehearsal: bool = False

    @classmethod
    def of(cls, batch: Batch, steps_per_epoch: int, *, rehearsal: bool = False) -> Views:
        """Return what a batch of the feed holds."""
        return cls(
            batch.index, batch.epoch, batch.step, steps_per_epoch, batch.view_epoch, rehearsal
        )

    @property
    def epochs(self) -> float:
        """How many epochs are done, as a fraction."""
        return self.epoch + self.step / self.steps_per_epoch

    def part(self, start: int, end: int) -> Views:
        """Return the views of a micro-batch."""
        return replace(self, index=self.index[start:end])


#: Called with a PixelModel, pixels float32 (B, 3, H, W) on 0..255, targets (B, C), which are
#: probabilities (a row of zeros where an image has no label), and the views that the batch holds;
#: returns the mean loss over the batch and its parts, by name, for the log.
Objective = Callable[
    [nn.Module, Tensor, Tensor, Views], tuple[Tensor, Mapping[str, float | Tensor]]
]


def cross_entropy(label_smoothing: float = 0.0) -> Objective:
    """Return cross entropy with probabilities as targets, as an objective.

    Args:
        label_smoothing: share of the target that is spread over all classes, 0..1 (Szegedy et al.
            2016, "Rethinking the Inception Architecture for Computer Vision", section 7).
    """

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        del views
        return labelled_cross_entropy(model(pixels), targets, label_smoothing), {}

    return objective


def labelled_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the mean cross entropy over the images that have a label, 0 where none has.

    Args:
        logits: (B, C).
        targets: probabilities (B, C); a row of zeros has no label, and one that sums to less than 1
            (an image mixed with one without a label) counts for as much.
        label_smoothing: share of each target that is spread over all classes, 0..1.
    """
    log_q = F.log_softmax(logits.float(), dim=1)
    labelled = targets.sum(1, keepdim=True)
    smoothed = torch.lerp(targets, labelled.expand_as(targets) / targets.shape[1], label_smoothing)
    return -(smoothed * log_q).sum() / labelled.sum().clamp(min=torch.finfo(log_q.dtype).tiny)
