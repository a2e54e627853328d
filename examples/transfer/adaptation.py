"""From photographs to drawings without a label: source-only against each way to adapt.

    python examples/transfer/adaptation.py PACS_FOLDER WEIGHTS OUT [--seeds 3] [--targets sketch]

The folder holds ``photo``, ``sketch``, ``cartoon`` and ``art_painting``, each with ``train/`` and
``test/`` of seven class folders; WEIGHTS are of a resnet8, such as the student's of
``examples/cifar10``. From them it is fine-tuned on the photographs alone (``full``), and with each
strategy on the photographs and the target's training images, whose class folders are not looked at.
All take as many steps, with as many labelled images in each. The target's test images judge; with
``--val`` half of its training images do, for choosing options. OUT keeps all runs: the same command
goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import edgexfer
from edgexfer import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.core.stats import seeded_gain
from edgexfer.models.store import load_model
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.stage import images_of, open_data

SOURCE = "photo"
# Chosen on cartoons, with --val --targets cartoon --seeds 1; what is not named is the default.
STRATEGIES: dict[str, dict[str, Any]] = {
    "mmd": {},
    "coral": {},
    "dann": {"weight": 0.3},
    "pseudo": {"threshold": 0.8},
    "reconstruction": {},
}
LABELLED = 32  # in each batch


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--targets", default="sketch,cartoon,art_painting")
    parser.add_argument("--val", action="store_true")
    given = parser.parse_args()
    split = "val" if given.val else "test"
    print(f"| {SOURCE} to | strategy | top-1 | gain over source-only, 95 % interval | verdict |")
    print("|---|---|---|---|---|")
    for target in given.targets.split(","):
        judge = DataSection(str(given.data / target), val=0.5)
        plain = [
            judged(train("full", None, seed, given), judge, split) for seed in range(given.seeds)
        ]
        print(f"| {target} | source-only | {spread(plain)} | | |", flush=True)
        for strategy in STRATEGIES:
            found = [
                judged(train(strategy, target, seed, given), judge, split)
                for seed in range(given.seeds)
            ]
            gain = seeded_gain(found, plain)
            print(
                f"| {target} | {strategy} | {spread(found)} | {gain.gain_pt:+.1f} "
                f"({gain.low_pt:+.1f} to {gain.high_pt:+.1f}) | {gain.verdict} |",
                flush=True,
            )


def train(strategy: str, target: str | None, seed: int, given: argparse.Namespace) -> Path:
    """Train on the source, and on the target where there is one; returns the run."""
    batch = LABELLED if target is None else 2 * LABELLED
    settings = TrainSection(
        epochs=given.epochs, batch_size=batch, lr=3e-3, augment="flip", precision="fp32", seed=seed
    )
    options = STRATEGIES.get(strategy, {})
    model = ModelSection("resnet8", weights=given.weights)
    section = TeacherSection(model, strategy, options, train=settings)
    unlabelled = None if target is None else str(given.data / target / "train")
    place: Path = given.out / f"{strategy}-{target}-{seed}"
    edgexfer.finetune(DataSection(str(given.data / SOURCE), unlabelled=unlabelled), section, place)
    return place


def judged(run: Path, judge: DataSection, split: str) -> list[bool]:
    """Say of each image of the target whether a run's model is right."""
    model, card = load_model(run)
    images = images_of(judge, open_data(judge), split, card.preprocess)
    answers = predict_logits(model, card.preprocess, images).argmax(1)
    right: list[bool] = (answers == images.labels.numpy()).tolist()
    return right


def spread(rights: list[list[bool]]) -> str:
    """Return mean and standard deviation over the seeds of the accuracy in percent."""
    values = 100 * np.array(rights).mean(1)
    return f"{values.mean():.1f} ± {values.std(ddof=1) if len(values) > 1 else 0:.1f}"


if __name__ == "__main__":
    main()
