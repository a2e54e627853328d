"""Training images per second: edgexfer's loop against a plain PyTorch loop, in the same run.

The plain loop is what a tutorial teaches: an ``ImageFolder``, torchvision transforms, a
``DataLoader`` and float32. Both train the same architecture with the same augmentation and batch on
the same files. Each measurement is a fresh process; the variants take turns, so that a machine that
slows down slows all of them. Without ``--small`` and ``--large`` (folders of class folders) the
images are synthesised.

    python tools/bench_train.py [--rounds 5] [--seconds 10] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SIZES = {"small": (32, "resnet20", "flip", 64), "large": (224, "mobilenetv3_small_100", "crop", 32)}
VARIANTS = ("plain, 0 workers", "plain, 2 workers", "edgexfer")
# What comes before the first step and the first steps themselves are no part of the rate.
WARM_UP_STEPS = 5


@dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        size: key of ``SIZES``.
        variant: one of ``VARIANTS``.
        folder: of class folders.
        seconds: how long to measure.
    """

    size: str
    variant: str
    folder: str
    seconds: float


class Meter:
    """Counts images from the end of the warm-up until the time is over."""

    def __init__(self, seconds: float, warm_up: int = WARM_UP_STEPS) -> None:
        """Wait for the first step.

        Args:
            seconds: how long to measure.
            warm_up: steps that come before.
        """
        self._seconds, self._warm_up, self._steps, self._images = seconds, warm_up, 0, 0
        self._start = 0.0
        self.rate: float | None = None

    def step(self, images: int) -> bool:
        """Note that a step of so many images begins; returns whether the time is over."""
        now = time.perf_counter()
        if self._steps == self._warm_up:
            self._start = now
        elif self._steps > self._warm_up and now - self._start >= self._seconds:
            self.rate = self._images / (now - self._start)
            return True
        self._images += images if self._steps >= self._warm_up else 0
        self._steps += 1
        return False


class TimeOver(Exception):  # noqa: N818 - nothing has gone wrong
    """Ends a training that has been measured for long enough."""


def main() -> int:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=Path, help="folder of class folders for 32 pixels")
    parser.add_argument("--large", type=Path, help="folder of class folders for 224 pixels")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each variant")
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(Task(**json.loads(options.child)))))
        return 0
    with tempfile.TemporaryDirectory() as temp:
        folders = {
            "small": options.small or synthesise(Path(temp) / "small", 2000, (32, 32)),
            "large": options.large or synthesise(Path(temp) / "large", 600, (280, 227)),
        }
        found = run_rounds(folders, options.rounds, options.seconds)
    print(json.dumps(found, indent=2) if options.json else table(found))
    return 0


def run_rounds(folders: dict[str, Path], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure every size and variant in turn, each in a fresh process."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for size, folder in folders.items():
            for variant in VARIANTS:
                task = Task(size, variant, str(folder), seconds)
                print(f"round {number + 1}/{rounds}: {size}, {variant}", file=sys.stderr)
                command = [sys.executable, __file__, "--child", json.dumps(asdict(task))]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found.setdefault((size, variant), []).append(json.loads(done.stdout))
    return [
        {
            "size": size,
            "pixels": SIZES[size][0],
            "model": SIZES[size][1],
            "batch_size": SIZES[size][3],
            "variant": variant,
            "images_per_s": [run["images_per_s"] for run in runs],
            "median": statistics.median(run["images_per_s"] for run in runs),
            "precision": runs[0]["precision"],
            "threads": runs[0]["threads"],
        }
        for (size, variant), runs in found.items()
    ]


def measure(task: Task) -> dict[str, Any]:
    """Measure one variant in this process."""
    import torch

    torch.manual_seed(0)
    rate, precision = (_edgexfer if task.variant == "edgexfer" else _plain)(task)
    return {"images_per_s": rate, "precision": precision, "threads": torch.get_num_threads()}


def table(found: list[dict[str, Any]]) -> str:
    """Return the figures as text; the gain is over the faster of the plain loops."""
    lines = [f"{'model':28}{'variant':20}{'images/s':>10}{'min..max':>18}{'gain':>8}  precision"]
    for row in found:
        plain = [r for r in found if r["size"] == row["size"] and r["variant"] != "edgexfer"]
        gain = row["median"] / max(r["median"] for r in plain)
        spread = f"{min(row['images_per_s']):.0f}..{max(row['images_per_s']):.0f}"
        name = f"{row['model']} @{row['pixels']}"
        lines.append(
            f"{name:28}{row['variant']:20}{row['median']:10.0f}{spread:>18}{gain:7.2f}x"
            f"  {row['precision']}"
        )
    return "\n".join(lines)


def synthesise(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write JPEG files of smooth random colours, of about a photo's weight, in ten classes."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class{number % 10}" / f"{number:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(place, quality=90)
    return folder


def _plain(task: Task) -> tuple[float, str]:
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from edgexfer.models.create import create_model, default_preprocess

    pixels, name, augment, batch_size = SIZES[task.size]
    preprocess = default_preprocess(name, pixels)
    crop = (
        [transforms.Resize((pixels, pixels)), transforms.RandomCrop(pixels, padding=4)]
        if augment == "flip"
        else [transforms.RandomResizedCrop(pixels)]
    )
    steps = [*crop, transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    normalise = transforms.Normalize(preprocess.mean, preprocess.std)
    images = ImageFolder(task.folder, transforms.Compose([*steps, normalise]))
    workers = 0 if "0 workers" in task.variant else 2
    loader: DataLoader[Any] = DataLoader(
        images,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model, _ = create_model(name, len(images.classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss_function = torch.nn.CrossEntropyLoss()
    meter = Meter(task.seconds)
    while True:
        for batch, labels in loader:
            if meter.step(len(labels)):
                assert meter.rate is not None
                return meter.rate, "fp32"
            optimizer.zero_grad()
            loss = loss_function(model(batch), labels)
            loss.backward()
            optimizer.step()
            loss.item()  # a tutorial prints it, and edgexfer looks whether it is finite


def _edgexfer(task: Task) -> tuple[float, str]:
    from edgexfer.core.rundir import SCHEMA, RunInfo, open_run
    from edgexfer.data.dataset import open_dataset
    from edgexfer.data.feed import TrainFeed
    from edgexfer.models.create import create_model, default_preprocess
    from edgexfer.models.groups import parameter_groups
    from edgexfer.recipe import TrainSection
    from edgexfer.training.loop import Job, fit
    from edgexfer.training.objective import cross_entropy

    pixels, name, augment, batch_size = SIZES[task.size]
    dataset = open_dataset(task.folder, val=0.0, test=0.02)
    preprocess = default_preprocess(name, pixels)
    section = TrainSection(epochs=10_000, batch_size=batch_size)
    model, _ = create_model(name, len(dataset.classes))
    meter, inner = Meter(task.seconds), cross_entropy()

    def objective(model: Any, batch: Any, *rest: Any) -> Any:
        # The race between precisions also comes here; it works on a copy of the model.
        if model.model is job.model and meter.step(len(batch)):
            raise TimeOver
        return inner(model, batch, *rest)

    with tempfile.TemporaryDirectory() as temp:
        info = RunInfo(SCHEMA, "bench", "running", {}, {}, dataset.fingerprint)
        with open_run(Path(temp) / "run", info) as run:
            job = Job(
                run=run,
                model=model,
                preprocess=preprocess,
                section=section,
                feed=TrainFeed(dataset, preprocess, batch_size=batch_size, augment=augment),
                val=None,
                objective=objective,
                groups=parameter_groups(model, lr=1e-3, backbone_lr=1.0, weight_decay=0.05),
                frozen=[],
                title="bench",
                quiet=True,
            )
            with contextlib.suppress(TimeOver):
                fit(job)
            precision = str(run.info.lineage["precision"]["precision"])
    assert meter.rate is not None
    return meter.rate, precision


if __name__ == "__main__":
    # The tool also runs from a source tree that is not installed.
    root = str(Path(__file__).resolve().parents[1])
    sys.path.insert(0, root)
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    sys.exit(main())
