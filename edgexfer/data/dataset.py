"""Data sets: from what the user names to images with labels in train, val and test.

``open_dataset`` is the way in, ``open_pictures`` that for images without classes. They decode
nothing: that lives in ``decode``, and keeping what was decoded in ``store``.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgexfer.core.errors import DataError
from edgexfer.core.files import canonical_json, sha256_bytes
from edgexfer.core.tasks import Task
from edgexfer.data.archive import SUFFIXES as ARCHIVES
from edgexfer.data.archive import unpack
from edgexfer.data.decode import UInt8
from edgexfer.data.digests import Digests
from edgexfer.data.folder import FolderReader, scan_folder, scan_images, scan_splits
from edgexfer.data.labels import Table, read_labels, relabel
from edgexfer.data.sources import Reader, Source, digits, hub_set, torchvision_set
from edgexfer.data.split import Entry, divide, keep

SPLITS = ("train", "val", "test")
UNLABELLED = "unlabelled"
# Hidden folders are never looked into, so that no key of a labelled image begins like this.
_PREFIX = ".unlabelled/"
_UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Split:
    """The images of one split.

    Attributes:
        name: ``train``, ``val``, ``test`` or ``unlabelled``.
        keys: stable names of the images, such as their paths in the data set.
        labels: int64, (N,), indices into the data set's classes; -1 for none. Of several tasks
            (N, tasks).
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
        splits: ``train``, ``val`` and ``test``; one is empty where its share is 0. Also
            ``unlabelled`` where a folder of such images was named; only a student is trained on it.
        fingerprint: hash of the content of all images, of the classes and of the splits.
        contents: for each split the SHA-256 of each image, as it is stored.
        notes: what was left out, one line each.
        tasks: what the classes are about, where that is more than one question; ``classes`` are
            then those of all tasks, ``TASK=CLASS``.
    """

    spec: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    fingerprint: str
    contents: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()


def open_dataset(
    path: str,
    *,
    val: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
    limit: int | None = None,
    train_limit: int | None = None,
    unlabelled: str | None = None,
    labels: str | None = None,
) -> Dataset:
    """Open a data set and make the splits that it does not have.

    Unlabelled images that are copies, byte by byte, of val or test images are left out: a student
    must not be tested on what it was trained on.

    Args:
        path: a folder of class folders (with train, val and test in it, or flat), a ``.tar`` or
            ``.tar.gz`` of one, ``digits``, ``torchvision:NAME`` or ``hf:OWNER/NAME``.
        val: share of the training images that becomes val where there is none, 0..0.5.
        test: share of all images (of the training images, where there is a train folder) that
            becomes test where there is none, 0..0.5.
        split_seed: of the hash that decides which image goes where.
        limit: keep at most so many images of each split, taken evenly from the classes.
        train_limit: likewise of the train split alone. A smaller one keeps images that a larger
            one keeps too.
        unlabelled: a folder of images at any depth, which become the split of that name.
        labels: a table of labels, see ``labels``; a folder then holds images at any depth, in
            train, val and test where there is such a folder.

    Raises:
        DataError: naming the folder, class or setting that is wrong.
        BackendError: a library is missing.
    """
    for name, share in (("val", val), ("test", test)):
        if not 0 <= share <= 0.5:
            raise DataError(f"data.{name} is {share}", "give a share between 0 and 0.5")
    table = read_labels(labels) if labels is not None else None
    tasks = table.tasks if table is not None else ()
    source, classes, notes = _labelled(path, table)
    _refuse_untested(path, source, table)
    entries = _with_all_splits(source, val, test, split_seed)
    for name, most in (("limit", limit), ("train_limit", train_limit)):
        if most is not None and most < len(classes):
            raise DataError(
                f"data.{name} is {most}, but there are {len(classes)} classes",
                f"give at least {len(classes)}, one image of each class",
            )
    if limit is not None:
        entries = {name: keep(found, limit, split_seed) for name, found in entries.items()}
    if train_limit is not None:
        entries["train"] = keep(entries["train"], train_limit, split_seed)
    splits = {}
    for name in SPLITS:
        keys = tuple(e.key for e in entries[name])
        splits[name] = Split(name, keys, _places(entries[name], classes, table), source.read)
    contents = _contents(splits)
    if unlabelled is not None:
        more = _open_unlabelled(unlabelled, source)
        if limit is not None:
            some = {e.key for e in keep([Entry(key, "") for key in more.keys], limit, split_seed)}
            more = _taken(more, [i for i, key in enumerate(more.keys) if key in some])
        shape = (len(more), len(tasks)) if tasks else (len(more),)
        more = replace(more, labels=np.full(shape, -1, np.int64))
        notes += _add_unlabelled(unlabelled, more, splits, contents)
    whole = _fingerprint(classes, splits, contents)
    return Dataset(path, classes, splits, whole, contents, notes, tasks)


def open_pictures(path: str, limit: int | None = None) -> Dataset:
    """Open a folder of images at any depth without looking for classes.

    Args:
        path: the folder; what its folders are called does not matter.
        limit: keep at most so many images, chosen by the hash of their names.

    Returns:
        A data set without classes: its one split is ``train``, whose labels are all -1.

    Raises:
        DataError: the folder is missing, unreadable, or holds no images.
    """
    place = Path(path).expanduser()
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else "no such folder"
        raise DataError(f"{path}: {what}", "name a folder of images")
    keys = scan_images(place)
    if limit is not None:
        keys = [entry.key for entry in keep([Entry(key, "") for key in keys], limit, 0)]
    if not keys:
        raise DataError(f"{path}: holds no images", "add images to it, or name another folder")
    none = np.full(len(keys), -1, np.int64)
    splits = {"train": Split("train", tuple(keys), none, FolderReader(place))}
    contents = _contents(splits)
    return Dataset(path, (), splits, _fingerprint((), splits, contents), contents)


def _labelled(path: str, table: Table | None) -> tuple[Source, tuple[str, ...], tuple[str, ...]]:
    """Return the images that have labels, all classes, and notes on what was left out."""
    if table is None:
        source = _open_source(path)
        return source, _class_map(path, source), ()
    source, notes = relabel(_open_source(path, classed=False), table)
    return source, source.classes, notes


def _places(
    entries: Sequence[Entry], classes: tuple[str, ...], table: Table | None
) -> npt.NDArray[np.int64]:
    """Return labels as places among the classes, int64 (N,), or (N, tasks) from a table."""
    if table is not None:
        return table.places([entry.key for entry in entries])
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index[entry.label] for entry in entries], np.int64)


def is_place(path: str) -> bool:
    """Whether a data set is named by where it lies, not by what it is called."""
    return path != "digits" and path.partition(":")[0] not in ("torchvision", "hf")


def _open_source(path: str, *, classed: bool = True) -> Source:
    """Find the images.

    Args:
        path: what the user named.
        classed: whether the folders that images lie in are their classes.
    """
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
    if not classed:
        return Source(scan_splits(place), FolderReader(place))
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


def _refuse_untested(path: str, source: Source, table: Table | None) -> None:
    """Refuse a test split of which nothing can be used: a training would end without an accuracy.

    Without val images there is no early stopping, and no more is lost.
    """
    if source.splits.get("test", True):
        return
    what = "no images" if table is None else f"no image that {table.path} has a label of"
    raise DataError(
        f"{path}: its test split holds {what}",
        "add some, or delete its folder: images of train take its place",
    )


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


def _open_unlabelled(path: str, source: Source) -> Split:
    place = Path(path).expanduser()
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else "no such folder"
        raise DataError(
            f"{path}: {what} (data.unlabelled)", "name a folder of images, or leave it out"
        )
    if isinstance(source.read, FolderReader):
        here, labelled = place.resolve(), source.read.root.resolve()
        if here == labelled or here in labelled.parents or labelled in here.parents:
            raise DataError(
                f"{path}: data.unlabelled shares images with the labelled folder {labelled}",
                "name a folder beside it",
            )
    keys = tuple(_PREFIX + name for name in scan_images(place))
    if not keys:
        raise DataError(f"{path}: data.unlabelled holds no images", "add images, or leave it out")
    return Split(UNLABELLED, keys, np.full(len(keys), -1, np.int64), FolderReader(place, _PREFIX))


def _add_unlabelled(
    path: str, more: Split, splits: dict[str, Split], contents: dict[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Add those images that are in neither val nor test, and say how many are left out."""
    measured = {*contents["val"], *contents["test"]} - {_UNREADABLE}
    found = _contents({UNLABELLED: more})[UNLABELLED]
    kept = [i for i, content in enumerate(found) if content not in measured]
    if not kept:
        raise DataError(
            f"{path}: every image of data.unlabelled is a copy of a val or test image",
            "name another folder, or leave it out",
        )
    splits[UNLABELLED] = _taken(more, kept)
    contents[UNLABELLED] = tuple(found[i] for i in kept)
    copies = len(more) - len(kept)
    return (f"{copies} unlabelled images left out: copies of val or test images",) * bool(copies)


def _taken(split: Split, places: list[int]) -> Split:
    keys = tuple(split.keys[i] for i in places)
    return replace(split, keys=keys, labels=split.labels[places])


def _contents(splits: dict[str, Split]) -> dict[str, tuple[str, ...]]:
    """Return the hash of each image of splits that have one reader."""
    reader = next(iter(splits.values())).reader
    if not isinstance(reader, FolderReader):
        return {
            name: tuple(_content(split.read(i)) for i in range(len(split)))
            for name, split in splits.items()
        }
    digests = Digests(reader.root)
    contents = {
        name: tuple(_digest(digests, reader.path(key)) for key in split.keys)
        for name, split in splits.items()
    }
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
            whole.update(f"{split.labels[i].tolist()} {contents[name][i]}".encode())
    return whole.hexdigest()


def _digest(digests: Digests, path: str) -> str:
    try:
        return digests.of(path)
    except DataError:  # decoding will name it; here it only must not look like a readable file
        return _UNREADABLE


def _content(found: bytes | UInt8) -> str:
    data = found if isinstance(found, bytes) else repr(found.shape).encode() + found.tobytes()
    return sha256_bytes(data)
