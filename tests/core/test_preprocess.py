from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgexfer.core.errors import RecipeError
from edgexfer.core.preprocess import Preprocess

SHARES = st.tuples(*[st.floats(0.01, 1.0)] * 3)


@given(SHARES, SHARES)
def test_affine_normalises_and_is_float32_already(mean: Any, std: Any) -> None:
    scale, bias = Preprocess((8, 8), 8, mean=mean, std=std).affine()
    assert [float(np.float32(v)) for v in (*scale, *bias)] == [*scale, *bias]
    x = np.arange(256, dtype=np.float32)
    for channel in range(3):
        ours = x * np.float32(scale[channel]) + np.float32(bias[channel])
        exact = (np.arange(256) / 255 - mean[channel]) / std[channel]
        assert np.abs(ours - exact).max() < 1e-4 * max(1, np.abs(exact).max())


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        ({"size": (0, 8)}, "preprocess.size is (0, 8)", "use positive pixels"),
        ({"mode": "crop"}, "preprocess.mode is 'crop'", "use shortest or squash"),
        ({"resize": 7}, "preprocess.resize is 7", "use at least the larger side of size"),
        (
            {"interpolation": "box"},
            "preprocess.interpolation is 'box'",
            "use bilinear or bicubic or lanczos or nearest",
        ),
        ({"std": (0.0, 1.0, 1.0)}, "preprocess.std is (0.0, 1.0, 1.0)", "use positive numbers"),
        ({"channels": "GBR"}, "preprocess.channels is 'GBR'", "use RGB or BGR"),
    ],
)
def test_what_no_model_can_be_fed_with_is_refused(
    change: dict[str, Any], what: str, fix: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        Preprocess(**{"size": (8, 8), "resize": 8, **change})
    assert (caught.value.what, caught.value.fix) == (what, fix)


def test_squash_takes_no_notice_of_resize() -> None:
    assert Preprocess((8, 8), 1, mode="squash").size == (8, 8)
