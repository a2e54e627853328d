"""How a decoded RGB image becomes a model's input: one definition for trainer, calibration, device.

The definition has two halves. *Geometry* (resize, crop) turns any decoded image into a uint8 image
of a fixed size; it runs on the host, in ``data/``, and its result is what a bundle ships.
*Normalisation* turns that uint8 image into float32; it is ``x * scale + bias`` with the float32
constants computed here, so that numpy on a device and torch in a trainer give the same bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Tuple

from edgexfer.core.errors import RecipeError

_STRICT = {"extra": "forbid"}
RESIZE_MODES = ("shortest", "squash")
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")


@dataclass(frozen=True)
class Preprocess:
    """Everything needed to feed a model correctly.

    Attributes:
        size: height and width of the model's input, in pixels.
        resize: length in pixels that the shorter side is scaled to before the centre crop of
            ``size`` (mode ``shortest``); ignored by ``squash``.
        mode: ``shortest`` keeps the aspect ratio and crops the centre; ``squash`` scales both sides
            to ``size`` at once.
        interpolation: the filter, with antialiasing, by its usual name.
        mean: mean of each channel, on the scale 0..1.
        std: standard deviation of each channel, on the scale 0..1.
        channels: order of the channels in the input tensor, ``RGB`` or ``BGR``.
    """

    __pydantic_config__ = _STRICT

    size: Tuple[int, int]
    resize: int
    mode: str = "shortest"
    interpolation: str = "bilinear"
    mean: Tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: Tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: str = "RGB"

    def __post_init__(self) -> None:
        """Refuse what no model can be fed with.

        Raises:
            RecipeError: naming the field and the values that it may take.
        """
        checks = (
            (min(self.size) >= 1, "size", "positive pixels"),
            (self.mode in RESIZE_MODES, "mode", " or ".join(RESIZE_MODES)),
            (
                self.mode == "squash" or self.resize >= max(self.size),
                "resize",
                "at least the larger side of size",
            ),
            (self.interpolation in INTERPOLATIONS, "interpolation", " or ".join(INTERPOLATIONS)),
            (min(self.std) > 0, "std", "positive numbers"),
            (self.channels in ("RGB", "BGR"), "channels", "RGB or BGR"),
        )
        for good, field, expected in checks:
            if not good:
                value = getattr(self, field)
                raise RecipeError(f"preprocess.{field} is {value!r}", f"use {expected}")

    def affine(self) -> Tuple[Tuple[float, ...], Tuple[float, ...]]:
        """Return per-channel ``scale`` and ``bias``, each already rounded to float32.

        ``float32(float32(x * scale) + bias)`` with x in 0..255 is the normalised value. Two
        separate float32 operations (no fused multiply-add) give the same bits in numpy and in
        torch.
        """
        scale = tuple(_float32(1.0 / (255.0 * s)) for s in self.std)
        bias = tuple(_float32(-m / s) for m, s in zip(self.mean, self.std))
        return scale, bias


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
