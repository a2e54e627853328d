"""A bundle's folder: made under another name, and renamed when it is whole.

A folder of the final name is therefore always a sealed bundle; what was there before is never
touched.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgexfer.core.bundle import MANIFEST, Manifest, verify_files
from edgexfer.core.errors import BundleError, EdgexferError
from edgexfer.core.files import disk_errors, free_bytes, fsync_dir, make_dir

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
    with ExitStack() as held:
        # Nobody sweeps meanwhile: the new folder is not held yet.
        with disk_errors(out.parent), _held(out.parent):
            _sweep(out)
            folder = out.parent / f".{out.name}.making.{uuid.uuid4().hex[:12]}"
            folder.mkdir()
            held.enter_context(_held(folder))
        try:
            with _write_errors(out, folder):
                yield folder
                _flush(folder)
            try:
                folder.replace(out)
            except OSError as error:
                raise BundleError(
                    f"{out}: was made by another process meanwhile", _ANOTHER
                ) from error
            fsync_dir(out.parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _sweep(out: Path) -> None:
    for place in out.parent.glob(f".{glob.escape(out.name)}.making.*"):
        # Another process may be done with it just now.
        with suppress(FileNotFoundError), _held(place, wait=False) as free:
            if free:
                shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _held(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a folder for the block and say whether it is held; a killed process lets go of it.

    Numbers of processes would not tell: in a container the next one has the same.

    Args:
        folder: there already.
        wait: for others to let go; else not held where one holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:  # held, or on a disk without locks, where nothing is swept
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextmanager
def _write_errors(out: Path, folder: Path) -> Iterator[None]:
    """Turn errors of writing into a DiskError that names the place.

    What fails at a file elsewhere, such as reading an image, is no fault of ``out`` and goes its
    way.

    Raises:
        DiskError: the disk of ``out`` or that of temporary files is full, or cannot be written.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        if isinstance(name, str) and not Path(name).absolute().is_relative_to(folder.absolute()):
            raise
        places = (out, Path(tempfile.gettempdir()))
        full = error.errno == errno.ENOSPC
        with disk_errors(min(places, key=free_bytes) if full else out):
            raise


def _flush(folder: Path) -> None:
    """Flush every file and folder to the disk: the rename must never outlive what it names."""
    for place in sorted(folder.rglob("*")):
        if place.is_dir():
            fsync_dir(place)
        else:
            with place.open("rb") as stream:
                os.fsync(stream.fileno())
    fsync_dir(folder)
