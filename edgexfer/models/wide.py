"""Wide ResNets for 32x32 images: WRN-depth-width.

Source: Zagoruyko and Komodakis 2016, "Wide Residual Networks", section 2, without dropout, as Tian
et al. 2020, "Contrastive Representation Distillation", compare them.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.models.cifarnet import CifarNet, initialise


class PreactBlock(nn.Module):
    """Twice norm, ReLU and a 3x3 convolution, and a shortcut.

    Where the number of channels changes, the shortcut is a 1x1 convolution of what the first ReLU
    gives; else it is the block's input itself.
    """

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        """Build the block.

        Args:
            inside: channels that come in.
            outside: channels that go out.
            stride: of the first convolution; 1 where the channels stay.
        """
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if inside != outside:
            self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, outside, H / stride, W / stride), without a last ReLU."""
        active = F.relu(self.bn1(x), inplace=True)
        y = F.relu(self.bn2(self.conv1(active)), inplace=True)
        summed: Tensor = self.conv2(y) + (x if self.shortcut is None else self.shortcut(active))
        return summed


class WideResNet(CifarNet):
    """A stem, three stages, norm, ReLU and a linear head; ``depth`` = 6n + 4 layers."""

    def __init__(self, depth: int, factor: int, num_classes: int) -> None:
        """Build and initialise the network from torch's generator.

        Args:
            depth: 16, 22, 28, 34, 40.
            factor: how many times as wide as a plain ResNet.
            num_classes: outputs of the head.
        """
        super().__init__()
        blocks = (depth - 4) // 6
        widths = (16 * factor, 32 * factor, 64 * factor)
        self.num_features = widths[2]
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.layer1 = _stage(16, widths[0], blocks, stride=1)
        self.layer2 = _stage(widths[0], widths[1], blocks, stride=2)
        self.layer3 = _stage(widths[1], widths[2], blocks, stride=2)
        self.norm = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)
        self.describe(widths, (1, 2, 4))
        initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, C, H / 4, W / 4), after the last ReLU."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return F.relu(self.norm(x), inplace=True)


def _stage(inside: int, outside: int, blocks: int, stride: int) -> nn.Sequential:
    first = PreactBlock(inside, outside, stride)
    return nn.Sequential(first, *(PreactBlock(outside, outside, 1) for _ in range(blocks - 1)))


#: Name to what makes the network for a number of classes.
NETWORKS = {
    "wrn_16_2": partial(WideResNet, 16, 2),
    "wrn_40_1": partial(WideResNet, 40, 1),
    "wrn_40_2": partial(WideResNet, 40, 2),
}
