"""What a distilled student minimises: ``w_soft`` · soft loss + ``w_hard`` · cross entropy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgexfer.distill.losses import Loss
from edgexfer.distill.teacher import Teacher
from edgexfer.training.objective import Views, labelled_cross_entropy


@dataclass(frozen=True)
class Distillation:
    """Objective of the training loop.

    Teacher and student see the same pixels, after the same crop, mirror and mixup (Beyer et al.,
    "Knowledge distillation: A good teacher is patient and consistent", 2022).

    Attributes:
        teacher: answers in the student's class order.
        loss: the soft loss; it carries its own T².
        temperature: T, above 0.
        w_soft: weight of the soft loss.
        w_hard: weight of cross entropy with the labels.
        label_smoothing: of the cross entropy, 0..1.
    """

    teacher: Teacher
    loss: Loss
    temperature: float
    w_soft: float
    w_hard: float
    label_smoothing: float = 0.0

    def __call__(
        self, model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts.

        Args:
            model: the student; takes pixels, gives logits (B, C).
            pixels: float32 (B, 3, H, W) on 0..255.
            targets: class probabilities (B, C).
            views: what the batch holds.
        """
        del views
        logits = model(pixels)
        soft = self.loss(logits, self.teacher(pixels), self.temperature, targets)
        hard = labelled_cross_entropy(logits, targets, self.label_smoothing)
        total = self.w_soft * soft + self.w_hard * hard
        return total, {"soft": soft.detach(), "hard": hard.detach()}
