"""What was done to an input is told from the input alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgexfer.bench.feed import normalise
from edgexfer.core.preprocess import Preprocess
from edgexfer.export.slips import explain_input

RGB = Preprocess(size=(6, 8), resize=8, mean=(0.3, 0.45, 0.6), std=(0.25, 0.3, 0.4))
BGR = replace(RGB, channels="BGR")
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), np.uint8)


def slip(fed: Any, preprocess: Preprocess) -> str:
    return explain_input(normalise(IMAGES, preprocess), fed, IMAGES, preprocess)


@pytest.mark.parametrize(("right", "wrong"), [(RGB, BGR), (BGR, RGB)])
def test_the_order_of_channels(right: Preprocess, wrong: Preprocess) -> None:
    order = f"channel order {wrong.channels} in place of {right.channels}"
    assert slip(normalise(IMAGES, wrong), right) == order
    turned = IMAGES[..., ::-1]
    assert slip(normalise(turned, right), right) == f"{order} before mean and std"


@pytest.mark.parametrize("right", [RGB, BGR])
def test_mean_and_std_are_told_as_what_they_were(right: Preprocess) -> None:
    other = replace(right, mean=(0.5, 0.4, 0.3))
    said = "mean (0.5, 0.4, 0.3) in place of (0.3, 0.45, 0.6)"
    assert slip(normalise(IMAGES, other), right) == said
    other = replace(right, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    said += ", std (0.2, 0.3, 0.4) in place of (0.25, 0.3, 0.4)"
    assert slip(normalise(IMAGES, other), right) == said


@pytest.mark.parametrize(
    ("factor", "said"), [(255.0, "0..255 in place of 0..1"), (1 / 255.0, "divided by 255 twice")]
)
def test_the_scale_of_pixels(factor: float, said: str) -> None:
    # Pixels times a factor are a mean and a std divided by it.
    divided: Any = {name: [v / factor for v in getattr(RGB, name)] for name in ("mean", "std")}
    fed = normalise(IMAGES, replace(RGB, **divided))
    assert slip(fed, RGB) == f"pixel scale: {said}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.transpose(0, 2, 3, 1), "layout NHWC in place of NCHW"),
        (
            lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(x.shape),
            "layout: NHWC values read as NCHW",
        ),
        (lambda x: x.transpose(0, 1, 3, 2), "rows and columns swapped"),
        (lambda x: x[..., ::-1], "mirrored left to right"),
        (lambda x: x[:, :, ::-1], "upside down"),
        (lambda x: x[..., 1:], "its shape is (3, 6, 7), the model takes (3, 6, 8)"),
        (lambda x: -x, "by none of the usual slips of preprocessing"),
        (np.square, "by none of the usual slips of preprocessing"),
        (np.zeros_like, "by none of the usual slips of preprocessing"),
    ],
)
def test_layout_and_what_is_unknown(change: Any, said: str) -> None:
    assert slip(change(normalise(IMAGES, RGB)), RGB) == said
