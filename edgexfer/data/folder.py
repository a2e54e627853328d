"""Folders of class folders: which files are images, of which class and split.

Only names are looked at here; whether a file can be decoded is found out later, so that a broken
one is counted and named instead of silently left out.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgexfer.core.errors import DataError
from edgexfer.data.decode import SUFFIXES, UInt8, read_file
from edgexfer.data.split import Entry

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
# Pictures in formats that are not read here: they count as images, so that they are reported.
OTHER_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".svg", ".eps", ".psd", ".ppm", ".pgm")
_ANY_SUFFIX = (*SUFFIXES, *OTHER_SUFFIXES)
LAYOUT = "lay it out as DATA/CLASS/image.jpg, or DATA/train/CLASS/image.jpg beside val/ and test/"

_SPLITS = "put every image into train/, val/ or test/, or rename train/"


@dataclass
class Scan:
    """What stands in a folder of class folders.

    Attributes:
        root: the folder that holds the class folders or the split folders.
        splits: images by split; the one split ``""`` where the folder is flat.
        empty: class folders of train, or of a flat folder, without an image.
        ignored: files that do not look like images, relative to ``root``.
    """

    root: Path
    splits: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    empty: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FolderReader:
    """Reads encoded images by their path relative to a folder.

    Attributes:
        root: the folder.
        prefix: what stands before the path in a key.
    """

    root: Path
    prefix: str = ""

    def path(self, key: str) -> str:
        """Return a key's path relative to ``root``."""
        return key.removeprefix(self.prefix)

    def __call__(self, key: str) -> bytes | UInt8:
        """Return the file's bytes.

        Raises:
            DataError: see ``read_file``.
        """
        place = self.root / self.path(key)
        return read_file(place, str(place))


def scan_folder(path: Path) -> Scan:
    """List the images of a folder of class folders; one folder that wraps it all is looked through.

    Raises:
        DataError: there are no class folders, images lie beside them, the folders are data sets
            themselves, or there are splits but none is ``train``.
    """
    root = _unwrapped(path)
    folders = _folders(root)
    loose = [p.name for p in root.iterdir() if _is_image(p.name) and not p.is_dir()]
    if loose:
        raise DataError(f"{root / min(loose)}: lies in no class folder", LAYOUT)
    if not folders:
        raise DataError(f"{root}: holds no class folders", LAYOUT)
    splits = {f.name: SPLIT_NAMES[f.name] for f in folders if f.name in SPLIT_NAMES}
    scan = Scan(root)
    if "train" not in splits.values():
        if len(splits) == len(folders):
            raise DataError(
                f"{root}: holds {', '.join(sorted(splits))}, but no train folder", LAYOUT
            )
        _refuse_nested(root, folders)
        _scan_classes(scan, root, "")
        return scan
    if len(set(splits.values())) < len(splits):
        raise DataError(
            f"{root}: holds a split twice: {', '.join(sorted(splits))}", "keep one of each"
        )
    strange = sorted(f.name for f in folders if f.name not in SPLIT_NAMES)
    if strange:
        raise DataError(f"{root / strange[0]}: lies beside train/, but is not a split", LAYOUT)
    for name, split in splits.items():
        _scan_classes(scan, root / name, split)
    return scan


def scan_images(folder: Path) -> list[str]:
    """List the images of a folder without classes, at any depth.

    Returns:
        Their paths relative to the folder, sorted within each folder.

    Raises:
        DataError: a folder cannot be read.
    """
    return [key for key in _files(folder, "", {_identity(folder)}) if _is_image(key)]


def scan_splits(folder: Path) -> dict[str, list[Entry]]:
    """List the images of a folder without classes, in train, val and test where it has such.

    Returns:
        Entries without a label by split; the one split ``""`` where there is no train folder.

    Raises:
        DataError: there are no images, or some lie beside the splits.
    """
    keys = scan_images(folder)
    if not keys:
        raise DataError(f"{folder}: holds no images", "name the folder of the images")
    tops = {key: key.partition("/")[0] for key in keys}
    if "train" not in {SPLIT_NAMES.get(top) for top in tops.values()}:
        return {"": [Entry(key, "") for key in keys]}
    splits: dict[str, list[Entry]] = defaultdict(list)
    for key, top in tops.items():
        if top not in SPLIT_NAMES:
            raise DataError(f"{folder / key}: lies beside train/, but in no split", _SPLITS)
        splits[SPLIT_NAMES[top]].append(Entry(key, ""))
    return dict(splits)


def _unwrapped(path: Path) -> Path:
    folders = _folders(path)
    if len(folders) == 1 and folders[0].name not in SPLIT_NAMES and _folders(folders[0]):
        return folders[0]
    return path


def _refuse_nested(root: Path, folders: list[Path]) -> None:
    nested = [f for f in folders if any(inner.name == "train" for inner in _folders(f))]
    if nested:
        names = ", ".join(f.name for f in nested[:4]) + (", ..." if len(nested) > 4 else "")
        raise DataError(
            f"{root}: its folders ({names}) hold train/ themselves, so they are data sets",
            f"name one of them, such as {nested[0]}",
        )


def _scan_classes(scan: Scan, folder: Path, split: str) -> None:
    scan.splits[split] = []
    for place in _folders(folder):
        before = len(scan.splits[split])
        above = {_identity(scan.root), _identity(folder), _identity(place)}
        for key in _files(place, f"{place.relative_to(scan.root).as_posix()}/", above):
            if _is_image(key):
                scan.splits[split].append(Entry(key, place.name))
            else:
                scan.ignored.append(key)
        if len(scan.splits[split]) == before and split in ("", "train"):
            scan.empty.append(str(place))


def _files(folder: Path, prefix: str, above: set[tuple[int, int]]) -> Iterator[str]:
    """Yield files below a folder, sorted, each name after ``prefix`` and the folders between.

    A link back to a folder above is not followed.
    """
    for entry in _visible(folder):
        # A folder that is named like an image is handed on, so that it is reported as unreadable.
        if not _is_dir(entry) or _is_image(entry.name):
            yield prefix + entry.name
        elif (identity := _identity(Path(entry))) not in above:
            yield from _files(Path(entry), f"{prefix}{entry.name}/", above | {identity})


def _folders(path: Path) -> list[Path]:
    return [path / e.name for e in _visible(path) if _is_dir(e) and not _is_image(e.name)]


def _visible(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror})", "check its permissions"
        ) from error


def _is_dir(entry: os.DirEntry[str]) -> bool:
    # The entry of a link that leads in a circle raises where the path of it does not.
    return Path(entry).is_dir() if entry.is_symlink() else entry.is_dir()


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _is_image(name: str) -> bool:
    return name.lower().endswith(_ANY_SUFFIX)
