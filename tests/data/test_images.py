"""Evaluation images: one geometry on all paths, stratified samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgexfer.core.errors import DataError, MachineError
from edgexfer.core.preprocess import Preprocess
from edgexfer.data import images as images_module
from edgexfer.data import store
from edgexfer.data.dataset import Dataset, open_dataset
from edgexfer.data.decode import decode, decode_size, fit
from edgexfer.data.images import load_images, sample
from tests.data.conftest import MakeTree

SMALL = Preprocess((16, 16), 18, interpolation="bicubic")


@pytest.fixture
def dataset(make_tree: MakeTree) -> Dataset:
    # Large enough that the JPEG decoder shrinks while it decodes.
    return open_dataset(str(make_tree("a", "b", "c", n=12, size=(90, 120))))


def test_all_paths_give_the_same_bits(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    split = dataset.splits["test"]
    every = range(len(split))
    files = [Path(dataset.spec) / key for key in split.keys]
    expected = np.stack(
        [fit(decode(f, f.name, at_least=decode_size(SMALL)).image, SMALL) for f in files]
    )
    found = {kind: load_images(dataset, "test", SMALL, cache=kind) for kind in ("ram", "none")}
    monkeypatch.setattr(store, "_SHARED_FROM", 0)
    found["written"] = load_images(dataset, "test", SMALL)
    found["mapped"] = load_images(dataset, "test", SMALL)
    assert len(list((cache / "decoded").glob("[!.]*"))) == 1
    for kind, images in found.items():
        pixels = images.pixels(every)
        assert (pixels.permute(0, 2, 3, 1).numpy() == expected).all(), kind
        assert images.keys == split.keys
        assert images.labels.tolist() == split.labels.tolist()
    drawn, labels, keys = sample(dataset, "test", len(split), SMALL)
    assert (drawn == expected).all()
    assert labels.tolist() == split.labels.tolist()
    assert keys == split.keys


def test_pixels_takes_any_indices(dataset: Dataset) -> None:
    images = load_images(dataset, "train", SMALL)
    first = images.pixels([2, 0])
    assert first.shape == (2, 3, 16, 16)
    assert first.dtype == torch.uint8
    assert torch.equal(first, images.pixels(torch.tensor([2, 0])))
    assert torch.equal(first, images.pixels(np.array([2, 0])))


def test_batches_are_all_images_in_order_few_at_once(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "_AT_ONCE", 4)
    images = load_images(dataset, "test", SMALL, cache="none")
    found = list(images.batches())
    assert [len(batch) for batch in found[:-1]] == [4] * (len(images) // 4)
    assert 0 < len(found[-1]) < 4
    every = images.pixels(range(len(images))).permute(0, 2, 3, 1).numpy()
    assert (np.concatenate(found) == every).all()


def test_a_sample_is_even_repeatable_and_in_order(dataset: Dataset) -> None:
    images, labels, keys = sample(dataset, "train", 9, SMALL, seed=1)
    assert images.shape == (9, 16, 16, 3)
    assert np.bincount(labels).tolist() == [3, 3, 3]
    assert list(keys) == [k for k in dataset.splits["train"].keys if k in set(keys)]
    assert sample(dataset, "train", 9, SMALL, seed=1)[2] == keys
    assert sample(dataset, "train", 9, SMALL, seed=2)[2] != keys


def test_an_unreadable_image_is_never_replaced(dataset: Dataset) -> None:
    for split in ("train", "test"):
        (Path(dataset.spec) / dataset.splits[split].keys[0]).write_bytes(b"no image")
    spoiled = open_dataset(dataset.spec)
    n = len(spoiled.splits["train"])
    assert len(sample(spoiled, "train", n, SMALL)[2]) == n - 1
    with pytest.raises(DataError, match="is no JPEG"):
        sample(spoiled, "test", n, SMALL)
    assert len(sample(spoiled, "test", 99, SMALL, allow_quarantined=True)[2]) >= 1
    with pytest.raises(DataError, match="test images cannot be used"):
        load_images(spoiled, "test", SMALL)
    images = load_images(spoiled, "test", SMALL, allow_quarantined=True)
    assert len(images) == len(spoiled.splits["test"]) - 1
    assert len(images.quarantined) == 1


def test_a_changed_image_is_decoded_again(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(store, "_SHARED_FROM", 0)
    before = load_images(dataset, "train", SMALL).pixels([0])
    place = Path(dataset.spec) / dataset.splits["train"].keys[0]
    place.write_bytes((place.parent.parent / dataset.splits["train"].keys[-1]).read_bytes())
    after = load_images(open_dataset(dataset.spec), "train", SMALL).pixels([0])
    assert not torch.equal(before, after)
    assert len(list((cache / "decoded").glob("[!.]*"))) == 2


def test_more_than_the_memory_is_refused_or_decoded_on_demand(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "free_memory", lambda: 1000)
    with pytest.raises(MachineError, match="GB are free") as caught:
        load_images(dataset, "train", SMALL, cache="ram")
    assert caught.value.fix == "set data.cache: auto, or none"
    expected = sample(dataset, "val", 99, SMALL)[0]
    pixels = load_images(dataset, "val", SMALL).pixels(range(len(expected)))
    assert (pixels.permute(0, 2, 3, 1).numpy() == expected).all()


def test_an_empty_split(make_tree: MakeTree) -> None:
    dataset = open_dataset(str(make_tree("a", "b")), val=0, test=0)
    assert len(load_images(dataset, "val", SMALL)) == 0
    with pytest.raises(DataError, match="split val has no images"):
        sample(dataset, "val", 5, SMALL)
