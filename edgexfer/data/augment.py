"""Random views of training images, each decided by (view seed, view epoch, sample index) alone.

Views are made from uint8 images, before normalisation. RandAugment lives in ``randaugment``; mixing
of whole images (``mix``) works on the float batch in the training step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from edgexfer.core.preprocess import Preprocess
from edgexfer.data.counter import uniform
from edgexfer.data.decode import UInt8

AUGMENTS = ("none", "shift", "flip", "crop", "randaugment")
Int64 = npt.NDArray[np.int64]

# What a number is drawn for; each use has its own stream, so that none repeats another.
(
    ORDER,
    ROWS,
    COLUMNS,
    MIRROR,
    AREA,
    RATIO,
    MIX,
    RANDAUGMENT,
    ORDER_UNLABELLED,
    STRONG,
) = range(1, 11)
# Random resized crop as in Szegedy et al. 2015 (Going Deeper with Convolutions), section 6.
_AREA = (0.08, 1.0)
_LOG_RATIO = float(np.log(4 / 3))
_TRIES = 10
# From this size on, RandAugment follows a random resized crop; below, a padded crop.
_LARGE = 96


def base_augment(augment: str, preprocess: Preprocess) -> str:
    """Return the geometric part; ``randaugment`` stands on ``crop``, or on ``flip`` if small."""
    if augment != "randaugment":
        return augment
    return "crop" if min(preprocess.size) >= _LARGE else "flip"


def shifted(
    pixels: UInt8, chosen: Int64, index: Int64, augment: str, words: tuple[int, int]
) -> UInt8:
    """Gather images from a store of equal sizes, each moved and mirrored at random.

    ``shift`` moves by up to a sixteenth of the size and repeats the edge; ``flip`` moves by up to
    an eighth (4 of 32 pixels), reflects at the edge, and mirrors half of the images; ``none`` does
    neither.

    Args:
        pixels: the store, uint8, (N, H, W, 3).
        chosen: int64, (B,), which of its images.
        index: int64, (B,), the samples' indices, which decide the views.
        augment: ``none``, ``shift`` or ``flip``.
        words: view seed and view epoch.

    Returns:
        uint8, (B, H, W, 3).
    """
    if augment == "none":
        return pixels.take(chosen, axis=0)
    height, width = pixels.shape[1:3]
    if augment == "shift":
        rows = np.clip(_moved(height, height // 16, index, (*words, ROWS)), 0, height - 1)
        columns = np.clip(_moved(width, width // 16, index, (*words, COLUMNS)), 0, width - 1)
    else:
        rows = _reflected(_moved(height, height // 8, index, (*words, ROWS)), height)
        columns = _reflected(_moved(width, width // 8, index, (*words, COLUMNS)), width)
        mirrored = _mirrored(index, words)
        columns[mirrored] = columns[mirrored, ::-1]
    # One gather of 3-byte pixels does crop, padding and mirror at once.
    places = ((chosen[:, None] * height + rows) * width)[:, :, None] + columns[:, None, :]
    views: UInt8 = pixels.reshape(-1, 3).take(places, axis=0)
    return views


def cropped(
    get: Callable[[int], UInt8],
    chosen: Int64,
    index: Int64,
    size: tuple[int, int],
    words: tuple[int, int],
) -> torch.Tensor:
    """Cut a random part out of each image, scale it with antialiasing, mirror half of them.

    Args:
        get: returns an uint8 (H, W, 3) image of the store.
        chosen: int64, (B,), which of the store's images.
        index: int64, (B,), the samples' indices, which decide the views.
        size: height and width of the views.
        words: view seed and view epoch.

    Returns:
        uint8, (B, 3, H, W), in channels-last order.
    """
    area = uniform(index[:, None] * _TRIES + np.arange(_TRIES), *words, AREA)
    ratio = uniform(index[:, None] * _TRIES + np.arange(_TRIES), *words, RATIO)
    row, column = uniform(index, *words, ROWS), uniform(index, *words, COLUMNS)
    mirrored = _mirrored(index, words)
    views = np.empty((len(index), *size, 3), np.uint8)
    for b, i in enumerate(chosen):
        image = get(int(i))
        height, width = crop_size(image.shape[0], image.shape[1], area[b], ratio[b])
        top = int(row[b] * (image.shape[0] - height + 1))
        left = int(column[b] * (image.shape[1] - width + 1))
        part = np.array(image[top : top + height, left : left + width])
        if mirrored[b]:
            part = np.ascontiguousarray(part[:, ::-1])
        view = torch.from_numpy(part).permute(2, 0, 1)[None]
        scaled = F.interpolate(view, size, mode="bilinear", antialias=True)[0]
        # numpy copies in this thread alone. torch would wake a pool of threads for it, each feeding
        # thread one of its own, which then spin against those of the training step.
        views[b] = scaled.permute(1, 2, 0).numpy()
    return torch.from_numpy(views).permute(0, 3, 1, 2)


def crop_size(
    rows: int, columns: int, area: npt.ArrayLike, ratio: npt.ArrayLike
) -> tuple[int, int]:
    """Return height and width of a random resized crop.

    Args:
        rows: height of the image.
        columns: its width.
        area: tries, each in [0, 1), of the share of the area.
        ratio: likewise of the logarithm of the aspect ratio.

    Returns:
        The first try that fits; the whole image, cut to the nearest allowed ratio, where none does.
    """
    share = _AREA[0] + (_AREA[1] - _AREA[0]) * np.asarray(area)
    aspect = np.exp(_LOG_RATIO * (2 * np.asarray(ratio) - 1))
    widths = np.rint(np.sqrt(rows * columns * share * aspect)).astype(int)
    heights = np.rint(np.sqrt(rows * columns * share / aspect)).astype(int)
    fits = (widths > 0) & (widths <= columns) & (heights > 0) & (heights <= rows)
    if fits.any():
        first = int(np.argmax(fits))
        return int(heights[first]), int(widths[first])
    limit = float(np.exp(_LOG_RATIO))
    return max(min(rows, round(columns * limit)), 1), max(min(columns, round(rows * limit)), 1)


def mix(
    pixels: torch.Tensor,
    targets: torch.Tensor,
    *,
    mixup: float,
    cutmix: float,
    seed: int,
    epoch: int,
    step: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each image of a batch, and its target, with the next one's.

    With mixup (Zhang et al. 2018) images are blended, with cutmix (Yun et al. 2019) a box of the
    other image is pasted; where both are on, each step takes one of them at even odds. The share is
    drawn from Beta(alpha, alpha), once per step.

    Args:
        pixels: float, (B, 3, H, W).
        targets: float, (B, C), each row summing to 1.
        mixup: alpha, 0 for off.
        cutmix: alpha, 0 for off.
        seed: of the training.
        epoch: the view epoch of the step, so that a batch that comes again is mixed again alike.
        step: within the epoch.

    Returns:
        Mixed images and targets of the same shapes.
    """
    if mixup <= 0 and cutmix <= 0:
        return pixels, targets
    generator = np.random.Generator(np.random.Philox(key=[seed, MIX], counter=[0, 0, epoch, step]))
    cut = cutmix > 0 and (mixup <= 0 or generator.random() < 0.5)
    alpha = cutmix if cut else mixup
    share = float(generator.beta(alpha, alpha))
    others, other_targets = pixels.roll(1, 0), targets.roll(1, 0)
    if not cut:
        return torch.lerp(others, pixels, share), torch.lerp(other_targets, targets, share)
    height, width = pixels.shape[-2:]
    side = (1 - share) ** 0.5
    middle_y, middle_x = int(generator.integers(height)), int(generator.integers(width))
    half_y, half_x = int(height * side / 2), int(width * side / 2)
    top, bottom = max(middle_y - half_y, 0), min(middle_y + half_y, height)
    left, right = max(middle_x - half_x, 0), min(middle_x + half_x, width)
    mixed = pixels.clone()
    mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    # The box may have been cut by the border, so count what was really pasted.
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(other_targets, targets, share)


def _moved(size: int, most: int, index: Int64, words: tuple[int, ...]) -> Int64:
    most = max(most, 1)
    offset = np.floor(uniform(index, *words) * (2 * most + 1)).astype(np.int64) - most
    return np.arange(size)[None, :] + offset[:, None]


def _reflected(places: Int64, size: int) -> Int64:
    last = size - 1
    reflected: Int64 = last - np.abs(last - np.abs(places))
    return np.clip(reflected, 0, last)  # only an image of one pixel still lies outside


def _mirrored(index: Int64, words: tuple[int, int]) -> npt.NDArray[np.bool_]:
    return uniform(index, *words, MIRROR) < 0.5
