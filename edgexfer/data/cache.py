"""The cache folder: entries that are whole or not there, made once for all processes.

::

    CACHE/unpacked/     archives of data sets, by the hash of the archive
    CACHE/digests/      hashes of files, by the folder that they lie in
    CACHE/scanned/      which images cannot be decoded
    CACHE/decoded/      uint8 images that all processes map; at most 32 GiB
    CACHE/teacher/      a teacher's answers to views; at most ``student.cache_gb``
    CACHE/torchvision/  what torchvision fetched

CACHE is what the environment's EDGEXFER_CACHE names, else ``edgexfer`` in XDG_CACHE_HOME or
``~/.cache``. All of it can be deleted while nothing runs; it is made again when it is needed. An
entry is a folder named after a hash of what it holds. What is in it lives with its maker.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from edgexfer.core.errors import DiskError
from edgexfer.core.files import disk_errors, fsync_dir, make_dir
from edgexfer.core.progress import Progress

# More files than this are flushed all at once; one by one they would take minutes.
_MANY = 64


class ProgressFactory(Protocol):
    """Starts the display of one long piece of work; the class ``Progress`` is one."""

    def __call__(self, title: str, total: int, unit: str, /) -> Progress:
        """Return a display for ``total`` units."""
        ...


def quiet(title: str, total: int, unit: str) -> Progress:
    """Start a display that shows nothing."""
    return Progress(title, total, unit, quiet=True)


def cache_dir() -> Path:
    """Return the folder that edgexfer may fill: EDGEXFER_CACHE, or the user's cache folder's."""
    named = os.environ.get("EDGEXFER_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgexfer"


def make_entry(kind: str, name: str, fill: Callable[[Path], None]) -> Path:
    """Return an entry's folder, made by ``fill`` where it does not exist.

    Of several processes that want the same entry one makes it and the others wait for it. ``fill``
    gets an empty temporary folder, which is renamed when it returns; what it leaves behind when it
    fails or is killed is swept.

    Raises:
        DiskError: the cache cannot be written.
    """
    folder = cache_dir() / kind
    final = folder / name
    if final.is_dir():
        _touch(final)
        return final
    try:
        _make(folder, name, fill)
    except DiskError as error:
        fix = "free some space there, or set EDGEXFER_CACHE to a folder on another disk"
        raise DiskError(error.what, fix) from error
    return final


def sweep(kind: str, most_bytes: int, keep: Path) -> None:
    """Remove the entries of a kind that were not used for longest, until the rest fits.

    A process that has a removed file mapped keeps it until it ends. ``keep`` is never removed, nor
    is what somebody holds (``hold``).
    """
    folder = cache_dir() / kind
    if not folder.is_dir():
        return
    entries = []
    for place in folder.iterdir():
        with suppress(FileNotFoundError):  # another process sweeps too
            if place.is_dir() and place.name[0] != ".":
                size = sum(p.stat().st_size for p in place.rglob("*") if p.is_file())
                entries.append((place.stat().st_mtime, size, place))
    total = 0
    for _, size, place in sorted(entries, reverse=True):
        total += size
        if total > most_bytes and place != keep:
            _remove_unheld(place)


def hold(kind: str, name: str) -> Callable[[], None]:
    """Keep an entry, which need not be there yet, from being swept.

    Where nobody else holds it, temporary files in it are what a killed process left; they go.

    Returns:
        What lets go of the entry; the end of the process does so too.

    Raises:
        DiskError: the cache cannot be written.
    """
    folder = make_dir(cache_dir() / kind)
    with disk_errors(folder):
        lock = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for place in (folder / name).glob(".*.tmp.*"):
            place.unlink(missing_ok=True)
    fcntl.flock(lock, fcntl.LOCK_SH)
    _touch(folder / name)
    return partial(os.close, lock)


def _remove_unheld(place: Path) -> None:
    with suppress(OSError), (place.parent / f".{place.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(place, ignore_errors=True)


def _make(folder: Path, name: str, fill: Callable[[Path], None]) -> None:
    make_dir(folder)
    final, temp = folder / name, folder / f".{name}.tmp"
    with _locked(folder / f".{name}.lock"):
        if final.is_dir():  # made while we waited
            return
        shutil.rmtree(temp, ignore_errors=True)
        try:
            with disk_errors(final):
                temp.mkdir()
                fill(temp)
                _flush(temp)
                temp.rename(final)
                fsync_dir(folder)
        finally:
            shutil.rmtree(temp, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Bring an entry's content to the disk: after a power cut it must be more than a name."""
    files = [place for place in folder.rglob("*") if place.is_file()]
    if len(files) > _MANY:
        os.sync()
        return
    for place in files:
        with place.open("rb") as stream:
            os.fsync(stream.fileno())


def _touch(place: Path) -> None:
    now = time.time()
    with suppress(OSError):  # a cache that may only be read is a cache all the same
        os.utime(place, (now, now))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with disk_errors(path), path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
