"""Strategy ``delta``: feature maps stay near those of the source model, whatever the weights do.

The loss is CE + α/2 · Σ_l ||FM_l(w, x) - FM_l(w0, x)||² + β/2 · ||head||², the mean over the images
x of a sum over stages l, channels and positions (Li et al., "DELTA: Deep Learning Transfer using
Feature Map with Attention for Convolutional Networks", ICLR 2019, equation 4 with equal weights of
all channels; α = β = 0.01). It takes the place of ``train.weight_decay``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from edgexfer.core.errors import ModelError
from edgexfer.models.head import head_parameters
from edgexfer.models.layers import find_layer, stage_modules
from edgexfer.models.normalise import PixelModel
from edgexfer.models.taps import Taps, probe
from edgexfer.training.distributed import world
from edgexfer.training.objective import Objective, Views, labelled_cross_entropy
from edgexfer.transfer.l2sp import half_square, undecayed
from edgexfer.transfer.plan import STRICT, Plan, Subject

NEEDS_WEIGHTS = True


@dataclass(frozen=True)
class Options:
    """What stays, and how firmly.

    Attributes:
        weight: strength of the pull on feature maps (α).
        head_weight: strength of the head's own weight decay (β).
        layers: whose maps stay, by the number of a stage or the name of a layer: [2, -1]; unset
            takes every stage.
    """

    __pydantic_config__ = STRICT

    weight: Annotated[float, Ge(0)] = 0.01
    head_weight: Annotated[float, Ge(0)] = 0.01
    layers: tuple[str | int, ...] | None = None


def prepare(subject: Subject) -> Plan:
    """Keep a copy of the model as it begins, and look into both.

    Raises:
        ModelError: a layer is unknown, or its output is no feature map.
    """
    model, asked = subject.built.model, subject.options.layers
    if asked is None:
        layers = stage_modules(model)
    else:
        layers = tuple(find_layer(model, str(layer), "strategy delta") for layer in asked)
    if not layers:
        raise ModelError(
            f"strategy delta: {type(model).__name__} does not say what its stages are",
            "name layers with --option layers=[NAME]",
        )
    height, width = subject.built.preprocess.size
    tapped = probe(model, layers, torch.zeros(1, 3, height, width))
    kept = copy.deepcopy(model).requires_grad_(False)
    guide = PixelModel(kept, subject.built.preprocess).to(world().device).eval()
    maps = Taps(model, tapped, training=True)
    wanted = Taps(guide.model, tapped, training=False)

    def finish() -> None:
        maps.close()
        wanted.close()

    return Plan(objective=_objective(subject, guide, maps, wanted), train=undecayed, finish=finish)


def behaviour(maps: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
    """Return half the squared distance of the maps (B, C, H, W), the mean over the images."""
    first = next(iter(maps.values()))
    apart = {name: maps[name].float() - wanted[name].float() for name in maps}
    return half_square(apart) / len(first)


def _objective(subject: Subject, guide: nn.Module, maps: Taps, wanted: Taps) -> Objective:
    options: Options = subject.options
    model, smoothing = subject.built.model, subject.section.train.label_smoothing

    def objective(
        pixel_model: nn.Module, pixels: Tensor, targets: Tensor, views: Views
    ) -> tuple[Tensor, dict[str, Tensor]]:
        # The guide answers in its own precision, whatever the model trains in.
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            guide(pixels)
        hard = labelled_cross_entropy(
            pixel_model(pixels), targets, views.labelled(targets), smoothing
        )
        apart = behaviour(maps.take(), wanted.take())
        size = half_square(head_parameters(model))
        loss = hard + options.weight * apart + options.head_weight * size
        return loss, {"hard": hard.detach(), "apart": apart.detach(), "head": size.detach()}

    return objective
