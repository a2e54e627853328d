"""PixelModel: a model that is fed with pixels and brings its own resolution and normalisation.

Student, teacher and evaluation all run through it, so that none can be fed with another's
normalisation. The numpy twin for devices is ``bench/feed.py``; it gives the same bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.core.preprocess import Preprocess

# Filters of ``Preprocess`` by torch's name; torch has no Lanczos, bicubic is its nearest.
_FILTERS = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "bicubic"}


class PixelModel(nn.Module):
    """Takes RGB pixels on 0..255 at any size, gives the model's logits."""

    scale: Tensor
    bias: Tensor

    def __init__(self, model: nn.Module, preprocess: Preprocess) -> None:
        """Wrap a model; its parameters stay its own.

        Args:
            model: takes normalised images (B, 3, H, W) of ``preprocess.size``.
            preprocess: of that model.
        """
        super().__init__()
        self.model = model
        self.preprocess = preprocess
        scale, bias = (torch.tensor(v, dtype=torch.float32) for v in preprocess.affine())
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("bias", bias.view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W), uint8 or float32 RGB on 0..255, to logits (B, C)."""
        logits: Tensor = self.model(self.normalise(pixels))
        return logits

    def normalise(self, pixels: Tensor) -> Tensor:
        """Map pixels at any size to what the model takes.

        Scaling and bias are two float32 operations, never fused, as in ``Preprocess.affine``.
        """
        x = pixels.float()
        if tuple(x.shape[-2:]) != tuple(self.preprocess.size):
            x = self._resize(x)
        x = x * self.scale + self.bias
        return x.flip(1) if self.preprocess.channels == "BGR" else x

    def _resize(self, x: Tensor) -> Tensor:
        size = self.preprocess.size
        if self.preprocess.interpolation == "nearest":
            return F.interpolate(x, size, mode="nearest-exact")
        mode = _FILTERS[self.preprocess.interpolation]
        resized = F.interpolate(x, size, mode=mode, align_corners=False, antialias=True)
        # Bicubic overshoots at edges; pixels end at 0 and 255.
        return resized.clamp(0, 255) if mode == "bicubic" else resized
