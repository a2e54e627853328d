"""Data sets that come from a library: scikit-learn's digits, torchvision's, the Hugging Face hub's.

Each becomes a ``Source``: entries by split and something that reads an image by its key. Folders
and archives live in ``folder`` and ``archive``; missing splits are made in ``dataset``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgexfer.core.errors import BackendError, DataError, first_line, nearest
from edgexfer.data.cache import cache_dir
from edgexfer.data.decode import UInt8, read_file
from edgexfer.data.split import Entry

Reader = Callable[[str], "bytes | UInt8"]
_ONLINE = "check the name and the network, or hand over a folder of class folders"


@dataclass(frozen=True)
class Source:
    """Images as they were found, before missing splits are made.

    Attributes:
        splits: entries by split; the one split ``""`` where there are no splits.
        read: returns the encoded bytes, or the uint8 (H, W, 3) image, of a key.
        classes: names in the source's own order, which then is the order of the class map; empty
            where it is to be sorted by name.
    """

    splits: dict[str, list[Entry]]
    read: Reader
    classes: tuple[str, ...] = ()


def digits() -> Source:
    """Return scikit-learn's handwritten digits: 1797 grey images of 8 x 8 pixels, 10 classes.

    Values 0..16 become 0..255, rounded to the nearest.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    entries = [Entry(f"digits/{i:05d}", str(label)) for i, label in enumerate(data.target)]
    return Source({"": entries}, lambda key: np.asarray(images[int(key.rpartition("/")[2])]))


@dataclass(frozen=True)
class _Vision:
    """How a data set of torchvision is asked for its splits."""

    name: str
    option: str = "train"
    splits: tuple[tuple[str, Any], ...] = (("train", True), ("test", False))


_TRAIN_TEST = (("train", "train"), ("test", "test"))
_ALL_THREE = (("train", "train"), ("val", "val"), ("test", "test"))
_TORCHVISION = {
    item.name.lower(): item
    for item in (
        _Vision("CIFAR10"),
        _Vision("CIFAR100"),
        _Vision("MNIST"),
        _Vision("FashionMNIST"),
        _Vision("KMNIST"),
        _Vision("USPS"),
        _Vision("SVHN", "split", _TRAIN_TEST),
        _Vision("STL10", "split", _TRAIN_TEST),
        _Vision("GTSRB", "split", _TRAIN_TEST),
        _Vision("Food101", "split", _TRAIN_TEST),
        _Vision("OxfordIIITPet", "split", (("train", "trainval"), ("test", "test"))),
        _Vision("Flowers102", "split", _ALL_THREE),
        _Vision("DTD", "split", _ALL_THREE),
        _Vision("FGVCAircraft", "split", _ALL_THREE),
        _Vision("EuroSAT", "", (("", None),)),
    )
}


def torchvision_set(name: str) -> Source:
    """Open a data set of torchvision by its name, in any case; fetch it where it is not cached.

    Raises:
        DataError: the name is unknown, or the data cannot be fetched.
    """
    from torchvision import datasets

    known = _TORCHVISION.get(name.lower())
    if known is None:
        offered = [item.name for item in _TORCHVISION.values()]
        raise DataError(f"torchvision:{name}: no such data set here", nearest(name, offered))
    parts: dict[str, Any] = {}
    try:
        for split, value in known.splits:
            option = {known.option: value} if known.option else {}
            parts[split] = getattr(datasets, known.name)(
                root=str(cache_dir() / "torchvision"), download=True, **option
            )
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"torchvision:{name}: cannot be fetched ({first_line(error)})", _ONLINE
        ) from error
    classes: tuple[str, ...] = ()
    splits = {}
    for split, part in parts.items():
        labels = _labels(part)
        names = tuple(str(c) for c in getattr(part, "classes", ()))
        classes = names or tuple(str(i) for i in range(max(labels) + 1))
        prefix = split or "all"
        splits[split] = [
            Entry(f"{prefix}/{i:06d}", classes[label]) for i, label in enumerate(labels)
        ]

    def read(key: str) -> UInt8:
        split, _, index = key.partition("/")
        image = parts["" if split == "all" else split][int(index)][0]
        return np.array(image.convert("RGB"))

    return Source(splits, read, classes)


def _labels(part: Any) -> list[int]:
    for name in ("targets", "labels", "_labels"):
        found = getattr(part, name, None)
        if found is not None:
            return [int(label) for label in found]
    return [int(label) for _, label in part._samples]


def hub_set(name: str) -> Source:
    """Open a data set of the Hugging Face hub that has one image column and one class column.

    Code that comes with a data set is never run.

    Raises:
        BackendError: the library ``datasets`` is not installed.
        DataError: the data set cannot be fetched, or has no such columns.
    """
    try:
        import datasets
    except ImportError as error:
        raise BackendError(
            f"hf:{name}: needs the library `datasets`", "pip install 'edgexfer[hf]'"
        ) from error
    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # the library has no common base for what can go wrong
        raise DataError(f"hf:{name}: cannot be opened ({first_line(error)})", _ONLINE) from error
    parts, splits = {}, {}
    classes: tuple[str, ...] = ()
    for split, part in found.items():
        ours = {"validation": "val", "valid": "val"}.get(split, split)
        if ours not in ("train", "val", "test"):
            continue
        image, label = _columns(name, part)
        labels = list(part[label])
        if min(labels, default=0) < 0:
            continue  # -1 stands for a label that is kept secret, as in test sets of competitions
        classes = tuple(part.features[label].names)
        # Encoded bytes, so that our own decoder sees them.
        parts[ours] = (part.cast_column(image, datasets.Image(decode=False)), image)
        splits[ours] = [Entry(f"{ours}/{i:06d}", classes[k]) for i, k in enumerate(labels)]
    if "train" not in splits:
        raise DataError(f"hf:{name}: has no labelled train split", _ONLINE)

    def read(key: str) -> bytes:
        split, _, index = key.partition("/")
        part, image = parts[split]
        found = part[int(index)][image]
        content: bytes | None = found["bytes"]
        # Data sets that were built from local folders hold paths instead.
        return read_file(Path(found["path"]), key) if content is None else content

    return Source(splits, read, classes)


def _columns(name: str, part: Any) -> tuple[str, str]:
    kinds = {column: type(feature).__name__ for column, feature in part.features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    if len(images) != 1 or len(labels) != 1:
        shown = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
        raise DataError(
            f"hf:{name}: needs one image and one class column, has {shown}",
            "save it as a folder of class folders",
        )
    return images[0], labels[0]
