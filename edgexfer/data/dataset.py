"""Data sets: from what the user names to images with labels in train, val and test.

``open_dataset`` is the only way in. It decodes nothing: that lives in ``decode``, and keeping what
was decoded in ``store``.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgexfer.core.errors import DataError
from edgexfer.core.files import canonical_json, sha256_bytes
from edgexfer.data.archive import SUFFIXES as ARCHIVES
from edgexfer.data.archive import unpack
from edgexfer.data.decode import UInt8
from edgexfer.data.digests import Digests
from edgexfer.data.folder import FolderReader, scan_folder
from edgexfer.data.sources import Reader, Source, digits, hub_set, torchvision_set
from edgexfer.data.split import Entry, divide, keep

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        keys: stable names of the images, such as their paths in the data set.
        labels: int64, (N,), indices into the data set's classes.
        reader: returns encoded bytes, or an uint8 (H, W, 3) image, by key.
    """

    name: str
    keys: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    reader: Reader

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.keys)

    def read(self, i: int) -> bytes | UInt8:
        """Return image ``i`` as encoded bytes, or as a uint8 (H, W, 3) array where it has no file.

        Raises:
            DataError: the file cannot be read.
        """
        return self.reader(self.keys[i])


@dataclass(frozen=True)
class Dataset:
    """Images with labels, in three splits with one class map.

    Attributes:
        spec: what the user named.
        classes: names; their order is the order of a model's outputs.
        splits: ``train``, ``val`` and ``test``; one is empty where its share is 0.
        fingerprint: hash of the content of all images, of the classes and of the splits.
        contents: for each split the SHA-256 of each image, as it is stored.
    """

    spec: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    fingerprint: str
    contents: dict[str, tuple[str, ...]]


def open_dataset(
    path: str,
    *,
    val: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
    limit: int | None = None,
) -> Dataset:
    """Open a data set and make the splits that it does not have.

    Args:
        path: a folder of class folders (with train, val and test in it, or flat), a ``.tar`` or
            ``.tar.gz`` of one, ``digits``, ``torchvision:NAME`` or ``hf:OWNER/NAME``.
        val: share of the training images that becomes val where there is none, 0..0.5.
        test: share of all images (of the training images, where there is a train folder) that
            becomes test where there is none, 0..0.5.
        split_seed: of the hash that decides which image goes where.
        limit: keep at most so many images of each split, taken evenly from the classes.

    Raises:
        DataError: naming the folder, class or setting that is wrong.
        BackendError: a library is missing.
    """
    for name, share in (("val", val), ("test", test)):
        if not 0 <= share <= 0.5:
            raise DataError(f"data.{name} is {share}", "give a share between 0 and 0.5")
    source = _open_source(path)
    classes = _class_map(path, source)
    entries = _with_all_splits(source, val, test, split_seed)
    if limit is not None:
        if limit < len(classes):
            raise DataError(
                f"data.limit is {limit}, but there are {len(classes)} classes",
                f"give at least {len(classes)}, one image of each class",
            )
        entries = {name: keep(found, limit, split_seed) for name, found in entries.items()}
    index = {name: i for i, name in enumerate(classes)}
    splits = {}
    for name in SPLITS:
        keys = tuple(e.key for e in entries[name])
        labels = np.array([index[e.label] for e in entries[name]], np.int64)
        splits[name] = Split(name, keys, labels, source.read)
    contents = _contents(splits)
    return Dataset(path, classes, splits, _fingerprint(classes, splits, contents), contents)


def _open_source(path: str) -> Source:
    if path == "digits":
        return digits()
    scheme, colon, name = path.partition(":")
    if colon and scheme == "torchvision":
        return torchvision_set(name)
    if colon and scheme == "hf":
        return hub_set(name)
    place = Path(path).expanduser()
    if place.is_file() and path.endswith(ARCHIVES):
        place = unpack(place)
    if not place.exists():
        raise DataError(
            f"{path}: no such folder or archive",
            "name a folder, a .tar, digits, torchvision:NAME or hf:OWNER/NAME",
        )
    if not place.is_dir():
        raise DataError(
            f"{path}: is neither a folder nor a .tar", "name the folder of class folders"
        )
    scan = scan_folder(place)
    if scan.empty:
        raise DataError(f"{scan.empty[0]}: holds no images", "add images to it, or delete it")
    return Source(dict(scan.splits), FolderReader(scan.root))


def _class_map(path: str, source: Source) -> tuple[str, ...]:
    trained = source.splits.get("train", source.splits.get("", []))
    counts = Counter(entry.label for entry in trained)
    found = {e.label for entries in source.splits.values() for e in entries}
    classes = source.classes or tuple(sorted(counts))
    by_fold = defaultdict(set)
    for name in found | set(classes):
        by_fold[name.casefold()].add(name)
    for alike in by_fold.values():
        if len(alike) > 1:
            raise DataError(
                f"{path}: classes {' and '.join(map(repr, sorted(alike)))} differ only in case",
                "rename or merge their folders",
            )
    strange = sorted(found - set(counts))
    if strange:
        raise DataError(
            f"{path}: class {strange[0]!r} has images in val or test, but none in train",
            "add training images of it, or remove it",
        )
    if len(classes) < 2:
        only = f"only the class {classes[0]!r}" if classes else "no class"
        raise DataError(f"{path}: has {only}", "a classifier needs at least two classes")
    for name in classes:
        if counts[name] < 2:
            raise DataError(
                f"{path}: class {name!r} has {counts[name]} training image"
                f"{'' if counts[name] == 1 else 's'}",
                "add images, at least 2 of each class, or remove the class",
            )
    return classes


def _with_all_splits(
    source: Source, val: float, test: float, seed: int
) -> dict[str, Sequence[Entry]]:
    entries: dict[str, Sequence[Entry]] = dict(source.splits)
    if "" in entries:
        entries = {"train": entries[""]}
    shares = {}
    if "test" not in entries:
        shares["test"] = test
    if "val" not in entries:
        shares["val"] = val * (1 - shares.get("test", 0.0))
    return {**entries, **divide(entries["train"], shares, seed)}


def _contents(splits: dict[str, Split]) -> dict[str, tuple[str, ...]]:
    reader = splits["train"].reader
    digests = Digests(reader.root) if isinstance(reader, FolderReader) else None
    contents = {
        name: tuple(_content(split, i, digests) for i in range(len(split)))
        for name, split in splits.items()
    }
    if digests:
        digests.save()
    return contents


def _fingerprint(
    classes: tuple[str, ...], splits: dict[str, Split], contents: dict[str, tuple[str, ...]]
) -> str:
    whole = hashlib.sha256(canonical_json(classes).encode())
    for name, split in splits.items():
        whole.update(name.encode())
        for i, key in enumerate(split.keys):
            whole.update(key.encode("utf-8", "surrogateescape") + b"\0")
            whole.update(f"{split.labels[i]} {contents[name][i]}".encode())
    return whole.hexdigest()


def _content(split: Split, i: int, digests: Digests | None) -> str:
    if digests:
        try:
            return digests.of(split.keys[i])
        except DataError:  # decoding will name it; here it only must not look like a readable file
            return "unreadable"
    found = split.read(i)
    data = found if isinstance(found, bytes) else repr(found.shape).encode() + found.tobytes()
    return sha256_bytes(data)
