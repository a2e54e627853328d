"""ShuffleNet V1 and V2 for 32x32 images.

Sources: Zhang et al. 2018, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for
Mobile Devices" (3 groups, full width), and Ma et al. 2018, "ShuffleNet V2: Practical Guidelines for
Efficient CNN Architecture Design" (full width), both with the 1x1 stem without pooling of Tian et
al. 2020, "Contrastive Representation Distillation".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.models.cifarnet import CifarNet, shuffle_channels

_STEM = 24


class ShuffleUnit(nn.Module):
    """V1's unit: group convolution, shuffle, depthwise convolution, group convolution, shortcut.

    With stride 2 the shortcut is averaged and stands beside the result instead of being added.
    """

    def __init__(self, inside: int, outside: int, stride: int, groups: int) -> None:
        """Build the unit.

        Args:
            inside: channels that come in.
            outside: channels that go out.
            stride: 1 or 2.
            groups: of the 1x1 convolutions; behind the narrow stem the first has one group only.
        """
        super().__init__()
        made = outside - inside if stride == 2 else outside
        middle = made // 4
        self.stride = stride
        self.groups = 1 if inside == _STEM else groups
        self.conv1 = nn.Conv2d(inside, middle, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, made, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(made)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, outside, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = shuffle_channels(y, self.groups)
        # The original paper has no ReLU here; the benchmark's network does.
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        if self.stride == 1:
            return F.relu(y + x, inplace=True)
        return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1), inplace=True)


class ShuffleNetV1(CifarNet):
    """A stem, three stages of ``ShuffleUnit`` and a linear head."""

    def __init__(self, num_classes: int) -> None:
        """Build the network, with torch's own initialisation.

        Args:
            num_classes: outputs of the head.
        """
        super().__init__()
        widths = (240, 480, 960)
        self.num_features = widths[2]
        self.conv1 = nn.Conv2d(3, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.layer1 = _stage_v1(_STEM, widths[0], 4)
        self.layer2 = _stage_v1(widths[0], widths[1], 8)
        self.layer3 = _stage_v1(widths[1], widths[2], 4)
        self.fc = nn.Linear(widths[2], num_classes)
        self.describe(widths, (2, 4, 8))

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to the last stage's features (B, 960, H / 8, W / 8)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        features: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return features


class SplitUnit(nn.Module):
    """V2's unit of stride 1: half of the channels pass through, the other half is convolved."""

    def __init__(self, channels: int) -> None:
        """Build the unit.

        Args:
            channels: that come in and go out.
        """
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        passed, worked = x.chunk(2, dim=1)
        return shuffle_channels(torch.cat([passed, self.branch(worked)], 1), 2)


class DownUnit(nn.Module):
    """V2's unit of stride 2: both branches see all channels, each gives half of what goes out."""

    def __init__(self, inside: int, outside: int) -> None:
        """Build the unit.

        Args:
            inside: channels that come in.
            outside: channels that go out.
        """
        super().__init__()
        half = outside // 2
        self.shortcut = nn.Sequential(
            nn.Conv2d(inside, inside, 3, 2, 1, groups=inside, bias=False),
            nn.BatchNorm2d(inside),
            nn.Conv2d(inside, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )
        self.branch = _branch(inside, half, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, outside, H / 2, W / 2)."""
        return shuffle_channels(torch.cat([self.shortcut(x), self.branch(x)], 1), 2)


class ShuffleNetV2(CifarNet):
    """A stem, three stages, a 1x1 convolution and a linear head."""

    def __init__(self, num_classes: int) -> None:
        """Build the network, with torch's own initialisation.

        Args:
            num_classes: outputs of the head.
        """
        super().__init__()
        widths = (116, 232, 464)
        self.num_features = 1024
        self.conv1 = nn.Conv2d(3, _STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.layer1 = _stage_v2(_STEM, widths[0], 4)
        self.layer2 = _stage_v2(widths[0], widths[1], 8)
        self.layer3 = _stage_v2(widths[1], widths[2], 4)
        self.last = nn.Conv2d(widths[2], self.num_features, 1, bias=False)
        self.norm = nn.BatchNorm2d(self.num_features)
        self.fc = nn.Linear(self.num_features, num_classes)
        self.describe(widths, (2, 4, 8))

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 1024, H / 8, W / 8)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return F.relu(self.norm(self.last(x)), inplace=True)


def _branch(inside: int, outside: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
        nn.Conv2d(outside, outside, 3, stride, 1, groups=outside, bias=False),
        nn.BatchNorm2d(outside),
        nn.Conv2d(outside, outside, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


def _stage_v1(inside: int, outside: int, units: int) -> nn.Sequential:
    first = ShuffleUnit(inside, outside, 2, groups=3)
    return nn.Sequential(first, *(ShuffleUnit(outside, outside, 1, 3) for _ in range(units - 1)))


def _stage_v2(inside: int, outside: int, units: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(inside, outside), *(SplitUnit(outside) for _ in range(units - 1)))


#: Name to what makes the network for a number of classes.
NETWORKS = {"shufflenetv1": ShuffleNetV1, "shufflenetv2": ShuffleNetV2}
