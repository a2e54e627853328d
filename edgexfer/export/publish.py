"""A bundle's folder: made under another name, and renamed when it is whole.

A folder of the final name is therefore always a sealed bundle; what was there before is never
touched.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgexfer.core.bundle import MANIFEST, Manifest, verify_files
from edgexfer.core.errors import BundleError, EdgexferError
from edgexfer.core.files import disk_errors, fsync_dir, make_dir

_ANOTHER = "choose another --out"


def find_same(out: Path, request: str) -> Manifest | None:
    """Return the manifest of a bundle at ``out`` that was made from the same request.

    Args:
        out: where a bundle is wanted.
        request: hash of all that decides a bundle's content.

    Returns:
        ``None`` where nothing is in the way.

    Raises:
        BundleError: another bundle is there, a damaged one, or something else.
    """
    if not out.is_dir():
        if out.exists():
            raise BundleError(f"{out}: is a file, not a folder", _ANOTHER)
        return None
    if not any(out.iterdir()):
        return None
    if not (out / MANIFEST).is_file():
        raise BundleError(f"{out}: is not empty and holds no bundle", _ANOTHER)
    try:
        manifest = verify_files(out)
    except EdgexferError as error:
        raise BundleError(error.what, f"delete {out}, or {_ANOTHER}") from error
    if manifest.lineage.get("request") != request:
        raise BundleError(
            f"{out}: holds a bundle of another model or of other settings",
            f"delete it, or {_ANOTHER}",
        )
    return manifest


@contextmanager
def making(out: Path) -> Iterator[Path]:
    """Hand out an empty folder beside ``out`` that becomes ``out`` if the block ends well.

    Whatever ends the block otherwise, Ctrl-C too, leaves nothing; what a killed process has left is
    swept.

    Raises:
        DiskError: the place cannot be written.
        BundleError: another process has made ``out`` meanwhile.
    """
    make_dir(out.parent)
    _sweep(out)
    folder = out.parent / f".{out.name}.making.{os.getpid()}"
    with disk_errors(folder):
        folder.mkdir()
    try:
        with disk_errors(out):
            yield folder
            _flush(folder)
        try:
            folder.replace(out)
        except OSError as error:
            raise BundleError(f"{out}: was made by another process meanwhile", _ANOTHER) from error
        fsync_dir(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sweep(out: Path) -> None:
    for place in out.parent.glob(f".{glob.escape(out.name)}.making.*"):
        pid = place.suffix[1:]
        if pid.isdigit() and not _runs(int(pid)):
            shutil.rmtree(place, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _flush(folder: Path) -> None:
    """Flush every file and folder to the disk: the rename must never outlive what it names."""
    for place in sorted(folder.rglob("*")):
        if place.is_dir():
            fsync_dir(place)
        else:
            with place.open("rb") as stream:
                os.fsync(stream.fileno())
    fsync_dir(folder)
