"""Strategy ``pseudo``: what the model is sure of in a target image teaches it a distorted view.

The loss is CE(source) + w · mean_u [max q_u ≥ τ] · CE(strong view of u, argmax q_u), over the
images u without labels, those below the threshold τ counting as 0 (FixMatch: Sohn et al.,
"FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", 2020, equations 3
and 4). The feed's view is the weak one, so ``train.augment: flip`` or ``crop`` suits; the strong
one is made of it by RandAugment and Cutout, in the step.

Class balance by distribution alignment (Berthelot et al., "ReMixMatch", 2020, section 3.1):
q = normalised p · P / P̃, with p the model's answer (B, C) to the weak view, P the classes' shares
among the labelled images, and P̃ the running mean of p, so that no class takes all. It takes the
target for about as mixed as the source; ``align: false`` leaves q = p. Defaults: w = 1, τ = 0.95.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from edgexfer.data.strong import strong
from edgexfer.training.distributed import world
from edgexfer.training.objective import Views, labelled_cross_entropy
from edgexfer.transfer.adaptation import adapt, of_target
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = False
# The running mean is over some hundred steps.
_DECAY = 0.99


@dataclass(frozen=True)
class Options:
    """What the model may teach itself.

    Attributes:
        weight: strength of the loss on target images (w).
        threshold: how sure an answer must be to teach, 0..1 (τ).
        align: whether answers are balanced over the classes first.
    """

    __pydantic_config__ = STRICT

    weight: Annotated[float, Ge(0)] = 1.0
    threshold: Annotated[float, Ge(0), Le(1)] = 0.95
    align: bool = True


class Alignment(nn.Module):
    """The classes' shares among the labels, and in the model's answers so far, as buffers."""

    wanted: Tensor
    answered: Tensor

    def __init__(self, labels: np.ndarray[tuple[int], np.dtype[np.int64]], classes: int) -> None:
        """Count the labels; answers begin as if they had been so."""
        super().__init__()
        shares = torch.from_numpy(np.bincount(labels, minlength=classes) / len(labels)).float()
        self.register_buffer("wanted", shares)
        self.register_buffer("answered", shares.clone())

    def forward(self, answers: Tensor) -> Tensor:
        """Return answers (B, C), which sum to 1, balanced over the classes."""
        balanced = answers * self.wanted / self.answered.clamp(min=1e-6)
        return balanced / balanced.sum(1, keepdim=True)

    def note(self, answers: Tensor) -> None:
        """Take answers (B, C) of all processes into the running mean."""
        here = world()
        mean = answers.new_tensor(here.sum(*answers.mean(0).tolist())) / here.size
        self.answered.lerp_(mean, 1 - _DECAY)


def prepare(subject: Subject) -> Plan:
    """Let the model answer for the images without labels, and learn from it where it is sure.

    Raises:
        RecipeError: no target is named, or the images of a batch are to be mixed.
    """
    options: Options = subject.options
    train, dataset = subject.section.train, subject.dataset
    alignment = Alignment(dataset.splits["train"].labels, len(dataset.classes))

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        target = of_target(targets)
        harder = strong(pixels[target], views.index[target.cpu()], train.seed, views.epoch)
        # Once through the model for all: batch norm sees one batch, and DDP one forward pass.
        logits = model(torch.cat([pixels, harder])).float()
        weak, said = logits[: len(pixels)], logits[len(pixels) :]
        labelled = views.labelled(targets)
        hard = labelled_cross_entropy(weak, targets, labelled, train.label_smoothing)
        with torch.no_grad():
            answers = F.softmax(weak[target], dim=1)
            trusted = alignment(answers) if options.align else answers
            if options.align and len(answers) and not views.rehearsal:
                alignment.note(answers)
        unlabelled = len(pixels) * (1 - labelled.sum())
        soft, sure = taught(said, trusted, options.threshold, unlabelled)
        loss = hard + options.weight * soft
        return loss, {"hard": hard.detach(), "pseudo": soft.detach(), "sure": sure}

    return adapt(subject, objective, auxiliary=alignment)


def taught(
    logits: Tensor, answers: Tensor, threshold: float, unlabelled: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss on strong views, and the share of the images that it counts.

    Args:
        logits: of the strong views, (U, C).
        answers: probabilities for the weak views, (U, C).
        threshold: τ.
        unlabelled: what the sums are divided by: U, or over a micro-batch its share of the images
            without a label in the step.
    """
    surest, label = answers.max(1)
    sure = (surest >= threshold).float()
    of_each = F.cross_entropy(logits, label, reduction="none") * sure
    count = unlabelled.float().clamp(min=torch.finfo(torch.float32).tiny)
    return of_each.sum() / count, sure.sum() / count
