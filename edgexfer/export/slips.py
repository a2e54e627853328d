"""What was done to an input: the usual slips of preprocessing, tried one after the other.

Each slip is planted into the right input, and the one that comes to the wrong input is named. How
a layer that differs is found lives in ``localise.py``; geometry is checked in ``geometry.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgexfer.bench.compare import ratio_db
from edgexfer.core.preprocess import Preprocess

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

# Rounding of a slip that was made in FP32, or in half precision.
_ENOUGH_DB = 60.0
# How near a fitted mean or std must come to the model's own to be the same.
_NEAR = 1e-3


def explain_input(wanted: Float32, fed: Float32, images: UInt8, preprocess: Preprocess) -> str:
    """Say which slip turns the input that the model takes into the one that was fed.

    Args:
        wanted: float32, (N, 3, H, W), as the model's trainer makes it.
        fed: what was fed, of any shape.
        images: both were made from, uint8, (N, H, W, 3).
        preprocess: of the model.

    Returns:
        A phrase that names the slip, or says that it is none of the usual.
    """
    for slip, guess in _slips(wanted, images, preprocess):
        if guess.shape == fed.shape and ratio_db(guess, fed) >= _ENOUGH_DB:
            return slip
    if fed.shape != wanted.shape:
        return f"its shape is {fed.shape[1:]}, the model takes {wanted.shape[1:]}"
    return _affine(wanted, fed, preprocess) or "by none of the usual slips of preprocessing"


def _slips(wanted: Float32, images: UInt8, preprocess: Preprocess) -> Iterator[tuple[str, Float32]]:
    """Yield each slip that is no scale or offset, with the input that it would make."""
    other = "RGB" if preprocess.channels == "BGR" else "BGR"
    order = f"channel order {other} in place of {preprocess.channels}"
    yield order, wanted[:, ::-1]
    scale, bias = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in preprocess.affine())
    swapped = images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) * scale + bias
    yield f"{order} before mean and std", swapped if other == "BGR" else swapped[:, ::-1]
    rows = wanted.transpose(0, 2, 3, 1)
    yield "layout NHWC in place of NCHW", rows
    yield "layout: NHWC values read as NCHW", rows.reshape(wanted.shape)
    yield "rows and columns swapped", wanted.transpose(0, 1, 3, 2)
    yield "mirrored left to right", wanted[..., ::-1]
    yield "upside down", wanted[:, :, ::-1]


def _affine(wanted: Float32, fed: Float32, preprocess: Preprocess) -> str | None:
    """Name another pixel scale, mean or std, where one explains every channel."""
    order = (2, 1, 0) if preprocess.channels == "BGR" else (0, 1, 2)
    means, stds = [0.0] * 3, [0.0] * 3
    guess = np.empty_like(wanted)
    for place, channel in enumerate(order):
        slope, offset = _line(wanted[:, place], fed[:, place])
        if slope <= 0:
            return None
        guess[:, place] = slope * wanted[:, place] + offset
        stds[channel] = preprocess.std[channel] / slope
        means[channel] = preprocess.mean[channel] - offset * stds[channel]
    if ratio_db(guess, fed) < _ENOUGH_DB:
        return None
    # Pixels times a factor are a mean and a std divided by it.
    for factor, text in ((255.0, "0..255 in place of 0..1"), (1 / 255.0, "divided by 255 twice")):
        if _near([s / factor for s in preprocess.std], stds):
            return f"pixel scale: {text}"
    other_mean = not _near(preprocess.mean, means)
    other_std = not _near(preprocess.std, stds)
    parts = [f"mean {_shown(means)} in place of {_shown(preprocess.mean)}"] * other_mean
    parts += [f"std {_shown(stds)} in place of {_shown(preprocess.std)}"] * other_std
    return ", ".join(parts) or None


def _line(x: Float32, y: Float32) -> tuple[float, float]:
    """Return slope and offset of the line through points; a slope of 0 where x does not vary."""
    x64, y64 = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
    spread = float(np.square(x64 - x64.mean()).sum())
    if spread == 0.0:
        return 0.0, float(y64.mean())
    slope = float(((x64 - x64.mean()) * (y64 - y64.mean())).sum()) / spread
    return slope, float(y64.mean() - slope * x64.mean())


def _near(wanted: Sequence[float], found: Sequence[float]) -> bool:
    return bool(np.allclose(wanted, found, rtol=_NEAR, atol=_NEAR * min(wanted)))


def _shown(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"
