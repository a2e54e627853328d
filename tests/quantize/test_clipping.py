"""Each method gives the range that its name says, and every grid is one that INT8 can have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgexfer.core.profile import Quantization
from edgexfer.quantize.clipping import METHODS, Method, clip, clip_all, to_range, within
from edgexfer.quantize.observe import BINS, Extremes, Histogram

S8, U8 = Quantization(activations="int8"), Quantization(activations="uint8")
Values = npt.NDArray[np.float64]


def count(values: Values) -> Histogram:
    ends = Extremes(min(float(values.min()), 0.0), max(float(values.max()), 0.0))
    counts, _ = np.histogram(values, BINS, (ends.low, ends.high))
    return Histogram(counts.astype(np.int64), ends)


def with_outliers() -> Values:
    """A bell of width 1, and two values in a hundred thousand at forty times that."""
    values = np.random.default_rng(0).normal(size=100_000)
    values[:2] = 40.0, -40.0
    return values


def error(values: Values, ends: Extremes, scheme: Quantization) -> float:
    grid = to_range(ends, scheme)
    low, high = (-127, 127) if scheme.activations == "int8" else (0, 255)
    steps = np.clip(np.round(values / grid.scale) + grid.zero_point, low, high)
    return float(np.mean((values - (steps - grid.zero_point) * grid.scale) ** 2))


def test_min_max_holds_everything() -> None:
    assert clip(count(with_outliers()), "min-max", S8) == Extremes(-40.0, 40.0)


@pytest.mark.parametrize("scheme", [S8, U8], ids=["int8", "uint8"])
@pytest.mark.parametrize("rectified", [False, True])
def test_the_other_methods_leave_outliers_out(scheme: Quantization, rectified: bool) -> None:
    values = with_outliers()
    values = np.maximum(values, 0.0) if rectified else values
    histogram = count(values)
    full = error(values, histogram.extremes, scheme)
    losses = {}
    for method in METHODS:
        ends = clip(histogram, method, scheme)
        assert ends.low <= 0.0 <= ends.high
        assert histogram.extremes.low <= ends.low
        assert ends.high <= histogram.extremes.high
        losses[method] = error(values, ends, scheme)
        if method in ("percentile-99.9", "percentile-99.99", "entropy"):
            assert ends.high < 20.0, method
    assert losses["min-max"] == full
    assert losses["mse"] < full
    # Of all ranges that the methods find, to the width of a bin.
    assert losses["mse"] <= 1.05 * min(losses.values())


@pytest.mark.parametrize("percent", [99.9, 99.99])
def test_a_percentile_leaves_out_its_share_on_each_side(percent: float) -> None:
    values = np.random.default_rng(0).normal(size=1_000_000)
    method: Method = "percentile-99.9" if percent == 99.9 else "percentile-99.99"
    ends = clip(count(values), method, S8)
    half = (100 - percent) / 200
    assert np.mean(values > ends.high) == pytest.approx(half, rel=0.3)
    assert np.mean(values < ends.low) == pytest.approx(half, rel=0.3)


def test_entropy_is_not_min_max_in_disguise() -> None:
    """With as many bins as steps there is one threshold to try, and it clips nothing."""
    histogram = count(with_outliers())
    assert clip(histogram, "entropy", S8).high < 0.5 * histogram.extremes.high


@pytest.mark.parametrize("scheme", [S8, U8], ids=["int8", "uint8"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 2.5, -2.5, 1e-42])
def test_a_constant_tensor_has_a_grid_that_holds_it(
    method: Method, scheme: Quantization, value: float
) -> None:
    histogram = count(np.full(1000, value))
    grid = to_range(clip_all({"t": histogram}, method, scheme)["t"], scheme)
    assert grid.scale > 0
    assert np.float32(grid.scale) == grid.scale
    step = np.round(value / grid.scale) + grid.zero_point
    assert abs((step - grid.zero_point) * grid.scale - value) <= grid.scale / 2 + 1e-30
    assert 0 <= grid.zero_point <= 255


def test_ranges_become_grids() -> None:
    assert to_range(Extremes(-1.0, 2.54), S8).scale == pytest.approx(0.02)
    assert to_range(Extremes(-1.0, 2.54), S8).zero_point == 0
    asymmetric = to_range(Extremes(-1.0, 4.1), U8)
    assert asymmetric.scale == pytest.approx(0.02)
    assert asymmetric.zero_point == 50
    assert to_range(Extremes(0.0, 0.0), U8).scale == 1.0


def test_one_strange_image_in_twenty_is_left_out_of_a_range() -> None:
    ends = np.array([[-1.0, 2.0]] * 19 + [[-50.0, 80.0]], np.float32)
    assert within({"x": ends}, 1.0)["x"] == Extremes(-50.0, 80.0)
    most = within({"x": ends}, 0.9)["x"]
    assert (most.low, most.high) == (-1.0, 2.0)


def test_zero_is_in_a_range_of_images_too() -> None:
    ends = np.array([[3.0, 5.0], [4.0, 6.0]], np.float32)
    assert within({"x": ends}, 1.0)["x"] == Extremes(0.0, 6.0)
