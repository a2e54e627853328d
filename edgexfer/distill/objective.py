"""What a distilled student minimises: a weighted sum of losses, cross entropy among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgexfer.core.tasks import Task, spans
from edgexfer.distill.features import Features
from edgexfer.distill.losses import get_loss, standardise
from edgexfer.distill.terms import Term
from edgexfer.training.multitask import Balance
from edgexfer.training.objective import Views, labelled_cross_entropy

#: Called with pixels float32 (B, 3, H, W) on 0..255 and what views they are; returns the teacher's
#: logits (B, C), float32, in the student's class order.
Answers = Callable[[Tensor, Views], Tensor]


@dataclass(frozen=True)
class Distillation:
    """Objective of the training loop.

    Teacher and student see the same pixels, after the same crop, mirror and mixup (Beyer et al.,
    "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022).

    Attributes:
        teacher: answers in the student's class order.
        terms: logit losses with their weights.
        w_hard: weight of cross entropy with the labels.
        temperature: T of the logit losses, above 0.
        standardise: bring both models' logits to mean 0 and deviation 1 first.
        soft_warmup: epochs over which the logit losses' weights grow linearly from 0 to their own.
        label_smoothing: of the cross entropy, 0..1.
        features: feature losses with their weights; ``None`` for none.
        tasks: what the logits are about, where that is more than one question: then each task has
            all of these losses of its own.
        balance: weighs the tasks; ``None`` for one.
    """

    teacher: Answers
    terms: tuple[Term, ...]
    w_hard: float
    temperature: float
    standardise: bool = False
    soft_warmup: float = 0.0
    label_smoothing: float = 0.0
    features: Features | None = None
    tasks: tuple[Task, ...] = ()
    balance: Balance | None = None

    def __call__(
        self, model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its parts, each before its weight.

        Args:
            model: the student; takes pixels, gives logits (B, C).
            pixels: float32 (B, 3, H, W) on 0..255.
            targets: class probabilities (B, C); a row of zeros has no label.
            views: what the batch holds.
        """
        logits, told = model(pixels), self.teacher(pixels, views)
        labelled = views.labelled(targets)
        grown = min(views.epochs / self.soft_warmup, 1.0) if self.soft_warmup else 1.0
        of_tasks = [
            self._of_one(logits[:, a:b], told[:, a:b], targets[:, a:b], labelled[a:b], grown)
            for a, b in spans(self.tasks, logits.shape[1])
        ]
        if self.balance is None:
            total, parts = of_tasks[0]
        else:
            losses = torch.stack([loss for loss, _ in of_tasks])
            # The teacher has an answer for every task.
            counted = torch.ones_like(losses, dtype=torch.bool)
            total = self.balance(losses, counted, logits)
            named = zip(self.tasks, of_tasks, strict=True)
            parts = {f"{t.name}_{k}": v for t, (_, found) in named for k, v in found.items()}
        if self.features is not None:
            found = self.features()
            for term in self.features.terms:
                total = total + term.weight * found[term.label]
                parts[term.label] = found[term.label].detach()
        return total, parts

    def _of_one(
        self, logits: Tensor, told: Tensor, targets: Tensor, labelled: Tensor, grown: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the label and logit losses of one task, and their parts."""
        hard = labelled_cross_entropy(logits, targets, labelled, self.label_smoothing)
        total, parts = self.w_hard * hard, {"cross_entropy": hard.detach()}
        if self.standardise:
            logits, told = standardise(logits), standardise(told)
        for term in self.terms:
            value = get_loss(term.name)(logits, told, self.temperature, targets)
            total = total + grown * term.weight * value
            parts[term.label] = value.detach()
        return total, parts
