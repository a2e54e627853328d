"""What the strategies share that adapt to a domain without labels.

``data.path`` is the source, whose images have labels; ``data.unlabelled`` is the target. Half of
each batch is of either (``TrainFeed.balanced``); a row of targets without a one in it is of the
target. Both go through the model together, so that batch norm sees both. Where target images with
labels exist, ``edgexfer eval RUN --data TARGET`` tells what was gained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgexfer.core.errors import RecipeError
from edgexfer.models.features import HeadInput
from edgexfer.training.objective import Objective, Views, labelled_cross_entropy
from edgexfer.transfer.plan import Plan, Subject

SPLIT = "train+unlabelled"
Apart = Callable[[Tensor, Tensor], Tensor]


def adapt(subject: Subject, objective: Objective, **more: Any) -> Plan:
    """Return the plan of a training on both domains.

    Args:
        subject: whose data has unlabelled images.
        objective: tells the domains apart by ``of_target``.
        more: further fields of the plan.

    Raises:
        RecipeError: no target is named, or the images of a batch are to be mixed.
    """
    name, train = subject.section.strategy, subject.section.train
    if subject.data.unlabelled is None:
        raise RecipeError(
            f"strategy {name} adapts to images without labels, but none are named",
            "add --unlabelled FOLDER (in a recipe, data.unlabelled)",
        )
    if train.mixup or train.cutmix:
        raise RecipeError(
            f"strategy {name} tells source from target images, which mixup and cutmix mix",
            "leave out train.mixup and train.cutmix",
        )
    return Plan(objective=objective, split=SPLIT, balanced=True, **more)


def align(subject: Subject, weight: float, steepness: float, apart: Apart) -> Plan:
    """Return the plan of a training that holds the features of both domains together.

    Args:
        subject: whose data has unlabelled images.
        weight: of the distance, once it is full.
        steepness: γ of ``ramp``.
        apart: the distance of the source's features (n, F), before the head, from the target's
            (m, F), a scalar.

    Raises:
        RecipeError: no target is named, or the images of a batch are to be mixed.
    """
    train, name = subject.section.train, subject.section.strategy
    features = HeadInput(subject.built.model)

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        hard = labelled_cross_entropy(
            model(pixels), targets, views.labelled(targets), train.label_smoothing
        )
        found, target = features(), of_target(targets)
        with without_autocast(found):
            distance = apart(found[~target], found[target])
        scale = weight * ramp(views, train.epochs, steepness)
        return hard + scale * distance, {"hard": hard.detach(), name: distance.detach()}

    return adapt(subject, objective, auxiliary=features, finish=features.close)


def of_target(targets: Tensor) -> Tensor:
    """Return which rows of targets (B, C) are without a label, bool (B,)."""
    return targets.sum(1) == 0


def ramp(views: Views, epochs: int, steepness: float) -> float:
    """Return 2 / (1 + exp(-γp)) - 1, which rises from 0 towards 1 as the training goes on.

    With p, the share of the training that is done (Ganin et al. 2016, section 5.2.2). What a loss
    asks of features that know nothing yet is thus not heard.

    Args:
        views: where the training stands.
        epochs: of the training.
        steepness: γ; 10 in the paper.
    """
    return 2 / (1 + math.exp(-steepness * views.epochs / epochs)) - 1


def without_autocast(features: Tensor) -> torch.autocast:
    """Return a context in which distances between features keep their float32 digits."""
    return torch.autocast(features.device.type, enabled=False)
