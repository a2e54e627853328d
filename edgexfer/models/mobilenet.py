"""MobileNetV2 at half width for 32x32 images.

Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2, as
Tian et al. 2020, "Contrastive Representation Distillation", cut it down to 32 pixels: strides of 16
in all instead of 32, ReLU instead of ReLU6, widths that are not rounded to eights, no dropout.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.models.cifarnet import CifarNet, initialise

# Of each stage: expansion, channels at full width, blocks, stride of the first.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Widen by a 1x1, work by a depthwise 3x3, narrow by a 1x1 convolution without a ReLU."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        """Build the block.

        Args:
            inside: channels that come in.
            outside: channels that go out.
            stride: of the depthwise convolution.
            expansion: its channels for each one that comes in.
        """
        super().__init__()
        middle = inside * expansion
        self.adds = stride == 1 and inside == outside
        self.conv1 = nn.Conv2d(inside, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outside, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outside)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inside, H, W) to (B, outside, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        narrow: Tensor = self.bn3(self.conv3(y))
        return x + narrow if self.adds else narrow


class MobileNetV2Half(CifarNet):
    """A stem, seven stages, a 1x1 convolution and a linear head."""

    def __init__(self, num_classes: int) -> None:
        """Build and initialise the network from torch's generator.

        Args:
            num_classes: outputs of the head.
        """
        super().__init__()
        self.num_features = 1280
        width = 16
        self.conv1 = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        reduction, reductions = 2, []
        for number, (expansion, channels, blocks, stride) in enumerate(_STAGES, start=1):
            stage = _stage(width, channels // 2, blocks, stride, expansion)
            self.add_module(f"layer{number}", stage)
            width, reduction = channels // 2, reduction * stride
            reductions.append(reduction)
        self.last = nn.Conv2d(width, self.num_features, 1, bias=False)
        self.norm = nn.BatchNorm2d(self.num_features)
        self.fc = nn.Linear(self.num_features, num_classes)
        self.describe([channels // 2 for _, channels, _, _ in _STAGES], reductions)
        initialise(self)
        nn.init.normal_(self.fc.weight, 0, 0.01)
        nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 1280, H / 16, W / 16)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        for number in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return F.relu(self.norm(self.last(x)), inplace=True)


def _stage(inside: int, outside: int, blocks: int, stride: int, expansion: int) -> nn.Sequential:
    first = InvertedResidual(inside, outside, stride, expansion)
    others = (InvertedResidual(outside, outside, 1, expansion) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


#: Name to what makes the network for a number of classes.
NETWORKS = {"mobilenetv2_half": MobileNetV2Half}
