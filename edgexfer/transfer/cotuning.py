"""Strategy ``cotuning``: the source's head trains on, on what each class is in the source's eyes.

The loss is CE(y) + λ · CE(p(s | y)), the second of the source head's outputs, on the same features.
p(s | y), the relationship of classes, is the mean of the source model's probabilities of its own
classes over the training images of class y, before any step and without augmentation (You, Kou,
Long and Wang, "Co-Tuning for Transfer Learning", NeurIPS 2020, with their direct approach to the
relationship). The source head trains at the head's rate and is not deployed. Default: λ = 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgexfer.core.errors import ModelError
from edgexfer.models.create import head_classes
from edgexfer.models.features import HeadInput
from edgexfer.models.head import head_names
from edgexfer.recipe import NotNegative
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.objective import Views, labelled_cross_entropy
from edgexfer.training.stage import build_model
from edgexfer.transfer.plan import STRICT, Plan, Subject, training_images

NEEDS_WEIGHTS = True


@dataclass(frozen=True)
class Options:
    """How much the source's classes count.

    Attributes:
        weight: strength of the loss on the source's classes (λ).
    """

    __pydantic_config__ = STRICT

    weight: NotNegative = 2.3


class SourceHead(nn.Module):
    """What goes into the model's head, and the source's head on it; p(s | y) is kept beside it."""

    relation: Tensor

    def __init__(self, model: nn.Module, source: nn.Module, relation: Tensor) -> None:
        """Take the model to look into, the source whose head trains on, and p(s | y), (C, S)."""
        super().__init__()
        self.features = HeadInput(model)
        self.head = source.get_submodule(head_names(source)[0])
        self.register_buffer("relation", relation)

    def forward(self) -> Tensor:
        """Return the logits (B, S) of the source's classes for the images of the last run."""
        features = self.features()
        # Some architectures have a convolution of one pixel as their head.
        shaped = features[:, :, None, None] if isinstance(self.head, nn.Conv2d) else features
        logits: Tensor = self.head(shaped)
        return logits.flatten(1)


def prepare(subject: Subject) -> Plan:
    """Ask the source model what the training images are, and have its head train along.

    Raises:
        ModelError: the source weights have no head of classes.
        DataError: no image of a class can be read.
    """
    options: Options = subject.options
    smoothing = subject.section.train.label_smoothing
    head = _source_head(subject)

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        labelled = views.labelled(targets)
        hard = labelled_cross_entropy(model(pixels), targets, labelled, smoothing)
        # Each class's row of the relation sums to 1.
        source = labelled_cross_entropy(head(), targets @ head.relation, labelled, 0.0)
        return hard + options.weight * source, {"hard": hard.detach(), "source": source.detach()}

    return Plan(objective=objective, auxiliary=head, finish=head.features.close)


def relationship(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], classes: int
) -> Tensor:
    """Return p(s | y), float32 (classes, S): the mean probabilities over the images of each class.

    Args:
        logits: of the source's classes, (N, S).
        labels: (N,), places among the classes, each of which has an image.
        classes: how many there are.
    """
    shares = torch.from_numpy(logits).double().softmax(1)
    wanted = torch.from_numpy(labels)
    return torch.stack([shares[wanted == c].mean(0) for c in range(classes)]).float()


def _source_head(subject: Subject) -> SourceHead:
    built = subject.built
    section = subject.section.model
    classes = head_classes(
        section.name,
        options=built.options,
        pretrained=section.pretrained,
        weights=Path(section.weights) if section.weights else None,
    )
    if classes is None:
        raise ModelError(
            f"strategy cotuning: the weights of {built.name} have no head of their own classes",
            "start from a model that was trained on labels, or use --strategy full",
        )
    source = build_model(section, classes, subject.section.train.seed).model
    images = training_images(subject)
    logits = predict_logits(source, built.preprocess, images)
    relation = relationship(logits, images.labels.numpy(), len(subject.dataset.classes))
    return SourceHead(built.model, source, relation)
