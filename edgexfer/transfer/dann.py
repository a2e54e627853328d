"""Strategy ``dann``: features from which a domain head cannot tell source from target.

The loss is CE(source) + w · BCE(d(r(f)), domain), over the features f (B, F) before the head. The
domain head d has two hidden layers and one output; r passes features on as they are, and their
gradient times -λ(p): d learns to tell the domains apart, and the model to prevent it (Ganin et al.,
"Domain-Adversarial Training of Neural Networks", JMLR 2016, equation 9 and section 5.2.2). The warm
start: λ(p) = 2 / (1 + exp(-γp)) - 1 with p the share of the training that is done, so that the
first steps train d and the classifier, and the features hardly hear of d. Images without labels
count in the second term alone. Defaults: w = 1, γ = 10, 256 hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor, nn

from edgexfer.models.features import HeadInput, feature_size
from edgexfer.training.objective import Views, labelled_cross_entropy
from edgexfer.transfer.adaptation import adapt, of_target, ramp
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = False


@dataclass(frozen=True)
class Options:
    """The domain head, and how firmly it is opposed.

    Attributes:
        weight: strength of the domain loss (w).
        ramp: how soon the features are trained against the domain head (γ of λ(p)).
        hidden: units in each of its hidden layers.
    """

    __pydantic_config__ = STRICT

    weight: Annotated[float, Ge(0)] = 1.0
    ramp: Annotated[float, Gt(0)] = 10.0
    hidden: Annotated[int, Ge(1)] = 256


class DomainHead(nn.Module):
    """What goes into the model's head, and a small net that tells the domains apart by it."""

    def __init__(self, model: nn.Module, hidden: int, seed: int) -> None:
        """Take the model to look into; the net's weights are drawn from ``seed`` alone."""
        super().__init__()
        self.features = HeadInput(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Linear(feature_size(model), hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, 1),
            )

    def forward(self, strength: float) -> Tensor:
        """Return the logits (B,) that the images of the last run are of the target.

        Args:
            strength: λ.
        """
        logits: Tensor = self.net(reverse(self.features(), strength))
        return logits.squeeze(1)


def prepare(subject: Subject) -> Plan:
    """Train a domain head along with the model, and the model against it.

    Raises:
        RecipeError: no target is named, or the images of a batch are to be mixed.
    """
    options: Options = subject.options
    train = subject.section.train
    head = DomainHead(subject.built.model, options.hidden, train.seed)

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        hard = labelled_cross_entropy(
            model(pixels), targets, views.labelled(targets), train.label_smoothing
        )
        logits = head(ramp(views, train.epochs, options.ramp)).float()
        domain = F.binary_cross_entropy_with_logits(logits, of_target(targets).float())
        return hard + options.weight * domain, {"hard": hard.detach(), "domain": domain.detach()}

    return adapt(subject, objective, auxiliary=head, finish=head.features.close)


def reverse(features: Tensor, strength: float) -> Tensor:
    """Return the features as they are; their gradient comes back times ``-strength``."""
    turned: Any = features.view_as(features)  # torch has no type for the method
    if turned.requires_grad:
        turned.register_hook(lambda gradient: -strength * gradient)
    return cast(Tensor, turned)
