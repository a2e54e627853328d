"""SimCLR's views: what decides them, and what the colour jitter leaves alone."""

from __future__ import annotations

import numpy as np
import torch

from edgexfer.data.simclr import _turned, two_views


def test_a_view_is_a_function_of_seed_epoch_and_index() -> None:
    pixels = torch.rand(6, 3, 12, 10, generator=torch.Generator().manual_seed(0)) * 255
    index = torch.arange(6) + 3
    first, second = two_views(pixels, index, 1, 2, 1.0)
    some = torch.tensor([4, 1])
    for whole, part in zip(
        (first, second), two_views(pixels[some], index[some], 1, 2, 1.0), strict=True
    ):
        torch.testing.assert_close(part, whole[some], rtol=0, atol=1e-3)
    for others in (
        second,
        *two_views(pixels, index, 1, 3, 1.0),
        two_views(pixels, index, 0, 2, 1.0)[0],
    ):
        assert ((others - first).abs().mean((1, 2, 3)) > 1).all()
    assert first.shape == pixels.shape and first.min() >= 0 and first.max() <= 255


def test_colour_jitter_keeps_grey_grey_and_its_matrix_is_one_where_nothing_changes() -> None:
    np.testing.assert_allclose(_turned(np.zeros(1), np.ones(1))[0], np.eye(3), atol=1e-12)
    # A third of a turn about the axis of grey takes red to green, but for their luma.
    turned = _turned(np.full(1, 2 * np.pi / 3), np.ones(1))[0]
    np.testing.assert_allclose(turned @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    grey = torch.rand(8, 1, 9, 9).expand(8, 3, 9, 9) * 255
    found, _ = two_views(grey, torch.arange(8), 0, 0, 1.0)
    torch.testing.assert_close(found[:, 0], found[:, 1], rtol=0, atol=1e-3)
    torch.testing.assert_close(found[:, 0], found[:, 2], rtol=0, atol=1e-3)
