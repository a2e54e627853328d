"""Files that are either whole or not there: atomic writes, hashes, strict JSON.

A file under its final name is always complete: it is written beside it under a temporary name,
flushed to the disk, and renamed. What a folder means (a run, a bundle) lives elsewhere.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, Union

from edgexfer.core.errors import DiskError, InputError, first_line

PathLike = Union[str, Path]
_CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: PathLike) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        for chunk in iter(lambda: stream.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """Return the one spelling of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a JSON value's canonical spelling."""
    return sha256_bytes(canonical_json(value).encode())


def fsync_dir(path: PathLike) -> None:
    """Flush a folder's entries to the disk, so that a rename in it outlives a power cut."""
    handle = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(path: PathLike) -> Iterator[None]:
    """Turn the operating system's write errors below ``path`` into a DiskError with its mend.

    Raises:
        DiskError: the disk or quota is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        full = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
        # Where a write comes out short, numpy raises an error of its own, without a number.
        short = error.errno is None and "requested and" in str(error)
        if error.errno in full or short:
            free = free_bytes(path)
            raise DiskError(
                f"{path}: no room left to write ({free / 1e6:.0f} MB free)",
                "free some space or choose another --out, then run the same command again",
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}:
            raise DiskError(
                f"{path}: cannot be written ({error.strerror})",
                "choose a folder that you may write to with --out",
            ) from error
        raise


def free_bytes(path: PathLike) -> int:
    """Return the free bytes of the disk that holds ``path`` or its nearest existing parent."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(str(place)).free


def make_dir(path: PathLike) -> Path:
    """Create a folder with its parents and prove that it can be written.

    Raises:
        DiskError: it cannot be created or written.
    """
    place = Path(path)
    with disk_errors(place):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise DiskError(f"{place}: is a file, not a folder", "choose another --out") from error
        if not os.access(str(place), os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return place


def write_atomic(path: PathLike, data: Union[bytes, str]) -> None:
    """Write a file so that its name holds the old content or the new one, never a part.

    Raises:
        DiskError: the disk is full or the place cannot be written; the old content is intact.
    """
    final = Path(path)
    temp = final.with_name(f".{final.name}.tmp.{os.getpid()}")
    payload = data.encode() if isinstance(data, str) else data
    with disk_errors(final):
        try:
            with temp.open("wb") as stream:
                stream.write(payload)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(str(temp), str(final))
            fsync_dir(final.parent)
        except BaseException:
            with suppress(OSError):
                temp.unlink()
            raise


def refuse_foreign(path: PathLike, start: str) -> None:
    """Keep a file of the user's that happens to have the name of one that is to be written.

    Args:
        path: the file to write, there or not.
        start: what every such file begins with.

    Raises:
        InputError: it is there and begins otherwise.
    """
    place = Path(path)
    if not place.is_file():
        return
    with place.open("rb") as stream:
        known = stream.read(len(start.encode())) == start.encode()
    if not known:
        raise InputError(f"{place}: is not from edgexfer, and would be lost", "name another file")


def write_json(path: PathLike, value: Any) -> None:
    """Write a JSON document atomically, indented by two, without NaN."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: PathLike) -> Any:
    """Read one JSON document.

    Raises:
        InputError: the file is missing, is not UTF-8 JSON, holds NaN or an infinity, or repeats a
            key.
    """
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8")
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except FileNotFoundError as error:
        raise InputError(f"{place}: no such file", "check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{place}: is a folder", "name a JSON file in it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{place}: not readable as JSON ({first_line(error)})",
            "make the file again, or restore it",
        ) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):  # such as 1e999
        raise ValueError(f"{text} is too large a number")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"duplicate key {key!r}")
        seen[key] = value
    return seen
