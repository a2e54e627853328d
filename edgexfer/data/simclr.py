"""Two views of each image that only have in common what it shows, as SimCLR compares them.

Made on tensors, a whole batch at once, from the images that the feed gives; seed, epoch and sample
index alone decide a view. The recipe is that of Chen et al., "A Simple Framework for Contrastive
Learning of Visual Representations", 2020, appendix A: random resized crop, mirror, colour jitter,
grey. Brightness, saturation and hue are one matrix per image, with hue as a rotation about the
axis of grey. There is no blur, which the paper leaves out for small images as well.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgexfer.data.counter import F64, uniform

# Streams of their own: those of ``augment`` are counted from 1.
_VIEWS = (101, 102)
# What each number is drawn for.
_AREA, _RATIO, _ROW, _COLUMN, _MIRROR, _JITTER, _BRIGHT, _CONTRAST, _COLOUR, _HUE, _GREY = range(11)
_LEAST_AREA = 0.08
_LOG_RATIO = float(np.log(4 / 3))
# Colour jitter of strength 1: brightness, contrast and saturation by up to 0.8, hue by 0.2 turns.
_STRENGTH, _TURN = 0.8, 0.2
_JITTERED, _GREYED = 0.8, 0.2
# What each channel counts for in grey (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


def two_views(
    pixels: Tensor, index: Tensor, seed: int, epoch: int, strength: float
) -> tuple[Tensor, Tensor]:
    """Return two views of each image of a batch.

    Args:
        pixels: float32, (B, 3, H, W), on 0..255.
        index: int64, (B,), on the CPU; the samples' indices.
        seed: of the training.
        epoch: from 0.
        strength: of the colour jitter; the paper has 1 for ImageNet and 0.5 for CIFAR-10.

    Returns:
        Both float32, (B, 3, H, W), on 0..255.
    """
    first, second = (_view(pixels, index, (seed, epoch, name), strength) for name in _VIEWS)
    return first, second


def _view(pixels: Tensor, index: Tensor, words: tuple[int, int, int], strength: float) -> Tensor:
    draw = _Draw(index, words)
    cropped = F.grid_sample(
        pixels,
        F.affine_grid(_crop(draw).to(pixels), list(pixels.shape), align_corners=False),
        padding_mode="reflection",
        align_corners=False,
    )
    return _recolour(cropped, draw, strength)


class _Draw:
    """Uniform numbers for each image of a batch, by what they are for."""

    def __init__(self, index: Tensor, words: tuple[int, int, int]) -> None:
        self._index, self._words = index.numpy(), words

    def __call__(self, use: int, low: float = 0.0, high: float = 1.0) -> F64:
        return low + (high - low) * uniform(self._index, *self._words, use)


def _crop(draw: _Draw) -> Tensor:
    """Return for each image the map (2, 3) from the view's coordinates, -1..1, to its own."""
    area = draw(_AREA, _LEAST_AREA)
    aspect = np.exp(draw(_RATIO, -_LOG_RATIO, _LOG_RATIO))
    # Shares of the sides; a crop that is longer than the image ends with it.
    width, height = np.minimum(np.sqrt(area * aspect), 1), np.minimum(np.sqrt(area / aspect), 1)
    sign = np.where(draw(_MIRROR) < 0.5, -1.0, 1.0)
    zero = np.zeros_like(area)
    x = (1 - width) * draw(_COLUMN, -1, 1)
    y = (1 - height) * draw(_ROW, -1, 1)
    rows = [[sign * width, zero, x], [zero, height, y]]
    return torch.from_numpy(np.stack([np.stack(row, 1) for row in rows], 1))


def _recolour(pixels: Tensor, draw: _Draw, strength: float) -> Tensor:
    # Images that are not jittered keep factors of 1 and an angle of 0.
    kept = draw(_JITTER) >= _JITTERED
    span = min(_STRENGTH * strength, 1.0)
    bright, contrast, colour = (
        np.where(kept, 1.0, draw(use, 1 - span, 1 + span)) for use in (_BRIGHT, _CONTRAST, _COLOUR)
    )
    angle = np.where(kept, 0.0, 2 * np.pi * draw(_HUE, -_TURN * strength, _TURN * strength))
    colour = np.where(draw(_GREY) < _GREYED, 0.0, colour)
    matrix = torch.from_numpy(bright[:, None, None] * _turned(angle, colour)).to(pixels)
    mixed = torch.einsum("bij,bjhw->bihw", matrix, pixels)
    mean = torch.einsum("j,bjhw->b", torch.tensor(_LUMA).to(pixels), mixed)
    mean = (mean / mixed[0, 0].numel()).view(-1, 1, 1, 1)
    factor = torch.from_numpy(contrast).to(pixels).view(-1, 1, 1, 1)
    return torch.lerp(mean.expand_as(mixed), mixed, factor).clamp(0, 255)


def _turned(angle: F64, colour: F64) -> F64:
    """Return matrices (B, 3, 3) that turn the hue and scale the distance from grey, grey kept."""
    grey = np.tile(_LUMA, (3, 1))
    axis = np.ones(3) / np.sqrt(3)
    cross = np.cross(np.eye(3), axis)
    # Rodrigues' rotation about the axis of grey, of what is left when the luma is taken away.
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    along = np.outer(axis, axis)
    turn = cosine * np.eye(3) + sine * cross + (1 - cosine) * along
    turned: F64 = grey + colour[:, None, None] * (turn @ (np.eye(3) - grey))
    return turned
