"""Strategy ``ewc``: elastic weight consolidation; weights that mattered before hardly move.

The loss is L_new(θ) + λ/2 · Σ_i F_i (θ_i - θ*_i)², with θ* the former weights and F the diagonal of
their Fisher information, the mean over former training images of (∂ log p(y|x) / ∂θ_i)², y drawn
from the former model's own answer (Kirkpatrick et al., "Overcoming catastrophic forgetting in
neural networks", PNAS 2017, equation 3). The new classes have outputs of their own, as in the
paper; cross entropy is taken among the data's classes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.data.images import sample
from edgexfer.models.normalise import PixelModel
from edgexfer.recipe import Count, NotNegative
from edgexfer.training.distributed import world
from edgexfer.training.objective import Objective, Views, labelled_cross_entropy
from edgexfer.transfer.former import Former, forgotten, identity, take_up
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = False


@dataclass(frozen=True)
class Options:
    """What is kept, and how firmly.

    Attributes:
        old: the former run.
        weight: strength of the pull towards the former weights (λ).
        images: former training images that the Fisher information is estimated from.
    """

    __pydantic_config__ = STRICT

    old: str | None = None
    weight: NotNegative = 1000.0
    images: Count = 256


class Anchor(nn.Module):
    """Former weights and their importance, as buffers, which a checkpoint holds.

    A forward pass returns Σ_i F_i (θ_i - θ*_i)² / 2 for the parameters θ that it is handed.
    """

    def __init__(self, start: Mapping[str, Tensor], importance: Mapping[str, Tensor]) -> None:
        """Take both by the parameters' names."""
        super().__init__()
        for name, tensor in start.items():
            # A buffer's name may hold no dot.
            self.register_buffer("start/" + name.replace(".", "/"), tensor.detach().clone())
            self.register_buffer("importance/" + name.replace(".", "/"), importance[name])

    def forward(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the penalty, a scalar in float32."""
        buffers = dict(self.named_buffers())
        terms = []
        for name, value in parameters.items():
            place = name.replace(".", "/")
            moved = value.float() - buffers["start/" + place]
            terms.append((buffers["importance/" + place] * moved.square()).sum())
        return torch.stack(terms).sum() / 2


def parents(options: Options) -> dict[str, str]:
    """Return the hash of the former model."""
    return identity(options.old)


def prepare(subject: Subject) -> Plan:
    """Take up the former model and measure which of its weights matter.

    Raises:
        RunError: the former run is not finished.
        ModelError: it is another architecture.
    """
    options: Options = subject.options
    former = take_up(subject, str(options.old))
    model = subject.built.model
    start = {name: p for name, p in model.named_parameters() if p.requires_grad}
    anchor = Anchor(start, fisher(subject, former, options.images))
    classes = len(subject.dataset.classes)
    return Plan(
        objective=_objective(anchor, model, options.weight, classes, subject),
        auxiliary=anchor,
        classes=former.classes,
        results=lambda: forgotten(former, model, subject),
    )


def fisher(subject: Subject, former: Former, images: int) -> dict[str, Tensor]:
    """Estimate the diagonal of the Fisher information of the model that was taken up.

    Args:
        subject: its model has the former weights.
        former: where they are from.
        images: how many former training images are looked at, one by one.

    Returns:
        By name of the parameter, in its shape.
    """
    seed = subject.section.train.seed
    built, device = subject.built, world().device
    chosen, _, _ = sample(former.dataset, "train", images, built.preprocess, seed=seed)
    model = PixelModel(built.model, built.preprocess).to(device).eval()
    parameters = {n: p for n, p in built.model.named_parameters() if p.requires_grad}
    found = {name: torch.zeros_like(p) for name, p in parameters.items()}
    columns = list(former.columns)
    # On the CPU: the same draw on every device.
    chance = torch.Generator().manual_seed(seed)
    for image in torch.from_numpy(chosen).permute(0, 3, 1, 2):
        log_p = F.log_softmax(model(image[None].to(device))[0, columns], dim=0)
        drawn = int(torch.multinomial(log_p.detach().exp().cpu(), 1, generator=chance))
        gradients = torch.autograd.grad(log_p[drawn], list(parameters.values()))
        for name, gradient in zip(found, gradients, strict=True):
            found[name] += gradient.square() / len(chosen)
    return found


def _objective(
    anchor: Anchor, model: nn.Module, weight: float, classes: int, subject: Subject
) -> Objective:
    smoothing = subject.section.train.label_smoothing

    def objective(
        pixel_model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = views.labelled(targets)[:classes]
        logits = pixel_model(pixels)[:, :classes]
        hard = labelled_cross_entropy(logits, targets[:, :classes], own, smoothing)
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        pull = anchor(named)
        return hard + weight * pull, {"hard": hard.detach(), "pull": pull.detach()}

    return objective
