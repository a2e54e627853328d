"""What a training of several tasks minimises: cross entropy of each, and how they are weighed.

Several tasks are a property of the data (``data.labels``), not a strategy: one head holds the
outputs of all tasks side by side, so that whatever freezes, adapts, distils or quantizes a
model does so with one of several tasks too. Of a task that an image has no label of, nothing is
asked: a task's loss is the mean over the labels that there are in a step, however many of them a
micro-batch or a process has.

Losses are weighed in the one backward pass that a step has: by fixed weights, L = Σ w_t L_t, or by
the tasks' uncertainty, L = Σ w_t (exp(-s_t) L_t + s_t / 2) with the logarithm s_t of each task's
variance trained along, from 0 (Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh
Losses for Scene Geometry and Semantics", CVPR 2018, section 3.2). GradNorm and PCGrad need the
gradient of each task apart, one backward pass for each, and are not built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgexfer.core.errors import RecipeError
from edgexfer.core.tasks import Task, spans
from edgexfer.recipe import TrainSection
from edgexfer.training.job import Job
from edgexfer.training.objective import (
    Objective,
    Views,
    cross_entropy,
    labelled_cross_entropy,
)
from edgexfer.training.stage import train_along


class Balance(nn.Module):
    """Weighs the losses of several tasks.

    Attributes:
        log_variance: s, float32 (T,); trained along with the model where it ``learns``.
        weights: w, float32 (T,).
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float], *, learns: bool) -> None:
        """Begin with all tasks equally certain.

        Args:
            weights: fixed, of each task, above 0.
            learns: weigh by uncertainty as well.
        """
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        self.log_variance = nn.Parameter(torch.zeros(len(weights)), requires_grad=learns)

    @property
    def learns(self) -> bool:
        """Whether there is something to train."""
        return self.log_variance.requires_grad

    def forward(self, losses: Tensor, counted: Tensor) -> Tensor:
        """Return the whole loss.

        Args:
            losses: of each task, (T,).
            counted: bool (T,): whether the step says anything of the task; where it does not, its
                loss is 0 and its variance stands still.
        """
        weights = self.weights.to(losses.device)
        if self.learns:
            s = self.log_variance
            losses = torch.where(counted, torch.exp(-s) * losses + s / 2, losses)
        return (weights * losses).sum()


def make_balance(tasks: Sequence[Task], train: TrainSection) -> Balance | None:
    """Return how a training weighs its tasks; ``None`` where it has only one.

    Raises:
        RecipeError: there are not as many weights as tasks, or a weight for no tasks.
    """
    given = train.task_weights
    if not tasks:
        if given or train.balance != "fixed":
            raise RecipeError(
                "train.balance and train.task_weights are for several tasks, the data has one",
                "leave them out, or name a table of labels with data.labels",
            )
        return None
    if given and len(given) != len(tasks):
        names = ", ".join(task.name for task in tasks)
        raise RecipeError(
            f"train.task_weights has {len(given)} weights for {len(tasks)} tasks",
            f"give one for each of {names}, in this order",
        )
    return Balance(given or (1.0,) * len(tasks), learns=train.balance == "uncertainty")


def join_balance(job: Job, balance: Balance | None) -> None:
    """Have what weighs the tasks trained along with the model, where it learns."""
    if balance is not None and balance.learns:
        train_along(job, balance, "balance")


def label_objective(
    tasks: Sequence[Task], balance: Balance | None, label_smoothing: float
) -> Objective:
    """Return the cross entropy with the labels, of one task or of several.

    Args:
        tasks: of the data; empty for one.
        balance: weighs several; ``None`` for one.
        label_smoothing: share of each target that is spread over its task's classes, 0..1.
    """
    if balance is None:
        return cross_entropy(label_smoothing)

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        logits, labelled = model(pixels), views.labelled(targets)
        places = spans(tasks, logits.shape[1])
        parts = [(logits[:, a:b], targets[:, a:b], labelled[a:b]) for a, b in places]
        losses = [labelled_cross_entropy(y, t, n, label_smoothing) for y, t, n in parts]
        counted = torch.stack([n.sum() > 0 for _, _, n in parts])
        found = {task.name: loss.detach() for task, loss in zip(tasks, losses, strict=True)}
        return balance(torch.stack(losses), counted), found

    return objective
