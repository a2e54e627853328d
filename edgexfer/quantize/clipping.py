"""From what a tensor takes to the range that INT8 covers: min-max, percentile, entropy, MSE.

What is beyond a range is clipped; what is inside is the finer, the narrower the range. The methods
differ in what they call the best of both. Zero is always inside, so that padding stays exact.

ONNX Runtime's own entropy calibration has as many bins as steps (128 each), which leaves one
threshold to try, that of the full range: its files are those of min-max. Here bins are 2048.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from edgexfer.core.profile import Quantization
from edgexfer.quantize.observe import Extremes, Float, Histogram
from edgexfer.quantize.ranges import Range

Method = Literal[
    "min-max", "percentile-99.9", "percentile-99.99", "percentile-99.999", "mse", "entropy"
]
METHODS: tuple[Method, ...] = get_args(Method)
Float64 = npt.NDArray[np.float64]
# Shares of the full range that are tried; below a twentieth nothing useful is left of a tensor.
_SHARES = np.linspace(1.0, 0.05, 96)


def clip(histogram: Histogram, method: Method, scheme: Quantization) -> Extremes:
    """Return the range that a method gives to a tensor.

    Args:
        histogram: of the tensor.
        method: ``min-max``; ``percentile-P`` leaves out (100 - P)/2 % of the values on each side;
            ``mse`` takes the range of least squared error; ``entropy`` that of the least
            Kullback-Leibler divergence (Migacz, "8-bit Inference with TensorRT", GTC 2017).
        scheme: whether the range is symmetric, and how many steps it has.
    """
    ends = histogram.extremes
    if method == "min-max" or ends.high <= ends.low:
        return ends
    if method.startswith("percentile-"):
        return _percentile(histogram, float(method.removeprefix("percentile-")))
    candidates = [_narrowed(ends, share, scheme) for share in _SHARES]
    loss = _squared_error if method == "mse" else _divergence
    losses = [loss(histogram, candidate, scheme) for candidate in candidates]
    return candidates[int(np.argmin(losses))]


def clip_all(
    histograms: Mapping[str, Histogram], method: Method, scheme: Quantization
) -> dict[str, Extremes]:
    """Return the range of every tensor, by name; see ``clip``."""
    return {name: clip(histogram, method, scheme) for name, histogram in histograms.items()}


def within(seen: Mapping[str, Float], share: float) -> dict[str, Extremes]:
    """Return the range of each tensor that a share of the images stays within, at either end.

    A range that holds every image's extremes is as wide as the strangest of them, and coarse for
    all others.

    Args:
        seen: what each tensor takes on each image, as ``observe`` gives it.
        share: of the images, 0..1; 1 is min-max.
    """
    low = {name: float(np.quantile(ends[:, 0], 1.0 - share)) for name, ends in seen.items()}
    high = {name: float(np.quantile(ends[:, 1], share)) for name, ends in seen.items()}
    return {name: Extremes(min(low[name], 0.0), max(high[name], 0.0)) for name in seen}


def to_range(ends: Extremes, scheme: Quantization) -> Range:
    """Return the grid of a range; that of a tensor which is always 0 has step 1.

    Args:
        ends: what it covers.
        scheme: its activations, ``int8`` (symmetric) or ``uint8``.
    """
    if scheme.activations == "int8":
        reach = max(-ends.low, ends.high)
        step = np.float32(reach / 127)
        return Range(float(step) if step >= _tiny() else 1.0, 0)
    step = np.float32((ends.high - ends.low) / 255)
    if step < _tiny():
        return Range(1.0, 0)
    return Range(float(step), int(np.clip(np.round(-ends.low / step), 0, 255)))


def _tiny() -> np.float32:
    return np.float32(np.finfo(np.float32).tiny)


def _narrowed(ends: Extremes, share: float, scheme: Quantization) -> Extremes:
    if scheme.activations == "int8":
        reach = share * max(-ends.low, ends.high)
        return Extremes(max(ends.low, -reach), min(ends.high, reach))
    return Extremes(share * ends.low, share * ends.high)


def _percentile(histogram: Histogram, percent: float) -> Extremes:
    beyond = (100.0 - percent) / 200.0
    shares = np.cumsum(histogram.counts) / histogram.counts.sum()
    centres = histogram.centres()
    last = len(centres) - 1
    low = centres[min(int(np.searchsorted(shares, beyond, side="right")), last)]
    high = centres[min(int(np.searchsorted(shares, 1.0 - beyond)), last)]
    ends = histogram.extremes
    # A tensor that is zero almost everywhere would be left without a range.
    return Extremes(min(float(low), 0.0), max(float(high), 0.0)) if low < high else ends


def _squared_error(histogram: Histogram, ends: Extremes, scheme: Quantization) -> float:
    grid = to_range(ends, scheme)
    lowest, highest = (-127, 127) if scheme.activations == "int8" else (0, 255)
    values = histogram.centres()
    steps = np.clip(np.round(values / grid.scale) + grid.zero_point, lowest, highest)
    errors = values - (steps - grid.zero_point) * grid.scale
    return float(np.dot(histogram.counts, errors**2))


def _divergence(histogram: Histogram, ends: Extremes, scheme: Quantization) -> float:
    """Compare the values that a range leaves, clipped, with what its steps can tell apart."""
    values, counts = histogram.centres(), histogram.counts.astype(np.float64)
    if histogram.extremes.low == 0.0:
        # Zeros that a ReLU has made are exact on every grid; they would outweigh all else.
        counts[0] = counts[1]
    inside = (values >= ends.low) & (values <= ends.high)
    grid = to_range(ends, scheme)
    if inside.sum() < (ends.high - ends.low) / grid.scale:
        return float("inf")  # of fewer bins than steps nothing is lost, however narrow they are
    kept = counts[inside]
    steps = np.round(values[inside] / grid.scale).astype(np.int64)
    steps -= steps.min()
    told = np.bincount(steps, kept) / np.maximum(np.bincount(steps, kept > 0), 1)
    guess = np.where(kept > 0, told[steps], 0.0)
    clipped = kept.copy()
    clipped[0] += counts[values < ends.low].sum()
    clipped[-1] += counts[values > ends.high].sum()
    return _kullback_leibler(clipped, guess)


def _kullback_leibler(p: Float64, q: Float64) -> float:
    # A little of everything everywhere, for bins that only one of them has.
    p, q = (x / x.sum() + 1e-9 for x in (p, np.maximum(q, 0.0) + 1e-12))
    return float(np.sum(p * np.log(p / q)))
