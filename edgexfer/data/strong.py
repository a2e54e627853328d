"""Strong views: batches that are distorted beyond what labels are trusted with.

RandAugment, then Cutout (DeVries and Taylor, "Improved Regularization of Convolutional Neural
Networks with Cutout", 2017), as FixMatch has it. They are made of the weak views that the feed
gives, in the training step.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgexfer.data.augment import COLUMNS, ROWS, STRONG
from edgexfer.data.counter import uniform
from edgexfer.data.randaugment import FILL, randaugment


def strong(pixels: Tensor, index: Tensor, seed: int, epoch: int) -> Tensor:
    """Return a strong view of each image, which seed, epoch and sample index alone decide.

    Args:
        pixels: float32, (B, 3, H, W), on 0..255.
        index: int64, (B,), on the CPU; the samples' indices.
        seed: of the training.
        epoch: from 0.

    Returns:
        Of the same shape, type and device; a square of half the side is gone, or what of it lies
        within the image.
    """
    chosen = index.numpy()
    words = (seed, epoch, STRONG)
    views = randaugment(pixels.round().clamp(0, 255).byte().cpu(), chosen, words)
    height, width = views.shape[-2:]
    half = min(height, width) // 4
    rows = torch.from_numpy(np.floor(uniform(chosen, *words, ROWS) * height))
    columns = torch.from_numpy(np.floor(uniform(chosen, *words, COLUMNS) * width))
    high = (torch.arange(height) - rows[:, None]).abs() < half
    wide = (torch.arange(width) - columns[:, None]).abs() < half
    gone = (high[:, :, None] & wide[:, None, :])[:, None]
    filled = torch.where(gone, torch.tensor(FILL).view(1, 3, 1, 1), views.float())
    return filled.to(pixels)
