"""What edgexfer's own networks for 32x32 images share: timm's conventions and the head.

The architectures themselves stand beside it, one file each family; their names in ``create.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CifarNet(nn.Module, ABC):
    """Stages ``layer1``, ``layer2``, ..., global average pooling and a linear head ``fc``.

    A subclass builds them in the order of the forward pass and defines ``forward_features``. Heads,
    freezing and feature losses then treat it like any timm model. Larger images work as well: the
    pooling is global.

    Attributes:
        num_features: channels that the head sees.
        feature_info: of each stage its channels (``num_chs``), the factor by which it is smaller
            than the image (``reduction``) and its name (``module``), as timm's models say it.
    """

    fc: nn.Linear
    num_features: int
    feature_info: list[dict[str, Any]]

    def describe(self, channels: Sequence[int], reductions: Sequence[int]) -> None:
        """Set ``feature_info`` from each stage's channels and reduction."""
        self.feature_info = [
            {"num_chs": width, "reduction": reduction, "module": f"layer{i}"}
            for i, (width, reduction) in enumerate(zip(channels, reductions, strict=True), start=1)
        ]

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to the features (B, num_features, h, w) that the head sees."""

    def forward_head(self, features: Tensor) -> Tensor:
        """Map features (B, num_features, h, w) to logits (B, num_classes)."""
        pooled = F.adaptive_avg_pool2d(features, 1)
        logits: Tensor = self.fc(torch.flatten(pooled, 1))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new, randomly initialised head in the old one's place."""
        self.fc = nn.Linear(self.num_features, num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the patterns that sort parameters into stem and stages (or blocks).

        What neither matches stands behind the last stage: the head, and a last convolution or norm.
        """
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^conv1|^bn1", "blocks": blocks}


def initialise(model: nn.Module) -> None:
    """Draw the convolutions as He et al. 2015 do, by the fan of what goes out."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of so many groups, so that the next group convolution sees all.

    Source: Zhang et al. 2018, "ShuffleNet", section 3.1. Shape (B, C, H, W) stays as it is.
    """
    grouped = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    return grouped.transpose(1, 2).flatten(1, 2)


def projection(inside: int, outside: int, stride: int) -> nn.Module | None:
    """Return what stands in a shortcut: a 1x1 convolution, or nothing where the shape stays."""
    if stride == 1 and inside == outside:
        return None
    convolution = nn.Conv2d(inside, outside, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside))
