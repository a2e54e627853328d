"""Original image files that travel with a bundle, so that a device can time its own decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgexfer.core.preprocess import Preprocess

if TYPE_CHECKING:
    from edgexfer.data.dataset import Dataset

ORIGINALS = 16
# A benchmark rotates over so many evaluation images; originals are among them.
_AMONG = 64


def write_originals(
    folder: Path, dataset: Dataset, split: str, keys: Sequence[str], preprocess: Preprocess
) -> dict[str, str]:
    """Write the files of up to 16 evaluation images as they are.

    Only of plain images, which nothing but decoding and scaling makes: what has to be turned, laid
    on white or converted first takes a host's decoder.

    Args:
        folder: the bundle in the making.
        dataset: where the images are from.
        split: of it.
        keys: of the evaluation images, in the bundle's order.
        preprocess: of the model.

    Returns:
        Paths in the bundle by the image's place among ``keys``; empty where the data has no files.
    """
    from edgexfer.data.decode import decode, decode_size

    images = dataset.splits[split]
    places = {key: place for place, key in enumerate(images.keys)}
    found: dict[str, str] = {}
    for number, key in enumerate(keys[:_AMONG]):
        data = images.read(places[key])
        if len(found) == ORIGINALS or not isinstance(data, bytes):
            break
        decoded = decode(data, key, at_least=decode_size(preprocess))
        if decoded.notes:
            continue
        name = f"evaluation/originals/{number:02}.{decoded.format.lower()}"
        place = folder / name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
        found[str(number)] = name
    return found
