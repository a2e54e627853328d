"""Calibration images: what a quantizer may see, never an image that accuracy is measured on.

Which tensors get which scale from them lives in ``qdq.py`` and ``nncf.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgexfer.bench.feed import normalise
from edgexfer.core.errors import DataError
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.tasks import Task

if TYPE_CHECKING:
    from edgexfer.data.dataset import Dataset

UInt8 = npt.NDArray[np.uint8]
SPLIT = "train"
# Activations of so many pixels at once; it bounds memory whatever the model's resolution.
_PIXELS_AT_ONCE = 32 * 64 * 64


@dataclass(frozen=True)
class Calibration:
    """Training images that calibrate, in the model's geometry.

    Attributes:
        images: uint8 (N, H, W, 3), RGB.
        preprocess: how they become inputs.
        keys: their names in the data set.
        notes: what the reader should know, such as a class without an image.
    """

    images: UInt8
    preprocess: Preprocess
    keys: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.images)

    @property
    def at_once(self) -> int:
        """How many images may go through a model at once, so that memory stays bounded."""
        height, width = self.preprocess.size
        return max(1, _PIXELS_AT_ONCE // (height * width))

    def batches(self, at_once: int | None = None) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all images once, normalised float32 (B, 3, H, W), in their order.

        Args:
            at_once: images in a batch; ``None`` takes as many as bound the memory.
        """
        step = at_once or self.at_once
        for start in range(0, len(self.images), step):
            yield normalise(self.images[start : start + step], self.preprocess)

    def summary(self) -> dict[str, Any]:
        """Return what the bundle's manifest keeps: split, count, hash of the pixels, notes."""
        return {
            "split": SPLIT,
            "n": len(self),
            "sha256": hashlib.sha256(np.ascontiguousarray(self.images).tobytes()).hexdigest(),
            "notes": list(self.notes),
        }


def draw_calibration(
    dataset: Dataset, n: int, preprocess: Preprocess, *, measured: Iterable[UInt8]
) -> Calibration:
    """Draw training images evenly from the classes and make sure that none is measured on.

    Args:
        dataset: the student's data.
        n: how many to draw; fewer are drawn where the split is smaller.
        preprocess: the student's.
        measured: the images that accuracy is measured on, uint8 (H, W, 3), in the same geometry.

    Raises:
        DataError: the train split is empty, shares images with the test split, or nothing is left
            once the copies of measured images are taken out.
    """
    from edgexfer.data.images import sample

    images, labels, keys = sample(dataset, SPLIT, n, preprocess)
    refuse_shared(dataset.spec, keys, dataset.splits["test"].keys)
    images, labels, keys, copies = leave_out(
        images, labels, keys, measured=measured, copied=copies_of_test(dataset)
    )
    if not len(images):
        raise DataError(
            f"{dataset.spec}: every calibration image is also a test image",
            "remove the duplicates between train and test (`edgexfer data check` lists them)",
        )
    notes = []
    if copies:
        notes.append(f"{copies} training images left out: copies of test images")
    present = set(labels.ravel().tolist())
    absent = sorted(set(range(len(dataset.classes))) - present)
    if absent and len(present) == 1:
        only = dataset.classes[present.pop()]
        notes.append(f"one class alone calibrates, {only}: INT8 may be off on all others")
    elif absent:
        names = ", ".join(dataset.classes[i] for i in absent[:5])
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        notes.append(f"no calibration image of class {names}{more}: draw more")
    return Calibration(images, preprocess, tuple(keys), tuple(notes))


@dataclass(frozen=True)
class HeldOut:
    """Images to compare quantizers with: none that calibrates, none that accuracy is measured on.

    Attributes:
        images: uint8 (N, H, W, 3), RGB, in the model's geometry.
        labels: their classes, int64 (N,), or of several tasks (N, tasks).
        split: that they are from: ``val``, or ``train`` where that is empty.
        tasks: what the labels are about, where that is more than one question.
    """

    images: UInt8
    labels: npt.NDArray[np.int64]
    split: str
    tasks: tuple[Task, ...] = ()


def hold_out(
    dataset: Dataset,
    n: int,
    calibration: Calibration,
    *,
    measured: Iterable[UInt8],
    allow_quarantined: bool = False,
) -> HeldOut:
    """Draw images evenly from the classes that neither calibrate nor measure.

    Args:
        dataset: the student's data.
        n: how many to draw; fewer are drawn where there are fewer.
        calibration: the images that calibrate.
        measured: the images that accuracy is measured on, uint8 (H, W, 3), in the same geometry.
        allow_quarantined: leave unreadable images out of val too, as of train.

    Raises:
        DataError: there is no such image, or one of val cannot be read.
    """
    from edgexfer.data.images import sample

    split = "val" if len(dataset.splits["val"].keys) else SPLIT
    wanted = n if split == "val" else n + len(calibration)
    images, labels, keys = sample(
        dataset,
        split,
        wanted,
        calibration.preprocess,
        seed=1,
        allow_quarantined=allow_quarantined,
    )
    tested = set(dataset.contents["test"])
    inside = zip(dataset.splits[split].keys, dataset.contents[split], strict=True)
    copied = {key for key, content in inside if content in tested}
    used = chain(measured, calibration.images)
    images, labels, _, _ = leave_out(images, labels, keys, measured=used, copied=copied)
    if not len(images):
        raise DataError(
            f"{dataset.spec}: no image is left to compare quantizers with",
            "calibrate with fewer images (--calibration-images), or give the data a val split",
        )
    return HeldOut(images[:n], labels[:n], split, dataset.tasks)


def refuse_shared(spec: str, keys: Sequence[str], test_keys: Sequence[str]) -> None:
    """Refuse calibration images that are in the test split by name.

    Raises:
        DataError: naming the first three.
    """
    shared = sorted(set(keys) & set(test_keys))
    if shared:
        raise DataError(
            f"{spec}: {len(shared)} calibration images are in the test split: "
            f"{', '.join(shared[:3])}",
            "split the data again, so that no image is in train and in test",
        )


def copies_of_test(dataset: Dataset) -> set[str]:
    """Return the keys of training images that are stored in the test split too, under any name."""
    tested = set(dataset.contents["test"])
    train = zip(dataset.splits[SPLIT].keys, dataset.contents[SPLIT], strict=True)
    return {key for key, content in train if content in tested}


def leave_out(
    images: UInt8,
    labels: npt.NDArray[np.int64],
    keys: Sequence[str],
    *,
    measured: Iterable[UInt8],
    copied: Set[str] = frozenset(),
) -> tuple[UInt8, npt.NDArray[np.int64], tuple[str, ...], int]:
    """Take out images that are measured on, under whatever name.

    Real data sets hold such pairs, so they are no reason to stop.

    Args:
        images: uint8 (N, H, W, 3).
        labels: their classes.
        keys: their names.
        measured: images in the same geometry; one of equal pixels is taken out.
        copied: names of images to take out, whatever their pixels.

    Returns:
        The images, labels and keys that are left, and how many were taken out.
    """
    seen = {_digest(image) for image in measured}
    kept = [
        i for i, image in enumerate(images) if keys[i] not in copied and _digest(image) not in seen
    ]
    left = tuple(keys[i] for i in kept)
    return images[kept], labels[kept], left, len(images) - len(kept)


def _digest(image: UInt8) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
