"""A few hundred pictures of five classes, from a model of five others, in many ways; and without.

    python examples/transfer/strategies.py CIFAR10_FOLDER OUT [--seeds 3] [--epochs 15]

The folder holds ``train/`` and ``test/`` with ten class folders each. A resnet8 learns the first
five classes from 4000 pictures; each way takes it to the other five with 300 pictures, on one
schedule that is tuned for none. ``scratch`` has the same pictures and the same schedule. Some are
trained with ten times its learning rate too, and for four times its epochs. A second source,
OUT/shuffled, learns the first classes with labels drawn at random: what the guard is for. OUT keeps
all runs: the same command goes on.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from forgetting import split_classes

import edgexfer
from edgexfer import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.core.rundir import RunInfo
from edgexfer.report.sweep import sweep_table
from edgexfer.training.sweeps import Training, summarise

MODEL = ModelSection("resnet8")
# The name in the table: the strategy and its options.
STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "probe": ("probe", {}),
    "probe mlp": ("probe", {"head": "mlp"}),
    "freeze": ("freeze", {"until": "layer2"}),
    "gradual": ("gradual", {}),
    "full": ("full", {}),
    "lora": ("lora", {}),
    "adapter": ("adapter", {}),
    "bitfit": ("bitfit", {}),
    "l2sp": ("l2sp", {}),
    "scratch": ("scratch", {}),
}
# Factors of the learning rate and of the epochs, and what is trained with them.
SCHEDULES: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "as it is": (1, 1, tuple(STRATEGIES)),
    "lr x 10": (10, 1, ("full", "lora", "bitfit", "scratch")),
    "epochs x 4": (1, 4, ("full", "lora", "bitfit", "scratch")),
}


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    first, second = split_classes(options.data, options.out)
    source = make_source(replace(first, train_limit=4000), 8, options.out / "source")
    spoilt = shuffled(first, options.out / "classes-shuffled")
    make_source(replace(spoilt, train_limit=1000), 30, options.out / "shuffled")
    target = replace(second, val=0.01, limit=1000, train_limit=300)
    for schedule, (faster, longer, names) in SCHEDULES.items():
        infos: dict[Training, RunInfo] = {}
        ending = "" if schedule == "as it is" else f", {schedule}"
        for seed in range(options.seeds):
            train = TrainSection(
                epochs=longer * options.epochs, batch_size=32, lr=faster * 2e-3, seed=seed
            )
            for name in names:
                strategy, more = STRATEGIES[name]
                model = MODEL if strategy == "scratch" else replace(MODEL, weights=str(source))
                place = options.out / "target" / f"{name}{ending}-{seed}"
                section = TeacherSection(model, strategy, more, train=train)
                infos[Training(name, seed, place)] = edgexfer.finetune(target, section, place)
        print(f"The schedule {schedule}:")
        print(sweep_table(summarise(options.out, infos, MODEL.name, "scratch")), flush=True)


def make_source(data: DataSection, epochs: int, out: Path) -> Path:
    """Train a source model from random weights, and return its weights."""
    train = TrainSection(epochs=epochs, batch_size=64, lr=2e-3)
    section = TeacherSection(MODEL, "scratch", train=train)
    edgexfer.finetune(replace(data, val=0.01, limit=4000), section, out)
    return out / "model" / "weights.safetensors"


def shuffled(data: DataSection, root: Path) -> DataSection:
    """Link every picture into the folder of a class drawn at random."""
    chance = random.Random(0)
    for split in ("train", "test"):
        classes = sorted((Path(data.path) / split).iterdir())
        pictures = [p for folder in classes for p in sorted(folder.iterdir())]
        for picture in pictures:
            place = (
                root / split / chance.choice(classes).name / f"{picture.parent.name}-{picture.name}"
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.symlink_to(picture.resolve())
    return replace(data, path=str(root))


if __name__ == "__main__":
    main()
