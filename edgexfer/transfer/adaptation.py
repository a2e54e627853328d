"""What the strategies share that adapt to a domain without labels.

``data.path`` is the source, whose images have labels; ``data.unlabelled`` is the target. Half of
each batch is of either (``TrainFeed.balanced``); a row of targets without a one in it is of the
target. Both go through the model together, so that batch norm sees both. Where target images with
labels exist, ``edgexfer eval RUN --data TARGET`` tells what was gained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgexfer.core.errors import RecipeError
from edgexfer.data.dataset import UNLABELLED
from edgexfer.models.features import HeadInput
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.objective import Objective, Views, labelled_cross_entropy
from edgexfer.training.stage import images_of
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


def one_class_in_folders(subject: Subject) -> tuple[str, ...]:
    """Warn where the target's folders say that all its images are of one class."""
    place, classes = Path(str(subject.data.unlabelled)).resolve(), subject.dataset.classes
    keys = subject.dataset.splits[UNLABELLED].keys
    folders = {(place.name, *key.split("/")[1:-1])[-1] for key in keys}
    if len(folders) > 1 or not folders <= set(classes):
        return ()
    return (_warning(f"every image of {subject.data.unlabelled} lies in a folder of", *folders),)


def one_class_in_answers(subject: Subject) -> tuple[str, ...]:
    """Warn where the trained model says that all images of the target are of one class."""
    preprocess, dataset = subject.built.preprocess, subject.dataset
    images = images_of(subject.data, dataset, UNLABELLED, preprocess)
    said = set(predict_logits(subject.built.model, preprocess, images).argmax(1).tolist())
    if len(said) > 1:
        return ()
    what = f"the model puts all {len(images)} images of {subject.data.unlabelled} into"
    return (_warning(what, dataset.classes[said.pop()]),)


def _warning(what: str, name: str) -> str:
    return (
        f"{what} class {name!r}; adapting takes the target's images for as mixed as the source's, "
        "and does harm where they are not: compare with strategy full on images with labels"
    )


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
