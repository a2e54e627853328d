"""What an artefact is fed with: the bundle's images, and their normalisation in numpy.

The geometry (decode, resize, crop) was done on the host by ``data``; a bundle carries its result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Tuple

import numpy as np

from edgexfer.core.backend import Session
from edgexfer.core.bundle import REMAKE, is_safe
from edgexfer.core.errors import BundleError
from edgexfer.core.preprocess import Preprocess


def normalise(images: Any, preprocess: Preprocess) -> Any:
    """Turn uint8 images (N, H, W, 3), RGB, into float32 (N, 3, H, W), contiguous.

    Bit for bit what ``PixelModel.normalise`` of the trainer gives for images of the model's size:
    one float32 multiplication and one float32 addition per value, see ``Preprocess.affine``.
    """
    scale, bias = preprocess.affine()
    order = (2, 1, 0) if preprocess.channels == "BGR" else (0, 1, 2)
    count, height, width, _ = images.shape
    out = np.empty((count, 3, height, width), np.float32)
    for place, channel in enumerate(order):
        plane = out[:, place]
        # dtype is said, because numpy 1 would promote uint8 * float32 scalar by the value.
        np.multiply(images[..., channel], np.float32(scale[channel]), out=plane, dtype=np.float32)
        np.add(plane, np.float32(bias[channel]), out=plane)
    return out


def run_once(session: Session, batch: Any) -> Any:
    """Feed a session of one input with ``batch`` and return its logits, all tasks side by side."""
    outputs = session.run({session.inputs[0].name: batch})
    found = [outputs[spec.name] for spec in session.outputs]
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def read_array(bundle: Path, name: str, dtype: str, shape: Tuple[int, ...]) -> Any:
    """Map one ``.npy`` file of a bundle, read only; nothing in it is ever unpickled.

    Args:
        bundle: the folder.
        name: the file's path in it.
        dtype: numpy's name of the element type that it must have.
        shape: sizes that it must have; -1 for any.

    Raises:
        BundleError: the file is no such array, or the path leads out of the bundle.
    """
    if not is_safe(name):
        raise BundleError(f"{bundle}: unsafe path {name!r} in the manifest", REMAKE)
    place = bundle / name
    try:
        # Mapped, so that only what is used of it takes memory.
        array = np.asarray(np.load(str(place), mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{place}: is not readable as an array ({error})", REMAKE) from error
    fits = len(array.shape) == len(shape)
    fits = fits and all(want in (-1, have) for want, have in zip(shape, array.shape))
    if array.dtype != np.dtype(dtype) or not fits:
        raise BundleError(
            f"{place}: is {array.dtype} {array.shape}, expected {dtype} {shape}", REMAKE
        )
    return array


def check_session(session: Session, preprocess: Preprocess, classes: int, batch: int = 1) -> None:
    """Refuse a session that the bundle's preprocess cannot feed or whose outputs have no labels.

    Raises:
        BundleError: with the shape that was found and the one expected.
    """
    if len(session.inputs) != 1:
        raise BundleError(f"the artefact takes {len(session.inputs)} inputs, expected one", REMAKE)
    given = session.outputs[0].shape
    if len(session.outputs) > 1:
        # One for each task, which stand side by side where they are compared with labels.
        given = (*given[:1], sum(spec.shape[-1] for spec in session.outputs))
    expected: Dict[str, Tuple[Tuple[int, ...], Tuple[int, ...]]] = {
        "input": (session.inputs[0].shape, (batch, 3, *preprocess.size)),
        "output": (given, (batch, classes)),
    }
    for what, (found, wanted) in expected.items():
        # A dimension that the artefact leaves free is -1; the batch may be free.
        fits = all(have in (-1, want) for have, want in zip(found, wanted))
        if len(found) != len(wanted) or not fits:
            raise BundleError(f"the artefact's {what} is {found}, expected {wanted}", REMAKE)
