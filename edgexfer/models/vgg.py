"""VGG networks for 32x32 images, with batch norm and a single linear layer as their head.

Source: Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", table 1, column B (``vgg13_cifar``), as Tian et al. 2020, "Contrastive Representation
Distillation", cut it down to 32 pixels; their ``vgg8`` has one convolution per stage.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.models.cifarnet import CifarNet, initialise

_WIDTHS = (64, 128, 256, 512, 512)


class ConvUnit(nn.Module):
    """A 3x3 convolution, batch norm and ReLU."""

    def __init__(self, inside: int, outside: int) -> None:
        """Build the unit.

        Args:
            inside: channels that come in.
            outside: channels that go out.
        """
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, 3, 1, 1)
        self.norm = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, outside, H, W)."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Vgg(CifarNet):
    """Five stages and a linear head; the first three are followed by 2x2 max pooling."""

    def __init__(self, depth: tuple[int, int, int, int, int], num_classes: int) -> None:
        """Build and initialise the network from torch's generator.

        Args:
            depth: convolutions of each stage.
            num_classes: outputs of the head.
        """
        super().__init__()
        self.num_features = _WIDTHS[4]
        self.layer1 = _stage(3, _WIDTHS[0], depth[0])
        self.layer2 = _stage(_WIDTHS[0], _WIDTHS[1], depth[1])
        self.layer3 = _stage(_WIDTHS[1], _WIDTHS[2], depth[2])
        self.layer4 = _stage(_WIDTHS[2], _WIDTHS[3], depth[3])
        self.layer5 = _stage(_WIDTHS[3], _WIDTHS[4], depth[4])
        self.fc = nn.Linear(_WIDTHS[4], num_classes)
        self.describe(_WIDTHS, (1, 2, 4, 8, 8))
        initialise(self)
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to the last stage's features (B, 512, H / 8, W / 8)."""
        for stage in (self.layer1, self.layer2, self.layer3):
            x = F.max_pool2d(stage(x), 2)
        features: Tensor = self.layer5(self.layer4(x))
        return features


def _stage(inside: int, outside: int, depth: int) -> nn.Sequential:
    first = ConvUnit(inside, outside)
    return nn.Sequential(first, *(ConvUnit(outside, outside) for _ in range(depth - 1)))


#: Name to what makes the network for a number of classes. timm's ``vgg13`` is ImageNet's.
NETWORKS = {
    "vgg8": partial(Vgg, (1, 1, 1, 1, 1)),
    "vgg13_cifar": partial(Vgg, (2, 2, 2, 2, 2)),
}
