"""Strategy ``bss``: batch spectral shrinkage; feature directions that hardly transfer fade.

The loss is CE + η · Σ_{i≤k} σ_{-i}², over the k smallest singular values of the batch's features,
(images, features), as they go into the head (Chen et al., "Catastrophic Forgetting Meets Negative
Transfer: Batch Spectral Shrinkage for Safe Transfer Learning", NeurIPS 2019, equation 5; η = 0.001,
k = 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from edgexfer.models.features import HeadInput
from edgexfer.training.objective import Views, labelled_cross_entropy
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = True


@dataclass(frozen=True)
class Options:
    """How much fades.

    Attributes:
        weight: strength of the shrinkage (η).
        values: how many of the smallest singular values shrink (k).
    """

    __pydantic_config__ = STRICT

    weight: Annotated[float, Ge(0)] = 0.001
    values: Annotated[int, Ge(1)] = 1


def prepare(subject: Subject) -> Plan:
    """Look at what goes into the head."""
    options: Options = subject.options
    smoothing = subject.section.train.label_smoothing
    features = HeadInput(subject.built.model)

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        hard = labelled_cross_entropy(model(pixels), targets, views.labelled(targets), smoothing)
        small = smallest(features(), options.values)
        return hard + options.weight * small, {"hard": hard.detach(), "bss": small.detach()}

    return Plan(objective=objective, auxiliary=features, finish=features.close)


def smallest(features: Tensor, values: int) -> Tensor:
    """Return the sum of the squares of the smallest singular values, computed in float32.

    Args:
        features: (B, D).
        values: how many; all where there are fewer.
    """
    with torch.autocast(features.device.type, enabled=False):
        found: Tensor = torch.linalg.svdvals(features.float())
        return found[-values:].square().sum()
