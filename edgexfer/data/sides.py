"""How large the images of a data set are, looked at on a few of them."""

from __future__ import annotations

from statistics import median
from typing import Any

from edgexfer.core.errors import DataError
from edgexfer.data.dataset import Dataset
from edgexfer.data.decode import decode

LOOKED_AT = 64
#: Images whose shorter side is at most this are small: models of their own suit them.
SMALL_PX = 48


def median_side(dataset: Dataset) -> int:
    """Return the median of the shorter sides of up to 64 training images, in pixels.

    Images that cannot be read are passed over; 224 where none can.
    """
    split = dataset.splits["train"]
    step = max(len(split.keys) // LOOKED_AT, 1)
    sides = []
    for i in range(0, len(split.keys), step):
        try:
            source: Any = split.read(i)
            image = decode(source, split.keys[i]).image if isinstance(source, bytes) else source
        except DataError:
            continue  # `edgexfer data check` is the place that reports it
        sides.append(min(image.shape[:2]))
    return int(median(sides)) if sides else 224
