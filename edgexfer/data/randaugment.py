"""RandAugment on batches: two random operations per image, made by torchvision's v2 functions.

Operations and signs are drawn per image from the counter-based hash, and images that got the same
one are transformed together. No global random state is touched, so a view does not depend on the
batch that it came in.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from edgexfer.data.augment import RANDAUGMENT
from edgexfer.data.counter import uniform

Operation = Callable[[torch.Tensor, float], torch.Tensor]

LAYERS = 2
# Magnitude 9 of 30, the default of the paper's ImageNet setting.
STRENGTH = 9 / 30
# Pixels that a geometric operation brings in from outside: the mean colour of ImageNet.
FILL = [124.0, 116.0, 104.0]


def randaugment(
    batch: torch.Tensor, index: npt.NDArray[np.int64], words: tuple[int, ...]
) -> torch.Tensor:
    """Apply RandAugment (Cubuk et al. 2020, N=2, M=9 of 30) to a batch.

    Args:
        batch: uint8, (B, 3, H, W).
        index: int64, (B,), the samples' indices, which decide the views.
        words: what the views are drawn from, such as view seed and view epoch.

    Returns:
        uint8, of the same shape and order.
    """
    names = tuple(OPERATIONS)
    for layer in range(LAYERS):
        draw = uniform(index, *words, RANDAUGMENT, layer) * len(names)
        operation = draw.astype(np.int64)
        # What is left of the draw below the operation is uniform again; it decides the sign.
        signed = np.where(draw - operation < 0.5, 1.0, -1.0)
        result = batch.clone()
        for chosen in np.unique(operation):
            for sign in (1.0, -1.0):
                group = torch.from_numpy(np.flatnonzero((operation == chosen) & (signed == sign)))
                if len(group):
                    result[group] = OPERATIONS[names[int(chosen)]](batch[group], sign * STRENGTH)
        batch = result
    return batch


def _affine(
    images: torch.Tensor, *, x: float = 0.0, y: float = 0.0, shear: list[float]
) -> torch.Tensor:
    height, width = images.shape[-2:]
    moved: torch.Tensor = V.affine(
        images,
        angle=0.0,
        translate=[x * width, y * height],
        scale=1.0,
        shear=shear,
        interpolation=InterpolationMode.BILINEAR,
        fill=FILL,
        center=[0.0, 0.0] if any(shear) else None,
    )
    return moved


def _shear(strength: float) -> float:
    return float(np.degrees(np.arctan(0.3 * strength)))


def _rotate(images: torch.Tensor, strength: float) -> torch.Tensor:
    bilinear = InterpolationMode.BILINEAR
    turned: torch.Tensor = V.rotate(images, 30 * strength, interpolation=bilinear, fill=FILL)
    return turned


# Each takes images and a signed strength in -1..1; the ranges are those of the paper's table 6.
OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, _: images,
    "shear_x": lambda images, s: _affine(images, shear=[_shear(s), 0.0]),
    "shear_y": lambda images, s: _affine(images, shear=[0.0, _shear(s)]),
    "translate_x": lambda images, s: _affine(images, x=0.45 * s, shear=[0.0, 0.0]),
    "translate_y": lambda images, s: _affine(images, y=0.45 * s, shear=[0.0, 0.0]),
    "rotate": _rotate,
    "brightness": lambda images, s: V.adjust_brightness(images, 1 + 0.9 * s),
    "colour": lambda images, s: V.adjust_saturation(images, 1 + 0.9 * s),
    "contrast": lambda images, s: V.adjust_contrast(images, 1 + 0.9 * s),
    "sharpness": lambda images, s: V.adjust_sharpness(images, 1 + 0.9 * s),
    "posterize": lambda images, s: V.posterize(images, 8 - round(4 * abs(s))),
    "solarize": lambda images, s: V.solarize(images, 255 * (1 - abs(s))),
    "autocontrast": lambda images, _: V.autocontrast(images),
    "equalize": lambda images, _: V.equalize(images),
}
