"""Where decoded images are kept: in memory, in a file that processes share, or nowhere.

A store hands out uint8 images by their index in the split. What is done with them (batches,
augmentation, labels) lives in ``images`` and ``feed``.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import PIL

from edgexfer.core.codec import decode as from_json
from edgexfer.core.codec import encode
from edgexfer.core.errors import DataError, MachineError, nearest
from edgexfer.core.files import fingerprint, free_bytes, read_json, write_json
from edgexfer.core.preprocess import Preprocess
from edgexfer.data.cache import ProgressFactory, cache_dir, make_entry, quiet, sweep
from edgexfer.data.dataset import Dataset, Split
from edgexfer.data.decode import UInt8, decode, decode_size, fit, resize
from edgexfer.data.pool import ahead, cores, free_memory
from edgexfer.data.quarantine import Bad

CACHES = ("auto", "ram", "none")
Int64 = npt.NDArray[np.int64]

# What decides the pixels besides file and geometry; the number is raised whenever the same file and
# geometry would give other pixels than before.
DECODER = (1, PIL.__version__)
# Smaller ones are decoded faster than their file is looked up.
_SHARED_FROM = 16 << 20
_MOST_CACHED = 32 << 30
# A random crop takes part of the image, so keep a little more than what the geometry scales to.
_SPARE = 1.15
_CHUNK = 32


@dataclass(frozen=True)
class Shape:
    """What of an image is kept.

    Attributes:
        preprocess: the geometry of the model.
        fitted: keep the model's own input; else the whole image, its shorter side scaled down to
            little more than the geometry's, for random crops.
    """

    preprocess: Preprocess
    fitted: bool

    def make(self, split: Split, i: int) -> UInt8:
        """Read, decode and scale image ``i``.

        Raises:
            DataError: it cannot be read or decoded.
        """
        found, name = split.read(i), split.keys[i]
        if isinstance(found, bytes):
            found = decode(found, name, at_least=decode_size(self.preprocess)).image
        return fit(found, self.preprocess) if self.fitted else self._shrunk(found)

    def _shrunk(self, image: UInt8) -> UInt8:
        rows, columns = image.shape[:2]
        scale = _SPARE * decode_size(self.preprocess) / 2 / min(rows, columns)
        if scale >= 1:
            return image
        size = max(round(rows * scale), 1), max(round(columns * scale), 1)
        return resize(image, *size, self.preprocess.interpolation)


@dataclass(frozen=True)
class Kept:
    """Images that were decoded once and lie one after the other in memory or in a mapped file.

    Attributes:
        pixels: uint8; (N, H, W, 3) where they are fitted, else (bytes of all images,).
        sizes: int32, (N, 2), height and width of each.
        starts: int64, (N,), where each begins in the flat array.
        bad: images that cannot be decoded: black where they are fitted, else of size 0.
    """

    pixels: UInt8
    sizes: npt.NDArray[np.int32]
    starts: Int64
    bad: tuple[Bad, ...]

    def __getitem__(self, i: int) -> UInt8:
        """Return image ``i``, uint8, (H, W, 3), as a view."""
        if self.pixels.ndim == 4:
            image: UInt8 = self.pixels[i]
            return image
        rows, columns = (int(n) for n in self.sizes[i])
        start = int(self.starts[i])
        return self.pixels[start : start + rows * columns * 3].reshape(rows, columns, 3)


@dataclass(frozen=True)
class OnDemand:
    """Images that are decoded each time they are asked for.

    Attributes:
        split: where they are read from.
        shape: what of them is wanted.
        bad: images that cannot be decoded.
    """

    split: Split
    shape: Shape
    bad: tuple[Bad, ...]

    def __getitem__(self, i: int) -> UInt8:
        """Decode image ``i``, uint8, (H, W, 3).

        Raises:
            DataError: it cannot be read or decoded any more.
        """
        return self.shape.make(self.split, i)


Store = Kept | OnDemand


@dataclass(frozen=True)
class _Job:
    """What ``open_store`` was asked for, handed to its helpers as one."""

    dataset: Dataset
    split: Split
    shape: Shape
    workers: int
    progress: ProgressFactory


def open_store(
    dataset: Dataset,
    split: str,
    shape: Shape,
    *,
    cache: str = "auto",
    workers: int | None = None,
    progress: ProgressFactory | None = None,
) -> Store:
    """Decode a split once and keep it where it fits, or find out which images can be decoded.

    Where images are kept (``ram``, or ``auto`` and they take at most half of the free memory), they
    lie in a file in the cache folder that all processes map, if they are more than a few megabytes
    and the disk has room; else in this process. With ``none``, and with ``auto`` for larger sets,
    every image is decoded once to find the unreadable ones, whose list is kept in the cache folder,
    and then again whenever it is needed.

    Raises:
        DataError: ``cache`` is no known word.
        MachineError: ``ram`` was asked for, and there is not enough.
    """
    if cache not in CACHES:
        raise DataError(f"data.cache is {cache!r}", nearest(cache, CACHES))
    chosen = dataset.splits[split]
    job = _Job(dataset, chosen, shape, workers or cores(), progress or quiet)
    need, free = _estimate(job), free_memory()
    if cache == "ram" and need > free:
        raise MachineError(
            f"{dataset.spec}: {split} needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            "set data.cache: auto, or none",
        )
    if cache == "none" or (cache == "auto" and 2 * need > free):
        return OnDemand(chosen, shape, _scan(job))
    if need >= _SHARED_FROM and free_bytes(cache_dir()) > 2 * need:
        return _mapped(job)
    buffer = io.BytesIO()
    sizes, bad = _decode_all(job, buffer)
    return _kept(job, np.frombuffer(buffer.getbuffer(), np.uint8), sizes, bad)


def _estimate(job: _Job) -> int:
    n = len(job.split)
    if job.shape.fitted:
        height, width = job.shape.preprocess.size
        return n * height * width * 3
    sizes = []
    for i in range(0, n, max(n // 16, 1)):
        try:
            sizes.append(job.shape.make(job.split, i).nbytes)
        except DataError:
            continue  # it is named when all are decoded
    return int(n * np.mean(sizes)) if sizes else 0


def _mapped(job: _Job) -> Kept:
    def fill(folder: Path) -> None:
        with (folder / "pixels.u8").open("wb") as sink:
            sizes, bad = _decode_all(job, sink)
        np.save(folder / "sizes.npy", sizes, allow_pickle=False)
        write_json(folder / "bad.json", encode(bad))

    folder = make_entry("decoded", _name(job, "decoded"), fill)
    sweep("decoded", _MOST_CACHED, keep=folder)
    sizes = np.load(folder / "sizes.npy", allow_pickle=False)
    pixels = np.memmap(folder / "pixels.u8", np.uint8, mode="r").view(np.ndarray)
    return _kept(job, pixels, sizes, _read_bad(folder / "bad.json"))


def _scan(job: _Job) -> tuple[Bad, ...]:
    def fill(folder: Path) -> None:
        write_json(folder / "bad.json", encode(_decode_all(job, None)[1]))

    return _read_bad(make_entry("scanned", _name(job, "scanned"), fill) / "bad.json")


def _name(job: _Job, kind: str) -> str:
    p = job.shape.preprocess
    geometry = [p.size, p.resize, p.mode, p.interpolation, job.shape.fitted]
    decoder = [*DECODER, decode_size(p)]
    what = [job.dataset.fingerprint, job.split.name, decoder]
    return fingerprint([*what, geometry] if kind == "decoded" else what)[:32]


def _decode_all(job: _Job, sink: BinaryIO | None) -> tuple[npt.NDArray[np.int32], tuple[Bad, ...]]:
    n = len(job.split)
    height, width = job.shape.preprocess.size
    blank = np.zeros((height, width, 3) if job.shape.fitted else (0, 0, 3), np.uint8)
    sizes, bad = np.zeros((n, 2), np.int32), []

    def make(start: int) -> list[UInt8 | str]:
        return [_image_or_reason(job, i) for i in range(start, min(start + _CHUNK, n))]

    chunks = ahead(range(0, n, _CHUNK), make, workers=job.workers, depth=2 * job.workers)
    with job.progress(f"decode {job.split.name}", n, "img") as bar:
        for first, chunk in zip(range(0, n, _CHUNK), chunks, strict=True):
            for i, found in enumerate(chunk, first):
                if isinstance(found, str):
                    bad.append(Bad(i, job.split.keys[i], found))
                    found = blank
                sizes[i] = found.shape[:2]
                if sink is not None:
                    sink.write(np.ascontiguousarray(found).data)
            bar.update(len(chunk))
    return sizes, tuple(bad)


def _image_or_reason(job: _Job, i: int) -> UInt8 | str:
    try:
        return job.shape.make(job.split, i)
    except DataError as error:
        return error.what


def _kept(job: _Job, pixels: UInt8, sizes: npt.NDArray[np.int32], bad: tuple[Bad, ...]) -> Kept:
    lengths = sizes.astype(np.int64).prod(axis=1) * 3
    if job.shape.fitted:
        pixels = pixels.reshape(len(sizes), *job.shape.preprocess.size, 3)
    return Kept(pixels, sizes, np.cumsum(lengths) - lengths, bad)


def _read_bad(place: Path) -> tuple[Bad, ...]:
    return tuple(from_json(Bad, item, str(place)) for item in read_json(place))
