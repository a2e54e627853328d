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
        targets_mean: mean of the targets over all images of the step, of all micro-batches and
            processes, float64 (C,); ``None`` where what is handed over is the whole step.
    """

    index: Tensor
    epoch: int
    step: int
    steps_per_epoch: int
    view_epoch: int = 0
    rehearsal: bool = False
    targets_mean: Tensor | None = None

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

    def labelled(self, targets: Tensor) -> Tensor:
        """Return the mean of the targets over all images of the step, float64 (C,).

        What is a mean over the images with a label, or over those without, has to count them by it:
        a micro-batch may have more of either than its share.

        Args:
            targets: of what goes through the model at once, (B, C).
        """
        return mean_targets(targets) if self.targets_mean is None else self.targets_mean


#: Called with a PixelModel, pixels float32 (B, 3, H, W) on 0..255, targets (B, C), which are
#: probabilities (a row of zeros where an image has no label), and the views that the batch holds;
#: returns the mean loss over the batch and its parts, by name, for the log. The mean of what it
#: returns for the micro-batches of a step, by their images, is the loss of the step.
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
        labelled = views.labelled(targets)
        return labelled_cross_entropy(model(pixels), targets, labelled, label_smoothing), {}

    return objective


def labelled_cross_entropy(
    logits: Tensor, targets: Tensor, labelled: Tensor, label_smoothing: float
) -> Tensor:
    """Return the cross entropy by the mean number of labelled images, 0 where none has a label.

    Over a whole step it is the mean over the images that have a label; over a micro-batch, what
    makes the mean of the micro-batches, by their images, that of the step.

    Args:
        logits: (B, C).
        targets: probabilities (B, C); a row of zeros has no label, and one that sums to less than 1
            (an image mixed with one without a label) counts for as much.
        labelled: what sums to the mean weight of a row of targets over the step: ``Views.labelled``
            of these columns.
        label_smoothing: share of each target that is spread over all classes, 0..1.
    """
    log_q = F.log_softmax(logits.float(), dim=1)
    weight = targets.sum(1, keepdim=True)
    smoothed = torch.lerp(targets, weight.expand_as(targets) / targets.shape[1], label_smoothing)
    count = (len(targets) * labelled.sum()).to(log_q.dtype)
    return -(smoothed * log_q).sum() / count.clamp(min=torch.finfo(log_q.dtype).tiny)


def mean_targets(targets: Tensor) -> Tensor:
    """Return the mean of targets (B, C) over the images, (C,), in float64: counts stay whole."""
    return targets.double().mean(0)
