"""Strategy ``lwf``: learning without forgetting; the former model's answers to the new images.

The loss is CE(new classes) + λ · T² · KL(p_T(former) ‖ p_T(model)) over the former model's classes
on the new images, with temperature T (Li and Hoiem, "Learning without Forgetting", ECCV 2016,
equations 2 and 3; λ = 1, T = 2). Theirs is without T², which keeps the gradient's size whatever T
is (Hinton et al. 2015). No former image is needed, but to say what was forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.models.normalise import PixelModel
from edgexfer.recipe import NotNegative, Positive
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
        weight: strength of the former answers (λ).
        temperature: how far both answers are softened (T).
    """

    __pydantic_config__ = STRICT

    old: str | None = None
    weight: NotNegative = 1.0
    temperature: Positive = 2.0


def parents(options: Options) -> dict[str, str]:
    """Return the hash of the former model."""
    return identity(options.old)


def prepare(subject: Subject) -> Plan:
    """Take up the former model and let it answer beside the new one.

    Raises:
        RunError: the former run is not finished.
        ModelError: it is another architecture.
    """
    former = take_up(subject, str(subject.options.old))
    return Plan(
        objective=_objective(former, subject),
        classes=former.classes,
        results=lambda: forgotten(former, subject.built.model, subject),
    )


def _objective(former: Former, subject: Subject) -> Objective:
    options: Options = subject.options
    temperature = options.temperature
    classes, columns = len(subject.dataset.classes), list(former.columns)
    smoothing = subject.section.train.label_smoothing
    guide = PixelModel(former.model, subject.built.preprocess).to(world().device).eval()

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = views.labelled(targets)[:classes]
        # The guide answers in its own precision, whatever the student trains in.
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            wanted = F.log_softmax(guide(pixels) / temperature, dim=1)
        logits = model(pixels).float()
        hard = labelled_cross_entropy(logits[:, :classes], targets[:, :classes], own, smoothing)
        said = F.log_softmax(logits[:, columns] / temperature, dim=1)
        soft = F.kl_div(said, wanted, log_target=True, reduction="batchmean") * temperature**2
        return hard + options.weight * soft, {"hard": hard.detach(), "soft": soft.detach()}

    return objective
