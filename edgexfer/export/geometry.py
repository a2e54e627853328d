"""The geometry of the images that travel with a bundle, made a second time by other means.

Model and artefact are compared on the same pixels, so a wrong filter, crop or label in those would
pass every rung. Here some of them are made again from their files by the formulas of ``Preprocess``
in numpy, without the image library that made them, and their labels are looked up again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgexfer.core.errors import DataError, ParityError
from edgexfer.core.preprocess import INTERPOLATIONS, Preprocess

if TYPE_CHECKING:
    from edgexfer.data.dataset import Dataset

UInt8 = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]

_CHECKED = 4
# Both round to 8 bits after each axis, one with fixed-point weights.
_LEVELS = 2
_SHIFTS = 3
# Half the width of each filter, in pixels of the coarser of both grids.
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
# Longer strips than this many short sides are cut first, as the crop would cut them anyway.
_MAX_ASPECT = 3


def check_images(
    dataset: Dataset,
    split: str,
    keys: Sequence[str],
    images: UInt8,
    labels: npt.NDArray[np.int64],
    preprocess: Preprocess,
) -> None:
    """Make some images again, and compare pixels and labels.

    Args:
        dataset: that they are from.
        split: of it.
        keys: names of the images.
        images: uint8, (N, H, W, 3), RGB.
        labels: int64, (N,), or of several tasks (N, tasks).
        preprocess: their geometry.

    Raises:
        DataError: a label is not the data set's.
        ParityError: an image differs, with what explains it.
    """
    chosen = dataset.splits[split]
    at = {key: i for i, key in enumerate(chosen.keys)}
    for key, label in zip(keys, labels, strict=True):
        if np.any(chosen.labels[at[key]] != label):
            raise DataError(
                f"labels: {split} image {key} is of class {chosen.labels[at[key]]} in the data, "
                f"of class {label} in the bundle",
                "export again; if it comes back, report it with the name of the data set",
            )
    for i in np.unique(np.linspace(0, len(keys) - 1, _CHECKED).astype(int)):
        source = _source(dataset, split, at[keys[i]], preprocess)
        if not any(_alike(t, images[i]) for t in _twins(source, preprocess)):
            raise ParityError(
                f"parity: preprocess geometry: {split} image {keys[i]} is not what resize and crop "
                f"give: {_explain(source, images[i], preprocess)}",
                "install the release of Pillow that this edgexfer names, and export again",
            )


def twin(image: UInt8, preprocess: Preprocess, *, down_first: bool = False) -> UInt8:
    """Scale and crop an image as ``data.decode.fit`` does, to a level or two.

    Args:
        image: uint8, (H, W, 3).
        preprocess: the geometry.
        down_first: scale the columns before the rows. Values beyond 0..255, which sharp filters
            give at edges, are cut after the first, and which is first is the library's choice.
    """
    height, width = preprocess.size
    if preprocess.mode == "squash":
        return _scaled(image, (height, width), preprocess.interpolation, down_first)
    rows, columns = image.shape[:2]
    most = _MAX_ASPECT * min(rows, columns)
    top, left = max(rows - most, 0) // 2, max(columns - most, 0) // 2
    image = image[top : top + most, left : left + most]
    rows, columns = image.shape[:2]
    short = min(rows, columns)
    rows, columns = preprocess.resize * rows // short, preprocess.resize * columns // short
    scaled = _scaled(image, (rows, columns), preprocess.interpolation, down_first)
    top, left = round((rows - height) / 2), round((columns - width) / 2)
    return scaled[top : top + height, left : left + width]


def _twins(source: UInt8, preprocess: Preprocess) -> Iterator[UInt8]:
    yield twin(source, preprocess)
    yield twin(source, preprocess, down_first=True)


def _source(dataset: Dataset, split: str, i: int, preprocess: Preprocess) -> UInt8:
    from edgexfer.data.decode import decode, decode_size

    chosen = dataset.splits[split]
    found = chosen.read(i)
    if isinstance(found, bytes):
        return decode(found, chosen.keys[i], at_least=decode_size(preprocess)).image
    return found


def _alike(first: UInt8, second: UInt8) -> bool:
    if first.shape != second.shape:
        return False
    return bool(np.abs(first.astype(int) - second.astype(int)).max() <= _LEVELS)


def _explain(source: UInt8, found: UInt8, preprocess: Preprocess) -> str:
    """Name the slip that makes the image which was found, if it is one of the usual."""
    for slip, image in _slips(source, preprocess):
        if _alike(image, found):
            return slip
    return "by none of the usual slips of resize, crop and filter"


def _slips(source: UInt8, preprocess: Preprocess) -> Iterator[tuple[str, UInt8]]:
    right = twin(source, preprocess)
    yield "channel order BGR in place of RGB", right[..., ::-1]
    yield "mirrored left to right", right[:, ::-1]
    for other in INTERPOLATIONS:
        slip = f"resize filter {other} in place of {preprocess.interpolation}"
        yield slip, twin(source, replace(preprocess, interpolation=other))
    other = "squash" if preprocess.mode == "shortest" else "shortest"
    fitting = max(preprocess.resize, *preprocess.size)
    turned = replace(preprocess, mode=other, resize=fitting)
    yield f"resize mode {other} in place of {preprocess.mode}", twin(source, turned)
    steps = range(-_SHIFTS, _SHIFTS + 1)
    height, width = preprocess.size
    room = 2 * _SHIFTS
    for more in range(1, room + 1):
        # A crop of the middle of a larger image.
        resize = preprocess.resize + more
        large = replace(preprocess, resize=resize, size=(height + more, width + more))
        top = round(more / 2)
        inner = twin(source, large)[top : top + height, top : top + width]
        yield f"crop: resized {more} pixels larger than {preprocess.resize}", inner
    edges = np.pad(right, ((_SHIFTS, _SHIFTS), (_SHIFTS, _SHIFTS), (0, 0)), mode="edge")
    for down in steps:
        for across in steps:
            top, left = _SHIFTS + down, _SHIFTS + across
            yield f"crop off by {down}, {across}", edges[top : top + height, left : left + width]


def _scaled(image: UInt8, size: tuple[int, int], interpolation: str, down_first: bool) -> UInt8:
    """Scale along one axis, round to 8 bits, and scale along the other."""
    for axis in (0, 1) if down_first else (1, 0):
        weights = _weights(image.shape[axis], size[axis], interpolation)
        scaled = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
        image = np.clip(np.floor(scaled + 0.5), 0, 255).astype(np.uint8)
    return image


def _weights(size: int, wanted: int, interpolation: str) -> Float64:
    """Return what each of ``size`` pixels adds to each of ``wanted``, (wanted, size)."""
    scale = size / wanted
    # Summed up and not multiplied: so the nearest neighbour falls as the library's does at ties.
    centres = np.cumsum([0.5 * scale, *[scale] * (wanted - 1)])
    if interpolation == "nearest":
        chosen: Float64 = np.eye(size)[np.minimum(centres.astype(int), size - 1)]
        return chosen
    if size == wanted:
        return np.eye(size)
    stretch = max(scale, 1.0)
    distances = (np.arange(size) + 0.5 - centres[:, None]) / stretch
    weights = _kernel(distances, interpolation)
    weights[np.abs(distances) >= _SUPPORT[interpolation]] = 0.0
    total: Float64 = weights / weights.sum(axis=1, keepdims=True)
    return total


def _kernel(x: Float64, interpolation: str) -> Float64:
    x = np.abs(x)
    if interpolation == "bilinear":
        values = np.maximum(1.0 - x, 0.0)
    elif interpolation == "lanczos":
        values = np.sinc(x) * np.sinc(x / 3.0)
    else:  # Keys' cubic with a = -0.5
        near = 1.5 * x**3 - 2.5 * x**2 + 1.0
        values = np.where(x < 1.0, near, -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0)
    return np.asarray(values, np.float64)
