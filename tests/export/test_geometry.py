"""The twin of the geometry gives what the one geometry gives, and slips of it are named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgexfer.core.errors import DataError, ParityError
from edgexfer.core.preprocess import INTERPOLATIONS, Preprocess
from edgexfer.data.dataset import Dataset, open_dataset
from edgexfer.data.decode import fit
from edgexfer.data.images import sample
from edgexfer.export.geometry import check_images, twin
from tests.pictures import write_folder

SHORTEST = Preprocess(size=(14, 14), resize=18)
SQUASH = Preprocess(size=(12, 16), resize=16, mode="squash")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    place = tmp_path_factory.mktemp("photos") / "all"
    write_folder(place, 12)
    return open_dataset(str(place))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("preprocess", [SHORTEST, SQUASH], ids=["shortest", "squash"])
def test_it_is_the_one_geometry_to_a_level(preprocess: Preprocess, interpolation: str) -> None:
    wanted = replace(preprocess, interpolation=interpolation)
    chance = np.random.default_rng(0)
    for shape in ((8, 8), (31, 47), (100, 37), (20, 300), (300, 20), (18, 18), (12, 16)):
        image = chance.integers(0, 256, (*shape, 3), np.uint8)
        made = [twin(image, wanted, down_first=first).astype(int) for first in (False, True)]
        assert min(np.abs(m - fit(image, wanted)).max() for m in made) <= 1, shape


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("preprocess", [SHORTEST, SQUASH], ids=["shortest", "squash"])
def test_sound_images_pass(photos: Dataset, preprocess: Preprocess, interpolation: str) -> None:
    wanted = replace(preprocess, interpolation=interpolation)
    images, labels, keys = sample(photos, "train", 8, wanted)
    check_images(photos, "train", keys, images, labels, wanted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"interpolation": "nearest"}, "resize filter nearest in place of bilinear"),
        ({"mode": "squash"}, "resize mode squash in place of shortest"),
        ({"resize": 20}, "crop: resized 2 pixels larger than 18"),
    ],
)
def test_another_geometry_is_named(photos: Dataset, change: dict[str, Any], said: str) -> None:
    images, labels, keys = sample(photos, "train", 8, replace(SHORTEST, **change))
    with pytest.raises(ParityError) as caught:
        check_images(photos, "train", keys, images, labels, SHORTEST)
    assert caught.value.what.startswith(f"parity: preprocess geometry: train image {keys[0]} ")
    assert caught.value.what.endswith(f": {said}")
    assert "Pillow" in caught.value.fix


def test_other_pictures_are_not_explained(photos: Dataset) -> None:
    images, labels, keys = sample(photos, "train", 8, SHORTEST)
    with pytest.raises(ParityError, match="by none of the usual slips of resize, crop and filter"):
        check_images(photos, "train", keys, 255 - images, labels, SHORTEST)


def test_a_label_of_another_class_is_named(photos: Dataset) -> None:
    images, labels, keys = sample(photos, "train", 8, SHORTEST)
    with pytest.raises(DataError) as caught:
        check_images(photos, "train", keys, images, 1 - labels, SHORTEST)
    assert f"labels: train image {keys[0]} is of class {labels[0]} in the data" in caught.value.what
    assert "export again" in caught.value.fix
