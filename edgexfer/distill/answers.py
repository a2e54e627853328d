"""A teacher's answers as they are kept: rows of half-precision logits, and the files of them.

A file holds the answers to the views of one epoch: one row for each training image, in the order of
``TrainFeed.keys``, little-endian, then the SHA-256 of all rows. It is whole or not there. Which
files there are, and for whom, lives in ``cache``.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgexfer.core.errors import DataError
from edgexfer.core.files import disk_errors, fsync_dir

Rows = npt.NDArray[Any]
_DIGEST = hashlib.sha256().digest_size


def row_type(classes: int, top_k: int | None) -> np.dtype[Any]:
    """Return how one answer is kept.

    Args:
        classes: C, how many logits an answer has.
        top_k: K, how many of the largest are kept; ``None`` for all.

    Returns:
        ``logits`` float16 (C,); or ``logits`` float16 (K,), the classes that they are of as
        ``index`` (K,), and ``rest`` float32, see ``pack``.
    """
    if top_k is None or top_k >= classes:
        return np.dtype([("logits", "<f2", (classes,))])
    index = "<u2" if classes <= 1 << 16 else "<u4"
    return np.dtype([("logits", "<f2", (top_k,)), ("index", index, (top_k,)), ("rest", "<f4")])


def pack(logits: Tensor, kind: np.dtype[Any]) -> Rows:
    """Return answers as rows.

    Of the logits that are not kept, ``rest`` is the logarithm of the mean exponential: where it
    stands in for each of them, the softmax of those that are kept is what it was.

    Args:
        logits: (B, C), on any device.
        kind: see ``row_type``.

    Returns:
        Rows of that type, (B,).
    """
    values = logits.detach().half().cpu().numpy()
    rows = np.empty(len(values), kind)
    if "index" not in (kind.names or ()):
        rows["logits"] = values
        return rows
    k = kind["index"].shape[0]
    # Stable: of equal logits the class that comes first is kept, on every machine.
    order = np.argsort(-values.astype(np.float32), axis=1, kind="stable")
    rows["index"] = order[:, :k]
    rows["logits"] = np.take_along_axis(values, order[:, :k], axis=1)
    others = np.take_along_axis(values, order[:, k:], axis=1).astype(np.float64)
    rows["rest"] = others[:, 0] + np.log(np.exp(others - others[:, :1]).mean(axis=1))
    return rows


def unpack(rows: Rows, classes: int) -> Tensor:
    """Return rows as logits, float32 (B, C), on the CPU."""
    if "index" not in (rows.dtype.names or ()):
        return torch.from_numpy(rows["logits"].astype(np.float32))
    logits = np.repeat(rows["rest"][:, None], classes, axis=1)
    kept = rows["logits"].astype(np.float32)
    np.put_along_axis(logits, rows["index"].astype(np.int64), kept, axis=1)
    return torch.from_numpy(logits)


def write_rows(place: Path, rows: Rows) -> None:
    """Write a file of rows under its name, whole or not at all.

    Raises:
        DiskError: the disk is full, or the place cannot be written; nothing is left there.
    """
    content = rows.view(np.uint8).data
    temp = place.with_name(f".{place.name}.tmp.{os.getpid()}")
    with disk_errors(place):
        try:
            with temp.open("wb") as stream:
                stream.write(content)
                stream.write(hashlib.sha256(content).digest())
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temp, place)
            fsync_dir(place.parent)
        finally:
            temp.unlink(missing_ok=True)


def read_rows(place: Path, kind: np.dtype[Any], count: int) -> Rows:
    """Map a file of rows into memory, after it was checked as a whole.

    Raises:
        DataError: it is truncated or altered.
    """
    wanted, found = count * kind.itemsize, place.stat().st_size
    fix = "delete it; it is computed again"
    if found != wanted + _DIGEST:
        raise DataError(f"{place}: has {found} bytes instead of {wanted + _DIGEST}", fix)
    content = np.memmap(place, np.uint8, mode="r").view(np.ndarray)
    if hashlib.sha256(content[:wanted].data).digest() != content[wanted:].tobytes():
        raise DataError(f"{place}: was altered, its SHA-256 does not fit", fix)
    return content[:wanted].view(kind)
