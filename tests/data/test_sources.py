"""Data sets of libraries, read from files in the libraries' own formats; nothing is downloaded."""

from __future__ import annotations

import io
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgexfer.core.errors import DataError
from edgexfer.data.dataset import open_dataset
from tests.data.conftest import MakeTree, picture


def test_torchvision_with_splits(cache: Path) -> None:
    raw = cache / "torchvision" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images: dict[str, np.ndarray[Any, Any]] = {}
    for name, n in (("train", 40), ("t10k", 20)):
        images[name] = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        head = struct.pack(">IIII", 0x803, n, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(head + images[name].tobytes())
        labels = bytes(i % 10 for i in range(n))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, n) + labels)
    found = open_dataset("torchvision:mnist", val=0)
    assert found.classes[3] == "3 - three"
    assert {name: len(split) for name, split in found.splits.items()} == {
        "train": 40,
        "val": 0,
        "test": 20,
    }
    test = found.splits["test"]
    assert test.keys[13] == "test/000013"
    assert test.labels[13] == 3
    assert (np.asarray(test.read(13)) == images["t10k"][13][..., None]).all()


def test_torchvision_without_splits(make_tree: MakeTree, cache: Path) -> None:
    make_tree("Forest", "River", "Sea", n=12).rename(_parent(cache) / "2750")
    found = open_dataset("torchvision:EuroSAT")
    assert found.classes == ("Forest", "River", "Sea")
    assert sum(len(split) for split in found.splits.values()) == 36
    assert min(len(split) for split in found.splits.values()) >= 3
    assert np.asarray(found.splits["test"].read(0)).shape == (24, 24, 3)


def _parent(cache: Path) -> Path:
    place = cache / "torchvision" / "eurosat"
    place.mkdir(parents=True)
    return place


def test_what_cannot_be_fetched_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(DataError) as caught:
        open_dataset("torchvision:USPS")
    what = "torchvision:USPS: cannot be fetched (Name or service not known)"
    assert caught.value.what == what
    assert "network" in caught.value.fix


class Image_(dict[str, Any]):  # noqa: N801 - the library tells columns by the names of these classes
    """An image column."""


class ClassLabel:
    """A class column."""

    names = ("no", "yes")


class Column:
    """The part of the library's table that is used."""

    def __init__(self, n: int) -> None:
        self.features = {"picture": Image_(), "label": ClassLabel()}
        self.n, self.decoded, self.secret = n, True, False
        self.folder: Path | None = None

    def cast_column(self, name: str, feature: Any) -> Column:
        assert name == "picture"
        found = Column(self.n)
        found.decoded, found.folder = feature.decode, self.folder
        return found

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            return [-1 if self.secret else i % 2 for i in range(self.n)]
        assert not self.decoded
        if self.folder is not None:
            return {"picture": {"bytes": None, "path": str(self.folder / f"{key}.png")}}
        stream = io.BytesIO()
        Image.fromarray(picture(key)).save(stream, "PNG")
        return {"picture": {"bytes": stream.getvalue(), "path": None}}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Stand in for the library `datasets`, which is an extra and needs the network."""
    Image_.__name__ = "Image"
    module = types.ModuleType("datasets")
    module.Image = lambda *, decode: types.SimpleNamespace(decode=decode)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_the_hub_gives_encoded_images_and_runs_no_code(hub: types.ModuleType) -> None:
    asked: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def load(*args: object, **options: object) -> dict[str, Column]:
        asked.append((args, options))
        return {"train": Column(20), "validation": Column(6), "unsupervised": Column(9)}

    hub.load_dataset = load  # type: ignore[attr-defined]
    found = open_dataset("hf:owner/name", test=0)
    assert asked == [(("owner/name",), {})]
    assert found.classes == ("no", "yes")
    assert {name: len(split) for name, split in found.splits.items()} == {
        "train": 20,
        "val": 6,
        "test": 0,
    }
    assert bytes(found.splits["val"].read(3))[:4] == b"\x89PNG"


def test_a_hub_set_of_local_paths_is_read_from_them(hub: types.ModuleType, tmp_path: Path) -> None:
    local = Column(20)
    local.folder = tmp_path
    for i in range(local.n):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    hub.load_dataset = lambda _: {"train": local}  # type: ignore[attr-defined]
    train = open_dataset("hf:owner/name").splits["train"]
    number = int(train.keys[0].rpartition("/")[2])
    assert train.read(0) == (tmp_path / f"{number}.png").read_bytes()


def test_images_whose_labels_are_secret_are_nobodys_test_split(hub: types.ModuleType) -> None:
    secret = Column(9)
    secret.secret = True
    hub.load_dataset = lambda _: {"train": Column(40), "test": secret}  # type: ignore[attr-defined]
    found = open_dataset("hf:owner/name")
    assert found.splits["test"].keys
    assert all(key.startswith("train/") for key in found.splits["test"].keys)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (
            {"text": "", "label": ClassLabel()},
            "needs one image and one class column, has text (str)",
        ),
        ({"a": Image_(), "b": Image_(), "label": ClassLabel()}, "has a (Image), b (Image)"),
    ],
)
def test_other_columns_are_refused(
    hub: types.ModuleType, columns: dict[str, Any], text: str
) -> None:
    table = Column(4)
    table.features = columns
    hub.load_dataset = lambda _: {"train": table}  # type: ignore[attr-defined]
    with pytest.raises(DataError) as caught:
        open_dataset("hf:owner/name")
    assert text in caught.value.what
    assert caught.value.fix == "save it as a folder of class folders"


def test_a_hub_that_cannot_be_reached_is_told(hub: types.ModuleType) -> None:
    def offline(_: str) -> None:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub\nmore")

    hub.load_dataset = offline  # type: ignore[attr-defined]
    with pytest.raises(DataError) as caught:
        open_dataset("hf:owner/name")
    assert caught.value.what.endswith("cannot be opened (Couldn't reach 'owner/name' on the Hub)")
    hub.load_dataset = lambda _: {"test": Column(4)}  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="has no labelled train split"):
        open_dataset("hf:owner/name")
