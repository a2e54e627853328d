"""ResNet-50 for 32x32 images: the bottleneck blocks of ImageNet's behind a stem that keeps size.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1, with the 3x3 stem
without pooling of Tian et al. 2020, "Contrastive Representation Distillation".
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.models.cifarnet import CifarNet, initialise, projection

_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, a 1x1 projection where the shape changes."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        """Build the block.

        Args:
            inside: channels that come in.
            width: channels of the 3x3 convolution; four times as many go out.
            stride: of the 3x3 convolution.
        """
        super().__init__()
        outside = width * _EXPANSION
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outside, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outside)
        self.downsample = projection(inside, outside, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, 4 * width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + shortcut, inplace=True)


class BottleneckResNet(CifarNet):
    """A stem, four stages of bottleneck blocks and a linear head."""

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int) -> None:
        """Build and initialise the network from torch's generator.

        Args:
            blocks: of each stage.
            num_classes: outputs of the head.
        """
        super().__init__()
        widths = (64, 128, 256, 512)
        channels = [width * _EXPANSION for width in widths]
        self.num_features = channels[3]
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, widths[0], blocks[0], stride=1)
        self.layer2 = _stage(channels[0], widths[1], blocks[1], stride=2)
        self.layer3 = _stage(channels[1], widths[2], blocks[2], stride=2)
        self.layer4 = _stage(channels[2], widths[3], blocks[3], stride=2)
        self.fc = nn.Linear(self.num_features, num_classes)
        self.describe(channels, (1, 2, 4, 8))
        initialise(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to the last stage's features (B, 2048, H / 8, W / 8)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features


def _stage(inside: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inside, width, stride)
    others = (Bottleneck(width * _EXPANSION, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


#: Name to what makes the network for a number of classes. timm's ``resnet50`` is ImageNet's.
NETWORKS = {"resnet50_cifar": partial(BottleneckResNet, (3, 4, 6, 3))}
