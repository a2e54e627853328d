"""A model's answers on images, in float32 and eval mode, and how many of them are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgexfer.bench.tasks import right
from edgexfer.core.preprocess import Preprocess
from edgexfer.data.images import Images
from edgexfer.models.normalise import PixelModel
from edgexfer.training.distributed import world

# A batch holds about as many pixels as this, and at most so many images.
_BATCH_PIXELS, _BATCH_IMAGES = 4 << 20, 256


def predict_logits(
    model: nn.Module, preprocess: Preprocess, images: Images, device: torch.device | None = None
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the model's outputs for all images, in the order of the data set.

    Args:
        model: takes normalised images; moved to the device, its mode is left as it was.
        preprocess: how the model is fed.
        images: of the model's geometry.
        device: where to compute; this process's own where ``None``.

    Returns:
        Float32, (N, C).
    """
    place = device or world().device
    pixel_model = PixelModel(model, preprocess).to(place).to(memory_format=torch.channels_last)
    with evaluating(pixel_model):
        parts = [
            _logits(pixel_model, images, b, place) for b in _batches(range(len(images)), images)
        ]
    return torch.cat(parts).cpu().numpy()


def top1_pct(logits: np.ndarray[Any, np.dtype[np.float32]], labels: Tensor) -> float:
    """Return the share of images whose largest output is the right class, in percent."""
    correct = int((torch.from_numpy(logits).argmax(1) == labels).sum())
    return 100 * correct / max(len(labels), 1)


def count_right(model: PixelModel, images: Images, indices: Sequence[int]) -> int:
    """Return for how many of the images of these indices the largest output is the right class.

    Of several tasks the answer to each that the image has a label of must be right.

    Args:
        model: on this process's device; its mode is left as it was.
        images: of the model's geometry.
        indices: which images to look at.
    """
    device = next(model.parameters()).device
    count = 0
    with evaluating(model):
        for batch in _batches(indices, images):
            logits = _logits(model, images, batch, device).cpu().numpy()
            labels = images.labels[torch.as_tensor(batch)].numpy()
            count += int(right(logits, labels, images.tasks).sum())
    return count


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in eval mode without gradients, then give each module its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _logits(
    model: PixelModel, images: Images, indices: Sequence[int], device: torch.device
) -> Tensor:
    pixels = images.pixels(torch.as_tensor(indices)).to(device)
    pixels = pixels.float().contiguous(memory_format=torch.channels_last)
    logits: Tensor = model(pixels)
    return logits.float()


def _batches(indices: Sequence[int], images: Images) -> Iterator[list[int]]:
    if not indices:
        return
    height, width = images.pixels(torch.tensor([indices[0]])).shape[-2:]
    size = max(1, min(_BATCH_IMAGES, _BATCH_PIXELS // (height * width)))
    for start in range(0, len(indices), size):
        yield list(indices[start : start + size])
