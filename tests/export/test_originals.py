"""Originals in a bundle: plain files alone, and the same pixels as the bundle's own images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edgexfer.bench.encoded import differing, read_encoded, stages
from edgexfer.core.preprocess import Preprocess
from edgexfer.data.dataset import open_dataset
from edgexfer.data.images import sample
from edgexfer.export.originals import ORIGINALS, write_originals

PREPROCESS = Preprocess(size=(16, 16), resize=18)


def _pictures(folder: Path, turned: int) -> str:
    chance = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 20)):
        for kind in ("cat", "dog"):
            place = folder / split / kind
            place.mkdir(parents=True)
            for number in range(count):
                pixels = chance.integers(0, 256, (40, 30, 3), dtype=np.uint8)
                exif = Image.Exif()
                if split == "test" and number < turned:
                    exif[0x0112] = 6
                Image.fromarray(pixels).save(place / f"{number:02}.jpg", exif=exif)
    return str(folder)


def test_a_device_makes_the_bundles_images_from_them(tmp_path: Path) -> None:
    dataset = open_dataset(_pictures(tmp_path / "data", turned=3))
    images, _, keys = sample(dataset, "test", 30, PREPROCESS)
    (tmp_path / "bundle/evaluation").mkdir(parents=True)
    found = write_originals(tmp_path / "bundle", dataset, "test", keys, PREPROCESS)
    assert len(found) == ORIGINALS
    # What EXIF turns is left out: a device's plain decoder would not turn it.
    assert all(int(Path(keys[int(place)]).stem) >= 3 for place in found)
    split = dataset.splits["test"]
    first, name = next(iter(found.items()))
    assert (tmp_path / "bundle" / name).read_bytes() == split.reader(keys[int(first)])
    device, reason = stages(PREPROCESS)
    assert device is not None, reason
    files = read_encoded(tmp_path / "bundle", list(found.values()))
    assert differing(device, files, [images[int(place)] for place in found]) == {}


def test_data_without_files_has_none(tmp_path: Path) -> None:
    dataset = open_dataset("digits", limit=60)
    _, _, keys = sample(dataset, "test", 10, PREPROCESS)
    assert write_originals(tmp_path, dataset, "test", keys, PREPROCESS) == {}
    assert list(tmp_path.iterdir()) == []
