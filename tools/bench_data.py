"""Images per second of the data path, against a torchvision ImageFolder with a DataLoader.

Both read the same JPEG files and hand out augmented, normalised float batches; torch computes with
one thread. All contenders take turns in every round, so that a machine that slows down slows all of
them; the ratio is the median of the rounds' ratios.

Run it:  python tools/bench_data.py [--rounds 5] [--seconds 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from edgexfer.core.preprocess import Preprocess
from edgexfer.data.dataset import Dataset, open_dataset
from edgexfer.data.feed import TrainFeed
from edgexfer.data.folder import FolderReader
from edgexfer.data.pool import cores

Batches = Callable[[], Iterator[int]]
BASELINE = "ImageFolder, no workers"


@dataclass(frozen=True)
class Case:
    """One comparison: a data set and how it is augmented."""

    name: str
    dataset: Dataset
    preprocess: Preprocess
    augment: str
    batch_size: int


@dataclass(frozen=True)
class Row:
    """What one contender reached, in images per second."""

    case: str
    contender: str
    median_per_s: float
    least_per_s: float
    most_per_s: float
    ratio: float


def main() -> None:
    """Measure all cases and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which all take turns")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    # A team of threads for small tensors waits more than it computes, in the loader and in ours.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row
            for case in _cases(Path(folder))
            for row in _measure(case, options.rounds, options.seconds)
        ]
    if options.json:
        print(json.dumps({"cores": cores(), "rows": [vars(row) for row in rows]}, indent=2))
        return
    print(f"{'case':14}{'contender':32}{'images/s':>10}{'least':>10}{'most':>10}{'ratio':>8}")
    for r in rows:
        figures = f"{r.median_per_s:>10.0f}{r.least_per_s:>10.0f}{r.most_per_s:>10.0f}"
        print(f"{r.case:14}{r.contender:32}{figures}{r.ratio:>7.1f}x")


def _cases(folder: Path) -> Iterator[Case]:
    root = Path(__file__).resolve().parent.parent
    shared = Path(os.environ.get("EDGEXFER_DATA", str(root.parent / "shared" / "data")))
    small, large = shared / "cifar10.tar.gz", shared / "pacs.tar"
    if not small.exists() or not large.exists():
        print(f"{shared} has no data sets: measuring on made-up images", file=sys.stderr)
    cifar = str(small) if small.exists() else _synthetic(folder / "small", 32, 1000)
    photos = _photos(large) if large.exists() else _synthetic(folder / "large", 227, 60)
    dataset = open_dataset(cifar, limit=10_000)
    yield Case("32 px flip", dataset, Preprocess((32, 32), 32), "flip", 128)
    yield Case("224 px crop", open_dataset(photos), Preprocess((224, 224), 256), "crop", 32)


def _photos(archive: Path) -> str:
    from edgexfer.data.archive import unpack

    return str(unpack(archive) / "pacs" / "photo")


def _synthetic(place: Path, side: int, per_class: int) -> str:
    rng = np.random.default_rng(0)
    for c in range(10):
        folder = place / "train" / f"class{c}"
        folder.mkdir(parents=True)
        for i in range(per_class):
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            image.save(folder / f"{i:05d}.jpg", quality=90)
    return str(place)


def _measure(case: Case, rounds: int, seconds: float) -> Iterator[Row]:
    contenders = {**_image_folder(case), **_ours(case)}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for batches in contenders.values():  # fill caches, start libraries
        _rate(batches, 0.5)
    for _ in range(rounds):
        for name, batches in contenders.items():
            rates[name].append(_rate(batches, seconds))
    for name, found in rates.items():
        ratios = [own / base for own, base in zip(found, rates[BASELINE], strict=True)]
        middle = statistics.median(found)
        yield Row(case.name, name, middle, min(found), max(found), statistics.median(ratios))


def _rate(batches: Batches, seconds: float) -> float:
    """Return images per second, from the second batch on: a loader's start is not its speed."""
    running, images = batches(), 0
    next(running)
    start = time.perf_counter()
    for n in running:
        images += n
        if time.perf_counter() - start >= seconds:
            break
    return images / (time.perf_counter() - start)


def _ours(case: Case) -> dict[str, Batches]:
    scale, bias = (torch.tensor(v).view(1, 3, 1, 1) for v in case.preprocess.affine())

    def contender(cache: str) -> Batches:
        feed = TrainFeed(
            case.dataset,
            case.preprocess,
            batch_size=case.batch_size,
            augment=case.augment,
            cache=cache,
        )

        def batches() -> Iterator[int]:
            epoch = 0
            while True:
                for batch in feed.epoch(epoch):
                    yield len(batch.images.float().mul_(scale).add_(bias))
                epoch += 1

        return batches

    return {
        "edgexfer, decoded once": contender("ram"),
        "edgexfer, decoded each time": contender("none"),
    }


def _image_folder(case: Case) -> dict[str, Batches]:
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    p, split = case.preprocess, case.dataset.splits["train"]
    geometry: list[Any] = [transforms.RandomResizedCrop(p.size)]
    if case.augment == "flip":
        geometry = [transforms.RandomCrop(p.size, padding=4, padding_mode="reflect")]
    steps = [*geometry, transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps.append(transforms.Normalize(p.mean, p.std))
    if not isinstance(split.reader, FolderReader):
        raise TypeError("an ImageFolder needs a folder")
    root = split.reader.root
    images = ImageFolder(str(root / "train"), transforms.Compose(steps))
    wanted = {str(root / key) for key in split.keys}
    subset = Subset(images, [i for i, (path, _) in enumerate(images.samples) if path in wanted])

    def contender(workers: int) -> Batches:
        loader = DataLoader(
            subset, case.batch_size, shuffle=True, num_workers=workers, drop_last=True
        )

        def batches() -> Iterator[int]:
            while True:
                for pixels, _ in loader:
                    yield len(pixels)

        return batches

    return {BASELINE: contender(0), f"ImageFolder, {cores()} workers": contender(cores())}


if __name__ == "__main__":
    main()
