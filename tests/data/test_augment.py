"""Random views and mixing: what they may do to an image, and what decides them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgexfer.core.preprocess import Preprocess
from edgexfer.data.augment import base_augment, crop_size, cropped, mix, shifted
from edgexfer.data.counter import uniform
from edgexfer.data.randaugment import OPERATIONS, STRENGTH, randaugment
from tests.data.conftest import picture

WORDS = (5, 2)


def coordinates(n: int, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return images whose pixels say where they were: channel 0 the row, channel 1 the column."""
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0] = np.arange(size)[:, None]
    image[..., 1] = np.arange(size)[None, :]
    return np.repeat(image[None], n, axis=0)


def test_none_changes_nothing() -> None:
    store = np.stack([picture(i) for i in range(4)])
    chosen = np.array([3, 1])
    assert (shifted(store, chosen, chosen, "none", WORDS) == store[[3, 1]]).all()


def test_shift_moves_a_little_and_repeats_the_edge() -> None:
    n = 400
    store, index = coordinates(n, 32), np.arange(n)
    views = shifted(store, index, index, "shift", WORDS).astype(int)
    rows, columns = views[:, 16, 16, 0] - 16, views[:, 16, 16, 1] - 16
    assert set(rows.tolist()) == set(columns.tolist()) == {-2, -1, 0, 1, 2}
    for view, row, column in zip(views, rows, columns, strict=True):
        expected = np.clip(np.arange(32) + row, 0, 31)
        assert (view[:, 0, 0] == expected).all()
        assert (view[0, :, 1] == np.clip(np.arange(32) + column, 0, 31)).all()


def test_flip_pads_by_reflection_and_mirrors_half() -> None:
    n = 1000
    store, index = coordinates(n, 32), np.arange(n)
    views = shifted(store, index, index, "flip", WORDS).astype(int)
    mirrored = views[:, 0, 15, 1] > views[:, 0, 16, 1]
    assert 430 < mirrored.sum() < 570
    rows = views[:, 16, 16, 0] - 16
    assert set(rows.tolist()) == set(range(-4, 5))
    for view, row in zip(views, rows, strict=True):
        expected = np.abs(np.arange(32) + row)
        assert (view[:, 0, 0] == 31 - np.abs(31 - expected)).all()


def test_moves_of_an_image_of_one_pixel() -> None:
    store, index = np.full((1, 1, 1, 3), 9, np.uint8), np.zeros(5, np.int64)
    for augment in ("shift", "flip"):
        assert (shifted(store, index, np.arange(5), augment, WORDS) == 9).all()


def test_crops_have_the_shares_and_ratios_of_the_paper() -> None:
    draw = (
        uniform(np.arange(20_000).reshape(2000, 10), 1),
        uniform(np.arange(20_000).reshape(2000, 10), 2),
    )
    sizes = np.array([crop_size(300, 300, a, r) for a, r in zip(*draw, strict=True)])
    share = sizes.prod(axis=1) / 90_000
    ratio = sizes[:, 1] / sizes[:, 0]
    assert 0.075 < share.min() < 0.1
    assert 0.9 < share.max() <= 1.0
    assert 0.74 < ratio.min() < 0.78
    assert 1.3 < ratio.max() < 1.35
    assert (sizes <= 300).all()
    assert abs(share.mean() - 0.5) < 0.05


def test_where_no_crop_fits_the_whole_is_cut_to_the_nearest_ratio() -> None:
    assert crop_size(10, 1000, np.ones(10), np.zeros(10)) == (10, 13)
    assert crop_size(1000, 10, np.ones(10), np.zeros(10)) == (13, 10)
    assert crop_size(1, 1, np.zeros(10), np.zeros(10)) == (1, 1)


def test_cropped_views_are_parts_of_their_image() -> None:
    image = coordinates(1, 200)[0]
    index = np.arange(64)
    views = cropped(lambda _: image, np.zeros(64, np.int64), index, (32, 32), WORDS)
    assert views.shape == (64, 3, 32, 32)
    across = views[:, 1, 16, :].int()
    mirrored = across[:, 0] > across[:, -1]
    assert 16 < mirrored.sum() < 48
    down = views[:, 0, :, 16].int()
    assert (down[:, 0] < down[:, -1]).all()
    assert len({tuple(v) for v in down.tolist()}) > 32


def test_randaugment_stands_on_what_fits_the_size() -> None:
    assert base_augment("randaugment", Preprocess((32, 32), 32)) == "flip"
    assert base_augment("randaugment", Preprocess((224, 224), 256)) == "crop"
    assert base_augment("shift", Preprocess((224, 224), 256)) == "shift"


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [1, -1])
def test_each_operation_keeps_kind_and_shape(name: str, sign: int) -> None:
    batch = torch.from_numpy(np.stack([picture(i) for i in range(3)])).permute(0, 3, 1, 2)
    result = OPERATIONS[name](batch, sign * STRENGTH)
    assert result.shape == batch.shape
    assert result.dtype == torch.uint8
    if name == "identity":
        assert torch.equal(result, batch)
    elif name != "posterize":
        assert not torch.equal(result, batch)
    for one in range(3):
        alone = OPERATIONS[name](batch[one : one + 1], sign * STRENGTH)
        assert torch.equal(alone[0], result[one])


def test_there_are_the_fourteen_operations_of_the_paper() -> None:
    assert len(OPERATIONS) == 14


def test_randaugment_leaves_the_global_generator_alone() -> None:
    batch = torch.from_numpy(np.stack([picture(i) for i in range(8)])).permute(0, 3, 1, 2)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    before = batch.clone()
    views = randaugment(batch, np.arange(8), WORDS)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(batch, before)
    assert not torch.equal(views, batch)
    assert torch.equal(views, randaugment(batch, np.arange(8), WORDS))


def mixed(mixup: float, cutmix: float, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.arange(4.0)[:, None, None, None].expand(4, 3, 20, 20) * 10
    return mix(pixels, torch.eye(4), mixup=mixup, cutmix=cutmix, seed=1, epoch=0, step=step)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixed_targets_say_what_the_pixels_hold(mixup: float, cutmix: float) -> None:
    kinds = set()
    for step in range(40):
        pixels, targets = mixed(mixup, cutmix, step)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        kinds.add("blend" if pixels[1].min() == pixels[1].max() else "paste")
        # Image 1 holds 10 where it is its own, and image 0, which is black, elsewhere.
        assert pixels[1].mean() == pytest.approx(10 * float(targets[1, 1]), abs=1e-4)
    # A box that covers nothing or all looks like a blend.
    assert ("paste" in kinds) == (cutmix > 0)
    assert "blend" in kinds or not mixup


def test_mixing_is_decided_by_seed_epoch_and_step() -> None:
    assert torch.equal(mixed(0.4, 1.0, 7)[0], mixed(0.4, 1.0, 7)[0])
    assert not torch.equal(mixed(0.4, 0.0, 7)[0], mixed(0.4, 0.0, 8)[0])


def test_no_mixing_is_no_copy() -> None:
    pixels, targets = torch.rand(2, 3, 4, 4), torch.eye(2)
    result = mix(pixels, targets, mixup=0, cutmix=0, seed=0, epoch=0, step=0)
    assert result[0] is pixels
    assert result[1] is targets
