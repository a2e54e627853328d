"""Strategy ``reconstruction``: features that also say what target images look like (DRCN).

The loss is λ · CE(source) + (1 - λ) · mean ‖x - D(f)‖² over the target images, with f (B, F) the
features before the head, D a decoder that is not deployed, and x the image as the model takes it,
reduced to 32 pixels (Ghifary et al., "Deep Reconstruction-Classification Networks for Unsupervised
Domain Adaptation", ECCV 2016, equation 4; as there, source images are not reconstructed). The mean
is over pixels and channels. Default: λ = 0.7, the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from edgexfer.models.features import HeadInput, feature_size
from edgexfer.models.normalise import PixelModel
from edgexfer.training.distributed import world
from edgexfer.training.objective import Views, labelled_cross_entropy
from edgexfer.transfer.adaptation import adapt, of_target
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = False
# The decoder begins with a map of so many channels and pixels, and doubles it three times.
_CHANNELS, _FIRST, _SIDE = 64, 4, 32


@dataclass(frozen=True)
class Options:
    """What counts for how much.

    Attributes:
        balance: share of the labels in the loss, 0..1 (λ); the rest is the reconstruction's.
    """

    __pydantic_config__ = STRICT

    balance: Annotated[float, Ge(0), Le(1)] = 0.7


class Decoder(nn.Module):
    """What goes into the model's head, and a small net that draws the images from it."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        """Take the model to look into; the net's weights are drawn from ``seed`` alone."""
        super().__init__()
        self.features = HeadInput(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = [
                nn.Linear(feature_size(model), _CHANNELS * _FIRST**2),
                nn.Unflatten(1, (_CHANNELS, _FIRST, _FIRST)),
            ]
            for _ in range(3):
                convolution = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1)
                layers += [nn.ReLU(), nn.Upsample(scale_factor=2), convolution]
            self.net = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(_CHANNELS, 3, 3, padding=1))

    def forward(self, chosen: Tensor) -> Tensor:
        """Return what the chosen images, bool (B,), of the last run look like, (U, 3, 32, 32)."""
        images: Tensor = self.net(self.features()[chosen])
        return images


def prepare(subject: Subject) -> Plan:
    """Train a decoder along with the model.

    Raises:
        RecipeError: no target is named, or the images of a batch are to be mixed.
    """
    options: Options = subject.options
    train, built = subject.section.train, subject.built
    decoder = Decoder(built.model, train.seed)
    eye = PixelModel(nn.Identity(), built.preprocess).to(world().device)

    def objective(
        model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        labelled, target = views.labelled(targets), of_target(targets)
        hard = labelled_cross_entropy(model(pixels), targets, labelled, train.label_smoothing)
        wanted = F.adaptive_avg_pool2d(eye(pixels[target]), _SIDE)
        away = apart(decoder(target).float(), wanted, len(pixels) * (1 - labelled.sum()))
        loss = options.balance * hard + (1 - options.balance) * away
        return loss, {"hard": hard.detach(), "reconstruction": away.detach()}

    return adapt(subject, objective, auxiliary=decoder, finish=decoder.features.close)


def apart(drawn: Tensor, wanted: Tensor, count: Tensor) -> Tensor:
    """Return the squared difference of images (U, 3, H, W), 0 where there is none.

    Args:
        drawn: by the decoder.
        wanted: what they are to look like.
        count: what it is divided by, beside pixels and channels: U, or over a micro-batch its share
            of the images without a label in the step.
    """
    per_image = (drawn - wanted).square().mean((1, 2, 3))
    return per_image.sum() / count.float().clamp(min=torch.finfo(torch.float32).tiny)
