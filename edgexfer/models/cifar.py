"""ResNets for 32x32 images, as the literature on distillation compares them.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2, with the
widths, projections and initialisation of Tian et al. 2020, "Contrastive Representation
Distillation" (``resnet8x4`` and ``resnet32x4`` are four times as wide). Their ResNet-50 stands in
``bottleneck.py``.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.models.cifarnet import CifarNet, initialise, projection

_PLAIN = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 projection where the shape changes."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        """Build the block.

        Args:
            inside: channels that come in.
            outside: channels that go out.
            stride: of the first convolution.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample = projection(inside, outside, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, outside, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + shortcut, inplace=True)


class CifarResNet(CifarNet):
    """A stem, three stages and a linear head; ``depth`` = 6n + 2 layers."""

    def __init__(self, depth: int, widths: tuple[int, int, int, int], num_classes: int) -> None:
        """Build and initialise the network from torch's generator.

        Args:
            depth: 8, 14, 20, ...
            widths: channels of the stem and of the three stages.
            num_classes: outputs of the head.
        """
        super().__init__()
        blocks = (depth - 2) // 6
        self.num_features = widths[3]
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[1], blocks, stride=1)
        self.layer2 = _stage(widths[1], widths[2], blocks, stride=2)
        self.layer3 = _stage(widths[2], widths[3], blocks, stride=2)
        self.fc = nn.Linear(widths[3], num_classes)
        self.describe(widths[1:], (1, 2, 4))
        initialise(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to the last stage's features (B, C, H / 4, W / 4)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        features: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return features


def _stage(inside: int, outside: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inside, outside, stride)
    return nn.Sequential(first, *(BasicBlock(outside, outside, 1) for _ in range(blocks - 1)))


#: Name to what makes the network for a number of classes.
NETWORKS = {
    **{f"resnet{n}": partial(CifarResNet, n, _PLAIN) for n in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": partial(CifarResNet, 8, _WIDE),
    "resnet32x4": partial(CifarResNet, 32, _WIDE),
}
