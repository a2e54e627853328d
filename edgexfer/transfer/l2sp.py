"""Strategy ``l2sp``: weights are pulled to where they began, instead of to zero.

The loss is CE + α/2 · ||w - w0||² + β/2 · ||head||², over the backbone's parameters w with their
first values w0 (Li, Grandvalet and Davoine, "Explicit Inductive Bias for Transfer Learning with
Convolutional Networks", ICML 2018, section 3, L²-SP). It takes the place of ``train.weight_decay``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from edgexfer.models.head import backbone_parameters, head_parameters
from edgexfer.training.distributed import world
from edgexfer.training.job import FitResult, Job
from edgexfer.training.loop import fit
from edgexfer.training.objective import Objective, Views, labelled_cross_entropy
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = True


@dataclass(frozen=True)
class Options:
    """How firm the pull is.

    Attributes:
        weight: strength of the pull towards the first weights (α).
        head_weight: strength of the head's own weight decay (β).
    """

    __pydantic_config__ = STRICT

    weight: Annotated[float, Ge(0)] = 0.1
    head_weight: Annotated[float, Ge(0)] = 0.01


def prepare(subject: Subject) -> Plan:
    """Note where the backbone begins."""
    options: Options = subject.options
    model, smoothing = subject.built.model, subject.section.train.label_smoothing
    start = {n: p.detach().clone() for n, p in _moving(backbone_parameters(model)).items()}
    return Plan(objective=_objective(model, start, options, smoothing), train=undecayed)


def undecayed(job: Job) -> FitResult:
    """Train without weight decay, in whose place a penalty of the objective stands."""
    for group in job.groups:
        group["weight_decay"] = 0.0
    return fit(job)


def half_square(parameters: Mapping[str, Tensor]) -> Tensor:
    """Return half the sum of the squares of all values, a scalar in float32."""
    return torch.stack([p.float().square().sum() for p in parameters.values()]).sum() / 2


def _objective(
    model: nn.Module, start: Mapping[str, Tensor], options: Options, smoothing: float
) -> Objective:
    anchors = {name: tensor.to(world().device) for name, tensor in start.items()}

    def objective(
        pixel_model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        hard = labelled_cross_entropy(
            pixel_model(pixels), targets, views.labelled(targets), smoothing
        )
        moving = _moving(backbone_parameters(model))
        pull = half_square({name: p - anchors[name] for name, p in moving.items()})
        size = half_square(head_parameters(model))
        loss = hard + options.weight * pull + options.head_weight * size
        return loss, {"hard": hard.detach(), "pull": pull.detach(), "head": size.detach()}

    return objective


def _moving(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {name: p for name, p in parameters.items() if p.requires_grad}
