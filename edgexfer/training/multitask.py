"""What a training of several tasks minimises: cross entropy of each, and how they are weighed.

Several tasks are a property of the data (``data.labels``), not a strategy: one head holds the
outputs of all tasks side by side, so that whatever freezes, adapts, distils or quantizes a
model does so with one of several tasks too. Of a task that an image has no label of, nothing is
asked: a task's loss is the mean over the labels that there are in a step, however many of them a
micro-batch or a process has.

Losses are weighed in the one backward pass that a step has:

- ``fixed``: L = Σ w_t L_t.
- ``uncertainty``: L = Σ w_t (exp(-s_t) L_t + s_t / 2) with the logarithm s_t of each task's
  variance trained along, from 0 (Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh
  Losses for Scene Geometry and Semantics", CVPR 2018, section 3.2).
- ``gradnorm``: L = Σ w_t L_t with weights that are trained along until the tasks pull at what they
  share in proportion to how far behind each is (Chen et al., "GradNorm: Gradient Normalization for
  Adaptive Loss Balancing in Deep Multitask Networks", ICML 2018).

PCGrad, which needs a backward pass of the whole model for each task, is not built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgexfer.core.errors import RecipeError
from edgexfer.core.tasks import Task, spans
from edgexfer.models.head import output_names
from edgexfer.recipe import TrainSection
from edgexfer.training.job import Job
from edgexfer.training.objective import (
    Objective,
    Views,
    cross_entropy,
    labelled_cross_entropy,
)
from edgexfer.training.stage import train_along

#: How much more weight a task gets that is behind the others: the paper's α for NYUv2.
_ALPHA = 1.5


class Balance(nn.Module):
    """Weighs the losses of several tasks by fixed weights.

    Attributes:
        weights: w, float32 (T,).
        learns: whether there is something to train along with the model.
    """

    weights: Tensor
    learns = False

    def __init__(self, weights: Sequence[float]) -> None:
        """Take the weight of each task, above 0."""
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))

    def look_at(self, model: nn.Module) -> None:
        """Be told the model that is trained, once it is whole."""

    def forward(self, losses: Tensor, counted: Tensor, logits: Tensor) -> Tensor:
        """Return the whole loss.

        Args:
            losses: of each task, (T,).
            counted: bool (T,): whether the step says anything of the task; where it does not, its
                loss is 0, and what is learned of it stands still.
            logits: of all tasks, (B, C), that the losses were computed from.
        """
        del counted, logits
        return (self.weights.to(losses.device) * losses).sum()


class Uncertainty(Balance):
    """Weighs them by how uncertain each is as well.

    Attributes:
        log_variance: s, float32 (T,).
    """

    learns = True

    def __init__(self, weights: Sequence[float]) -> None:
        """Begin with all tasks equally certain."""
        super().__init__(weights)
        self.log_variance = nn.Parameter(torch.zeros(len(weights)))

    def forward(self, losses: Tensor, counted: Tensor, logits: Tensor) -> Tensor:
        """Return the whole loss."""
        s = self.log_variance
        return super().forward(
            torch.where(counted, torch.exp(-s) * losses + s / 2, losses), counted, logits
        )


class GradNorm(Balance):
    """Weighs them so that their gradients are of the wanted size at what they share.

    That is taken to be the input h of the head's last layer z = W h + b, at which the gradient of a
    task is that at the logits times W: no backward pass through the model is needed (Sener and
    Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, section 3.3, bound
    the gradient of all shared weights by it). With n_t = |∂L_t/∂h|, over the images that go through
    the model at once, the weights minimise Σ |w_t n_t - mean(w n) r_t^α|, in units of mean(n). A
    task's rate r_t is L_t / log C_t by the mean of all tasks': log C_t is what a model without
    an idea loses of C_t classes, which the paper takes where the first loss is left to chance.

    Attributes:
        log_weights: v, float32 (T,); w = T softmax(v), so that the weights' sum is T.
        at_first: log C_t, float32 (T,).
    """

    learns = True
    at_first: Tensor

    def __init__(self, weights: Sequence[float], classes: Sequence[int]) -> None:
        """Begin with the given weights, in proportion.

        Args:
            weights: of each task, above 0.
            classes: how many each task has, at least 2.
        """
        super().__init__(weights)
        self.log_weights = nn.Parameter(self.weights.log())
        self.register_buffer("at_first", torch.tensor(classes).log(), persistent=False)
        # In a tuple, lest it is one of this module's own.
        self._last: tuple[nn.Linear, ...] = ()

    def look_at(self, model: nn.Module) -> None:
        """Find the head's last layer.

        Raises:
            RecipeError: it is not one linear layer.
        """
        found = [model.get_submodule(name) for name in output_names(model)]
        linear = tuple(layer for layer in found if isinstance(layer, nn.Linear))
        if len(found) != 1 or not linear:
            raise RecipeError(
                "train.balance is gradnorm, but the model's head does not end in one linear layer",
                "take fixed or uncertainty, or another architecture",
            )
        self._last = linear

    def forward(self, losses: Tensor, counted: Tensor, logits: Tensor) -> Tensor:
        """Return the whole loss, which the weights' own adds nothing to but their gradient."""
        weights = len(losses) * torch.softmax(self.log_weights, 0)
        total = (weights.detach() * losses).sum()
        if not logits.requires_grad:
            return total
        some = counted.to(losses.dtype)
        # Where nothing is counted, the division by no images may have left no number.
        norms = torch.where(counted, self._norms(losses, logits), 0.0)
        rates = some * losses.detach() / self.at_first
        rates = rates / _mean(rates, some)
        wanted = _mean(weights.detach() * norms, some) * rates**_ALPHA
        own = (some * (weights * norms - wanted).abs()).sum() / _mean(norms, some)
        return total + own - own.detach()

    def _norms(self, losses: Tensor, logits: Tensor) -> Tensor:
        """Return |∂L_t/∂h| of each task, (T,), in units of an image's."""
        weight = self._last[0].weight.detach().float()
        # The sum over the images: what one adds to a mean may be too small for fp16.
        images = torch.full_like(losses[0], len(logits))
        found = []
        for loss in losses:
            (there,) = torch.autograd.grad(loss, logits, images, retain_graph=True)
            found.append((there.float() @ weight).norm())
        return torch.stack(found)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of those that count, or a little more than 0."""
    tiny = torch.finfo(values.dtype).tiny
    return ((values * counted).sum() / counted.sum().clamp(min=1)).clamp(min=tiny)


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
    weights = given or (1.0,) * len(tasks)
    if train.balance == "gradnorm":
        return GradNorm(weights, [len(task.classes) for task in tasks])
    return (Uncertainty if train.balance == "uncertainty" else Balance)(weights)


def join_balance(job: Job, balance: Balance | None) -> None:
    """Have what weighs the tasks trained along with the model, where it learns.

    Raises:
        RecipeError: the model's head is not of the form that it needs.
    """
    if balance is not None and balance.learns:
        balance.look_at(job.model)
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
        return balance(torch.stack(losses), counted, logits), found

    return objective
